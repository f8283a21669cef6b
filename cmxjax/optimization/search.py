"""Gradient search: descend on the relaxed problem, round, refine exactly."""

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from ..job.layout import AXES
from .descent import Descent, Effort, descend
from .evaluator import Evaluator, Point, Scored, point_of
from .front import Front
from .plan import faces
from .question import Question
from .refine import refine, settle
from .rounding import round_plan
from .sample import random_placements

GRADIENT_COST = 4
"""Evaluations that one value with its gradient counts as: reverse mode takes about four
times the operations of the value."""

ROUNDED = 2
"""Whole placements that each snapshot is rounded to."""

SETTLED = 24
"""Rounded placements that climbs start from."""


DRAWN, EXPLORED = 48, 16
"""Random placements of a round of exploration, and rounds."""


class Search(NamedTuple):
    """What a search found and what it took."""

    best: Point | None
    """The best feasible point, or the least infeasible one; None in an empty space."""
    score: Scored | None
    relaxed: float | None
    """Relaxed objective of the best restart that meets the limits, minimized score."""
    rounded: Scored | None
    """Best score right after rounding, before any refinement."""
    gradients: int
    exact: int
    front: Front

    @property
    def evaluations(self) -> int:
        """Model evaluations, a gradient counted as `GRADIENT_COST` of them."""
        return self.exact + GRADIENT_COST * self.gradients


def effort_for(points: int, faces: int) -> tuple[Effort, int]:
    """How much to descend in a space of so many points, and exact evaluations.

    Together at most a twentieth of the points where there are more than 1e5: the last
    climb may take some evaluations more than it is given.
    """
    effort = Effort(min(max(faces, 8), 16), 30)
    if points >= 4e5:
        effort = Effort(min(max(faces, 12), 32), 40)
    share = points / 21.0 - GRADIENT_COST * effort.gradients - 200.0
    return effort, int(min(max(share, 2800.0), 8000.0))


def search(question: Question, seed: int = 0, effort: Effort | None = None) -> Search:
    """Gradient search with exact refinement.

    The relaxed problem is descended in the first family, the scenario's own if that is
    among them; what it finds is rounded and tried in every family.
    """
    chosen, budget = effort_for(question.points, len(faces(question.space.rules)))
    chosen = effort or chosen
    evaluator = Evaluator(question)
    with ThreadPoolExecutor(1) as beside:
        # the compiler runs outside the interpreter's lock
        ready = beside.map(evaluator.prepare, range(len(question.families)))
        descent = descend(question, question.families[0], chosen, seed)
        list(ready)
    points = _rounded(question, descent)
    if not points:
        front = Front(question.fields)
        return Search(None, None, None, None, chosen.gradients, 0, front)
    scores = dict(zip(points, evaluator(points)))
    rounded = min(scores.values(), key=lambda s: s.rank)
    longest = max(len(setting.values) for setting in question.space.settings)
    settled = settle(evaluator, _starts(scores), longest // 8)
    settled.sort(key=lambda point: evaluator.known[point].rank)
    refine(evaluator, settled, budget)
    _explore(evaluator, budget, np.random.default_rng(seed))
    best, score = min(evaluator.known.items(), key=lambda item: item[1].rank)
    return Search(
        best,
        score,
        _relaxed(descent),
        rounded,
        chosen.gradients,
        evaluator.count,
        _front(evaluator),
    )


def _explore(evaluator: Evaluator, budget: int, rng: np.random.Generator) -> None:
    """Spend what is left of the budget on climbs from random placements.

    Some valleys are narrow: an axis pays only together with another one. A space that
    is small or well descended has little budget left when this begins.
    """
    question = evaluator.question
    space, longest = question.space, len(question.space.settings[0].values)
    for _ in range(EXPLORED):
        best = evaluator.best()
        if best is None or evaluator.count >= budget * 3 // 4:
            return
        frame = int(rng.integers(len(space.frames)))
        drawn = random_placements(space.frames[frame], space.rules, DRAWN, rng)
        points = [
            point_of(int(rng.integers(len(question.families))), frame, f, best[0].levels)
            for f in drawn
        ]
        scores = dict(zip(points, evaluator(points)))
        firsts = sorted(scores, key=lambda point: scores[point].rank)[: DRAWN // 8]
        refine(evaluator, settle(evaluator, firsts, longest // 8), budget)


def _relaxed(descent: Descent) -> float | None:
    """Objective of the best last iterate that meets the relaxed limits."""
    good = descent.violation[:, -1] <= 1e-2
    return float(descent.objective[:, -1][good].min()) if good.any() else None


def _starts(scores: dict[Point, Scored]) -> list[Point]:
    """The best rounded points, no two of a family with the same degrees, so that climbs
    start in different places; every family has some."""
    distinct: dict[tuple, Point] = {}
    for point in sorted(scores, key=lambda point: scores[point].rank):
        splits = np.frombuffer(point.splits, np.int16).reshape(len(AXES), -1)
        distinct.setdefault((point.family, *splits.prod(axis=1).tolist()), point)
    ranked = list(distinct.values())
    firsts = ranked[:SETTLED]
    for family in {point.family for point in ranked}:
        members = [point for point in ranked if point.family == family]
        firsts += [point for point in members[: SETTLED // 4] if point not in firsts]
    return firsts


def _rounded(question: Question, descent: Descent) -> list[Point]:
    """Whole points near every snapshot, in every family."""
    space = question.space
    points: dict[Point, None] = {}
    for restart, frame in enumerate(descent.frames):
        for logs, values in zip(descent.logs[restart], descent.values[restart]):
            levels = tuple(
                int(np.abs(np.array(s.values) - value).argmin())
                for s, value in zip(space.settings, values)
            )
            for factor in round_plan(logs, space.frames[frame], space.rules, ROUNDED):
                for family in range(len(question.families)):
                    points[point_of(family, int(frame), factor, levels)] = None
    return list(points)


def _front(evaluator: Evaluator) -> Front:
    """The front of all points that were scored exactly."""
    front = Front(evaluator.question.fields)
    points = list(evaluator.known)
    logs = np.array([evaluator.known[point].logs for point in points])
    good = np.array([evaluator.known[point].feasible for point in points])
    front.add(logs, good, lambda row: points[row])
    return front
