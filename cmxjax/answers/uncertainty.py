"""Standard errors of predictions: fitted parameters, priors, and the model itself."""

import math

from ..specs.build import Problem
from ..specs.discrepancy import model_error
from ..units import dimension_of
from .batch import loose

SHARES = ("mfu", "hfu", "utilization")
"""Plain numbers that go with a time."""

WAITS = ("ttft", "waiting", "encode_waiting")
"""What metrics begin with that hold the wait for the first token."""


def variance(problem: Problem, slopes: dict[str, float]) -> float:
    """Variance of a log metric from fitted parameters and from priors."""
    priors = sum((slopes.get(path, 0.0) * s) ** 2 for path, s in loose(problem).items())
    return problem.fitted.variance(slopes) + priors


def discrepancy(problem: Problem, slopes: dict[str, float], field: str) -> float:
    """Relative error of the model itself in a metric.

    It was learned from times and rates, and from the memory of training. A metric of
    another sort has it as far as it moves with what is uncertain: bytes that are counted
    have none.
    """
    dimension, phase = dimension_of(field), problem.scenario.phase
    whole = dimension.endswith("_rate") or dimension in ("time", "energy", "cost")
    whole |= field in SHARES or (phase == "train" and dimension == "bytes")
    moves = sum(map(abs, slopes.values()))
    share = float(moves > 0.0) if whole else min(1.0, moves)
    level = "ttft" if field.startswith(WAITS) else field
    return share * model_error(problem.fitted, problem.scenario, level)


def relative_sigma(
    problem: Problem, slopes: dict[str, float], field: str, factor: float = 1.0
) -> float:
    """Standard error of the log of a metric by the delta method.

    Args:
        slopes: derivative of the log along the shift of each uncertain leaf.
        field: which metric it is.
        factor: of the error bar outside of what was fitted, see `extrapolation`.
    """
    extra = discrepancy(problem, slopes, field)
    return factor * math.sqrt(variance(problem, slopes) + extra**2)


def ratio_sigma(
    above: Problem,
    above_slopes: dict[str, float],
    below: Problem,
    below_slopes: dict[str, float],
    field: str,
    factors: tuple[float, float] = (1.0, 1.0),
) -> float:
    """Standard error of the log of a ratio.

    Sides on one system share its leaves, so what they have in common cancels; the
    discrepancy was learned from such ratios too and counts once.
    """
    if above.system.name != below.system.name:
        first = relative_sigma(above, above_slopes, field, factors[0])
        return math.hypot(first, relative_sigma(below, below_slopes, field, factors[1]))
    paths = above_slopes.keys() | below_slopes.keys()
    slopes = {
        path: above_slopes.get(path, 0.0) - below_slopes.get(path, 0.0) for path in paths
    }
    return relative_sigma(above, slopes, field, max(factors))
