"""The whole layouts that a search may return: counted, listed, looked up.

A layout is a placement matrix `factor[axis, tier]` of whole numbers. Tiers are filled as
`footprints` says; rules of the model decide which degrees divide it.
"""

from typing import NamedTuple

import numpy as np

from ..job.layout import AXES
from .factors import PIPELINE, divisors, footprints, tier_splits

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


def frames_of(counts: tuple[int, ...], sizes: tuple[float, ...]) -> tuple[Frame, ...]:
    """Frames of jobs that may take any of these numbers of devices."""
    return tuple(
        Frame(count, units) for count in counts for units in footprints(count, sizes)
    )


def partly_allowed(rules: Rules, degrees: np.ndarray) -> np.ndarray:
    """Which degrees, (row, axis), can still grow into allowed ones. Shape (row,)."""
    good = np.ones(len(degrees), bool)
    for size, axis in (
        (rules.heads, TP),
        (rules.dense_width, TP),
        (rules.expert_width, ETP),
        (rules.spread, EP),
    ):
        if size:
            good &= size % degrees[:, axis] == 0
    good &= degrees[:, PIPELINE] <= rules.layers
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


def tier_table(rules: Rules, units: int) -> np.ndarray:
    """Allowed splits of one tier, (way, axis)."""
    rows = tier_splits(units, rules.experts > 0)
    return rows[partly_allowed(rules, rows.astype(np.int64))]


def degree_counts(frame: Frame, rules: Rules) -> tuple[np.ndarray, np.ndarray]:
    """Distinct allowed degrees, (row, axis), and in how many ways each can be placed."""
    degrees, ways = np.ones((1, len(AXES)), np.int64), np.ones(1)
    for units in frame.units:
        table = tier_table(rules, units).astype(np.int64)
        parts = []
        for some, number in zip(_blocks(degrees, table), _blocks(ways, table)):
            grown, old, _ = _grown(rules, some, table)
            parts.append(_merged(frame, grown, number[old]))
        joined = (np.concatenate(part) for part in zip(*parts))
        degrees, ways = _merged(frame, *joined)
    good = allowed(rules, degrees)
    return degrees[good], ways[good]


def _blocks(rows: np.ndarray, table: np.ndarray) -> list[np.ndarray]:
    size = max(1, BLOCK // max(1, len(table)))
    return [rows[i : i + size] for i in range(0, max(1, len(rows)), size)]


def _grown(rules: Rules, degrees: np.ndarray, table: np.ndarray):
    """Degrees with one more tier, and the row and the way that each came from."""
    grown = (degrees[:, None] * table[None]).reshape(-1, len(AXES))
    keep = np.flatnonzero(partly_allowed(rules, grown))
    return grown[keep], *np.divmod(keep, max(1, len(table)))


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


def count_placements(frame: Frame, rules: Rules) -> int:
    """Allowed placement matrices of a frame."""
    return int(degree_counts(frame, rules)[1].sum())


def placements(frame: Frame, rules: Rules) -> np.ndarray:
    """All allowed placement matrices of a frame, (row, axis, tier).

    Tiers are added one by one, and rows that no further tier can mend are dropped, so
    the list never grows much beyond the result.
    """
    factor = np.ones((1, len(AXES), 0), np.int16)
    degrees = np.ones((1, len(AXES)), np.int64)
    for units in frame.units:
        table = tier_table(rules, units)
        wide, parts = table.astype(np.int64), []
        for some, some_degrees in zip(_blocks(factor, table), _blocks(degrees, table)):
            grown, old, way = _grown(rules, some_degrees, wide)
            splits = np.concatenate([some[old], table[way][:, :, None]], axis=2)
            parts.append((splits, grown))
        factor, degrees = (np.concatenate(part) for part in zip(*parts))
    return factor[allowed(rules, degrees)]
