"""Exact scores of whole points, remembered and counted."""

import math
from typing import NamedTuple

import numpy as np

from ..job.layout import AXES
from .question import Question, score_few

ROWS = 128
"""Points of one call; calls are padded to it, so that there is one program a family."""

TOLERANCE = 1e-9
"""Log of an excess that still counts as none: rounding of the sums, nothing more."""


class Point(NamedTuple):
    """A whole point: which family and frame, splits as bytes, index of each setting."""

    family: int
    frame: int
    splits: bytes
    levels: tuple[int, ...]


class Scored(NamedTuple):
    """An exact score."""

    objective: float
    violation: float
    """Worst log of what is used over what is allowed; at most 0 where it fits."""
    worst: int
    """Which of the violations of a score it is."""
    logs: tuple[float, ...]

    @property
    def feasible(self) -> bool:
        return self.violation <= TOLERANCE

    @property
    def rank(self) -> tuple[float, float]:
        """Feasible points first, by objective; the others by how far off they are."""
        if self.feasible:
            return (0.0, self.objective)
        return (self.violation, self.objective)


def gap(score: Scored, best: float) -> float:
    """How far a score is above the best objective or its bound, as a share of it.

    The same point scored in programs of other widths differs in the last digits: no gap.
    """
    beyond = score.objective - best
    return 0.0 if abs(beyond) <= TOLERANCE else math.expm1(beyond)


def scored_of(scores: tuple, row: int) -> Scored:
    """The score of one row of what `score_rows` finds."""
    objective, violation, worst, logs = (part[row] for part in scores)
    return Scored(float(objective), float(violation), int(worst), tuple(logs.tolist()))


def point_of(
    family: int, frame: int, factor: np.ndarray, levels: tuple[int, ...]
) -> Point:
    """A point from its placement matrix."""
    return Point(family, frame, factor.astype(np.int16).tobytes(), levels)


def factor_of(point: Point, tiers: int) -> np.ndarray:
    """Placement matrix of a point, (axis, tier)."""
    return np.frombuffer(point.splits, np.int16).reshape(-1, tiers)


class Evaluator:
    """Scores points of a question; what was scored once costs nothing again."""

    def __init__(self, question: Question):
        self.question = question
        self.tiers = len(question.space.frames[0].units)
        self.known: dict[Point, Scored] = {}
        self.calls = 0

    @property
    def count(self) -> int:
        """Exact evaluations so far."""
        return len(self.known)

    def __call__(self, points: list[Point]) -> list[Scored]:
        """Scores in the order of the points."""
        new = list(dict.fromkeys(point for point in points if point not in self.known))
        for family in sorted({point.family for point in new}):
            mine = [point for point in new if point.family == family]
            for start in range(0, len(mine), ROWS):
                self._score(family, mine[start : start + ROWS])
        return [self.known[point] for point in points]

    def prepare(self, family: int) -> None:
        """Compile a family's program, so that it may happen beside other work."""
        splits = np.ones((len(AXES), self.tiers), np.int16).tobytes()
        point = Point(family, 0, splits, (0,) * len(self.question.space.settings))
        self._run(family, [point])

    def _score(self, family: int, points: list[Point]) -> None:
        scores = tuple(map(np.asarray, self._run(family, points)))
        for row, point in enumerate(points):
            self.known[point] = scored_of(scores, row)

    def _run(self, family: int, points: list[Point]) -> tuple:
        question, padded = self.question, points + points[-1:] * (ROWS - len(points))
        settings = question.space.settings
        factors = np.stack([factor_of(point, self.tiers) for point in padded])
        values = np.array(
            [[s.values[i] for s, i in zip(settings, point.levels)] for point in padded]
        )
        return score_few(
            question.inputs,
            question.target,
            factors,
            values,
            question.families[family],
            question.fields,
            tuple(setting.name for setting in settings),
        )

    def best(self) -> tuple[Point, Scored] | None:
        """The best point scored so far, feasible or not."""
        if not self.known:
            return None
        return min(self.known.items(), key=lambda item: item[1].rank)
