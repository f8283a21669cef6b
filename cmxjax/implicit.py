r"""Roots of increasing functions, with derivatives by the implicit function theorem.

Of $g(x, p) = 0$ the derivative is $dx/dp = -g_p / g_x$; no iteration is unrolled. The
slope $g_x$ is a secant over a small bracket, not a tangent: where the exact model steps
at the root (one more tile), the secant is steep, so that the root stays at the step, as
it does.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ._types import PyTree, Scalar

HALVINGS = 48
"""Of the bracket: enough for all digits of a float64 that is not tiny in it."""


class Roots(NamedTuple):
    """Roots of several functions, and what goes with them."""

    x: Float[Array, " function"]
    at_upper: Bool[Array, " function"]
    """The function is below zero up to the end of the bracket."""
    values: PyTree
    """Further outputs at each root; leaves have a leading axis over the functions."""


Function = Callable[[PyTree, Scalar], tuple[Float[Array, " function"], PyTree]]


def roots(function: Function, inputs: PyTree, upper: Scalar) -> Roots:
    """Where each of several increasing functions of one number crosses zero.

    Args:
        function: of `inputs` and a number x in (0, upper]; gives the values of all
            functions, (function,), and a tree of further scalars.
        inputs: a tree that the functions depend on, differentiably.
        upper: end of the bracket, which is taken where a function stays below zero. One
            that is above zero throughout has its root at 0.
    """
    frozen, end = jax.lax.stop_gradient((inputs, upper))
    count = jax.eval_shape(lambda: function(inputs, upper)[0]).shape[0]
    every = jax.vmap(lambda x: function(frozen, x)[0])

    def halve(_: Int[Array, ""], bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        middle = 0.5 * (low + high)
        below = jnp.diagonal(every(middle)) < 0.0
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    start = (jnp.zeros(count) * end, jnp.ones(count) * end)
    low, high = jax.lax.fori_loop(0, HALVINGS, halve, start)
    # where there is none, the further outputs are those next to 0
    root = jax.lax.stop_gradient(0.5 * (low + high))
    result = _at(function, inputs, jnp.where(high >= end, end, root), high >= end, upper)
    return result._replace(x=jnp.where(low > 0.0, result.x, 0.0))


def _at(
    function: Function,
    inputs: PyTree,
    root: Float[Array, " function"],
    at_upper: Bool[Array, " function"],
    upper: Scalar,
) -> Roots:
    """The roots as functions of the inputs, to first order."""
    step = root * jnp.finfo(root.dtype).eps ** (1.0 / 3.0)
    count = root.shape[0]
    places = jnp.concatenate([root, root - step, root + step])
    outputs, values = jax.vmap(lambda x: function(inputs, x))(places)

    def split(leaf: Array) -> tuple[Array, Array]:
        here, less, more = leaf[:count], leaf[count : 2 * count], leaf[2 * count :]
        return here, jax.lax.stop_gradient((more - less) / (2.0 * step))

    diagonal = jnp.stack([outputs[i::count, i] for i in range(count)], axis=1).ravel()
    gap, slope = split(diagonal)
    # a function that is above zero from the start has no root that could move
    moves = (slope > 0.0) & (jax.lax.stop_gradient(root / upper) > 1e-9)
    slope = jnp.where(moves, slope, 1.0)
    shift = jnp.where(moves, -(gap - jax.lax.stop_gradient(gap)) / slope, 0.0)
    x = jnp.where(at_upper, upper, root + shift)

    def moved(leaf: Array) -> Array:
        here, rate = split(leaf)
        return here + rate * (x - jax.lax.stop_gradient(x))

    return Roots(x, at_upper, jax.tree.map(moved, values))
