"""The least change of a machine that brings its mix per unit of cost to a target."""

import math
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ...specs.errors import SpecError
from ..ascent import ascend, slopes
from .cost import log_costs
from .exact import exact_rows
from .exchange import beside, improve
from .mix import least_change
from .setup import Setup, setup_of
from .workloads import Share

POINTS, LEVELS = 97, 5
"""Multipliers of one resource that are tried at once, and nested grids of them."""

RESTARTS = 6
STRIDES = (0.1, 0.03, 0.01, 0.003, 0.001)
"""Steps of a log multiplier."""

WEIGHT = 1e3
"""Of a log that is missing of the target, over half a sum of squares."""


class Single(NamedTuple):
    """What one resource alone would have to become."""

    resource: str
    multiplier: float | None
    """None where no multiplier within its bounds reaches the target."""
    best: float
    """Largest ratio to the target within the bounds, and where."""
    best_multiplier: float


class Match(NamedTuple):
    """Ways to a target. Ratios are of the mix per unit of cost, exact."""

    target: float
    """Mix per unit of cost in SI, such as tokens/s per W."""
    now: float
    singles: list[Single]
    joint: dict[str, float]
    """Multipliers with the least sum of squared logs that reach the target; the best
    within the bounds where none do."""
    joint_ratio: float
    """Of the mix per unit of cost there to the target."""

    @property
    def solved(self) -> bool:
        """Whether changes within the bounds reach the target together."""
        return self.joint_ratio >= 1.0 - 1e-6

    def as_json(self) -> dict[str, object]:
        fields: dict[str, object] = {**self._asdict(), "solved": self.solved}
        return fields | {"singles": [single._asdict() for single in self.singles]}


def match(
    workloads: list[Share] | tuple[Share, ...],
    budget: str,
    target: float,
    *,
    only: tuple[str, ...] = (),
    seed: int = 0,
    calibration: str | None = None,
) -> Match:
    """What would bring a machine's mix per unit of cost to a target.

    Args:
        workloads: as in `codesign`.
        budget: a budget file. An exponent below 0 makes an item cheaper, as where a
            resource stands for the energy of an operation.
        target: of the mix over the cost, in SI.
        only: resources that may change; all if empty.

    Raises:
        SpecError: (a `ValueError`) a scenario, an option or the file is wrong.
    """
    setup = setup_of(workloads, budget, calibration, only)
    if not (math.isfinite(target) and target > 0.0):
        raise SpecError([f"target = {target:g}: must be above 0"])
    goal, names = math.log(target), list(setup.spec.resources)
    singles = [
        Single(names[k], *_single(setup, k, goal))
        for k in np.flatnonzero(setup.box[0] < setup.box[1]).tolist()
    ]
    joint = _joint(setup, goal, seed)
    now, there = np.exp(_merit(setup, np.array([0.0 * joint, joint]))).tolist()
    multipliers = dict(zip(names, np.exp(joint).tolist()))
    return Match(target, now, singles, multipliers, there / target)


def _merit(
    setup: Setup, z: Float[np.ndarray, "row resource"]
) -> Float[np.ndarray, " row"]:
    """Log of the mix over the cost; minus infinity where limits are broken."""
    exact = exact_rows(setup.mix, z)
    value = exact.value - log_costs(setup.mix.prices, z)
    return np.where(exact.violation > 0.0, -np.inf, value)


def _single(setup: Setup, k: int, goal: float) -> tuple[float | None, float, float]:
    """The smallest change of one resource that reaches the target, on nested grids; the
    best ratio, and where."""
    low, high = setup.box[0][k], setup.box[1][k]
    nearest, ratio, where = None, 0.0, 1.0
    for level in range(LEVELS):
        grid = np.linspace(low, high, POINTS)
        grid = np.unique([*grid, 0.0]) if level == 0 else grid
        merit = _merit(setup, np.outer(grid, np.eye(setup.mix.resources)[k]))
        if level == 0:
            ratio, where = math.exp(merit.max() - goal), math.exp(grid[merit.argmax()])
        hits = np.flatnonzero(merit >= goal)
        if not len(hits):
            break
        at = hits[np.abs(grid[hits]).argmin()]
        nearest = grid[at]
        low, high = sorted((nearest, grid[at - int(np.sign(nearest))]))
    return None if nearest is None else math.exp(nearest), ratio, where


def _joint(setup: Setup, goal: float, seed: int) -> Float[np.ndarray, " resource"]:
    """Ends of the relaxed problem, refined on the exact one."""
    count, box = setup.mix.resources, setup.variables
    rng = np.random.default_rng(seed)
    starts = rng.uniform(0.5 * box[0], 0.5 * box[1], (RESTARTS, len(box[0])))
    starts[:, count:] *= 0.1
    terms = partial(slopes, least_change, setup.mix, goal)

    def worth(z: Float[np.ndarray, "row resource"]) -> Float[np.ndarray, " row"]:
        """Less half the sum of squares, and far more for what is missing."""
        missing = np.maximum(goal - _merit(setup, z), 0.0)
        return -0.5 * (z**2).sum(axis=1) - WEIGHT * missing

    ends = [ascend(terms, x, box)[0][:count] for x in starts]
    near = partial(beside, setup.box)
    refined = np.array([improve(end, near, worth, STRIDES)[0] for end in ends])
    return refined[worth(refined).argmax()]
