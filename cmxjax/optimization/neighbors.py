"""Neighbors of a whole placement: a prime factor moves from one axis to another."""

import itertools

import numpy as np

from ..job.layout import AXES
from .factors import ATTENTION, EXPERT, PIPELINE, primes
from .space import Rules, allowed


def neighbors(factor: np.ndarray, rules: Rules) -> list[np.ndarray]:
    """Allowed placements one move away.

    A move takes a prime factor within a tier from one axis to another of the same
    folding, or to or from the pipeline in both foldings at once; or two axes exchange
    a prime factor each in two tiers.
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
    factor: np.ndarray | None, moves: list[tuple[int, int, int]], prime: int
) -> np.ndarray | None:
    """The matrix after each (source, target, tier), or None if a source lacks it."""
    if factor is None:
        return None
    result = factor.copy()
    for source, target, tier in moves:
        if result[source, tier] % prime:
            return None
        result[source, tier] //= prime
        result[target, tier] *= prime
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
        for prime in primes(units):
            single = [
                [(a, b, tier)]
                for axes in _foldings(experts)
                for a, b in itertools.permutations(axes, 2)
            ]
            pairs = [(a, e) for a in attention for e in outside]
            for moves in single:
                placements.append(_moved(factor, moves, prime))
            for a, e in pairs:
                placements.append(_staged(factor, a, e, tier, prime, inwards=True))
                placements.append(_staged(factor, a, e, tier, prime, inwards=False))
    return [matrix for matrix in placements if matrix is not None]


def _staged(
    factor: np.ndarray, a: int, e: int, tier: int, prime: int, *, inwards: bool
) -> np.ndarray | None:
    """A prime from an axis of each folding to the pipeline, or back."""
    takes = (a, e) if inwards else (PIPELINE,)
    gives = (PIPELINE,) if inwards else (a, e)
    if any(factor[axis, tier] % prime for axis in takes):
        return None
    result = factor.copy()
    for axis in takes:
        result[axis, tier] //= prime
    for axis in gives:
        result[axis, tier] *= prime
    return result


def _between(factor: np.ndarray) -> list[np.ndarray]:
    """Axes that exchange prime factors, equal or not, between two tiers.

    Equal ones only move the axes; others turn, say, 24 stages on 4 replicas into 16 on
    6, which single moves reach over much worse layouts only.
    """
    placements = []
    tiers = range(factor.shape[1])
    dp, edp = AXES.index("dp"), AXES.index("edp")
    for one, other in itertools.permutations(tiers, 2):
        for axes in _foldings(True):
            for a, b in itertools.permutations(axes, 2):
                for given in primes(int(factor[a, one])):
                    for taken in primes(int(factor[b, other])):
                        moved = _moved(factor, [(a, b, one)], given)
                        placements.append(_moved(moved, [(b, a, other)], taken))
        for given in primes(int(factor[PIPELINE, one])):
            for taken in primes(int(np.gcd(factor[dp, other], factor[edp, other]))):
                moved = _staged(factor, dp, edp, one, given, inwards=False)
                if moved is not None:
                    placements.append(_staged(moved, dp, edp, other, taken, inwards=True))
    return [matrix for matrix in placements if matrix is not None]
