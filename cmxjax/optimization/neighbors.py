"""Neighbors of a whole placement: two axes of a folding exchange a factor."""

import itertools

import numpy as np

from .factors import PIPELINE
from .space import Rules, allowed, tier_table


def neighbors(factor: np.ndarray, rules: Rules) -> np.ndarray:
    """Allowed placements beside one, (placement, axis, tier).

    Within a tier two axes of one folding exchange a factor, or the pipeline does with one
    of each folding; or that happens in two tiers at once in opposite directions, which
    turns, say, 24 stages on 4 replicas into 16 on 6, what single exchanges reach over
    much worse layouts only.

    Args:
        factor: (axis, tier).
    """
    inside, found = [], []
    for tier, now in enumerate(factor.T):
        table = tier_table(rules, int(now[: PIPELINE + 1].prod())).astype(np.int64)
        changed = table != now
        inside.append(table[changed.sum(axis=1) == 2 + changed[:, PIPELINE]])
        found.append(_with(factor, {tier: inside[-1]}))
    for one, other in itertools.combinations(range(factor.shape[1]), 2):
        up, down = (np.sign(inside[t] - factor[:, t]) for t in (one, other))
        a, b = np.nonzero((up[:, None] == -down[None]).all(axis=2))
        found.append(_with(factor, {one: inside[one][a], other: inside[other][b]}))
    every = np.concatenate(found)
    return every[allowed(rules, every.prod(axis=2))]


def _with(factor: np.ndarray, tiers: dict[int, np.ndarray]) -> np.ndarray:
    """The placement with other ways to split some tiers, (way, axis) each."""
    count = len(next(iter(tiers.values())))
    result = np.repeat(factor[None].astype(np.int64), count, axis=0)
    for tier, rows in tiers.items():
        result[:, :, tier] = rows
    return result
