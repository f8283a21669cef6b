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
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

from ._types import PyTree, Scalar

HALVINGS = 48
"""Of the bracket: enough for all digits of a float64 that is not tiny in it."""

SLACK = 1
"""Steps that a search may take beyond halving."""


class Roots(NamedTuple):
    """Roots of several functions, and what goes with them."""

    x: Float[Array, " function"]
    values: PyTree
    """Further outputs at each root; leaves have a leading axis over the functions."""


Function = Callable[[PyTree, Scalar], tuple[Float[Array, " function"], PyTree]]

Search = Callable[
    [Function, int, PyTree, Scalar], tuple[Float[Array, " function"], PyTree]
]


def roots(
    function: Function,
    inputs: PyTree,
    upper: Scalar,
    halvings: int = HALVINGS,
    search: Search | None = None,
) -> Roots:
    """Where each of several increasing functions of one number crosses zero.

    Args:
        function: of `inputs` and a number x in (0, upper]; gives the values of all
            functions, (function,), and a tree of further scalars. It may close over
            nothing that is traced.
        inputs: a tree that the functions depend on, differentiably.
        upper: end of the bracket, which is taken where a function stays below zero. One
            that is above zero throughout has its root at 0.
        halvings: of the bracket, after which a root is found.
        search: how, of the function, the number of halvings, `inputs` and `upper`: gives
            the last number that it tried for each root, and the values there; by
            interpolation if left out.

    A function with several roots, such as one with steps, gets one of them; never one
    above a place where the search for another's root has found it above zero.
    """
    place, values = _roots(function, halvings, search or interpolated, inputs, upper)
    # where there is none, the further outputs are those next to 0
    found = place > upper * 0.5**halvings
    return Roots(jax.lax.select(found, place, jnp.zeros_like(place)), values)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def _roots(
    function: Function, halvings: int, search: Search, inputs: PyTree, upper: Scalar
) -> tuple[Float[Array, " function"], PyTree]:
    return search(function, halvings, inputs, upper)


def interpolated(
    function: Function, halvings: int, inputs: PyTree, upper: Scalar
) -> tuple[Float[Array, " function"], PyTree]:
    """The last number that was tried for each root, or `upper`; and the values there."""
    count = jax.eval_shape(function, inputs, upper)[0].shape[0]
    least = upper * 0.5**halvings
    reach = 0.5 * least * 2.0 ** (halvings + SLACK)  # what halving leaves by now
    end = jnp.broadcast_to(upper, (count,))
    unknown = jnp.full_like(end, jnp.nan)
    values = jax.eval_shape(lambda: _each(function, inputs, end)[1])
    none = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), values)
    start = Bracket(0.0 * end, end, unknown, unknown, end, none)

    def unfinished(state: tuple[Array, Bracket]) -> Array:
        halved, bracket = state
        return ((halved > 0.75 * least) & (bracket.width > least)).any()

    def narrow(state: tuple[Array, Bracket]) -> tuple[Array, Bracket]:
        halved, bracket = state
        width = bracket.width
        # the end first: a function that stays below zero is done there
        aside = jnp.maximum(0.2 * width**2 / upper, 0.25 * least)
        guess = bracket.guess(aside, halved - 0.5 * width)
        place = jax.lax.select(halved > reach, end, guess)
        done = width <= least
        place = jax.lax.select(done, bracket.place, place)
        outputs, values = jax.vmap(lambda x: function(inputs, x))(place)
        found = bracket.narrowed(place, _diagonal(outputs), values)
        kept = _where(done, bracket, found)
        # a place of another function may show that there is a root below
        above = jnp.where(outputs >= 0.0, place[:, None], jnp.inf)
        first, lowest = above.argmin(0), above.min(0)
        at = jax.tree.map(lambda leaf: leaf[first], values)
        again = start._replace(high=lowest, place=lowest, values=at)
        lower = lowest < kept.low * (1.0 - 1e-6)
        return jnp.where(lower, reach, 0.5 * halved), _where(lower, again, kept)

    begin = jnp.full_like(end, 2.0 * reach), start
    _, found = jax.lax.while_loop(unfinished, narrow, begin)
    return found.place, found.values


