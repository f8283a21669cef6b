"""Exact refinement: move a little of the budget from one resource to another."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from .cost import Prices, log_costs, to_budget
from .exact import Rows, exact_rows
from .mix import Data, Mix

STRIDES = (0.3, 0.1, 0.03, 0.01)
"""Steps of a log multiplier."""

ROUNDS = 12
"""Largest number of rounds for each stride."""

STARTS = 2
"""Tiles make many local optima, each at a batch that fills some of them."""

GAIN = 1e-5
"""A smaller gain is none."""


class Refined(NamedTuple):
    """Where no exchange gains any more."""

    z: Float[np.ndarray, " resource"]
    value: float
    violation: float
    best_exchange: float
    """Largest gain of the exchanges tried last, in ln of the mix: below `GAIN` unless
    the rounds ran out."""
    evaluations: int
    """Machines tried."""


def candidates(
    prices: Prices,
    z: Float[np.ndarray, " resource"],
    box: tuple[np.ndarray, np.ndarray],
    stride: float,
    log_budget: float,
) -> Float[np.ndarray, "row resource"]:
    """The point itself, then one resource more or less and another one, or all of the
    others, paying for it; all within the box and the budget."""
    low, high = box
    count = len(z)
    rows, along = [z], [np.zeros(count)]
    for i in range(count):
        for sign in (1.0, -1.0):
            moved = z.copy()
            moved[i] = np.clip(z[i] + sign * stride, low[i], high[i])
            if moved[i] == z[i]:
                continue
            others = [np.eye(count)[j] for j in range(count) if j != i]
            for direction in [*others, 1.0 - np.eye(count)[i]]:
                rows.append(moved)
                along.append(direction)
    moved = to_budget(prices, np.array(rows), np.array(along), log_budget, box)
    moved[0] = z
    kept = log_costs(prices, moved) <= log_budget + 1e-9
    kept[0] = True
    return moved[kept]


def merit(rows: Rows) -> Float[np.ndarray, " row"]:
    """Feasible machines by their value, the others below by how much they miss."""
    return np.where(rows.violation > 0.0, -1e3 * (1.0 + rows.violation), rows.value)


def refine(
    mix: Mix,
    data: Data,
    prices: Prices,
    starts: Float[np.ndarray, "row resource"],
    box: tuple[np.ndarray, np.ndarray],
    log_budget: float,
) -> Refined:
    """Best exact exchange after exchange, from each of the best starts."""
    order = np.argsort(-merit(exact_rows(mix, data, starts)))[:STARTS]
    args = mix, data, prices
    refined = [_refined(*args, starts[k], box, log_budget) for k in order]
    best = max(refined, key=lambda one: (-one.violation, one.value))
    tried = len(starts) + sum(one.evaluations for one in refined)
    return best._replace(evaluations=tried)


def _refined(
    mix: Mix,
    data: Data,
    prices: Prices,
    z: Float[np.ndarray, " resource"],
    box: tuple[np.ndarray, np.ndarray],
    log_budget: float,
) -> Refined:
    gain, value, violation, evaluations = np.inf, 0.0, 0.0, 0
    for stride in STRIDES:
        for _ in range(ROUNDS):
            rows = candidates(prices, z, box, stride, log_budget)
            exact = exact_rows(mix, data, rows)
            evaluations += len(rows)
            ranks = merit(exact)
            best = int(ranks.argmax())
            gain = float(ranks[best] - ranks[0])
            value, violation = float(exact.value[0]), float(exact.violation[0])
            if gain <= GAIN:
                break
            z, value = rows[best], float(exact.value[best])
            violation = float(exact.violation[best])
    return Refined(z, value, violation, max(gain, 0.0), evaluations)
