"""Evaluate many problems with few compilations: same structure, one vmapped call."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from .._types import Real
from ..machine.resolve import origins
from ..parameters import is_fraction, shift_all
from ..phases.metrics import Metrics, metrics
from ..specs.build import Problem

LEAST_SHARE = 1e-9
"""Of what a number becomes a step away, counts as its size where it is less."""


def log_slope(value: Real, up: Real, down: Real, step: Real) -> Float[np.ndarray, "..."]:
    """d ln value / d theta from the values a step away on either side: of logs, so that
    wide steps of what grows by powers are right; of numbers that aren't all positive the
    difference over the value. 0 of 0."""
    value, up, down = (np.asarray(x, float) for x in (value, up, down))
    positive = (value > 0.0) & (up > 0.0) & (down > 0.0)
    high, low = (np.log(np.where(positive, end, 1.0)) for end in (up, down))
    ends = LEAST_SHARE * np.maximum(np.abs(up), np.abs(down))
    size = np.where(value < 0.0, -1.0, 1.0) * np.maximum(np.abs(value), ends)
    there = value != 0.0
    apart = np.divide(up - down, size, out=np.zeros_like(value), where=there)
    return np.asarray(np.where(positive, high - low, apart) / (2.0 * step))


class Outcome(NamedTuple):
    """Metrics of one problem and, if wanted, their sensitivity to the priors."""

    metrics: Metrics
    slopes: dict[str, Metrics] | None
    """d metrics / d theta by leaf path; each entry is a Metrics of derivatives."""


def uncertain(problem: Problem) -> dict[str, float]:
    """Leaves whose figures have a prior width, with that width."""
    return {
        path: figure.prior_sigma
        for path, figure in problem.figures.items()
        if figure.prior_sigma > 0.0
        and figure.si > 0.0
        and not (is_fraction(path) and figure.si == 1.0)
    }


def settled(problem: Problem) -> set[str]:
    """Leaves whose prior widths count no more: those that the calibration fitted have its
    covariance, and those that fitted rows depend on are part of the discrepancy that
    left-out rows show."""
    return problem.fitted.theta.keys() | set(problem.fitted.absorbed)


def absorbed(problem: Problem) -> set[str]:
    """Settled leaves whose own widths have no part in an error bar."""
    fitted = problem.fitted.parameters.values()
    return set(problem.fitted.absorbed) - {leaf for p in fitted for leaf in p.leaves}


def loose(problem: Problem) -> dict[str, float]:
    """Prior widths of uncertain leaves that the calibration says nothing of."""
    known = settled(problem)
    return {p: s for p, s in uncertain(problem).items() if p not in known}


def alike(trees: Iterable[object]) -> list[list[int]]:
    """Indices of trees of one structure and shape, which one program can serve."""
    groups: dict[tuple, list[int]] = {}
    for i, tree in enumerate(trees):
        leaves, structure = jax.tree.flatten(tree)
        key = (structure, tuple(leaf.shape for leaf in leaves))
        groups.setdefault(key, []).append(i)
    return list(groups.values())


STEP = 0.1
"""Shift on either side of a difference quotient of a parameter that is known.

As wide as an error bar: the exact model has steps, as where one more tile is needed, and
the slope across one of them says nothing about what an error bar away does.
"""


def steps_of(problem: Problem) -> dict[str, float]:
    """Shifts on either side of the difference quotients along uncertain leaves, in the
    order of their names: the prior width of those that the calibration says nothing of,
    else `STEP`."""
    known = settled(problem)
    widths = sorted(uncertain(problem).items())
    return {path: STEP if path in known else width for path, width in widths}


def evaluate(problems: list[Problem], with_slopes: bool = False) -> list[Outcome]:
    """Exact metrics of every problem, in order.

    Args:
        with_slopes: also give the slope with respect to every uncertain leaf. These
            are central differences: they ride along as more rows of the same batch,
            whereas differentiating each family costs ten times its compile time.
    """
    outcomes: list[Outcome | None] = [None] * len(problems)
    every = [problem.inputs for problem in problems]
    for indices in alike(every):
        family = [problems[i] for i in indices]
        steps = [steps_of(p) if with_slopes else {} for p in family]
        cases = 1 + 2 * max(map(len, steps))
        moves = zip(family, steps, strict=True)
        shifts = [moved_up_and_down(p, by, cases) for p, by in moves]
        inputs = jax.tree.map(lambda *x: jnp.stack(x), *(every[i] for i in indices))
        values = jax.device_get(_run(inputs, jnp.asarray(shifts)))
        for row, i in enumerate(indices):
            one = jax.tree.map(lambda x: x[row], values)  # noqa: B023
            slopes = None
            if with_slopes:
                by = enumerate(steps[row].items())
                slopes = {path: _difference(one, k, step) for k, (path, step) in by}
            outcomes[i] = Outcome(jax.tree.map(lambda x: x[0], one), slopes)
    return [outcome for outcome in outcomes if outcome is not None]


@jax.jit
def _run(inputs: tuple, shifts: Array) -> Metrics:
    """Metrics of each problem (leading axis) with each of its machines' shifts, (problem,
    case, number).

    Loops, not vmaps: a few hundred scalar evaluations run at once anyway, and a scalar
    program compiles in half the time.
    """

    def every_case(problem: tuple) -> Metrics:
        (machine, *job), cases = problem
        return jax.lax.map(lambda case: metrics(shift_all(machine, case), *job), cases)

    return jax.lax.map(every_case, (inputs, shifts))


def moved_up_and_down(
    problem: Problem, steps: Mapping[str, float], cases: int
) -> np.ndarray:
    """Shifts of a machine as it is, then with each path up and down, (case, number)."""
    return shifts_of(origins(problem.system, problem.choices), steps, cases)


def shifts_of(names: Sequence[str], steps: Mapping[str, float], cases: int) -> np.ndarray:
    """Shifts of numbers with each path up and down, (case, number).

    Args:
        names: path of each number.
        steps: how far, by path.
    """
    places: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        places.setdefault(name, []).append(i)
    shifts = np.zeros((cases, len(names)))
    for k, (path, step) in enumerate(steps.items()):
        numbers = places.get(path, [])
        shifts[1 + 2 * k, numbers], shifts[2 + 2 * k, numbers] = step, -step
    return shifts


def _difference(values: Metrics, k: int, step: float) -> Metrics:
    """Slope of every metric along parameter k."""
    up, down = 1 + 2 * k, 2 + 2 * k
    return jax.tree.map(lambda x: x[0] * log_slope(x[0], x[up], x[down], step), values)
