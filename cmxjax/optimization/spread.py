"""Error bars of the points that a search found.

Its own program prices them again with each uncertain leaf of the machine moved, all
points in one call: nothing is compiled for it.
"""

import math

from ..answers.extrapolation import outside, widening
from ..answers.spread import slopes_of, widths
from ..specs.build import build
from ..specs.scenario import validate_scenario
from ..specs.scenario_write import raw_scenario
from .cells import Bounds, Points, together
from .changes import changes_of
from .price import Pricer, Scores


def sigmas_of(bounds: Bounds, points: list[Points]) -> list[dict[str, float]]:
    """Relative one sigma of the fields of a search, for each of some points.

    Args:
        points: each a single row.
    """
    if not points:
        return []
    job, every = bounds.job, together(points)
    fields = job.objective.fields
    names = [(i, field) for i in range(len(points)) for field in fields]

    def run(*inputs) -> Scores:
        price = Pricer(inputs, fields, bounds.price.names)
        return bounds.scored(every.at, price=price)

    def numbers(scores: Scores) -> dict[str, float]:
        values = (math.exp(x) for x in scores.logs.ravel())
        return dict(zip(map(str, names), values, strict=True))

    base = numbers(run(*job.inputs))
    slopes = slopes_of(job.problem, base, run, numbers)
    found = []
    for i, point in enumerate(points):
        raw = raw_scenario(job.problem.scenario, changes_of(bounds, point))
        problem = build(validate_scenario(raw, "the answer"), job.problem.calibration)
        factor = widening(outside(problem))
        own = {field: slopes.get(str((i, field)), {}) for field in fields}
        found.append(widths(problem, own, fields, factor))
    return found
