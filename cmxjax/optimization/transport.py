r"""The relaxed placement: a transport plan of log-degree from axes to tiers.

A tier of u units has log u to give away. The attention axes share it out among
themselves, and what they leave to the pipeline the expert axes share out again. Every
column of the plan therefore sums to its tier's log size, for any logits; rows of degrees
that are given are scaled to theirs in turn, as Sinkhorn's iteration does.
"""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._types import Real
from ..job.layout import AXES
from .factors import PIPELINE
from .space import Frame, Rules

ROUNDS = 12
"""Sinkhorn rounds where degrees beyond 1 are given."""

CLOSED = -1e9
"""Logit of an axis that is given no share."""


class Margins(NamedTuple):
    """What the plan's rows and columns must sum to."""

    units: Real
    """Logs of the tiers' units, (tier,)."""
    open: np.ndarray | Array
    """Which axes may split at all, (axis,)."""
    given: Real
    """Logs of given degrees, (axis,); negative where the degree is free."""


OPTIONAL = ("tp", "cp", "pp", "etp", "ep")
"""Axes that a layout may do without; the data-parallel ones take what is left."""


def faces(rules: Rules) -> list[tuple[str, ...]]:
    """Every set of optional axes that a layout may use, all of them first.

    A degree of exactly 1 saves a whole collective, but a relaxed degree only tends to
    it. So whether an axis is used at all is not relaxed: each set of used axes is a face
    of the plans' polytope and is descended on by itself.
    """
    closed = {name for name, degree in rules.pinned if degree == 1}
    given = {name for name, degree in rules.pinned if degree > 1}
    if not rules.experts:
        closed |= {"etp", "ep"}
    free = [axis for axis in OPTIONAL if axis not in closed | given]
    chosen = [
        tuple(sorted({*given.intersection(OPTIONAL), *some}))
        for size in range(len(free), -1, -1)
        for some in itertools.combinations(free, size)
    ]
    return chosen


def margins_of(frame: Frame, rules: Rules, used: tuple[str, ...]) -> Margins:
    """Margins of a frame where only some of the optional axes are used."""
    free = np.array([axis in used or axis not in OPTIONAL for axis in AXES])
    given = np.full(len(AXES), -1.0)
    for name, degree in rules.pinned:
        free[AXES.index(name)] = degree > 1
        if degree > 1:
            given[AXES.index(name)] = np.log(degree)
    return Margins(np.log(np.array(frame.units, float)), free, given)


def _shared_out(
    logits: Array, available: Array, axes: slice, margins: Margins, scaled: bool
) -> Array:
    """Each tier's log size over some axes, (axis, tier).

    At least one axis takes what no other may.
    """
    open_here = jnp.asarray(margins.open)[axes, None]
    some = open_here.any()
    last = jnp.arange(open_here.shape[0])[:, None] == open_here.shape[0] - 1
    masked = jnp.where(open_here | (~some & last), logits[axes], CLOSED)
    plan = jax.nn.softmax(masked, axis=0) * available
    if not scaled:
        return plan
    given = jnp.asarray(margins.given)[axes, None]

    def round_(plan: Array, _: None) -> tuple[Array, None]:
        rows = plan.sum(axis=1, keepdims=True)
        scale = jnp.where(given >= 0.0, given / jnp.maximum(rows, 1e-9), 1.0)
        plan = plan * scale
        columns = plan.sum(axis=0, keepdims=True)
        return plan * available / jnp.maximum(columns, 1e-9), None

    return jax.lax.scan(round_, plan, None, length=ROUNDS)[0]


def placement_of(
    logits: Float[Array, "axis tier"], margins: Margins, scaled: bool
) -> Float[Array, "axis tier"]:
    """Log of the placement matrix, (axis, tier).

    Args:
        scaled: some degrees are given, so that rows are scaled too.
    """
    units = jnp.asarray(margins.units)
    attention = _shared_out(logits, units, slice(0, 4), margins, scaled)
    left = units - attention[PIPELINE]
    expert = _shared_out(logits, left, slice(4, 7), margins, scaled)
    return jnp.concatenate([attention, expert])


def rule_violations(log_degrees: Float[Array, " axis"], rules: Rules) -> Array:
    """Logs of degrees over what the model has to split."""
    caps = {
        "tp": rules.heads,
        "pp": rules.layers,
        "ep": 2 * rules.experts,
        "etp": rules.expert_width,
    }
    return jnp.stack(
        [
            log_degrees[AXES.index(axis)] - np.log(cap) if cap else jnp.zeros(()) - 1.0
            for axis, cap in caps.items()
        ]
    )
