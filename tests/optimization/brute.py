"""Every whole layout of a small job, priced one by one: what a search is judged by.

Plain loops over everything that a user would call free, with no bound, no order and no
cleverness, and nothing of the search's own code.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from points import (
    AXES,
    MEASURED,
    ROUTING,
    ROWS,
    SIZES,
    Columns,
    Job,
    Point,
    Way,
    attempt,
    changes_of,
    chunk_counts,
    divisors,
    feasible,
    footprints,
    inputs_of,
    micro_batches,
    price,
    recomputed,
    slots,
    ways,
)

LADDER = np.unique(np.round(2.0 ** np.arange(0.0, 24.0, 0.125)))
"""Requests of a group that are tried first, to see how many memory holds."""


class Best(NamedTuple):
    """The best point; None where none is feasible."""

    point: Point | None
    value: float
    """In SI."""
    points: int
    """That were priced."""


def fits_way(way: Way, degrees: Mapping[str, int], trains: bool) -> bool:
    """Whether degrees go with a way, so that no layout is priced twice.

    Whole heads are of groups of one device, and without a group nothing is split along
    the sequence. A single stage has no schedule.
    """
    if way.attention == "dp":
        return degrees["tp"] == 1
    if trains and degrees["pp"] == 1 and way.schedule != "1f1b":
        return False
    return degrees["tp"] > 1 or (trains and not way.sequence_parallel)


def tier_ways(units: int, experts: bool) -> list[tuple[int, ...]]:
    """Ways to split a tier among the axes; attention and experts fold the same units."""
    found = []
    for tp, cp, pp in itertools.product(divisors(units), repeat=3):
        if units % (tp * cp * pp):
            continue
        inside = units // pp
        for etp, ep in itertools.product(divisors(inside), repeat=2):
            if inside % (etp * ep) == 0 and (experts or etp * ep == 1):
                dp, edp = inside // (tp * cp), inside // (etp * ep)
                found.append((tp, cp, dp, pp, etp, ep, edp))
    return found


def placements(job: Job, sizes: list[int], experts: bool) -> Iterator[np.ndarray]:
    """Splits of the axes within the tiers, (axis, tier), with the pinned degrees."""
    for units in footprints(job, sizes):
        for rows in itertools.product(*(tier_ways(u, experts) for u in units)):
            factor = np.array(rows).T
            degrees = dict(zip(AXES, factor.prod(axis=1)))
            if all(degrees[axis] == given for axis, given in job.pinned.items()):
                yield factor


def training_numbers(job: Job, way: Way, layers: int, degrees: dict) -> Columns | None:
    """Every micro-batch, stage of ZeRO, recomputation and number of chunks."""
    micro = micro_batches(job, way, degrees)
    zero = (1, 2, 3) if way.shards else (0,)
    chunks = chunk_counts(way, degrees["pp"], layers)
    every = itertools.product(micro, zero, chunks, recomputed(layers))
    rows = np.array([(b, z, v, *again) for b, z, v, again in every], float)
    if not len(rows):
        return None
    names = ("micro_batch", "zero", "chunks", "recompute_fraction", "selective")
    return dict(zip(names, rows.T))


class Case(NamedTuple):
    """A placement of a serving job and how its expert slots are used."""

    factor: np.ndarray
    unit: float
    """What one request of a group is for each of its devices."""
    pair: tuple[int, int]

    @property
    def key(self) -> tuple:
        return (*self.factor.prod(axis=1).tolist(), *self.pair)

    def columns(self, job: Job, counts: np.ndarray) -> Columns:
        """So many requests of each group."""
        experts = (np.full(len(counts), float(x)) for x in self.pair)
        return {SIZES[job.phase]: counts * self.unit, **dict(zip(ROUTING, experts))}


def cases_of(job: Job, way: Way, model, factors: list[np.ndarray]) -> Iterator[Case]:
    work = job.scenario["workload"]
    tokens = work["prompt_tokens"] if job.phase == "prefill" else 1
    for factor in factors:
        tp, cp, *_, ep, _ = factor.prod(axis=1).tolist()
        for pair in slots(job, model, way, ep):
            yield Case(factor, tokens / (tp * cp), pair)


def requests_held(job: Job, inputs: tuple, cases: list[Case]) -> list[int]:
    """At least as many requests as a group has memory for."""
    steps = [(case.factor, case.columns(job, LADDER)) for case in cases]
    excess = [price(inputs, *piece)["memory_excess_bytes"] for piece in pieces(steps)]
    fits = np.concatenate([*excess, []]).reshape(len(cases), len(LADDER)) <= 0.0
    last = len(LADDER) - 1
    tops = (np.flatnonzero(row) for row in fits)
    return [int(LADDER[min(top[-1] + 1, last)]) if len(top) else 0 for top in tops]


def serving_blocks(
    job: Job, way: Way, inputs: tuple, factors: list[np.ndarray]
) -> Iterator[tuple[np.ndarray, Columns]]:
    """Every whole number of requests of a group that memory holds, for each number of
    expert slots. How many it holds is the degrees', wherever they are placed."""
    cases = list(cases_of(job, way, inputs[1], factors))
    firsts = {case.key: case for case in reversed(cases)}
    held = dict(zip(firsts, requests_held(job, inputs, list(firsts.values()))))
    for case in cases:
        if count := held[case.key]:
            yield case.factor, case.columns(job, np.arange(1.0, count + 1.0))


