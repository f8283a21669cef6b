"""The exhaustive sweep: every point exactly, keeping the best and the front."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jax import Array

from .evaluator import TOLERANCE, Point, Scored, point_of, scored_of
from .front import Front
from .question import Question, score_rows
from .space import every_placement, grid

CHUNK = 32_768


class Sweep(NamedTuple):
    """What a sweep found."""

    best: Point | None
    """The best feasible point, or the least infeasible one."""
    score: Scored | None
    points: int
    feasible: int
    front: Front


class _Chunk(NamedTuple):
    """Rows of one family and frame, and their scores once computed."""

    family: int
    frame: int
    table: np.ndarray
    rows: np.ndarray
    scores: tuple[Array, Array, Array, Array]


def exhaustive(question: Question) -> Sweep:
    """Score every point of the space."""
    best = score = None
    count = feasible = 0
    front = Front(question.fields)
    for chunk in _one_ahead(_chunks(question)):
        size = len(chunk.rows)
        scores = tuple(np.asarray(x)[:size] for x in chunk.scores)
        objective, violation, _, logs = scores
        good = violation <= TOLERANCE
        count, feasible = count + size, feasible + int(good.sum())
        if good.any():
            row = int(np.where(good, objective, np.inf).argmin())
        else:
            row = int(violation.argmin())
        scored = scored_of(scores, row)
        if score is None or scored.rank < score.rank:
            best, score = _point(question, chunk, row), scored
        front.add(logs, good, lambda k, chunk=chunk: _point(question, chunk, k))
    return Sweep(best, score, count, feasible, front)


def _chunks(question: Question) -> Iterator[_Chunk]:
    """Every point, in chunks of one size, so that each family is compiled once."""
    settings = question.space.settings
    combinations = grid(settings)
    names = tuple(setting.name for setting in settings)
    for frame, table in every_placement(question.space):
        total = len(table) * len(combinations)
        for family, kind in enumerate(question.families):
            for start in range(0, total, CHUNK):
                rows = np.arange(start, min(start + CHUNK, total))
                place, level = np.divmod(np.resize(rows, CHUNK), len(combinations))
                scores = score_rows(
                    question.inputs,
                    question.target,
                    table[place],
                    combinations[level],
                    kind,
                    question.fields,
                    names,
                )
                yield _Chunk(family, frame, table, rows, scores)


def _one_ahead(chunks: Iterator[_Chunk]) -> Iterator[_Chunk]:
    """The same chunks, each handed on only when the next one is being computed."""
    last = next(chunks, None)
    for chunk in chunks:
        if last is not None:
            yield last
        last = chunk
    if last is not None:
        yield last


def _point(question: Question, chunk: _Chunk, row: int) -> Point:
    shape = [len(setting.values) for setting in question.space.settings]
    place, level = divmod(int(chunk.rows[row]), int(np.prod(shape)))
    levels = tuple(int(i) for i in np.unravel_index(level, shape))
    return point_of(chunk.family, chunk.frame, chunk.table[place], levels)
