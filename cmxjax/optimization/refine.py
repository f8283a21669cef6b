"""Exact local search around whole points: settings first, then neighboring placements."""

import numpy as np

from .evaluator import Evaluator, Point, Scored, factor_of, point_of
from .moves import neighbors

PROMISING = 0.25
"""Log by which a neighbor may be worse, or exceed a limit, before its settings are
adjusted too."""

SCANNED = 16
"""Values of the first setting on either side of the best that are tried at the end."""


def settle(evaluator: Evaluator, points: list[Point], reach: int) -> list[Point]:
    """Adjust the settings of each point by a pattern search, all points in step.

    Each setting is moved up and down by `reach` of its values; where nothing improves
    the reach is halved, down to neighboring values.
    """
    shape = [len(s.values) for s in evaluator.question.space.settings]
    current = list(points)
    reaches = [max(1, reach)] * len(current)
    while any(reaches):
        trials = [
            _around(point, step, shape) if step else []
            for point, step in zip(current, reaches)
        ]
        evaluator([*current, *(p for some in trials for p in some)])
        for i, some in enumerate(trials):
            if not reaches[i]:
                continue
            best = min([current[i], *some], key=lambda p: evaluator.known[p].rank)
            if best == current[i]:
                reaches[i] //= 2
            current[i] = best
    return current


def _around(point: Point, step: int, shape: list[int]) -> list[Point]:
    points = []
    for k, size in enumerate(shape):
        for move in (-step, step) if size > 2 else (-1, 1):
            level = int(np.clip(point.levels[k] + move, 0, size - 1))
            levels = (*point.levels[:k], level, *point.levels[k + 1 :])
            if levels != point.levels:
                points.append(point._replace(levels=levels))
    return points


def refine(evaluator: Evaluator, starts: list[Point], budget: int) -> None:
    """Climb from each start in turn until `budget` exact evaluations are spent in all.

    A climb goes on from the best neighbor as long as that is better. Climbs share what
    they found: one that meets a placement already left ends there.
    """
    best: dict[tuple, Point] = {}
    _keep(evaluator, best, starts)
    expanded: set[tuple] = set()
    for start in starts:
        place: tuple | None = _placement(start)
        while place is not None and place not in expanded:
            if evaluator.count >= budget:
                break
            expanded.add(place)
            place = _expand(evaluator, best, place)
    _scan(evaluator)


def _expand(evaluator: Evaluator, best: dict[tuple, Point], place: tuple) -> tuple | None:
    """Look at all neighbors of a placement; the best one if it is better."""
    question, point = evaluator.question, best[place]
    factor = factor_of(point, evaluator.tiers)
    near = [
        point_of(point.family, point.frame, other, point.levels)
        for other in neighbors(factor, question.space.rules)
    ]
    new = [other for other in near if _placement(other) not in best]
    scores = evaluator(new)
    here = evaluator.known[point]
    promising = [p for p, score in zip(new, scores) if _close(score, here)]
    longest = max(len(s.values) for s in question.space.settings)
    _keep(evaluator, best, new)
    _keep(evaluator, best, settle(evaluator, promising, longest // 24))
    ranks = {_placement(p): evaluator.known[best[_placement(p)]].rank for p in near}
    lowest = min(ranks, key=lambda key: ranks[key], default=None)
    return lowest if lowest is not None and ranks[lowest] < here.rank else None


def _placement(point: Point) -> tuple:
    return point[:3]


def _keep(evaluator: Evaluator, best: dict[tuple, Point], points: list[Point]) -> None:
    """Remember the best settings of each placement."""
    known = evaluator.known
    for point in points:
        key = _placement(point)
        if key not in best or known[point].rank < known[best[key]].rank:
            best[key] = point


def _close(score: Scored, reference: Scored) -> bool:
    if not score.feasible:
        return score.violation <= max(0.0, reference.violation) + PROMISING
    return not reference.feasible or score.objective <= reference.objective + PROMISING


def _scan(evaluator: Evaluator) -> None:
    """Try the values of the first setting around the best point one by one.

    Whole tiles make throughput jump with the batch, which a pattern search can miss.
    """
    best = evaluator.best()
    if best is None:
        return
    point, size = best[0], len(evaluator.question.space.settings[0].values)
    middle = point.levels[0]
    near = range(max(0, middle - SCANNED), min(size, middle + SCANNED + 1))
    evaluator([point._replace(levels=(level, *point.levels[1:])) for level in near])
