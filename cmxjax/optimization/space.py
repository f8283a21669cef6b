"""The whole layouts that a search may return: counted, listed, looked up.

A layout is a placement matrix `factor[axis, tier]` of whole numbers. Tiers are filled as
`footprints` says; rules of the model decide which degrees divide it.
"""

import math
from functools import cache
from typing import NamedTuple

import numpy as np

from ..job.layout import AXES
from .factors import PIPELINE, divisors, footprints, power, primes, tier_splits

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
        size = max(1, BLOCK // max(1, len(table)))
        for first in range(0, max(1, len(degrees)), size):
            some = slice(first, first + size)
            grown = (degrees[some, None] * table[None]).reshape(-1, len(AXES))
            number = np.repeat(ways[some], len(table))
            good = partly_allowed(rules, grown)
            parts.append(_merged(frame, grown[good], number[good]))
        joined = (np.concatenate(part) for part in zip(*parts))
        degrees, ways = _merged(frame, *joined)
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
    """All placements of given degrees, (placement, axis, tier): each prime is laid
    out by itself."""
    result = np.ones((1, len(AXES), len(units)), np.int64)
    for prime in primes(math.prod(units)):
        powers = tuple(power(int(degree), prime) for degree in degrees)
        some = prime ** _spread(powers, tuple(power(size, prime) for size in units))
        result = (result[:, None] * some[None]).reshape(-1, len(AXES), len(units))
    return result


@cache
def _spread(degrees: tuple[int, ...], units: tuple[int, ...]) -> np.ndarray:
    """Powers of a prime on axes and tiers, of all placements, (placement, axis, tier)."""
    found = [np.zeros((0, len(AXES), len(units)), np.int64)]
    for stages in _sums(degrees[PIPELINE], units):
        left = tuple(np.subtract(units, stages).tolist())
        inner = _tables(degrees[:PIPELINE], left)
        outer = _tables(degrees[PIPELINE + 1 :], left)
        one, other = np.indices((len(inner), len(outer))).reshape(2, -1)
        middle = np.tile(np.array(stages), (len(one), 1, 1))
        found.append(np.concatenate([inner[one], middle, outer[other]], axis=1))
    return np.concatenate(found)


@cache
def _sums(total: int, most: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """All ways to write a number as a sum of parts that have a most each."""
    if not most:
        return ((),) if total == 0 else ()
    return tuple(
        (first, *rest)
        for first in range(min(total, most[0]) + 1)
        for rest in _sums(total - first, most[1:])
    )


@cache
def _tables(rows: tuple[int, ...], columns: tuple[int, ...]) -> np.ndarray:
    """All tables of whole numbers with these sums, (table, row, column)."""
    found = [np.zeros((0, len(rows), len(columns)), np.int64)]
    if len(rows) == 1:
        found += [np.array([[columns]])] if sum(columns) == rows[0] else []
        return np.concatenate(found)
    for first in _sums(rows[0], columns):
        rest = _tables(rows[1:], tuple(np.subtract(columns, first).tolist()))
        top = np.tile(np.array(first), (len(rest), 1, 1))
        found.append(np.concatenate([top, rest], axis=1))
    return np.concatenate(found)
