"""The least change of a machine that brings its mix per unit of cost to a target."""

import math
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ...specs.errors import SpecError
from .ascent import ascend
from .cost import log_costs
from .exact import Rows, exact_rows
from .exchange import improve
from .setup import Setup, setup_of, variable_box
from .workloads import Share

POINTS = 97
"""Multipliers of one resource that are tried at once."""

LEVELS = 4
RESTARTS = 6
STRIDES = (0.1, 0.03, 0.01, 0.003, 0.001)
"""Steps of a log multiplier."""

WEIGHT = 1e3


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
    setup = setup_of(workloads, budget, calibration, "change", only)
    names = list(setup.spec.resources)
    if not (math.isfinite(target) and target > 0.0):
        raise SpecError([f"target = {target:g}: must be above 0"])
    goal = math.log(target)
    here = np.zeros((1, len(names)))
    now = float(np.exp(_merit(setup, here)[0]))
    free = [k for k in range(len(names)) if setup.box[0][k] < setup.box[1][k]]
    singles = [_single(setup, k, goal) for k in free]
    joint, ratio = _joint(setup, goal, seed)
    return Match(target, now, singles, joint, ratio)


def _merit(setup: Setup, z: Float[np.ndarray, "row resource"]) -> np.ndarray:
    """Log of the mix over the cost; minus infinity where limits are broken."""
    exact: Rows = exact_rows(setup.mix, setup.data, z)
    value = exact.value - log_costs(setup.prices, z)
    return np.where(exact.violation > 0.0, -np.inf, value)


def _single(setup: Setup, k: int, goal: float) -> Single:
    """The smallest change of one resource that reaches the target, on nested grids."""
    name = list(setup.spec.resources)[k]
    low, high = setup.box[0][k], setup.box[1][k]
    grid = np.unique(np.concatenate([np.linspace(low, high, POINTS), [0.0]]))
    merit = _along(setup, k, grid)
    top = int(merit.argmax())
    best, where = math.exp(merit[top] - goal), math.exp(grid[top])
    reached = merit >= goal
    if not reached.any():
        return Single(name, None, best, where)
    for _ in range(LEVELS):
        hits = np.flatnonzero(reached)
        nearest = int(hits[np.abs(grid[hits]).argmin()])
        inner = nearest - int(np.sign(grid[nearest]))
        grid = np.linspace(grid[nearest], grid[inner], POINTS)
        reached = _along(setup, k, grid) >= goal
    hits = np.flatnonzero(reached)
    return Single(name, math.exp(grid[hits[np.abs(grid[hits]).argmin()]]), best, where)


def _along(setup: Setup, k: int, grid: np.ndarray) -> np.ndarray:
    z = np.zeros((len(grid), setup.mix.resources))
    z[:, k] = grid
    return _merit(setup, z)


def _joint(setup: Setup, goal: float, seed: int) -> tuple[dict[str, float], float]:
    """Ends of the relaxed problem, refined on the exact one."""
    names = list(setup.spec.resources)
    count = len(names)
    low, high = variable_box(setup)
    rng = np.random.default_rng(seed)
    starts = rng.uniform(0.5 * low, 0.5 * high, (RESTARTS, len(low)))
    starts[:, count:] *= 0.1
    owned = jnp.full(RESTARTS, goal)
    ends = ascend(setup.mix, setup.data, owned, starts, low, high).x[:, :count]
    near = partial(_near, (low[:count], high[:count]))
    worth = partial(_worth, setup, goal)
    refined = np.array([improve(end, near, worth, STRIDES)[0] for end in ends])
    best = refined[worth(refined).argmax()]
    ratio = math.exp(_merit(setup, best[None])[0] - goal)
    return dict(zip(names, np.exp(best).tolist())), ratio


def _worth(
    setup: Setup, goal: float, z: Float[np.ndarray, "row resource"]
) -> Float[np.ndarray, " row"]:
    """Less half the sum of squares, and far more for what is missing of the target."""
    missing = np.maximum(goal - _merit(setup, z), 0.0)
    return -0.5 * (z**2).sum(axis=1) - WEIGHT * missing


def _near(
    box: tuple[np.ndarray, np.ndarray], z: Float[np.ndarray, " resource"], stride: float
) -> Float[np.ndarray, "row resource"]:
    """One resource or two at a time, and all along the ray, more and less."""
    units = np.eye(len(z))[box[0] < box[1]]
    pairs = [a + s * b for i, a in enumerate(units) for b in units[:i] for s in (1, -1)]
    steps = stride * np.array([*units, *pairs])
    rays = z * np.exp([[stride], [-stride]])
    return np.clip(np.concatenate([z + steps, z - steps, rays]), *box)
