"""The best trade-offs between two quantities, each with its proof.

One is made best under a limit on the other, for limits between what the other has at the
optimum of the first and the best that it can reach itself. Each is a search of its own
with a bound of its own, so no layout within the limit of a row is better than the bound
of that row: together they are a staircase that no layout lies beyond. Where the best
layout under one limit keeps stricter ones as well, it is the best under those too.

Reference: the epsilon-constraint method, Haimes, Lasdon & Wismer, IEEE Transactions on
Systems, Man, and Cybernetics 1(3), 1971.
"""

import math
from typing import NamedTuple

import numpy as np

from ..answers.limits import Limit, more_is_better
from .cells import Points, together
from .objective import Objective, changed
from .search import Found, Search

STEPS = 8
"""Limits on the other quantity, evenly spaced in logs."""


class Step(NamedTuple):
    """The best of the first quantity under a limit on the other one; values in SI."""

    limit: float
    value: float
    other: float
    """What the other quantity is there."""
    bound: float
    """No layout within the limit is better in the first quantity."""
    gap: float
    point: Points
    """A single row."""


class TradeOff(NamedTuple):
    """Two quantities against each other."""

    first: str
    other: str
    steps: tuple[Step, ...]
    """From the loosest limit on; none where no layout is feasible."""
    evaluations: int


def trade_off(search: Search, found: Found, other: str, most_rows: int) -> TradeOff:
    """Trade the objective of a finished search against another quantity.

    Args:
        found: what the search found.
        other: a quantity whose field the objective looks at.
        most_rows: exact evaluations after which each step ends with the gap that is left.
    """
    objective, phase = search.job.objective, search.job.scenario.phase
    best = found.best
    if best is None or not math.isfinite(search.score):
        return TradeOff(objective.quantity, other, (), 0)
    second = changed(objective, phase, other, objective.limits)
    known = together([best, *search.front.points()])
    extreme, end, spent = _search(search, second, known, most_rows)
    if end.best is not None:
        known = together([known, end.best])
    sign = -1.0 if more_is_better(other) else 1.0

    def paid(best: Points) -> float:
        """The minimized log of the other quantity at a point."""
        return float(second.scores(best.logs)[0])

    steps: list[Step] = []
    loosest, strictest = paid(best), extreme.score
    grid = np.linspace(loosest, strictest, STEPS)
    bound, score, at = found.bound, search.score, 0
    while True:
        limit = float(grid[at])
        bound = score if bound is None else min(bound, score)
        steps.append(
            Step(
                math.exp(sign * limit),
                objective.value(score),
                math.exp(sign * paid(best)),
                objective.value(bound),
                math.expm1(score - bound),
                best,
            )
        )
        stricter = np.flatnonzero(grid < paid(best) - SAME)
        if not len(stricter):
            break
        at = int(stricter[0])
        limits = (*objective.limits, Limit(other, math.exp(sign * (grid[at] + SAME))))
        limited = changed(objective, phase, objective.quantity, limits)
        step, result, rows = _search(search, limited, known, most_rows)
        spent += rows
        if result.best is None or not math.isfinite(step.score):
            break  # unreachable but for rounding: the end itself is within the limit
        best, bound, score = result.best, result.bound, step.score
        known = together([known, best])
    return TradeOff(objective.quantity, other, tuple(steps), spent)


SAME = 1e-9
"""Log of a difference that is rounding."""


def _search(
    search: Search, objective: Objective, known: Points, most_rows: int
) -> tuple[Search, Found, int]:
    """Search the same layouts for another objective, from points that are known."""
    other = Search(search.job._replace(objective=objective), search.layouts)
    other.look(other.bounds.again(known))
    found = other.run(most_rows)
    return other, found, other.bounds.price.rows
