"""Exact refinement: move a little of the budget from one resource to another."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from .cost import Prices, log_costs, to_budget
from .exact import Rows

STRIDES = (0.3, 0.1, 0.03, 0.01, 0.003)
"""Steps of a log multiplier."""

ROUNDS = 12
"""Largest number of rounds for each stride."""

GAIN = 1e-5
"""A smaller gain is none."""

Point = Float[np.ndarray, " resource"]
Points = Float[np.ndarray, "row resource"]


def improve(
    z: Point,
    neighbors: Callable[[Point, float], Points],
    merit: Callable[[Points], Float[np.ndarray, " row"]],
) -> tuple[Point, float, int]:
    """The best neighbor, again and again, with ever shorter strides.

    Returns:
        Where that ends, the largest gain of the last neighbors (below `GAIN` unless the
        rounds ran out), and the points tried.
    """
    gain, tried = 0.0, 0
    for stride in STRIDES:
        for _ in range(ROUNDS):
            rows = np.concatenate([z[None], neighbors(z, stride)])
            value = merit(rows)
            tried += len(rows)
            gain = float(value.max()) - float(value[0])
            if not gain > GAIN:
                break
            z = rows[value.argmax()]
    return z, max(gain, 0.0), tried


def beside(box: tuple[Point, Point], z: Point, stride: float) -> Points:
    """One free resource or two at a time, more and less."""
    units = np.eye(len(z))[box[0] < box[1]]
    pairs = [a + s * b for i, a in enumerate(units) for b in units[:i] for s in (1, -1)]
    steps = stride * np.array([*units, *pairs])
    return np.clip(np.concatenate([z + steps, z - steps]), *box)


def exchanges(
    prices: Prices, box: tuple[Point, Point], log_budget: float, z: Point, stride: float
) -> Points:
    """One resource or two more or less, and all others paying for it; within the box and
    the budget."""
    near = beside(box, z, stride)
    paid = to_budget(prices, near, np.where(near == z, 1.0, 0.0), log_budget, box)
    return paid[log_costs(prices, paid) <= log_budget + 1e-9]


def merit_of(rows: Rows) -> Float[np.ndarray, " row"]:
    """Feasible machines by their value, the others below by how much they miss."""
    return np.where(rows.violation > 0.0, -1e3 * (1.0 + rows.violation), rows.value)
