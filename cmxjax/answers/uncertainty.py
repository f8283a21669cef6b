"""Standard errors of predictions: fitted parameters, priors, and the model itself."""

import math
from collections.abc import Mapping

from .._types import Real
from ..specs.build import Problem
from ..specs.context import SERVES
from ..specs.discrepancy import level_of, model_error
from ..specs.traits import distance, traits_of
from ..units import dimension_of
from .batch import settled

SHARES = ("mfu", "hfu", "utilization", "tokens_per_s_per_kw", "run_failures")
"""Plain numbers that go with a time."""

APART = ("mtbf_s", "checkpoint_time_s", "checkpoint_interval_s", "goodput")
"""Metrics that have nothing to do with the time of a step."""

OPERATIONS = "operations."

TIMELY = ("time", "energy", "cost", "token_cost")
"""Dimensions of what goes with the time of a step."""

WAITS = ("ttft", "waiting", "encode_waiting")
"""What metrics begin with that hold the wait for the first token."""


def variance(problem: Problem, slopes: Mapping[str, Real]) -> Real:
    """Variance of log metrics from fitted parameters and from priors.

    Args:
        slopes: of one metric, or of some of whatever shape, along leaves that are
            uncertain, see `batch.uncertain`.
    """
    known, figures = settled(problem), problem.figures
    loose = slopes.keys() - known
    priors = sum((slopes[path] * figures[path].prior_sigma) ** 2 for path in loose)
    return problem.fitted.variance(slopes) + priors


def discrepancy(problem: Problem, slopes: dict[str, float], field: str) -> float:
    """Relative error of the model itself in a metric.

    It was learned from times and rates, and from the memory of training. A metric of
    another sort has it as far as it moves with what is uncertain: bytes that are counted
    have none.
    """
    dimension, phase = _dimension(field), problem.scenario.phase
    whole = dimension.endswith("_rate") or dimension in TIMELY
    if field in APART:
        return 0.0
    whole |= field in SHARES or (phase == "train" and dimension == "bytes")
    whole &= "excess" not in field  # a difference, of which most may be given
    moves = sum(map(abs, slopes.values()))
    share = float(moves > 0.0) if whole else min(1.0, moves)
    level = "ttft" if field.startswith(WAITS) else field
    return share * model_error(problem.fitted, problem.scenario, level)


def _dimension(field: str) -> str:
    """What a metric measures: a rate for each device or package is a rate."""
    for each in ("_per_device", "_per_package"):
        field = field.removesuffix(each)
    return dimension_of(field)


def relative_sigma(
    problem: Problem, slopes: dict[str, float], field: str, factor: float = 1.0
) -> float:
    """Standard error of the log of a metric by the delta method.

    Args:
        slopes: derivative of the log along the shift of each uncertain leaf.
        field: which metric it is.
        factor: of the error bar outside of what was fitted, see `extrapolation`.
    """
    extra = factor * discrepancy(problem, slopes, field)
    return math.sqrt(spread(problem, slopes, factor) + extra**2)


def spread(problem: Problem, slopes: Mapping[str, Real], factor: Real) -> Real:
    """Variance from parameters outside of what was fitted, where those of speed are worse
    known, but prices and failures are not; as `variance` takes slopes."""
    bought = {path: s for path, s in slopes.items() if path.startswith(OPERATIONS)}
    others = {path: s for path, s in slopes.items() if path not in bought}
    return factor**2 * variance(problem, others) + variance(problem, bought)


def ratio_sigma(
    above: Problem,
    above_slopes: dict[str, float],
    below: Problem,
    below_slopes: dict[str, float],
    field: str,
    shared: float,
    factors: tuple[float, float] = (1.0, 1.0),
) -> float:
    r"""Standard error of the log of a ratio.

    Sides on one system share its leaves, so what they have in common cancels:

    $$ \sigma^2 = (g_a - g_b)^\top C (g_a - g_b) + e_a^2 + e_b^2 - 2 \rho e_a e_b $$

    Args:
        shared: correlation rho of the model's own errors e, from `shared_error`.
        factors: as `relative_sigma` takes one, of each side.
    """
    one, other = factors
    if above.system.name == below.system.name:
        paths = above_slopes.keys() | below_slopes.keys()
        slopes = {p: above_slopes.get(p, 0.0) - below_slopes.get(p, 0.0) for p in paths}
        noise = spread(above, slopes, max(factors))
    else:
        noise = spread(above, above_slopes, one)
        noise += spread(below, below_slopes, other)
    first = one * discrepancy(above, above_slopes, field)
    second = other * discrepancy(below, below_slopes, field)
    errors = first**2 + second**2 - 2.0 * shared * first * second
    return math.sqrt(max(noise + errors, 0.0))


REACH = 1.5
"""Doublings of a size over which the model's own errors stay alike in serving: of rows
left out, those of one engine on one machine correlate by 0.7, 0.4, 0.3, 0.1 and 0 at
distances of 0.8, 1.3, 1.9, 2.5 and 4.5 (see `traits.distance`)."""

ONCE = 0.5
"""Correlation with which an error counts once in a ratio; it was learned from ratios of
settings on one machine too."""


def shared_error(one: Problem, other: Problem) -> float:
    """Correlation of the model's own errors in two jobs: 1 for the same job, 0 on two
    machines or of two levels (see `discrepancy.level_of`)."""
    jobs = one.scenario, other.scenario
    if one.system.name != other.system.name:
        return 0.0
    if jobs[0] == jobs[1]:
        return 1.0
    levels = {level_of(job, "") for job in jobs}
    if len(levels) > 1:
        return 0.0
    if jobs[0].phase not in SERVES:
        return ONCE
    return math.exp(-distance(*map(traits_of, jobs)) / REACH)


def probability_above(log_ratio: float, sigma: float) -> float:
    """That a ratio is above 1, its log taken as normal; a half for equals."""
    if sigma > 0.0:
        return 0.5 * math.erfc(-log_ratio / (sigma * math.sqrt(2.0)))
    return 0.5 * (1.0 + math.copysign(log_ratio != 0.0, log_ratio))