class Bracket(NamedTuple):
    """Ends between which functions cross zero, (function,)."""

    low: Array
    high: Array
    below: Array
    """The function f at the low end, as f / (1 + |f|); not a number before it was
    tried."""
    above: Array
    place: Array
    """That was tried last."""
    values: PyTree
    """There."""

    @property
    def width(self) -> Array:
        return self.high - self.low

    def guess(self, aside: Array, reach: Array) -> Array:
        """Where to try next: interpolation, truncation and projection.

        The root of the secant, `aside` nearer to the middle so that the other end comes
        closer too, and within `reach` of the middle, so that in all it never takes more
        than one step beyond halving. Smooth functions take a third of that.

        Reference: Oliveira & Takahashi, ACM Transactions on Mathematical Software 47(1),
        2020; with k1 = 0.2 over the first bracket, k2 = 2, n0 = 1.
        """
        middle = 0.5 * (self.low + self.high)
        secant = (self.above * self.low - self.below * self.high) / (
            self.above - self.below
        )
        known = jax.lax.is_finite(secant)
        off = jax.lax.select(known, middle - secant, jnp.zeros_like(secant))
        far = jnp.maximum(jnp.minimum(jnp.abs(off) - aside, reach), 0.0)
        return middle - jnp.sign(off) * far

    def narrowed(self, place: Array, outputs: Array, values: PyTree) -> "Bracket":
        """With a place that was tried as one of the ends."""
        is_low = outputs < 0.0
        # a pole or a step must not outweigh the other end
        outputs = outputs / (1.0 + jnp.abs(outputs))
        return Bracket(
            jax.lax.select(is_low, place, self.low),
            jax.lax.select(is_low, self.high, place),
            jax.lax.select(is_low, outputs, self.below),
            jax.lax.select(is_low, self.above, outputs),
            place,
            values,
        )


def _each(
    function: Function, inputs: PyTree, places: Float[Array, " function"]
) -> tuple[Float[Array, " function"], PyTree]:
    """Each function at its own place, and the values there."""
    outputs, values = jax.vmap(lambda x: function(inputs, x))(places)
    return _diagonal(outputs), values


def _diagonal(outputs: Float[Array, "place function"]) -> Float[Array, " function"]:
    own = np.eye(len(outputs), dtype=bool)
    return jax.lax.select(own, outputs, jnp.zeros_like(outputs)).sum(1)


def _where(chosen: Array, one: Bracket, other: Bracket) -> Bracket:
    return jax.tree.map(lambda a, b: jax.lax.select(chosen, a, b), one, other)


@functools.partial(_roots.defjvp, symbolic_zeros=True)
def _roots_jvp(
    function: Function, halvings: int, search: Search, primals: tuple, tangents: tuple
) -> tuple:
    inputs, upper = primals
    place, values = _roots(function, halvings, search, inputs, upper)
    leaves, tree = jax.tree.flatten(inputs)
    rates = jax.tree.leaves(tangents[0], is_leaf=_is_zero)
    moving = [i for i, rate in enumerate(rates) if not _is_zero(rate)]

    def moved(changed: list[Array]) -> tuple[Array, PyTree]:
        now = dict(enumerate(leaves)) | dict(zip(moving, changed))
        return _each(function, jax.tree.unflatten(tree, now.values()), place)

    some = [leaves[i] for i in moving], [rates[i] for i in moving]
    _, (gap, along) = jax.jvp(moved, some[:1], some[1:])
    step = jax.lax.stop_gradient(place) * jnp.finfo(place.dtype).eps ** (1.0 / 3.0)
    way = jnp.array([-1.0, 1.0], place.dtype)[:, None]
    ends = jax.vmap(lambda x: _each(function, inputs, x))(place + way * step)
    slope, secants = jax.tree.map(lambda end: (end[1] - end[0]) / (2.0 * step), ends)
    # a function that is above zero from the start has no root that could move
    moves = (slope > 0.0) & (place > 1e-9 * upper)
    shift = jnp.where(moves, -gap / jnp.where(moves, slope, 1.0), 0.0)
    end = 0.0 if _is_zero(tangents[1]) else tangents[1]
    shift = jnp.where(place >= upper, end, shift)
    along = jax.tree.map(lambda rate, secant: rate + secant * shift, along, secants)
    return (place, values), (shift, along)


def _is_zero(tangent: object) -> bool:
    return isinstance(tangent, SymbolicZero)