def first_numbers(job: Job, way: Way, model, degrees: dict) -> dict[str, float] | None:
    """Settings that go with degrees if any do."""
    if job.phase == "train":
        names = ("micro_batch", "zero", "chunks", "recompute_fraction", "selective")
        return dict(zip(names, (1.0, float(way.shards), 1.0, 0.0, 0.0)))
    tokens = job.scenario["workload"].get("prompt_tokens", 1)
    for redundant, shared in slots(job, model, way, degrees["ep"])[:1]:
        experts = {"redundant_experts": redundant, "shared_replicas": shared}
        return {SIZES[job.phase]: tokens, **experts}
    return None


def accepted(job: Job, way: Way, model, degrees: dict) -> bool:
    """Whether a scenario with these degrees is taken."""
    numbers = first_numbers(job, way._replace(schedule="1f1b"), model, degrees)
    if numbers is None:
        return False
    factor = tuple((degrees[axis],) for axis in AXES)
    changes = changes_of(job, Point(way._replace(schedule="1f1b"), factor, numbers))
    del changes["layout"]["placement"]
    return attempt(job, changes) is not None


def blocks(
    job: Job, way: Way, inputs: tuple, taken: dict
) -> Iterator[tuple[np.ndarray, Columns]]:
    """All points of a way: a placement, and every setting that goes with it.

    Args:
        taken: which degrees a scenario may have, as far as is known; filled in here.
    """
    machine, model = inputs[:2]
    sizes = [int(size) for size in np.asarray(machine.tiers.size)]
    trains, allowed = job.phase == "train", []
    for factor in placements(job, sizes, model.experts is not None):
        degrees = dict(zip(AXES, factor.prod(axis=1).tolist()))
        if not fits_way(way, degrees, trains):
            continue
        key = (way.attention, way.apart, *degrees.values())
        if key not in taken:
            taken[key] = accepted(job, way, model, degrees)
        if not taken[key]:
            continue
        allowed.append(factor)
        if trains:
            numbers = training_numbers(job, way, int(model.layers), degrees)
            if numbers is not None:
                yield factor, numbers
    if not trains:
        yield from serving_blocks(job, way, inputs, allowed)


def pieces(
    every: Iterable[tuple[np.ndarray, Columns]],
) -> Iterator[tuple[np.ndarray, Columns]]:
    """The same points, `ROWS` at a time."""
    waiting: list[tuple[np.ndarray, Columns]] = []

    def joined() -> Iterator[tuple[np.ndarray, Columns]]:
        factors = np.concatenate(
            [np.repeat(f[None], len(next(iter(n.values()))), axis=0) for f, n in waiting]
        )
        names = waiting[0][1]
        numbers = {k: np.concatenate([n[k] for _, n in waiting]) for k in names}
        for i in range(0, len(factors), ROWS):
            yield factors[i : i + ROWS], {k: x[i : i + ROWS] for k, x in numbers.items()}

    count = 0
    for block in every:
        waiting.append(block)
        count += len(next(iter(block[1].values())))
        if count >= 64 * ROWS:
            yield from joined()
            waiting, count = [], 0
    if waiting:
        yield from joined()


def enumerated(job: Job) -> Best:
    """The best of all points of a job."""
    field, sign = MEASURED[job.objective]
    best, value, points = None, -math.inf, 0
    taken: dict[tuple, bool] = {}
    for way in ways(job):
        inputs = inputs_of(job, way)
        if inputs is None:
            continue
        for factors, numbers in pieces(blocks(job, way, inputs, taken)):
            fields = price(inputs, factors, numbers)
            points += len(factors)
            scores = np.where(feasible(job, fields), sign * fields[field], -math.inf)
            i = int(scores.argmax())
            if scores[i] > value:
                value = float(scores[i])
                rows = tuple(tuple(row) for row in factors[i].tolist())
                chosen = {name: float(x[i]) for name, x in numbers.items()}
                best = Point(way, rows, chosen)
    return Best(best, sign * value, points)
