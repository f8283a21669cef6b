r"""How well a point meets the conditions of Karush, Kuhn and Tucker.

At an optimum multipliers lambda of the budget and mu of the other limits exist with

$$ \frac{\partial \ln F}{\partial \ln m_r} - \sum_i \mu_i \frac{\partial c_i}{\partial
\ln m_r} = \lambda \frac{\partial \ln C}{\partial \ln m_r} $$

for every resource that is free: a unit more of the budget gains the same wherever it is
spent, the batch adjusted to the limits each time. A resource at its smallest value gains
less than that, one at its largest more. Tiles make the batch rest on kinks, where it has
no gradient: there a small step either way must not gain.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.optimize import nnls

from ..ascent import Slopes

ACTIVE = 2e-3
"""A constraint counts as active within this of its bound."""

EDGE = 1e-6

NUDGE = 1e-3
"""Step of a log batch."""


class Certificate(NamedTuple):
    """Conditions of an optimum at one point of the relaxed problem."""

    elasticities: Float[np.ndarray, " resource"]
    """d ln F / d ln m with the batch adjusted to the limits."""
    marginal: Float[np.ndarray, " resource"]
    """Per log of the budget: elasticity over the resource's share of it."""
    at: list[str]
    """`free`, `low`, `high` or `fixed` for each resource."""
    budget_multiplier: float
    """d ln F / d ln budget: what 1 % more of the budget gains, in percent."""
    residual: float
    """Gain left in any other variable, a batch: d ln F per log, either way."""
    spread: float
    """Largest relative difference of a free resource's marginal gain from lambda."""
    violation: float
    """Largest constraint, 0 where all hold."""


def certify(
    evaluate: Callable[[np.ndarray], Slopes],
    x: Float[np.ndarray, " variable"],
    box: tuple[np.ndarray, np.ndarray],
    resources: int,
) -> Certificate:
    """Multipliers by nonnegative least squares over the free resources.

    Args:
        evaluate: terms with slopes at a point; the first constraint is the budget and
            the first `resources` variables are those.
    """
    (low, high), here = box, evaluate(x)
    at = np.where(x <= low + EDGE, -1, np.where(x >= high - EDGE, 1, 0))
    free, active = at == 0, here.constraints > -ACTIVE
    free[resources:] = False
    mu = np.zeros(len(active))
    if free.any() and active.any():
        mu[active], _ = nnls(here.across[np.ix_(active, free)].T, here.up[free])
    elasticity = (here.up - here.across[1:].T @ mu[1:])[:resources]
    share = here.across[0, :resources]
    marginal = np.divide(
        elasticity, share, out=np.full(resources, np.nan), where=np.abs(share) > 1e-12
    )
    compared = free[:resources] & np.isfinite(marginal)
    scale = max(mu[0], 1e-12)
    base, left = here.objective - mu @ here.constraints, 0.0
    for k in range(resources, len(x)):
        for sign in (NUDGE, -NUDGE):
            there = evaluate(x + sign * np.eye(len(x))[k])
            gain = there.objective - mu @ there.constraints - base
            left = max(left, gain / NUDGE)
    names = {-1: "low", 0: "free", 1: "high"}
    return Certificate(
        elasticities=elasticity,
        marginal=marginal,
        at=[
            names[int(side)] if low[k] < high[k] else "fixed"
            for k, side in enumerate(at[:resources])
        ],
        budget_multiplier=float(mu[0]),
        residual=float(left),
        spread=float(np.abs(marginal[compared] / scale - 1.0).max(initial=0.0)),
        violation=float(max(here.constraints.max(initial=0.0), 0.0)),
    )
