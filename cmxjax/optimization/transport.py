r"""The relaxed placement: a transport plan of log-degree from axes to tiers.

A tier of u units has log u to give away. The attention axes share it out among
themselves, and what they leave to the pipeline the expert axes share out again. Every
column of the plan therefore sums to its tier's log size, for any logits.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float

from ..job.layout import AXES
from .factors import PIPELINE
from .space import Rules

OPTIONAL = ("tp", "cp", "pp", "etp", "ep")
"""Axes that a layout may do without; the data-parallel ones take what is left."""

CLOSED = -1e9
"""Logit of an axis that is given no share."""

NEAR = 0.05
"""Log by which a given degree may be missed."""


def faces(rules: Rules) -> Bool[np.ndarray, "face axis"]:
    """Every set of axes that a layout may use, all of them first.

    A degree of exactly 1 saves a whole collective, but a relaxed degree only tends to
    it. So whether an axis is used at all is not relaxed: each set of used axes is a face
    of the plans' polytope and is descended on by itself.
    """
    given = dict(rules.pinned) | ({} if rules.experts else {"etp": 1, "ep": 1})
    free = [
        (given[axis] > 1,) if axis in given else (True, False)[: 1 + (axis in OPTIONAL)]
        for axis in AXES
    ]
    return np.array(sorted(itertools.product(*free), key=sum, reverse=True))


def _shared_out(logits: Array, available: Array, used: Array) -> Array:
    """Each tier's log size over some axes, (axis, tier); the last takes all where none
    may."""
    last = jnp.arange(len(used)) == len(used) - 1
    usable = jnp.where(used.any(), used, last)[:, None]
    return jax.nn.softmax(jnp.where(usable, logits, CLOSED), axis=0) * available


def placement_of(
    logits: Float[Array, "axis tier"],
    log_units: Float[Array, " tier"],
    used: Bool[Array, " axis"],
) -> Float[Array, "axis tier"]:
    """Log of the placement matrix.

    Args:
        log_units: logs of the tiers' sizes.
        used: which axes may split at all.
    """
    inner = PIPELINE + 1
    attention = _shared_out(logits[:inner], log_units, used[:inner])
    left = log_units - attention[PIPELINE]
    return jnp.concatenate([attention, _shared_out(logits[inner:], left, used[inner:])])


def rule_violations(log_degrees: Float[Array, " axis"], rules: Rules) -> Array:
    """Logs of degrees over what the model has to split, and what given ones are off."""
    most = {"tp": rules.heads, "pp": rules.layers, "etp": rules.expert_width}
    most["ep"] = 2 * rules.experts
    over = [log_degrees[AXES.index(axis)] - np.log(n) for axis, n in most.items() if n]
    off = [jnp.abs(log_degrees[AXES.index(a)] - np.log(n)) for a, n in rules.pinned]
    return jnp.stack([*over, *(x - NEAR for x in off)])
