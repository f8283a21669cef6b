"""Numbers of a scenario as arrays, each made once.

A job has hundreds of them, mostly the same few, and an array takes a hundred times as
long to make as to look up. Arrays never change, so jobs can share them.
"""

import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float

KEPT = 10_000
"""Arrays that are kept, which bounds the memory."""

_made: dict[tuple[float, object], Array] = {}


def scalar(value: float) -> Float[Array, ""]:
    """A number as an array of the widest float that is switched on."""
    key = value, jnp.result_type(float)
    if key not in _made:
        made = jnp.asarray(*key)
        if isinstance(made, Tracer):  # of one program alone
            return made
        if len(_made) >= KEPT:
            _made.clear()
        _made[key] = made
    return _made[key]
