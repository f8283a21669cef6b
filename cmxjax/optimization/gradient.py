"""Gradient descent on degrees and their placement, relaxed, then rounded and refined.

Adam with annealed sharpness and penalties from many starts moves log-degree between
tiers (see `transport`) beside the batch or the micro-batch and the share of layers that
run again. What is no matter of degree, such as a stage of ZeRO, is drawn for each start.
Iterates are rounded to whole placements near them, on which all settings are searched
exactly; then to placements a move away, as long as one is better.

Reference: Kingma & Ba, arXiv 1412.6980.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from ..job.layout import AXES
from ..smooth import anneal
from .cells import Points
from .neighbors import neighbors
from .price import FAST_COMPILE, Family, score
from .rounding import rounded_placements
from .search import Search
from .space import Rules
from .transport import Margins, faces, margins_of, placement_of, rule_violations

RATE = 0.25
SHARPNESS = (2.0, 40.0)
PENALTY = (4.0, 16.0)
"""Weight of the logs by which limits are exceeded, from the first step to the last."""

STEPS, STARTS = 40, (16, 32)
"""Steps of a descent, and starts at least and at most: one for each set of axes used."""

SNAPSHOTS, ROUNDED = 4, 2
"""Times during a descent that the iterate is rounded, and whole placements of each."""

REFINED, CLIMBED = 24, 12
"""Rounded placements whose settings are searched, and steps to neighbors after that."""

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


def descend_and_refine(search: Search, seed: int = 0) -> Descended:
    """Descend, round and refine; the best point is then the search's."""
    job = search.job
    descent = descend(search, seed)
    points = _rounded(search, descent)
    if points is None:
        return Descended(descent.relaxed, None, descent.gradients)
    good = np.isfinite(points.score)
    rounded = float(points.score[good].min()) if good.any() else None
    order = np.lexsort((points.score, np.maximum(points.excess, 0.0)))
    _refined(search, points.take(order[:REFINED]))
    tried: set[bytes] = set()
    for _ in range(CLIMBED):
        best = search.best
        assert best is not None  # a point was looked at
        near = [
            factor
            for factor in neighbors(best.factor[0].astype(np.int16), job.rules)
            if factor.tobytes() not in tried
        ]
        tried.update(factor.tobytes() for factor in near)
        frame = int(search.layouts.frame[best.row[0]])
        moved = _points_at(search, near, [frame] * len(near))
        if moved is None:
            break
        _refined(search, moved._replace(family=np.full(len(moved.row), best.family[0])))
        if search.best is best:
            break
    return Descended(descent.relaxed, rounded, descent.gradients)


def _refined(search: Search, points: Points) -> None:
    for family in np.unique(points.family):
        mine = points.take(points.family == family)
        search.refined(mine.row, mine.factor, int(family))


def _points_at(
    search: Search, factors: list[np.ndarray], frames: list[int]
) -> Points | None:
    """Placements as unpriced points, at the ends of all menus."""
    layouts, kept = search.layouts, []
    for factor, frame in zip(factors, frames):
        degrees = factor.astype(np.int64).prod(axis=1)
        same = (layouts.degrees == degrees).all(axis=1) & (layouts.frame == frame)
        rows = np.flatnonzero(same & layouts.usable)
        kept += [(int(row), factor) for row in rows[:1]]
    if not kept:
        return None
    rows = np.array([row for row, _ in kept])
    zeros = np.zeros(len(rows), int)
    return Points(
        rows,
        np.array([factor for _, factor in kept], np.int64),
        zeros,
        np.zeros((len(rows), len(search.bounds.settings)), int),
        np.full(len(rows), search.job.first_form),
        np.zeros((len(rows), len(search.job.objective.fields))),
        np.full(len(rows), np.inf),
        zeros + 0.0,
        zeros,
    )


def _rounded(search: Search, descent: Descent) -> Points | None:
    """Every snapshot as whole points near it, priced exactly."""
    job, factors, frames, values = search.job, [], [], []
    for start, frame in enumerate(descent.frames):
        for logs, chosen in zip(descent.logs[start], descent.values[start]):
            near = rounded_placements(logs, job.frames[frame], job.rules, ROUNDED)
            factors += near
            frames += [int(frame)] * len(near)
            values += [chosen] * len(near)
    points = _points_at(search, factors, frames)
    if points is None or len(points.row) != len(factors):
        return points if points is None else _distinct(points)
    index = search.bounds.nearest(points.row, np.array(values))
    points = _distinct(points._replace(levels=index))
    scored = search.bounds.exact(
        points.row, points.factor, points.family, points.levels, points.form
    )
    search.look(scored.take(search.bounds.runs(scored.row, scored.levels, scored.form)))
    return scored


def _distinct(points: Points) -> Points:
    keys = [(f.tobytes(), i.tobytes()) for f, i in zip(points.factor, points.levels)]
    return points.take(np.array([keys.index(key) for key in dict.fromkeys(keys)]))


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
