"""Error bars of the rows that a sweep keeps."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from ..answers.batch import evaluate
from ..answers.extrapolation import outside, widening
from ..answers.uncertainty import relative_sigma
from ..specs.build import Problem
from .plan import Plan

AT_ONCE = 64


def changes_of(plan: Plan, point: int) -> dict[str, object]:
    """Values of all keys at a point, as a scenario takes them."""
    return {
        key: axis.written(key, codes[0].item())
        for axis, index in plan.grid.split(np.array([point]))
        for key, codes in axis.codes(index).items()
    }


def problem_of(plan: Plan, point: int) -> Problem:
    """The job at a point, built as `predict` does."""
    return plan.jobs.problem(changes_of(plan, point), exact=True)


def sigmas_of(
    plan: Plan, points: Sequence[int], fields: Sequence[str]
) -> dict[str, np.ndarray]:
    """Relative one sigma of metrics at points; not a number where a metric has none.

    As `predict` has them, see `answers.spread`, in batches.
    """
    rows = list(_rows(plan, points, fields))
    return {field: np.array([row[i] for row in rows]) for i, field in enumerate(fields)}


def _rows(
    plan: Plan, points: Sequence[int], fields: Sequence[str]
) -> Iterator[list[float]]:
    for start in range(0, len(points), AT_ONCE):
        problems = [problem_of(plan, p) for p in points[start : start + AT_ONCE]]
        for problem, found in zip(problems, evaluate(problems, with_slopes=True)):
            factor = widening(outside(problem))
            assert found.slopes is not None
            row = []
            for field in fields:
                base = float(getattr(found.metrics, field))
                slopes = {
                    path: float(getattr(slope, field)) / base if base else 0.0
                    for path, slope in found.slopes.items()
                }
                known = math.isfinite(base) and all(map(math.isfinite, slopes.values()))
                row.append(
                    relative_sigma(problem, slopes, field, factor) if known else math.nan
                )
            yield row
