"""Gradient descent on degrees and their placement, relaxed, then rounded and refined.

Adam with annealed sharpness and penalties from many starts moves log-degree between
tiers (see `transport`) beside the batch or the micro-batch. What is no matter of degree,
such as a stage of ZeRO, is drawn for each start. Iterates are rounded to whole degrees
near them, whose placements and settings are searched exactly, by the bounds of the
search. The best few degrees are then left for better ones beside them, until none has
any.

Reference: Kingma & Ba, arXiv 1412.6980.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Float

from ..job.layout import AXES
from ..smooth import anneal
from .cells import Points, together
from .layouts import Layouts
from .price import FAST_COMPILE, Family, score
from .search import MOST_ROWS, Search
from .space import Rules
from .transport import faces, placement_of, rule_violations

RATE = 0.25
SHARPNESS = (2.0, 40.0)
PENALTY = (4.0, 16.0)
"""Weight of the logs by which limits are exceeded, from the first step to the last."""

STEPS, STARTS = 40, (16, 32)
"""Steps of a descent, and starts at least and at most: one for each set of axes used."""

SNAPSHOTS, ROUNDED = 4, 8
"""Times during a descent that the iterate is rounded, and whole degrees of each."""

KEPT, BESIDE = 4, 64
"""Degrees whose neighbors are looked at, and neighbors of each."""

MOVED = {
    "sequences_per_device": (0.125, 16384.0),
    "tokens_per_device": (256.0, 262144.0),
    "micro_batch": (1.0, 1024.0),
}
"""Ranges of the settings that move, by their logs."""


class Descended(NamedTuple):
    """What a descent found, minimized scores."""

    relaxed: float | None
    """Of the relaxed problem; no bound, as it isn't convex."""
    rounded: float | None
    """Of the best of the rounded degrees, exactly."""
    gradients: int
    placements: int
    """Of all degrees that were looked at."""


def descend_and_refine(search: Search, seed: int = 0) -> Descended:
    """Descend, round and refine; the best point is then the search's."""
    logs, values, excess, frames = descend(search, seed)
    beam, rounded = Beam(search), None
    beam.visit(
        row
        for start, frame in zip(logs.sum(axis=3), frames.tolist())
        for degrees in start
        for row in nearest(search.layouts, degrees, frame, ROUNDED)
    )
    if beam.tops is not None and np.isfinite(beam.tops.score[0]):
        rounded = float(beam.tops.score[0])
    while beam.visit(beam.neighbors()):
        pass
    if beam.tops is not None:
        search.look(beam.tops)
    good = excess <= 0.0
    return Descended(
        float(values[good].min()) if good.any() else None,
        rounded,
        len(frames) * STEPS,
        int(search.layouts.ways[list(beam.visited)].sum()),
    )


def nearest(
    layouts: Layouts, logs: Float[np.ndarray, " axis"], frame: int, count: int
) -> list[int]:
    """The rows of the whole degrees whose logs are nearest to some."""
    rows = np.flatnonzero(layouts.usable & (layouts.frame == frame))
    apart = ((np.log(layouts.degrees[rows]) - logs) ** 2).sum(axis=1)
    return rows[np.argsort(apart, kind="stable")[:count]].tolist()


class Beam(Search):
    """The search of all placements and settings of some degrees, the best few of which
    are kept."""

    def __init__(self, search: Search):
        super().__init__(search.job, search.layouts)
        self.bounds = search.bounds
        self.tops: Points | None = None
        """The best point of each of the best degrees, from the best on."""
        self.visited: set[int] = set()

    @property
    def score(self) -> float:
        """Degrees that aren't better than this are not kept."""
        tops = self.tops
        if tops is None or len(tops.score) < KEPT:
            return math.inf
        return float(tops.score[-1])

    def look(self, points: Points) -> None:
        """Keep the best point of each of the best degrees."""
        every = points if self.tops is None else together([self.tops, points])
        order = np.lexsort((every.excess, every.score))
        _, first = np.unique(every.at.row[order], return_index=True)
        if len(first):
            self.tops = every.take(order[np.sort(first)[:KEPT]])

    def visit(self, rows: Iterable[int]) -> bool:
        """Search the degrees of some rows; whether any of them was new."""
        fresh = sorted(set(rows) - self.visited)
        self.visited.update(fresh)
        if not fresh:
            return False
        for family in range(len(self.job.families)):
            cells = self._first(family, np.array(fresh))
            self._searched(self._priced(cells), MOST_ROWS)
        self.dropped.clear()
        return True

    def neighbors(self) -> Iterable[int]:
        """Degrees beside those that are kept."""
        for row in [] if self.tops is None else self.tops.at.row.tolist():
            logs = np.log(self.layouts.degrees[row])
            yield from nearest(self.layouts, logs, int(self.layouts.frame[row]), BESIDE)


