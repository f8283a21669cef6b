"""Error bars of the rows that a sweep keeps."""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from ..answers.batch import log_slope, shifts_of, steps_of
from ..answers.extrapolation import outside, widening
from ..answers.uncertainty import relative_sigma
from ..machine.resolve import origins
from ..parameters import shift_all
from ..phases.metrics import metrics
from ..specs.build import Problem
from .plan import Plan

AT_ONCE = 64
"""Rows whose jobs are built before the first of their bars is computed."""


def changes_of(plan: Plan, point: int) -> dict[str, object]:
    """Values of all keys at a point, as a scenario takes them."""
    return {
        key: axis.written(key, codes[0].item())
        for axis, index in plan.grid.split(np.array([point]))
        for key, codes in axis.codes(index).items()
    }


def problem_of(plan: Plan, point: int) -> Problem:
    """The job at a point, built as `predict` does."""
    return plan.jobs.problem(changes_of(plan, point), exact=True)


def sigmas_of(
    plan: Plan, points: Sequence[int], fields: Sequence[str]
) -> dict[str, np.ndarray]:
    """Relative one sigma of metrics at points; not a number where a metric has none.

    As `predict` has them, see `answers.spread`: each uncertain leaf is moved up and down,
    all of them at once for one row after the other.
    """
    rows = list(_rows(plan, points, tuple(fields)))
    return {field: np.array([row[i] for row in rows]) for i, field in enumerate(fields)}


def _rows(
    plan: Plan, points: Sequence[int], fields: tuple[str, ...]
) -> Iterator[list[float]]:
    moves = _Moves()
    for start in range(0, len(points), AT_ONCE):
        some = [problem_of(plan, p) for p in points[start : start + AT_ONCE]]
        found = [_moved(plan, moves, problem, fields) for problem in some]
        for problem, (steps, values) in zip(some, found):
            yield _bars(problem, steps, np.asarray(values), fields)


class _Moves:
    """Shifts of machines, made once for all jobs whose machines are resolved alike."""

    def __init__(self):
        self._known: dict[tuple, np.ndarray] = {}

    def of(self, problem: Problem) -> tuple[dict[str, float], np.ndarray]:
        """How far the uncertain leaves of a job are moved, and each number's shift with
        each of them moved up and down, (case, number)."""
        choices, steps = problem.choices, steps_of(problem)
        named = tuple(choices.items()) if isinstance(choices, Mapping) else choices
        key = jax.tree.structure(problem.system), named, tuple(steps.items())
        if key not in self._known:
            names = origins(problem.system, choices)
            self._known[key] = shifts_of(names, steps, 1 + 2 * len(steps))
        return steps, self._known[key]


def _moved(
    plan: Plan, moves: _Moves, problem: Problem, fields: tuple[str, ...]
) -> tuple[dict[str, float], Array]:
    """Metrics of a job as it is and with each uncertain leaf moved, (case, field)."""
    steps, shifts = moves.of(problem)
    leaves, structure, _ = plan.jobs.flat(problem)
    shapes = tuple(leaf.shape for leaf in leaves)
    # as one array: each of some 140 leaves costs a hand-over of its own
    whole = np.concatenate([leaf.ravel() for leaf in leaves])
    return steps, _program(structure, shapes, fields)(whole, shifts)


@lru_cache(maxsize=64)
def _program(
    structure: Any, shapes: tuple[tuple[int, ...], ...], fields: tuple[str, ...]
) -> Any:
    """What evaluates one job with shifts of its machine."""
    machine, rest = structure
    ends = np.cumsum([math.prod(shape) for shape in shapes])

    def run(whole: Float[Array, " all"], shifts: Float[Array, "case number"]) -> Array:
        parts = zip(jnp.split(whole, ends[:-1]), shapes, strict=True)
        leaves = [part.reshape(shape) for part, shape in parts]
        size = machine.num_leaves
        own = jax.tree.unflatten(machine, leaves[:size])
        job = jax.tree.unflatten(rest, leaves[size:])

        def one(case: Float[Array, " number"]) -> Array:
            m = metrics(shift_all(own, case), *job)
            return jnp.stack([jnp.asarray(getattr(m, field)) for field in fields])

        return jax.vmap(one)(shifts)

    return jax.jit(run)


def _bars(
    problem: Problem,
    steps: dict[str, float],
    values: np.ndarray,
    fields: tuple[str, ...],
) -> list[float]:
    """Relative one sigma of each metric from its values, (case, field)."""
    factor = widening(outside(problem))
    base, widths = values[0], np.array([*steps.values()])[:, None]
    each = np.broadcast_to(base, values[1::2].shape)
    relative = log_slope(each, values[1::2], values[2::2], widths)  # (path, field)
    known = np.isfinite(base) & np.isfinite(relative).all(axis=0)
    return [
        relative_sigma(problem, dict(zip(steps, relative[:, i].tolist())), field, factor)
        if known[i]
        else np.nan
        for i, field in enumerate(fields)
    ]
