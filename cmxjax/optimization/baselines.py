"""What a search must not lose to: random points and simulated annealing."""

import math

import numpy as np

from .evaluator import Evaluator, Point, Scored, factor_of, point_of
from .moves import neighbors
from .question import Question
from .sample import random_placements

CHAINS = 32
TEMPERATURE = (0.3, 0.003)
"""In logs of the objective, from the first evaluation to the last."""

PENALTY = 5.0
"""Weight of the log by which a limit is exceeded."""

STALLED = 50
"""Rounds without a new point after which a space counts as exhausted."""


def _random_points(
    question: Question, count: int, rng: np.random.Generator
) -> list[Point]:
    space = question.space
    frame = int(rng.integers(len(space.frames)))
    drawn = random_placements(space.frames[frame], space.rules, count, rng)
    return [
        point_of(
            int(rng.integers(len(question.families))),
            frame,
            factor,
            tuple(int(rng.integers(len(setting.values))) for setting in space.settings),
        )
        for factor in drawn
    ]


def random_search(question: Question, evaluations: int, seed: int) -> Scored | None:
    """The best of so many random points."""
    evaluator, rng, stalled = Evaluator(question), np.random.default_rng(seed), 0
    while evaluator.count < evaluations and stalled < STALLED:
        before = evaluator.count
        points = _random_points(question, min(256, evaluations - before), rng)
        evaluator(points)
        stalled = 0 if evaluator.count > before else stalled + 1
    best = evaluator.best()
    return None if best is None else best[1]


def _energy(score: Scored) -> float:
    return score.objective + PENALTY * max(score.violation, 0.0)


def simulated_annealing(question: Question, evaluations: int, seed: int) -> Scored | None:
    """Metropolis chains side by side, over the moves that the search itself uses."""
    evaluator, rng = Evaluator(question), np.random.default_rng(seed)
    chains = _random_points(question, CHAINS, rng)
    evaluator(chains)
    stalled = 0
    while chains and evaluator.count < evaluations and stalled < STALLED:
        before = evaluator.count
        done = before / evaluations
        temperature = TEMPERATURE[0] * (TEMPERATURE[1] / TEMPERATURE[0]) ** done
        trials = [_moved(evaluator, point, rng) for point in chains]
        for i, score in enumerate(evaluator(trials)):
            rise = _energy(score) - _energy(evaluator.known[chains[i]])
            if rise <= 0.0 or rng.random() < math.exp(-rise / temperature):
                chains[i] = trials[i]
        stalled = 0 if evaluator.count > before else stalled + 1
    best = evaluator.best()
    return None if best is None else best[1]


def _moved(evaluator: Evaluator, point: Point, rng: np.random.Generator) -> Point:
    question, kind = evaluator.question, rng.random()
    if kind < 0.5:
        near = neighbors(factor_of(point, evaluator.tiers), question.space.rules)
        if near:
            factor = near[int(rng.integers(len(near)))]
            return point_of(point.family, point.frame, factor, point.levels)
    if kind > 0.95:
        return point._replace(family=int(rng.integers(len(question.families))))
    k = int(rng.integers(len(point.levels)))
    size = len(question.space.settings[k].values)
    step = int(np.round(rng.normal(0.0, max(1.0, size / 12))))
    level = int(np.clip(point.levels[k] + step, 0, size - 1))
    return point._replace(levels=(*point.levels[:k], level, *point.levels[k + 1 :]))
