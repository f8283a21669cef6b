"""Gradient descent on degrees and their placement, relaxed, then rounded and refined.

Adam with annealed sharpness and penalties from many starts moves log-degree between
tiers (see `transport`) beside the batch or the micro-batch and the share of layers that
run again. What is no matter of degree, such as a stage of ZeRO, is drawn for each start.
Iterates are rounded to whole placements near them, on which all settings are searched
exactly, by the bounds of the search: what a start rounds to is compared by what it can do
and not by settings drawn. The best starts then go to better placements a move away, side
by side, as long as there are some.

Reference: Kingma & Ba, arXiv 1412.6980.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from ..job.layout import AXES
from ..smooth import anneal
from .cells import Cells, Points, together
from .neighbors import neighbors
from .price import FAST_COMPILE, Family, score
from .rounding import rounded_placements
from .search import CLOSE, Search
from .space import Rules
from .transport import Margins, faces, margins_of, placement_of, rule_violations

RATE = 0.25
SHARPNESS = (2.0, 40.0)
PENALTY = (4.0, 16.0)
"""Weight of the logs by which limits are exceeded, from the first step to the last."""

STEPS, STARTS = 40, (16, 32)
"""Steps of a descent, and starts at least and at most: one for each set of axes used."""

SNAPSHOTS, ROUNDED = 4, 8
"""Times during a descent that the iterate is rounded, and whole placements of each."""

CLIMBS = 8
"""Starts whose best placement is left for better ones next to it."""

NONE = 1e6
"""Stands before the excess in place of a score where none can run."""

BOXES = {
    "sequences_per_device": (0.125, 16384.0),
    "tokens_per_device": (256.0, 262144.0),
    "micro_batch": (1.0, 1024.0),
}
"""Ranges of settings that move by their logs."""


class Descent(NamedTuple):
    """Iterates of every start at each snapshot."""

    logs: np.ndarray
    """Log placement matrices, (start, snapshot, axis, tier)."""
    values: np.ndarray
    """Settings, (start, snapshot, setting)."""
    scores: np.ndarray
    """Relaxed minimized scores, (start, snapshot)."""
    excess: np.ndarray
    """Worst relaxed excess over a limit, (start, snapshot)."""
    frames: np.ndarray
    """Frame of each start."""

    @property
    def relaxed(self) -> float | None:
        """The best score at the end of a start that meets the limits."""
        good = self.excess[:, -1] <= 0.0
        return float(self.scores[good, -1].min()) if good.any() else None

    @property
    def gradients(self) -> int:
        return len(self.frames) * STEPS


class Descended(NamedTuple):
    """What a descent found."""

    relaxed: float | None
    """Of the relaxed problem; no bound, as it isn't convex."""
    rounded: float | None
    """The best exact score right after rounding."""
    gradients: int
    placements: int
    """That were looked at."""


def descend_and_refine(search: Search, seed: int = 0) -> Descended:
    """Descend, round and refine; the best point is then the search's."""
    descent = descend(search, seed)
    found, starts = _rounded(search, descent)
    if found is None:
        return Descended(descent.relaxed, None, descent.gradients, 0)
    good = np.isfinite(found.score)
    rounded = float(found.score[good].min()) if good.any() else None
    climbs = Climbs(search, len(descent.frames))
    climbs.step(found.row, found.factor, starts)
    climbs.keep(CLIMBS)
    while any(climbs.moves):
        climbs.step(*climbs.neighbors())
    tops = [top for top in climbs.tops if top is not None]
    if tops:
        search.look(together(tops))
    placements = len(climbs.tried)
    return Descended(descent.relaxed, rounded, descent.gradients, placements)


