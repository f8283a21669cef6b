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
from ..answers.uncertainty import discrepancy, spread
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
    none = np.zeros((0, len(fields)))
    rows = np.concatenate([none, *_rows(plan, points, tuple(fields))])
    return dict(zip(fields, rows.T))


def _rows(
    plan: Plan, points: Sequence[int], fields: tuple[str, ...]
) -> Iterator[Float[np.ndarray, "row field"]]:
    moves = _Moves()
    for start in range(0, len(points), AT_ONCE):
        some = [problem_of(plan, p) for p in points[start : start + AT_ONCE]]
        found = [_moved(plan, moves, problem, fields) for problem in some]
        bars = np.empty((len(some), len(fields)))
        for steps, rows in moves.alike(some):
            values = np.stack([np.asarray(found[row]) for row in rows])
            bars[rows] = _bars([some[row] for row in rows], steps, values, fields)
        yield bars


class _Moves:
    """Shifts of machines, made once for all jobs whose machines are resolved alike."""

    def __init__(self):
        self._steps: dict[tuple[int, int], tuple[dict[str, float], Problem]] = {}
        self._known: dict[tuple, np.ndarray] = {}

    def steps(self, problem: Problem) -> dict[str, float]:
        """How far the uncertain leaves of a job are moved."""
        key = _machine(problem)
        if key not in self._steps:
            if len(self._steps) >= 64:
                self._steps.clear()
            self._steps[key] = steps_of(problem), problem  # which keeps its machine
        return self._steps[key][0]

    def of(self, problem: Problem) -> np.ndarray:
        """Each number's shift with each uncertain leaf moved up and down, (case,
        number)."""
        choices, steps = problem.choices, self.steps(problem)
        named = tuple(choices.items()) if isinstance(choices, Mapping) else choices
        key = jax.tree.structure(problem.system), named, tuple(steps.items())
        if key not in self._known:
            names = origins(problem.system, choices)
            self._known[key] = shifts_of(names, steps, 1 + 2 * len(steps))
        return self._known[key]

    def alike(
        self, problems: Sequence[Problem]
    ) -> Iterator[tuple[dict[str, float], list[int]]]:
        """Places of jobs on one machine, and how far its uncertain leaves are moved."""
        machines = [_machine(problem) for problem in problems]
        for machine in dict.fromkeys(machines):
            rows = [i for i, one in enumerate(machines) if one == machine]
            yield self.steps(problems[rows[0]]), rows


def _machine(problem: Problem) -> tuple[int, int]:
    """What tells the figures and the calibration of jobs that are alive apart."""
    return id(problem.figures), id(problem.fitted)


def _moved(plan: Plan, moves: _Moves, problem: Problem, fields: tuple[str, ...]) -> Array:
    """Metrics of a job as it is and with each uncertain leaf moved, (case, field)."""
    leaves, structure, _ = plan.jobs.flat(problem)
    shapes = tuple(leaf.shape for leaf in leaves)
    # as one array: each of some 140 leaves costs a hand-over of its own
    whole = np.concatenate([leaf.ravel() for leaf in leaves])
    return _program(structure, shapes, fields)(whole, moves.of(problem))


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
    problems: Sequence[Problem],
    steps: Mapping[str, float],
    values: Float[np.ndarray, "row case field"],
    fields: tuple[str, ...],
) -> Float[np.ndarray, "row field"]:
    """Relative one sigma of metrics of jobs on one machine."""
    factor = np.array([[widening(outside(problem))] for problem in problems])
    base, widths = values[:, :1], np.array([*steps.values()])[:, None]
    each = np.broadcast_to(base, values[:, 1::2].shape)
    relative = log_slope(each, values[:, 1::2], values[:, 2::2], widths)
    known = np.isfinite(base[:, 0]) & np.isfinite(relative).all(axis=1)
    relative = np.where(known[:, None], relative, 0.0)  # (row, path, field)
    slopes = dict(zip(steps, np.moveaxis(relative, 1, 0)))
    own = np.empty(known.shape)
    for row, problem in enumerate(problems):
        for i, field in enumerate(fields):
            along = dict(zip(steps, relative[row, :, i].tolist()))
            own[row, i] = discrepancy(problem, along, field)
    square = spread(problems[0], slopes, factor) + (factor * own) ** 2
    return np.where(known, np.sqrt(square), np.nan)
