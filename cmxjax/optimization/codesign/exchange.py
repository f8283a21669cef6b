"""Exact refinement: move a little of the budget from one resource to another."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from .cost import Prices, log_costs, to_budget
from .exact import Rows

STRIDES = (0.1, 0.03, 0.01)
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
    strides: tuple[float, ...] = STRIDES,
) -> tuple[Point, float, int]:
    """The best neighbor, again and again, with ever shorter strides.

    Returns:
        Where that ends, the largest gain of the last neighbors (below `GAIN` unless the
        rounds ran out), and the points tried.
    """
    gain, tried = 0.0, 0
    for stride in strides:
        for _ in range(ROUNDS):
            rows = np.concatenate([z[None], neighbors(z, stride)])
            value = merit(rows)
            tried += len(rows)
            gain = float(value.max()) - float(value[0])
            if not gain > GAIN:
                break
            z = rows[value.argmax()]
    return z, max(gain, 0.0), tried


def exchanges(
    prices: Prices, box: tuple[Point, Point], log_budget: float, z: Point, stride: float
) -> Points:
    """One resource more or less and another one, or all of the others, paying for it; all
    within the box and the budget."""
    units, rows, along = np.eye(len(z)), [], []
    for i, unit in enumerate(units):
        for step in (stride, -stride):
            moved = np.clip(z + step * unit, *box)
            if moved[i] != z[i]:
                directions = [*np.delete(units, i, axis=0), 1.0 - unit]
                rows += [moved] * len(directions)
                along += directions
    if not rows:
        return np.zeros((0, len(z)))
    paid = to_budget(prices, np.array(rows), np.array(along), log_budget, box)
    return paid[log_costs(prices, paid) <= log_budget + 1e-9]


def merit_of(rows: Rows) -> Float[np.ndarray, " row"]:
    """Feasible machines by their value, the others below by how much they miss."""
    return np.where(rows.violation > 0.0, -1e3 * (1.0 + rows.violation), rows.value)
