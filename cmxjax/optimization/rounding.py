"""From a relaxed placement to whole ones near it."""

import itertools

import numpy as np

from .space import Frame, Rules, allowed, tier_table

NEAREST = 4
"""Ways to split each tier that are combined."""


def rounded_placements(
    logs: np.ndarray, frame: Frame, rules: Rules, count: int
) -> list[np.ndarray]:
    """The `count` nearest whole matrices to a log placement matrix, (axis, tier).

    Distances are sums of squared differences of logs. Each tier's nearest ways are
    combined, more of them as long as no combination is allowed by the rules, so the
    list is empty only if the frame has no allowed placement at all.
    """
    tables = [tier_table(rules, units) for units in frame.units]
    if any(not len(table) for table in tables):
        return []
    distances = [
        ((np.log(table) - logs[:, t]) ** 2).sum(axis=1) for t, table in enumerate(tables)
    ]
    order = [np.argsort(distance, kind="stable") for distance in distances]
    width, longest = NEAREST, max(map(len, tables))
    while True:
        matrices = _combined(tables, distances, order, rules, width)
        if matrices or width >= longest:
            return matrices[:count]
        width = min(longest, 4 * width)


def _combined(
    tables: list[np.ndarray],
    distances: list[np.ndarray],
    order: list[np.ndarray],
    rules: Rules,
    width: int,
) -> list[np.ndarray]:
    """Allowed combinations of each tier's nearest ways, the nearest first."""
    chosen = [ranks[:width] for ranks in order]
    if np.prod([len(ranks) for ranks in chosen]) > 2_000_000:
        return []
    rows = np.array(list(itertools.product(*chosen)))
    factors = np.stack([table[rows[:, t]] for t, table in enumerate(tables)], axis=2)
    good = allowed(rules, factors.astype(np.int64).prod(axis=2))
    total = sum(distances[t][rows[:, t]] for t in range(len(tables)))
    ranked = np.flatnonzero(good)[np.argsort(np.asarray(total)[good], kind="stable")]
    return [factors[i] for i in ranked]
