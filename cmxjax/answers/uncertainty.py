"""Standard errors of predictions: fitted parameters, priors, and the model itself."""

import math

from ..specs.build import Problem
from ..specs.discrepancy import model_error
from .batch import loose


def _variance(problem: Problem, slopes: dict[str, float]) -> float:
    """Variance of a log metric from fitted parameters and from priors."""
    priors = sum((slopes.get(path, 0.0) * s) ** 2 for path, s in loose(problem).items())
    return problem.fitted.variance(slopes) + priors


def _discrepancy(problem: Problem, slopes: dict[str, float], quantity: str) -> float:
    """Relative error of the model; none where the metric depends on nothing uncertain."""
    if not any(slopes.values()):
        return 0.0
    return model_error(problem.fitted, problem.scenario, quantity)


def relative_sigma(problem: Problem, slopes: dict[str, float], quantity: str) -> float:
    """Standard error of the log of a metric by the delta method.

    Args:
        quantity: which metric it is.
        slopes: derivative of the log along the shift of each uncertain leaf.
    """
    extra = _discrepancy(problem, slopes, quantity)
    return math.sqrt(_variance(problem, slopes) + extra**2)


def ratio_sigma(
    above: Problem,
    above_slopes: dict[str, float],
    below: Problem,
    below_slopes: dict[str, float],
    quantity: str,
) -> float:
    """Standard error of the log of a ratio.

    Sides on one system share its leaves, so what they have in common cancels; the
    discrepancy was learned from such ratios too and counts once.
    """
    if above.system.name != below.system.name:
        first = relative_sigma(above, above_slopes, quantity)
        return math.hypot(first, relative_sigma(below, below_slopes, quantity))
    paths = above_slopes.keys() | below_slopes.keys()
    slopes = {
        path: above_slopes.get(path, 0.0) - below_slopes.get(path, 0.0) for path in paths
    }
    return relative_sigma(above, slopes, quantity)
