"""Random search and simulated annealing, what a search of large jobs must not lose to.

Points are those of the brute force and are priced as there.
"""

import math
from typing import NamedTuple

import numpy as np
from drafts import Task, moved, point_of, random_draft, sound_draft
from points import (
    MEASURED,
    Job,
    Point,
    Way,
    attempt,
    changes_of,
    feasible,
    footprints,
    inputs_of,
    price,
    ways,
)

import cmxjax as cmx

CHAINS = 64

TEMPERATURE = (0.3, 0.003)
"""In logs of the objective, from the first evaluation to the last."""

PENALTY = 5.0
"""Weight of the log by which memory or a limit is exceeded."""


class Scored(NamedTuple):
    """Of a point: what is minimized, in logs, and the objective if feasible."""

    energy: float
    value: float | None


class Ground:
    """A job's inputs by way, and its points priced so far."""

    def __init__(self, job: Job):
        self.job = job
        self.inputs: dict[Way, tuple | None] = {}
        whole = self.inputs_of(ways(job)[0])
        assert whole is not None
        sizes = [int(size) for size in np.asarray(whole[0].tiers.size)]
        self.task = Task(job, whole[1], footprints(job, sizes))
        self.scored: dict[str, Scored] = {}
        self.feasible: list[tuple[float, Point]] = []

    def inputs_of(self, way: Way) -> tuple | None:
        if way not in self.inputs:
            self.inputs[way] = inputs_of(self.job, way)
        return self.inputs[way]

    def best(self) -> tuple[float, Point] | None:
        """The best feasible point that is taken as a scenario."""
        sign = MEASURED[self.job.objective][1]
        for value, point in sorted(self.feasible, key=lambda x: -sign * x[0]):
            if attempt(self.job, changes_of(self.job, point)) is not None:
                return value, point
        return None

    def __call__(self, points: list[Point | None]) -> list[Scored]:
        """Scores in the order of the points; those that are none score infinite."""
        new = {repr(p): p for p in points if p is not None and repr(p) not in self.scored}
        for way in {point.way for point in new.values()}:
            mine = [point for point in new.values() if point.way == way]
            for start in range(0, len(mine), CHAINS):
                self._price(way, mine[start : start + CHAINS])
        none = Scored(math.inf, None)
        return [none if p is None else self.scored[repr(p)] for p in points]

    def _price(self, way: Way, points: list[Point]) -> None:
        inputs = self.inputs_of(way)
        if inputs is None:
            self.scored |= {repr(point): Scored(math.inf, None) for point in points}
            return
        factors = np.array([point.factor for point in points])
        names = points[0].numbers
        numbers = {k: np.array([p.numbers[k] for p in points]) for k in names}
        fields = price(inputs, factors, numbers, CHAINS)
        good, over = feasible(self.job, fields), excess(self.job, fields)
        field, sign = MEASURED[self.job.objective]
        for i, point in enumerate(points):
            value = float(fields[field][i])
            energy = -sign * math.log(value) + PENALTY * float(over[i])
            self.scored[repr(point)] = Scored(energy, value if good[i] else None)
            if good[i]:
                self.feasible.append((value, point))


def excess(job: Job, fields: dict[str, np.ndarray]) -> np.ndarray:
    """Logs of what is used over what is allowed, memory and limits; 0 where all holds."""
    memory, beyond = fields["memory_bytes"], fields["memory_excess_bytes"]
    over = [np.log(memory / (memory - beyond))]
    for text in job.limits:
        limit = cmx.parse_limit(text)
        field, sign = MEASURED[limit.quantity]
        over.append(np.maximum(-sign * np.log(fields[field] / limit.value), 0.0))
    return np.max(over, axis=0)


def random_search(job: Job, evaluations: int, seed: int) -> tuple[float, Point] | None:
    """The best of so many random points, with its value in SI."""
    ground, rng = Ground(job), np.random.default_rng(seed)
    stalled = 0
    while len(ground.scored) < evaluations and stalled < 50:
        before = len(ground.scored)
        ground(
            [
                point_of(ground.task, random_draft(ground.task, rng))
                for _ in range(4 * CHAINS)
            ]
        )
        stalled = 0 if len(ground.scored) > before else stalled + 1
    return ground.best()


def simulated_annealing(
    job: Job, evaluations: int, seed: int
) -> tuple[float, Point] | None:
    """Metropolis chains side by side; the best point with its value in SI."""
    ground, rng = Ground(job), np.random.default_rng(seed)
    drafts = [sound_draft(ground.task, rng) for _ in range(CHAINS)]
    scores = ground([point_of(ground.task, draft) for draft in drafts])
    stalled = 0
    while len(ground.scored) < evaluations and stalled < 200:
        before = len(ground.scored)
        done = before / evaluations
        temperature = TEMPERATURE[0] * (TEMPERATURE[1] / TEMPERATURE[0]) ** done
        trials = [moved(draft, ground.task, rng) for draft in drafts]
        for i, score in enumerate(
            ground([point_of(ground.task, draft) for draft in trials])
        ):
            rise = score.energy - scores[i].energy
            if rise <= 0.0 or rng.random() < math.exp(-rise / temperature):
                drafts[i] = trials[i]
                scores[i] = score
        stalled = 0 if len(ground.scored) > before else stalled + 1
    return ground.best()
