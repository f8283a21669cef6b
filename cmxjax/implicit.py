r"""Roots of increasing functions, with derivatives by the implicit function theorem.

Of $g(x, p) = 0$ the derivative is $dx/dp = -g_p / g_x$; no iteration is unrolled. The
slope $g_x$ is a secant over a small bracket, not a tangent: where the exact model steps
at the root (one more tile), the secant is steep, so that the root stays at the step, as
it does. The rule holds for the root in itself, so derivatives of any order are right.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float, Int

from ._types import PyTree, Scalar

HALVINGS = 48
"""Of the bracket: enough for all digits of a float64 that is not tiny in it."""


class Roots(NamedTuple):
    """Roots of several functions, and what goes with them."""

    x: Float[Array, " function"]
    values: PyTree
    """Further outputs at each root; leaves have a leading axis over the functions."""


Function = Callable[[PyTree, Scalar], tuple[Float[Array, " function"], PyTree]]


def roots(
    function: Function, inputs: PyTree, upper: Scalar, halvings: int = HALVINGS
) -> Roots:
    """Where each of several increasing functions of one number crosses zero.

    Args:
        function: of `inputs` and a number x in (0, upper]; gives the values of all
            functions, (function,), and a tree of further scalars. It may close over
            nothing that is traced.
        inputs: a tree that the functions depend on, differentiably.
        upper: end of the bracket, which is taken where a function stays below zero. One
            that is above zero throughout has its root at 0.
        halvings: of the bracket.
    """
    place, values = _roots(function, halvings, inputs, upper)
    # where there is none, the further outputs are those next to 0
    return Roots(jnp.where(place > upper * 0.5**halvings, place, 0.0), values)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _roots(
    function: Function, halvings: int, inputs: PyTree, upper: Scalar
) -> tuple[Float[Array, " function"], PyTree]:
    """The last number that was tried for each root, or `upper`; and the values there."""
    count = jax.eval_shape(function, inputs, upper)[0].shape[0]

    def halve(_: Int[Array, ""], state: tuple) -> tuple:
        low, high = state[:2]
        middle = 0.5 * (low + high)
        outputs, values = _each(function, inputs, middle)
        below = outputs < 0.0
        ends = jnp.where(below, middle, low), jnp.where(below, high, middle)
        return *ends, middle, values  # of the last one, lest the function is traced again

    ends = jnp.zeros(count) * upper, jnp.ones(count) * upper
    values = jax.eval_shape(lambda: _each(function, inputs, ends[1])[1])
    start = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), values)
    _, high, place, values = jax.lax.fori_loop(
        0, halvings, halve, (*ends, ends[1], start)
    )
    return jnp.where(high >= upper, upper, place), values


def _each(
    function: Function, inputs: PyTree, places: Float[Array, " function"]
) -> tuple[Float[Array, " function"], PyTree]:
    """Each function at its own place, and the values there."""
    outputs, values = jax.vmap(lambda x: function(inputs, x))(places)
    return jnp.diagonal(outputs), values


@functools.partial(_roots.defjvp, symbolic_zeros=True)
def _roots_jvp(
    function: Function, halvings: int, primals: tuple, tangents: tuple
) -> tuple:
    inputs, upper = primals
    place, values = _roots(function, halvings, inputs, upper)
    leaves, tree = jax.tree.flatten(inputs)
    rates = jax.tree.leaves(tangents[0], is_leaf=_is_zero)
    moving = [i for i, rate in enumerate(rates) if not _is_zero(rate)]

    def moved(changed: list[Array]) -> tuple[Array, PyTree]:
        now = dict(enumerate(leaves)) | dict(zip(moving, changed))
        return _each(function, jax.tree.unflatten(tree, now.values()), place)

    some = [leaves[i] for i in moving], [rates[i] for i in moving]
    _, (gap, along) = jax.jvp(moved, some[:1], some[1:])
    step = jax.lax.stop_gradient(place) * jnp.finfo(place.dtype).eps ** (1.0 / 3.0)
    ends = (_each(function, inputs, place + way * step) for way in (-1.0, 1.0))
    slope, secants = jax.tree.map(lambda a, b: (b - a) / (2.0 * step), *ends)
    # a function that is above zero from the start has no root that could move
    moves = (slope > 0.0) & (place > 1e-9 * upper)
    shift = jnp.where(moves, -gap / jnp.where(moves, slope, 1.0), 0.0)
    end = 0.0 if _is_zero(tangents[1]) else tangents[1]
    shift = jnp.where(place >= upper, end, shift)
    along = jax.tree.map(lambda rate, secant: rate + secant * shift, along, secants)
    return (place, values), (shift, along)


def _is_zero(tangent: object) -> bool:
    return isinstance(tangent, SymbolicZero)
