"""Neighbors of a whole placement: a factor moves from one axis to another."""

import itertools

import numpy as np

from ..job.layout import AXES
from .factors import ATTENTION, EXPERT, PIPELINE, divisors
from .space import Rules, allowed


def neighbors(factor: np.ndarray, rules: Rules) -> list[np.ndarray]:
    """Allowed placements one move away.

    A move takes a whole factor within a tier from one axis to another of the same
    folding, or to or from the pipeline in both foldings at once; or two axes exchange
    a factor each in two tiers. Moves of primes alone would end where a part of an
    axis is worse than all of it and than none.
    """
    moved = [*_within(factor, rules.experts > 0), *_between(factor)]
    if not moved:
        return []
    stacked = np.stack(moved)
    good = allowed(rules, stacked.astype(np.int64).prod(axis=2))
    key = factor.tobytes()
    distinct = {row.tobytes(): row for row in stacked[good]}
    distinct.pop(key, None)
    return list(distinct.values())


def _moved(
    factor: np.ndarray | None, moves: list[tuple[int, int, int]], part: int
) -> np.ndarray | None:
    """The matrix after each (source, target, tier), or None if a source lacks it."""
    if factor is None:
        return None
    result = factor.copy()
    for source, target, tier in moves:
        if result[source, tier] % part:
            return None
        result[source, tier] //= part
        result[target, tier] *= part
    return result


def _foldings(experts: bool) -> list[tuple[int, ...]]:
    attention = tuple(axis for axis in ATTENTION if axis != PIPELINE)
    return [attention, EXPERT] if experts else [attention]


def _within(factor: np.ndarray, experts: bool) -> list[np.ndarray]:
    placements = []
    outside = EXPERT if experts else EXPERT[-1:]
    attention = _foldings(False)[0]
    for tier in range(factor.shape[1]):
        units = int(factor[list(ATTENTION), tier].prod())
        for part in divisors(units)[1:]:
            single = [
                [(a, b, tier)]
                for axes in _foldings(experts)
                for a, b in itertools.permutations(axes, 2)
            ]
            pairs = [(a, e) for a in attention for e in outside]
            for moves in single:
                placements.append(_moved(factor, moves, part))
            for a, e in pairs:
                placements.append(_staged(factor, a, e, tier, part, inwards=True))
                placements.append(_staged(factor, a, e, tier, part, inwards=False))
    return [matrix for matrix in placements if matrix is not None]


def _staged(
    factor: np.ndarray, a: int, e: int, tier: int, part: int, *, inwards: bool
) -> np.ndarray | None:
    """A factor from an axis of each folding to the pipeline, or back."""
    takes = (a, e) if inwards else (PIPELINE,)
    gives = (PIPELINE,) if inwards else (a, e)
    if any(factor[axis, tier] % part for axis in takes):
        return None
    result = factor.copy()
    for axis in takes:
        result[axis, tier] //= part
    for axis in gives:
        result[axis, tier] *= part
    return result


def _between(factor: np.ndarray) -> list[np.ndarray]:
    """Axes that exchange factors, equal or not, between two tiers.

    Equal ones only move the axes; others turn, say, 24 stages on 4 replicas into 16 on
    6, which single moves reach over much worse layouts only.
    """
    placements = []
    tiers = range(factor.shape[1])
    dp, edp = AXES.index("dp"), AXES.index("edp")
    for one, other in itertools.permutations(tiers, 2):
        for axes in _foldings(True):
            for a, b in itertools.permutations(axes, 2):
                for given in divisors(int(factor[a, one]))[1:]:
                    for taken in divisors(int(factor[b, other]))[1:]:
                        moved = _moved(factor, [(a, b, one)], given)
                        placements.append(_moved(moved, [(b, a, other)], taken))
        for given in divisors(int(factor[PIPELINE, one]))[1:]:
            both = int(np.gcd(factor[dp, other], factor[edp, other]))
            for taken in divisors(both)[1:]:
                moved = _staged(factor, dp, edp, one, given, inwards=False)
                if moved is not None:
                    placements.append(_staged(moved, dp, edp, other, taken, inwards=True))
    return [matrix for matrix in placements if matrix is not None]
