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
from .objective import over
from .search import Search

STEPS = 8
"""Limits on the other quantity, evenly spaced in logs."""

SAME = 1e-9
"""Log of a difference that is rounding."""


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


def trade_off(search: Search, other: str, most_rows: float) -> TradeOff:
    """Trade the objective of a finished search against another quantity.

    Args:
        other: a quantity whose field the objective looks at.
        most_rows: exact evaluations after which each step ends with the gap that is left.
    """
    objective, phase = search.job.objective, search.job.scenario.phase
    steps: list[Step] = []
    if search.best is None or not math.isfinite(search.score):
        return TradeOff(objective.quantity, other, (), 0)
    known = together([search.best, *search.front.points.values()])
    spent, sign = 0, -1.0 if more_is_better(other) else 1.0

    def best_of(quantity: str, limits: tuple[Limit, ...]) -> Search:
        """Search the same layouts for another objective, from points that are known."""
        nonlocal known, spent
        wanted = over(objective.fields, phase, quantity, limits)
        another = Search(search.job._replace(objective=wanted), search.layouts)
        another.look(another.bounds.exact(known.at))
        another.run(most_rows)
        spent += another.bounds.price.rows
        known = known if another.best is None else together([known, another.best])
        return another

    def paid(best: Points) -> float:
        """The minimized log of the other quantity at a point."""
        return float(best.logs[0] @ over(objective.fields, phase, other, ()).weights)

    extreme = best_of(other, objective.limits).best
    loosest = paid(search.best)
    grid = np.linspace(loosest, loosest if extreme is None else paid(extreme), STEPS)
    at, found = 0, search
    while found.best is not None and math.isfinite(found.score):
        point, score = found.best, found.score
        bound = score if found.bound is None else min(score, found.bound)
        steps.append(
            Step(
                math.exp(sign * grid[at]),
                objective.value(score),
                math.exp(sign * paid(point)),
                objective.value(bound),
                math.expm1(score - bound),
                point,
            )
        )
        stricter = np.flatnonzero(grid < paid(point) - SAME)
        if not len(stricter):
            break
        at = int(stricter[0])
        limit = Limit(other, math.exp(sign * (grid[at] + SAME)))
        found = best_of(objective.quantity, (*objective.limits, limit))
    return TradeOff(objective.quantity, other, tuple(steps), spent)
