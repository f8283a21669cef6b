"""Names for the few types that recur in signatures."""

from typing import Any

import numpy as np
from jax import Array
from jaxtyping import Float

from . import _jax as _jax  # refuses releases that compute wrongly

Scalar = Float[Array, ""] | float
"""A traced number of any unit; Python floats are accepted at the edges."""

Real = Float[Array, "..."] | Float[np.ndarray, "..."] | float
"""Numbers of any shape, for functions that broadcast."""

Sharpness = Float[Array, ""] | float | None
"""None is the exact model; a number of at least 1 is its smooth relaxation."""

Leaf = Any
"""A float array: masks, bounds and stacked sweeps reuse the tree with other leaves."""

PyTree = Any
"""A tree of arrays of whatever structure, such as seconds by component and part."""
