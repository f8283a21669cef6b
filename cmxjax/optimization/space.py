"""The whole layouts that a search may return: counted, listed, placed.

A layout is a placement matrix `factor[axis, tier]` of whole numbers. Tiers are filled as
`footprints` says; rules of the model decide which degrees divide it.
"""

from typing import NamedTuple

import numpy as np

from ..job.layout import AXES
from .factors import PIPELINE, divisors, tier_splits

BLOCK = 1_000_000
"""Rows that are grown by one tier at a time, which bounds the memory."""

TP, ETP, EP = AXES.index("tp"), AXES.index("etp"), AXES.index("ep")


class Rules(NamedTuple):
    """What degrees must divide or not exceed; 0 stands for no such rule."""

    heads: int
    dense_width: int
    expert_width: int
    layers: int
    experts: int
    """Routed experts; no more than as many copies again fill up the slots."""
    pinned: tuple[tuple[str, int], ...]
    """Degrees that are not free."""
    spread: int = 0
    """Experts that ep must divide, where none can be redundant."""


class Frame(NamedTuple):
    """Devices and the units of each tier that they take."""

    devices: int
    units: tuple[int, ...]


def partly_allowed(rules: Rules, degrees: np.ndarray) -> np.ndarray:
    """Which degrees, (row, axis), can still grow into allowed ones. Shape (row,)."""
    good = degrees[:, PIPELINE] <= rules.layers
    for size, axis in (
        (rules.heads, TP),
        (rules.dense_width, TP),
        (rules.expert_width, ETP),
        (rules.spread, EP),
    ):
        if size:
            good &= size % degrees[:, axis] == 0
    if rules.experts:
        good &= degrees[:, EP] <= 2 * rules.experts
    for name, degree in rules.pinned:
        good &= degree % degrees[:, AXES.index(name)] == 0
    return good


def allowed(rules: Rules, degrees: np.ndarray) -> np.ndarray:
    """Which whole degrees, (row, axis), the rules allow. Shape (row,)."""
    good = partly_allowed(rules, degrees)
    for name, degree in rules.pinned:
        good &= degrees[:, AXES.index(name)] == degree
    return good


def degree_counts(frame: Frame, rules: Rules) -> tuple[np.ndarray, np.ndarray]:
    """Distinct allowed degrees, (row, axis), and in how many ways each can be placed."""
    degrees, ways = np.ones((1, len(AXES)), np.int64), np.ones(1)
    for units in frame.units:
        table, parts = tier_splits(units, rules.experts > 0).astype(np.int64), []
        table = table[partly_allowed(rules, table)]
        for some in np.array_split(
            np.arange(len(degrees)), len(degrees) * len(table) // BLOCK + 1
        ):
            grown = (degrees[some, None] * table).reshape(-1, len(AXES))
            number = np.repeat(ways[some], len(table))
            good = partly_allowed(rules, grown)
            parts.append(_merged(frame, grown[good], number[good]))
        degrees, ways = _merged(frame, *map(np.concatenate, zip(*parts)))
    good = allowed(rules, degrees)
    return degrees[good], ways[good]


def _merged(
    frame: Frame, degrees: np.ndarray, ways: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Equal rows as one, with the sum of their ways.

    Rows are compared as one number each, whose digits number the degrees among the
    divisors of the devices: many times faster than comparing rows.
    """
    known = np.array(divisors(frame.devices))
    base = len(known) ** np.arange(len(AXES))
    keys = np.searchsorted(known, degrees) @ base
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    return degrees[first], np.bincount(inverse.ravel(), ways, len(first))


def placed(degrees: np.ndarray, units: tuple[int, ...]) -> np.ndarray:
    """All placements of given degrees, (placement, axis, tier), tier by tier.

    A split of a tier that divides what is left of every degree can always be completed:
    what the others leave of each prime fills the outer tiers exactly.
    """
    factor, left = np.ones((1, len(AXES), 0), np.int64), degrees[None].astype(np.int64)
    for size in units[:-1]:
        table = tier_splits(size, True).astype(np.int64)
        table = table[(degrees % table == 0).all(axis=1)]
        row, way = np.nonzero((left[:, None] % table == 0).all(axis=2))
        factor = np.concatenate([factor[row], table[way, :, None]], axis=2)
        left = left[row] // table[way]
    return np.concatenate([factor, left[:, :, None]], axis=2)


def in_rank_order(degrees: np.ndarray, units: np.ndarray) -> np.ndarray:
    """The usual rank order, as `job.layout.placement` has it: tensor parallelism
    innermost and the pipeline outermost, (row, axis, tier). Not whole where a degree
    doesn't divide what is left of a tier.

    Args:
        degrees: (row, axis).
        units: of each tier, (row, tier).
    """
    factor = np.ones((*degrees.shape, units.shape[1]))
    for axes in (("etp", "ep", "edp", "pp"), ("tp", "cp", "dp", "pp")):
        free = units.astype(float)
        for axis in map(AXES.index, axes):
            left = degrees[:, axis].astype(float)
            for tier in range(units.shape[1]):
                taken = np.minimum(left, free[:, tier])
                factor[:, axis, tier] = taken
                left, free[:, tier] = left / taken, free[:, tier] / taken
    return factor


def innermost(degrees: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Each axis as far inside as it can be, whatever the others do, (row, axis, tier).

    Of all placements each axis then has the most ranks in every inner part of the
    machine. No layout has all axes there at once, so the time of this one is less than
    that of any that exists, if traffic never gets slower further inside.

    Args:
        degrees: (row, axis).
        units: of each tier, (row, tier).
    """
    left, splits = degrees.astype(np.int64), []
    for tier in range(units.shape[1]):
        splits.append(np.gcd(left, units[:, tier, None]))
        left = left // splits[-1]
    return np.stack(splits, axis=2)