def descend(search: Search, seed: int) -> tuple[np.ndarray, ...]:
    """Descend from random placements, faces and frames taken in turn.

    Returns:
        Log placement matrices, (start, snapshot, axis, tier); at the end the relaxed
        scores and the worst excess over a limit, (start,); and the frames, (start,).
    """
    job, rng, used = search.job, np.random.default_rng(seed), faces(search.job.rules)
    count = min(max(len(used), STARTS[0]), STARTS[1])
    turns = np.arange(count)
    frames = turns // len(used) % len(job.frames)
    if len(used) * len(job.frames) > count:
        frames = rng.permutation(turns) % len(job.frames)
    units = np.log([job.frames[frame].units for frame in frames])
    logits = rng.normal(0.0, 1.5, (count, len(AXES), units.shape[1]))
    names, objective = search.bounds.price.names, job.objective
    moving = next(i for i, name in enumerate(names) if name in MOVED)
    box = [float(x) for x in job.given.get(names[moving], MOVED[names[moving]])]
    drawn = np.zeros((count, len(names)))
    for i, setting in enumerate(search.bounds.settings):
        if i != moving:
            drawn[:, i] = rng.choice(setting.table[setting.counts.argmax()], count)
    if "chunks" in names:
        drawn[:, names.index("chunks")] = 1.0
    signs, bounds = np.where(np.isfinite(objective.bounds), objective[-2:], 0.0)
    logs, value, excess = _run(
        job.inputs,
        (objective.weights, signs, bounds),
        (units, used[turns % len(used)], drawn),
        (logits, rng.normal(0.0, 1.0, count)),
        (moving, *np.log([min(box), max(box)])),
        (anneal(*SHARPNESS, STEPS), anneal(*PENALTY, STEPS)),
        job.families[0]._replace(schedule="1f1b" if job.trains else ""),
        objective.fields,
        names,
        job.rules._replace(pinned=tuple(x for x in job.rules.pinned if x[1] > 1)),
    )
    return np.asarray(logs), np.asarray(value), np.asarray(excess), frames


def _descended(
    inputs: tuple,
    target: tuple,
    given: tuple,
    start: tuple,
    box: tuple,
    schedule: tuple,
    family: Family,
    fields: tuple[str, ...],
    names: tuple[str, ...],
    rules: Rules,
) -> tuple:
    """All starts; the loop over them is not unrolled into one wide program, which would
    take much longer to compile than these few rows take to run."""
    (weights, signs, bounds), (moving, low, high) = target, box

    def loss(variables: tuple, fixed: tuple, sharpness: Array, penalty: Array) -> tuple:
        (logits, place), (units, used, drawn) = variables, fixed
        logs = placement_of(logits, units, used)
        moved = jnp.exp(low + (high - low) * jax.nn.sigmoid(place))
        values = drawn.at[moving].set(moved)
        scored = score(inputs, family, fields, names, jnp.exp(logs), values, sharpness)
        over = signs * (scored.logs - bounds)
        extra = rule_violations(logs.sum(axis=1), rules)
        excess = jnp.concatenate([scored.excess, over, extra])
        value = jnp.dot(weights, scored.logs)
        punished = jax.nn.softplus(20.0 * excess).sum() / 20.0
        return value + penalty * punished, (logs, value, excess.max())

    optimizer = optax.adam(RATE)  # a step has one length, whatever the objective's scale

    def one(each: tuple) -> tuple:
        variables, fixed = each

        def step(carry: tuple, now: tuple) -> tuple:
            variables, state = carry
            slope, aux = jax.grad(loss, has_aux=True)(variables, fixed, *now)
            updates, state = optimizer.update(slope, state)
            return (optax.apply_updates(variables, updates), state), aux

        carry = variables, optimizer.init(variables)
        _, (logs, value, excess) = jax.lax.scan(step, carry, schedule)
        kept = np.linspace(0, STEPS - 1, SNAPSHOTS + 1)[1:].astype(int)
        return logs[kept], value[-1], excess[-1]

    return jax.lax.map(one, (start, given))


_run = jax.jit(
    _descended,
    static_argnames=("family", "fields", "names", "rules"),
    compiler_options=FAST_COMPILE,
)
