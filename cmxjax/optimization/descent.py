"""Adam on the relaxed problem: annealed sharpness, penalties, many restarts."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from ..job.layout import AXES
from ..smooth import anneal
from .plan import Margins, faces, margins_of, plan_of, rule_violations
from .question import FAST_COMPILE, STATIC, Question, Target, score
from .serving import Family
from .space import Rules

RATE = 0.25
SHARPNESS = (2.0, 40.0)
PENALTY = (4.0, 16.0)
"""Weight of the logs by which limits are exceeded, from the first step to the last."""

SNAPSHOTS = 4
"""Times during a descent that the iterate is rounded."""


class Effort(NamedTuple):
    """How much to descend."""

    restarts: int
    steps: int

    @property
    def gradients(self) -> int:
        return self.restarts * self.steps


class Descent(NamedTuple):
    """Iterates of every restart at each snapshot."""

    logs: np.ndarray
    """Log placement matrices, (restart, snapshot, axis, tier)."""
    values: np.ndarray
    """Settings, (restart, snapshot, setting)."""
    objective: np.ndarray
    """Relaxed objective, (restart, snapshot)."""
    violation: np.ndarray
    """Worst relaxed violation, (restart, snapshot)."""
    frames: np.ndarray
    """Frame of each restart."""


def descend(question: Question, family: Family, effort: Effort, seed: int) -> Descent:
    """Descend from random plans, faces and frames taken in turn."""
    space = question.space
    rng = np.random.default_rng(seed)
    tiers = len(space.frames[0].units)
    used = faces(space.rules)
    turns = np.arange(effort.restarts)
    frames = turns // len(used) % len(space.frames)
    if len(used) * len(space.frames) > effort.restarts:
        frames = rng.permutation(turns) % len(space.frames)
    each = [
        margins_of(space.frames[k], space.rules, used[i % len(used)])
        for i, k in enumerate(frames)
    ]
    margins = Margins(*(np.stack(field) for field in zip(*each)))
    logits = rng.normal(0.0, 1.5, (effort.restarts, len(AXES), tiers))
    bounds = np.array([(s.values[0], s.values[-1]) for s in space.settings])
    # settings that reach 0 move linearly, the others as logs
    linear = bounds[:, 0] <= 0.0
    low, high = np.where(linear[:, None], bounds, np.log(np.maximum(bounds, 1e-300))).T
    places = rng.normal(0.0, 1.0, (effort.restarts, len(space.settings)))
    names = tuple(setting.name for setting in space.settings)
    snapshots = _run(
        question.inputs,
        question.target,
        margins,
        (logits, places),
        (low, high, linear),
        anneal(*SHARPNESS, effort.steps),
        anneal(*PENALTY, effort.steps),
        family,
        question.fields,
        names,
        space.rules._replace(pinned=()),
        any(degree > 1 for _, degree in space.rules.pinned),
    )
    logs, values, objective, violation = map(np.asarray, snapshots)
    return Descent(logs, values, objective, violation, frames)


def _descended(
    inputs: tuple,
    target: Target,
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
    """All restarts; the loop over them is not unrolled into one wide program, which
    would take much longer to compile than these few rows take to run."""

    def decoded(variables: tuple, margin: Margins) -> tuple:
        logits, places = variables
        low, high, linear = box
        inside = low + (high - low) * jax.nn.sigmoid(places)
        return plan_of(logits, margin, scaled), jnp.where(linear, inside, jnp.exp(inside))

    def loss(variables: tuple, margin: Margins, s: Array, weight: Array) -> tuple:
        logs, values = decoded(variables, margin)
        scored = score(inputs, target, family, fields, names, jnp.exp(logs), values, s)
        extra = rule_violations(logs.sum(axis=1), rules)
        violations = jnp.concatenate([scored.violations, extra])
        excess = jax.nn.softplus(20.0 * violations).sum() / 20.0
        return scored.objective + weight * excess, (scored.objective, violations.max())

    optimizer = optax.adam(RATE)

    def one(restart: tuple) -> tuple:
        variables, margin = restart

        def step(carry: tuple, schedule: tuple) -> tuple:
            variables, state = carry
            gradient, aux = jax.grad(loss, has_aux=True)(variables, margin, *schedule)
            # a step has one length, whatever the scale of the objective
            updates, state = optimizer.update(gradient, state)
            moved = optax.apply_updates(variables, updates)
            return (moved, state), (*decoded(variables, margin), *aux)

        carry = (variables, optimizer.init(variables))
        _, trace = jax.lax.scan(step, carry, (sharpness, penalty))
        kept = jnp.linspace(0, sharpness.shape[0] - 1, SNAPSHOTS + 1)[1:].astype(int)
        return jax.tree.map(lambda x: x[kept], trace)

    return jax.lax.map(one, (start, margins))


_run = jax.jit(
    _descended,
    static_argnames=(*STATIC, "rules", "scaled"),
    compiler_options=FAST_COMPILE,
)
