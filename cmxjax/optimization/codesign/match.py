"""The least change of a machine that brings its mix per unit of cost to a target."""

import math
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ...specs.errors import SpecError
from .cost import log_costs
from .exact import exact_rows
from .exchange import beside, improve
from .setup import Setup, setup_of
from .workloads import Share

POINTS = 1001
"""Multipliers of one resource alone that are tried, evenly spaced in logs."""

RESTARTS = 6
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

    One resource alone is tried over its whole range. All together are improved step by
    step, on the exact model, from the machine as it is and from random ones.

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
    low, high = setup.box
    singles = [
        _single(setup, names[k], k, goal) for k in np.flatnonzero(low < high).tolist()
    ]

    def worth(z: Float[np.ndarray, "row resource"]) -> Float[np.ndarray, " row"]:
        """Less half the sum of squares, and far more for what is missing."""
        missing = np.maximum(goal - _merit(setup, z), 0.0)
        return -0.5 * (z**2).sum(axis=1) - WEIGHT * missing

    drawn = np.random.default_rng(seed).uniform(
        0.5 * low, 0.5 * high, (RESTARTS, len(low))
    )
    starts = np.append(0.0 * drawn[:1], drawn, axis=0)
    near = partial(beside, setup.box)
    ends = np.array([improve(z, near, worth)[0] for z in starts])
    joint = ends[worth(ends).argmax()]
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


def _single(setup: Setup, name: str, k: int, goal: float) -> Single:
    """The smallest change of one resource that reaches the target, and the best one."""
    grid = np.linspace(setup.box[0][k], setup.box[1][k], POINTS)
    merit = _merit(setup, np.outer(grid, np.eye(setup.mix.resources)[k]))
    best, hits = merit.argmax(), grid[merit >= goal]
    nearest = math.exp(hits[np.abs(hits).argmin()]) if len(hits) else None
    return Single(name, nearest, math.exp(merit[best] - goal), math.exp(grid[best]))
