"""Numbers of a scenario as arrays, each made once.

A job has hundreds of them, mostly the same few, and an array takes a hundred times as
long to make as to look up. Arrays never change, so jobs can share them.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

KEPT = 10_000
"""Arrays that are kept, which bounds the memory."""

_made: dict[tuple, Array] = {}


def scalar(value: float) -> Float[Array, ""]:
    """A number as an array of the widest float that is switched on."""
    key = value, jax.dtypes.canonicalize_dtype(float)
    made = _made.get(key)
    return _keep(key, value) if made is None else made


def array(values: object) -> Float[Array, "..."]:
    """Numbers on the host, such as a list of them, as `scalar` has one."""
    row = np.array(values, float)  # nobody else can change
    key = row.shape, row.tobytes(), jax.dtypes.canonicalize_dtype(float)
    made = _made.get(key)
    return _keep(key, row) if made is None else made


def _keep(key: tuple, value: object) -> Array:
    made = jnp.asarray(value, float)
    if not isinstance(made, Tracer):  # those are of one program alone
        if len(_made) >= KEPT:
            _made.clear()
        _made[key] = made
    return made
