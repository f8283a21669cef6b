"""One problem of the suite searched and swept: how far off, and at what cost."""

import math
import time
from typing import NamedTuple

from ..specs.scenario import validate_scenario
from .ask import ask
from .evaluator import gap
from .question import Question
from .search import search
from .suite import Case
from .sweep import exhaustive


class Trial(NamedTuple):
    """Outcome of one problem."""

    name: str
    points: int
    feasible: int
    """Feasible points of the sweep."""
    gap: float
    """Relative distance of the search's answer from the optimum; nan where both say that
    nothing is feasible, infinite where only the search does."""
    rounded_gap: float
    """The same right after rounding."""
    exact: int
    gradients: int
    ratio: float
    """Points of the sweep over evaluations of the search, gradients weighed."""
    search_s: float
    sweep_s: float


def question_of(case: Case) -> Question:
    """A problem of the suite as a question, on the spec as printed."""
    return ask(
        validate_scenario(case.scenario, case.name),
        objective=case.objective,
        limits=case.limits,
        pinned=case.pinned,
        settings=case.settings,
        calibration="none",
    )


def attempt(case: Case, seed: int = 0) -> Trial:
    """Search a problem, then sweep it."""
    question = question_of(case)
    start = time.perf_counter()
    result = search(question, seed)
    middle = time.perf_counter()
    swept = exhaustive(question)
    end = time.perf_counter()
    return Trial(
        case.name,
        swept.points,
        swept.feasible,
        _gap(result.score, swept.score),
        _gap(result.rounded, swept.score),
        result.exact,
        result.gradients,
        swept.points / result.evaluations,
        middle - start,
        end - middle,
    )


def _gap(score, best) -> float:
    if best is None or not best.feasible:
        claims = score is not None and score.feasible
        return -math.inf if claims else math.nan
    if score is None or not score.feasible:
        return math.inf
    return gap(score, best.objective)
