"""Random whole placements."""

import numpy as np

from ..job.layout import AXES
from .space import Frame, Rules, allowed, partly_allowed, tier_table


def random_placements(
    frame: Frame, rules: Rules, count: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Up to `count` allowed placements, tier by tier, outer tiers in random order.

    At each tier a way is drawn from those that keep the degrees allowed; draws that
    end with other than the given degrees are dropped, so fewer may come back.
    """
    tables = [tier_table(rules, units).astype(np.int64) for units in frame.units]
    if any(not len(table) for table in tables):
        return []
    tiers = len(tables)
    factors = np.ones((count, len(AXES), tiers), np.int64)
    alive = np.ones(count, bool)
    for tier in rng.permutation(tiers):
        table = tables[tier]
        for i in np.flatnonzero(alive):
            grown = factors[i].prod(axis=1) * table
            good = np.flatnonzero(partly_allowed(rules, grown))
            if len(good):
                factors[i, :, tier] = table[rng.choice(good)]
            else:
                alive[i] = False
    good = alive & allowed(rules, factors.prod(axis=2))
    return [factor.astype(np.int16) for factor in factors[good]]
