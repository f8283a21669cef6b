"""How far a prediction can be trusted: error bars, origins of parameters, evidence."""

import math
from typing import NamedTuple

import numpy as np

from ..phases.metrics import Metrics, explain
from ..specs.build import Problem
from .evidence import Evidence, nearest
from .extrapolation import Outside, outside, widening
from .origin import origin_of, origins_of
from .spread import Numbers, numbers_of, slopes_of, widths
from .uncertainty import discrepancy, variance

BREAKDOWN, BUSY, POOLS = "breakdown.", "busy.", "pools."


class Trust(NamedTuple):
    """What to know beside the numbers of one prediction."""

    sigma: dict[str, float]
    """Relative one sigma of each metric; 0 for what is exact or nothing."""
    breakdown: dict[str, float]
    """Likewise of each component of the breakdown."""
    pools: dict[str, dict[str, float]]
    """Likewise of each metric of each pool."""
    origin: dict[str, str]
    """Where the parameters come from that each component follows most."""
    evidence: list[Evidence]
    outside: list[Outside]
    widening: float
    """Factor of all sigmas, for what lies outside."""
    slopes: dict[str, dict[str, float]]
    """Of the log of each metric along each uncertain leaf."""


def flat(result: Metrics) -> dict[str, float]:
    """Every number of a result, those of the breakdown and of pools under their own
    prefixes."""
    found = numbers_of(result)
    groups = {BREAKDOWN: getattr(result, "breakdown", None)}
    groups[BUSY] = getattr(result, "busy", None)
    for prefix, group in groups.items():
        found |= {f"{prefix}{name}": float(x) for name, x in (group or {}).items()}
    for role, pool in getattr(result, "pools", {}).items():
        found |= {f"{POOLS}{role}.{name}": x for name, x in numbers_of(pool).items()}
    return found


def trust_of(problem: Problem, numbers: Numbers) -> Trust:
    """What is known of a prediction beside its numbers.

    Args:
        numbers: as `flat` has them.
    """
    slopes = slopes_of(problem, numbers, explain, flat)
    beyond = outside(problem)
    factor = widening(beyond)
    sigma, pools = {}, {}
    for name, width in widths(problem, slopes, numbers, factor).items():
        if name.startswith(POOLS):
            _, role, field = name.split(".")
            pools.setdefault(role, {})[field] = width
        elif not name.startswith((BREAKDOWN, BUSY)):
            sigma[name] = width
    components, origin = _components(problem, numbers, slopes, factor)
    return Trust(
        sigma, components, pools, origin, nearest(problem), beyond, factor, slopes
    )


def _components(
    problem: Problem,
    numbers: Numbers,
    slopes: dict[str, dict[str, float]],
    factor: float,
) -> tuple[dict[str, float], dict[str, str]]:
    """Sigma and origin of each component of the breakdown.

    The model's own error of the whole is shared out as if components erred alike and
    apart from each other: each by e T / |c|, with e that of the whole T and |c| the root
    of the sum of the components' squares.
    """
    shares = {
        name.removeprefix(BREAKDOWN): value
        for name, value in numbers.items()
        if name.startswith(BREAKDOWN)
    }
    length = float(np.linalg.norm(list(shares.values()))) if shares else 0.0
    every, sigma, origin = origins_of(problem), {}, {}
    for name, value in shares.items():
        own = slopes.get(BREAKDOWN + name, {})
        follows = slopes.get(BUSY + name) or own
        if numbers.get(BUSY + name) or value:
            origin[name] = origin_of(problem, every, follows)
        apart = sum(shares.values()) / length if own else 0.0
        error = apart * discrepancy(problem, own, "step_time_s")
        sigma[name] = (
            factor * math.sqrt(variance(problem, own) + error**2) if own else 0.0
        )
    return sigma, origin
