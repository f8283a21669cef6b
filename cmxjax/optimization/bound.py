"""A bound that holds for every layout: the best degrees on an ideal network.

Whatever a placement does, it only moves traffic between tiers. On a machine whose every
tier has the rates of all planes together and the least latency of any, placement no
longer matters, and no layout is slower than on the real one: times are monotone in
rates and latencies, and traffic that is split over planes takes at least as long as all
of it at their summed rate. So the exact optimum over degrees alone, which are few,
bounds the optimum over all placements.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..machine.machine import Machine
from .evaluator import TOLERANCE
from .question import Question, score_rows
from .space import degree_counts, grid
from .sweep import CHUNK

LARGEST = 10_000_000
"""Points of a bound that is computed without being asked for."""

FREE = 1e-9
"""Factor on costs that are to vanish; rates are divided by it."""


class Bound(NamedTuple):
    """No point of the space has a lower score."""

    score: float | None
    """None if even the ideal network meets no limits: then no layout does."""
    points: int


def ideal_network(machine: Machine) -> Machine:
    """The machine with tiers that are alike and at least as fast as any placement.

    Steps of rings and trees cost nothing, as their number depends on the placement;
    starts, waits and posting costs stay, which depend on the number of ranks alone. Where
    a library sends a token over the outer plane once and spreads it inside, the bytes
    depend on the placement too, so there links are free altogether.
    """
    tiers, library = machine.tiers, machine.library
    fabric = machine.fabric
    rate = sum((fabric.rate * mask).max() for mask in fabric.planes)
    once = machine.exchange.deduplicates
    if once is not None:
        rate = rate / once.pick(FREE, 1.0)
    every = jnp.ones_like(fabric.rate)
    return machine.replace(
        tiers=tiers.replace(
            bytes_per_s=rate * every,
            latency_s=tiers.latency_s.min() * every,
            efficiency=every,
            oversubscription=every,
        ),
        library=library.replace(
            step_s=library.step_s * FREE, protocol_s=library.protocol_s * FREE
        ),
    )


def degree_points(question: Question) -> int:
    """Points that the bound scores: degrees x settings x families."""
    levels = np.prod([len(setting.values) for setting in question.space.settings])
    rows = sum(len(degrees) for degrees in _degrees(question))
    return int(rows * levels) * len(question.families)


def _degrees(question: Question) -> list[np.ndarray]:
    rules = question.space.rules
    return [degree_counts(frame, rules)[0] for frame in question.space.frames]


def bound(question: Question) -> Bound:
    """The best score that any layout could have."""
    settings = question.space.settings
    combinations = grid(settings)
    names = tuple(setting.name for setting in settings)
    tiers = len(question.space.frames[0].units)
    machine, *rest = question.inputs
    inputs = (ideal_network(machine), *rest)
    best, points = np.inf, 0
    degrees = np.concatenate(_degrees(question))
    # on an ideal network it doesn't matter which tier holds a split
    table = np.ones((*degrees.shape, tiers), np.int32)
    table[:, :, 0] = degrees
    total = len(table) * len(combinations)
    for family in question.families:
        for start in range(0, total, CHUNK):
            rows = np.resize(np.arange(start, min(start + CHUNK, total)), CHUNK)
            place, level = np.divmod(rows, len(combinations))
            scores = score_rows(
                inputs,
                question.target,
                table[place],
                combinations[level],
                family,
                question.fields,
                names,
            )
            objective, violation, *_ = jax.device_get(scores)
            good = violation <= TOLERANCE
            best = min(best, float(np.where(good, objective, np.inf).min()))
        points += total
    return Bound(best if np.isfinite(best) else None, points)