class Climbs(Search):
    """Several searches side by side, each from a start of its own to better placements.

    Placements that one has looked at are left out of all others.
    """

    def __init__(self, search: Search, count: int):
        super().__init__(search.job, search.layouts)
        self.bounds = search.bounds
        self.tops: list[Points | None] = [None] * count
        self.moves = [True] * count
        """Whether a climb went on in its last step."""
        self.values = np.full(count, math.inf)
        """Scores of the tops."""
        self.tried: set[int] = set()
        shape = len(AXES), search.job.tiers
        self.hashes = np.random.default_rng(0).integers(1, 2**62, shape)
        self.keys, self.climb = np.zeros(0, np.int64), np.zeros(0, int)

    def key(self, rows: np.ndarray, factors: np.ndarray) -> np.ndarray:
        """A number for each placement."""
        return (factors.astype(np.int64) * self.hashes).sum(axis=(1, 2)) + rows

    def step(self, rows: np.ndarray, factors: np.ndarray, climbs: np.ndarray) -> None:
        """Search all settings of some placements for the climbs that they belong to."""
        before = self.values.copy()
        keys, first = np.unique(self.key(rows, factors), return_index=True)
        fresh = np.array([key not in self.tried for key in keys.tolist()], bool)
        self.tried.update(keys.tolist())
        first = first[fresh]
        self.keys, self.climb = keys[fresh], climbs[first]
        if len(first):
            for family in range(len(self.job.families)):
                self.refined(rows[first], factors[first], family)
        self.dropped.clear()
        self.moves = (self.values < before - CLOSE).tolist()

    def keep(self, count: int) -> None:
        """Go on with the best climbs only."""
        best = np.argsort(self.values, kind="stable")[:count].tolist()
        self.moves = [i in best for i in range(len(self.tops))]

    def neighbors(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Placements one move away from where climbs went on, with their climbs."""
        factors, frames, climbs = [], [], []
        for i, top in enumerate(self.tops):
            if self.moves[i] and top is not None:
                near = neighbors(top.factor[0].astype(np.int64), self.job.rules)
                factors += near
                frames += [int(self.layouts.frame[top.row[0]])] * len(near)
                climbs += [i] * len(near)
        rows, known = _rows_of(self, factors, frames)
        shape = -1, len(AXES), self.job.tiers
        placed = np.array(factors, np.int64).reshape(shape)
        return rows, placed[known], np.array(climbs, int)[known]

    def look(self, points: Points) -> None:
        """Keep the best point of each climb."""
        at = np.searchsorted(self.keys, self.key(points.row, points.factor))
        climbs = self.climb[at]
        finite = np.isfinite(points.score)
        value = np.where(finite, points.score, NONE + points.excess)
        for i in np.unique(climbs):
            mine = np.flatnonzero(climbs == i)
            best = mine[value[mine].argmin()]
            if value[best] < self.values[i]:
                self.values[i] = value[best]
                self.tops[i] = points.take(np.array([best]))

    def _worse(self, cells: Cells) -> np.ndarray:
        factors = self.bounds.factors(cells.row, cells.place)
        at = np.searchsorted(self.keys, self.key(cells.row, factors))
        values = self.values[self.climb[at]]
        return np.where(values < NONE / 2.0, values - CLOSE, math.inf)


def _rows_of(
    search: Search, factors: list[np.ndarray], frames: list[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the degrees of some placements, and which of them are known."""
    index, rows, known = search.layouts.index, [], []
    for i, (factor, frame) in enumerate(zip(factors, frames)):
        degrees = tuple(factor.astype(np.int64).prod(axis=1).tolist())
        row = index.get((frame, *degrees))
        if row is not None:
            rows.append(row)
            known.append(i)
    return np.array(rows, int), np.array(known, int)


def _rounded(search: Search, descent: Descent) -> tuple[Points | None, np.ndarray]:
    """Whole points near every snapshot with their exact scores, and their starts."""
    job, factors, frames, values, starts = search.job, [], [], [], []
    for start, frame in enumerate(descent.frames):
        for logs, chosen in zip(descent.logs[start], descent.values[start]):
            near = rounded_placements(logs, job.frames[frame], job.rules, ROUNDED)
            factors += near
            frames += [int(frame)] * len(near)
            values += [chosen] * len(near)
            starts += [start] * len(near)
    rows, known = _rows_of(search, factors, frames)
    if not len(rows):
        return None, known
    index = search.bounds.nearest(rows, np.array(values)[known])
    forms, family = np.full(len(rows), job.first_form), np.zeros(len(rows), int)
    placed = np.array(factors, np.int64)[known]
    points = search.bounds.exact(rows, placed, family, index, forms)
    search.look(points.take(search.bounds.runs(rows, index, forms)))
    return points, np.array(starts)[known]


def descend(search: Search, seed: int) -> Descent:
    """Descend from random placements, faces and frames taken in turn."""
    job, layouts = search.job, search.layouts
    rng = np.random.default_rng(seed)
    used = faces(job.rules)
    count = min(max(len(used), STARTS[0]), STARTS[1])
    turns = np.arange(count)
    frames = turns // len(used) % len(job.frames)
    if len(used) * len(job.frames) > count:
        frames = rng.permutation(turns) % len(job.frames)
    each = [
        margins_of(job.frames[k], job.rules, used[i % len(used)])
        for i, k in enumerate(frames)
    ]
    margins = Margins(*(np.stack(field) for field in zip(*each)))
    logits = rng.normal(0.0, 1.5, (count, len(AXES), job.tiers))
    low, high, fixed = _boxes(search, layouts, count, rng)
    names = search.bounds.price.names
    places = rng.normal(0.0, 1.0, (count, len(names)))
    objective = job.objective
    bounds = np.where(np.isinf(objective.bounds), 1e3, objective.bounds)
    signs = np.where(np.isinf(objective.bounds), 1.0, objective.signs)
    snapshots = _run(
        job.inputs,
        (objective.weights, signs, bounds),
        margins,
        (logits, places),
        (low, high, fixed),
        anneal(*SHARPNESS, STEPS),
        anneal(*PENALTY, STEPS),
        job.families[0]._replace(schedule="1f1b" if job.trains else ""),
        objective.fields,
        names,
        job.rules._replace(pinned=()),
        any(degree > 1 for _, degree in job.rules.pinned),
    )
    logs, values, scores, excess = map(np.asarray, snapshots)
    return Descent(logs, values, scores, excess, frames)


def _boxes(search: Search, layouts, count: int, rng) -> tuple:
    """Ends of what moves, and drawn values of what doesn't, (start, name).

    Ends of settings that move by their logs are above 0; a value that isn't moved is not
    a number where it is.
    """
    names = search.bounds.price.names
    low, high = np.zeros(len(names)), np.ones(len(names))
    fixed = np.full((count, len(names)), np.nan)
    given = search.job.given
    for i, name in enumerate(names):
        if name in BOXES:
            ends = [float(x) for x in given.get(name, BOXES[name])]
            low[i], high[i] = min(ends), max(ends) * (1.0 + 1e-9)
        elif name == "recompute_fraction":
            ends = [float(x) for x in given.get(name, (0.0, 1.0))]
            low[i], high[i] = min(ends), max(ends)
        elif name in ("chunks", "order"):
            fixed[:, i] = 1.0 if name == "chunks" else 0.0
        elif name == "balancing_slots":
            fixed[:, i] = fixed[:, names.index("extra_slots")]
        else:
            menus = search.bounds.settings[i].menus
            fixed[:, i] = rng.choice(max(menus, key=len), count)
    return low, high, fixed


def _descended(
    inputs: tuple,
    target: tuple,
    margins: Margins,
    start: tuple,
    box: tuple,
    sharpness: Array,
    penalty: Array,
    family: Family,
    fields: tuple[str, ...],
    names: tuple[str, ...],
    rules: Rules,
    scaled: bool,
) -> tuple:
    """All starts; the loop over them is not unrolled into one wide program, which would
    take much longer to compile than these few rows take to run."""
    weights, signs, bounds = target
    low, high, fixed = box
    by_log = low > 0.0
    ends = [jnp.where(by_log, jnp.log(jnp.maximum(x, 1e-300)), x) for x in (low, high)]
    moves = jnp.isnan(fixed)

    def decoded(variables: tuple, margin: Margins, given: Array, free: Array) -> tuple:
        logits, places = variables
        inside = ends[0] + (ends[1] - ends[0]) * jax.nn.sigmoid(places)
        value = jnp.where(by_log, jnp.exp(inside), inside)
        return placement_of(logits, margin, scaled), jnp.where(free, value, given)

    def loss(variables: tuple, margin: Margins, given, free, s: Array, weight: Array):
        logs, values = decoded(variables, margin, given, free)
        scored = score(inputs, family, fields, names, jnp.exp(logs), values, s)
        over = signs * (scored.logs - bounds)
        extra = rule_violations(logs.sum(axis=1), rules)
        excess = jnp.concatenate([scored.excess, over, extra])
        value = jnp.dot(weights, scored.logs)
        punished = jax.nn.softplus(20.0 * excess).sum() / 20.0
        return value + weight * punished, (value, excess.max())

    optimizer = optax.adam(RATE)

    def one(restart: tuple) -> tuple:
        variables, margin, given, free = restart

        def step(carry: tuple, schedule: tuple) -> tuple:
            variables, state = carry
            args = margin, given, free
            gradient, aux = jax.grad(loss, has_aux=True)(variables, *args, *schedule)
            # a step has one length, whatever the scale of the objective
            updates, state = optimizer.update(gradient, state)
            moved = optax.apply_updates(variables, updates)
            return (moved, state), (*decoded(variables, *args), *aux)

        carry = (variables, optimizer.init(variables))
        _, trace = jax.lax.scan(step, carry, (sharpness, penalty))
        kept = jnp.linspace(0, sharpness.shape[0] - 1, SNAPSHOTS + 1)[1:].astype(int)
        return jax.tree.map(lambda x: x[kept], trace)

    given = jnp.where(moves, 0.0, fixed)
    return jax.lax.map(one, (start, margins, given, moves))


_run = jax.jit(
    _descended,
    static_argnames=("family", "fields", "names", "rules", "scaled"),
    compiler_options=FAST_COMPILE,
)
