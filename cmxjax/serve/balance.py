r"""Shares of a Markov chain's states in balance, without a library's solver.

With r a state that is often visited, and x the visits of each state for one of r,

$$ x_r = 1, \qquad x_j = \sum_i x_i P_{ij} \quad (j \ne r), $$

and the shares are x over its sum. What is inverted, $1 - P$ without the column of r, is a
diagonally dominant M-matrix, which is eliminated without exchanges of rows. LAPACK would
spread a batch of such systems over threads that wait for each other, for ever where as
many programs run at once as there are threads.

Reference: Stewart, Introduction to the Numerical Solution of Markov Chains, 1994, 2.3.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..step.layer import HIGHEST

BLOCK = 21
"""Rows that are eliminated at once."""

STEPS = 16
"""Of a chain, after which the likeliest of its states is one that it often visits."""


def _dot(a: Array, b: Array) -> Array:
    return jnp.dot(a, b, precision=HIGHEST)


def inverse(
    matrix: Float[Array, "row row"], block: int = BLOCK
) -> Float[Array, "row row"]:
    """The inverse of a diagonally dominant matrix, in place by blocks that divide it
    (Gauss and Jordan)."""
    count, none = len(matrix), np.uint32(0)
    starts = np.arange(0, count, block, dtype=np.uint32)
    units = np.eye(count, dtype=matrix.dtype).reshape(count, -1, block).swapaxes(0, 1)

    def eliminated(a: Float[Array, "row row"], place: Any) -> tuple[Array, None]:
        start, unit = place
        columns = jax.lax.dynamic_slice(a, (none, start), (count, block))
        pivot = jax.lax.dynamic_slice(columns, (start, none), (block, block))
        a = jax.lax.dynamic_update_slice(a, unit, (none, start))
        rows = jax.lax.dynamic_slice(a, (start, none), (block, count))
        if block == 1:
            return a - (columns - unit) * (rows / pivot), None
        return a - _dot(columns - unit, _dot(inverse(pivot, 1), rows)), None

    return jax.lax.scan(eliminated, matrix, (starts, units))[0]


def balance(chances: Float[Array, "state state"]) -> Float[Array, " state"]:
    """Shares of the states of a chain, differentiable as often as one likes.

    Args:
        chances: P, of a step from a state (row) to each one (column); their number is one
            of whole blocks.
    """
    count, known = len(chances), jax.lax.stop_gradient(chances)
    even = jnp.full(count, 1.0 / count, chances.dtype)
    later = jax.lax.fori_loop(0, STEPS, lambda _, x: _dot(x, known), even)
    often = (np.arange(count) == jnp.argmax(later)).astype(chances.dtype)
    others = 1.0 - often
    solved = inverse(np.eye(count) - known * others)
    visits = jax.lax.custom_linear_solve(
        lambda x: x - _dot(x, chances) * others,
        often,
        lambda _, b: _dot(b, solved),
        lambda _, b: _dot(solved, b),
    )
    return visits / visits.sum()
