"""Names for the few types that recur in signatures."""

from typing import TYPE_CHECKING, Any

from jax import Array
from jaxtyping import Float

Scalar = Float[Array, ""] | float
"""A traced number of any unit; Python floats are accepted at the edges."""

Sharpness = Float[Array, ""] | float | None
"""None is the exact model; a number of at least 1 is its smooth relaxation."""

if TYPE_CHECKING:
    Leaf = Array
else:
    Leaf = Any  # masks, bounds and stacked sweeps reuse the tree with other leaves
