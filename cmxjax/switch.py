"""What is there or not: a number in the program, so that both share one."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool

from ._numbers import scalar
from ._types import Leaf, Real

Holds = Bool[Array, "..."] | Bool[np.ndarray, "..."] | bool


class Switch(struct.PyTreeNode, frozen=True):
    """1 for there and 0 for not; no parameter moves it."""

    on: Leaf
    kind: str = struct.field(pytree_node=False, default="switch")

    def __bool__(self) -> bool:
        raise TypeError("a switch is a number of the program: use `pick` or `.on`")

    def pick(self, there: Real, absent: Real) -> Array:
        """One of two values; both must be finite, or gradients aren't."""
        return either(self.on > 0.5, there, absent)


def either(holds: Holds, there: Real, absent: Real) -> Array:
    """`there` where something holds and `absent` elsewhere: `jnp.where` without an inner
    program for each."""
    dtype = jnp.result_type(there, absent, float)
    values = (jnp.asarray(x, dtype) for x in (absent, there))
    return jax.lax.select_n(*jnp.broadcast_arrays(holds, *values))


def one_of(values: Sequence[Real], place: Real) -> Array:
    """The value at a place, a whole number of the program."""
    chosen = jnp.asarray(values[0], float)
    for i, value in enumerate(values[1:], 1):
        chosen = either(place == i, value, chosen)
    return chosen


def switch(on: bool) -> Switch:
    """The switch of a setting."""
    return Switch(scalar(float(on)))
