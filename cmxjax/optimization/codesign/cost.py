r"""What a machine costs: a posynomial of the multipliers of its resources.

$$ C(m) = \sum_i v_i \prod_r m_r^{a_{ir}} $$

Its log is convex in the logs of the multipliers, as in geometric programming
(Boyd, Kim, Vandenberghe & Hassibi, Optimization and Engineering 8, 2007).
"""

from typing import NamedTuple

import numpy as np
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float

from ..._types import Scalar
from ...specs.budget_file import BudgetSpec


class Prices(NamedTuple):
    """Items of a budget as arrays."""

    logs: Float[Array, " item"] | np.ndarray
    """Logs of what each item costs as the machine is."""
    powers: Float[Array, "item resource"] | np.ndarray


def prices_of(spec: BudgetSpec) -> Prices:
    """The items of a file, resources in its order."""
    items = spec.items.values()
    powers = [[item.scales.get(name, 0.0) for name in spec.resources] for item in items]
    return Prices(np.log([item.si for item in items]), np.array(powers))


def log_cost(prices: Prices, z: Float[Array, " resource"]) -> Scalar:
    """Log of the cost at these logs of multipliers."""
    return logsumexp(prices.logs + prices.powers @ z)


def log_costs(
    prices: Prices, z: Float[np.ndarray, "row resource"]
) -> Float[np.ndarray, " row"]:
    """The same for many rows on the host."""
    return np.logaddexp.reduce(prices.logs + z @ np.asarray(prices.powers).T, axis=1)


def to_budget(
    prices: Prices,
    z: Float[np.ndarray, "row resource"],
    along: Float[np.ndarray, "row resource"],
    log_budget: float,
    box: tuple[np.ndarray, np.ndarray],
) -> Float[np.ndarray, "row resource"]:
    """Rows moved within the box until they cost the budget.

    By bisection along a direction in which they grow dearer, up to 8 either way. A row
    that can't cost as much ends as dear as it can be, one that can't cost as little as
    cheap as it can be.
    """
    low, high = np.full(len(z), -8.0), np.full(len(z), 8.0)
    for _ in range(60):
        middle = 0.5 * (low + high)
        moved = np.clip(z + middle[:, None] * along, *box)
        over = log_costs(prices, moved) > log_budget
        low, high = np.where(over, low, middle), np.where(over, middle, high)
    return np.clip(z + low[:, None] * along, *box)
