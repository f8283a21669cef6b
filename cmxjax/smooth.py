r"""Every relaxation of the model, in one place.

`sharpness=None` is the exact model: hard maxima, whole tiles, whole ranks. A number
s >= 1 is its relaxation: at s = 1 activities don't overlap and nothing is quantized,
and as s grows each function tends to its exact form. All functions of times are
homogeneous of degree one and monotone, so a breakdown by Euler's theorem sums to the
whole and more bandwidth never makes anything slower, exact or relaxed.
"""

import functools
from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

from ._types import Real, Sharpness

_FEW = 4  # numbers one by one take fewer operations than halves of an array
_TINY = 2.5e-31  # keeps sqrt differentiable where both activities take no time


@functools.partial(jax.jit, inline=True)  # tracing it anew each time takes as long again
def _share(a: Real, b: Real) -> Array:
    """Slope in `a` of the larger of two: 1, 0, or a half where they are equal; NaN where
    either is or both are the same infinity.

    That of JAX takes ten operations, at a hundred maxima of a step.
    """
    return 0.5 + 0.5 * jax.lax.sign(a - b)


def _weighed(tangents: tuple, weights: tuple) -> Array:
    """Sum of tangents, without those of constants; one at least is of no constant."""
    moving = [
        weight * tangent
        for tangent, weight in zip(tangents, weights)
        if not isinstance(tangent, SymbolicZero)
    ]
    return sum(moving[1:], moving[0])


@jax.custom_jvp
def larger(a: Real, b: Real) -> Array:
    """The larger of two, exactly."""
    return jnp.maximum(a, b)


@functools.partial(larger.defjvp, symbolic_zeros=True)
def _larger_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    share = _share(*primals)
    return jnp.maximum(*primals), _weighed(tangents, (share, 1.0 - share))


def larger_of(values: Iterable[Real]) -> Array:
    """The largest of one or several."""
    return jnp.asarray(functools.reduce(larger, values))


@jax.custom_jvp
def smaller(a: Real, b: Real) -> Array:
    """The smaller of two, exactly."""
    return jnp.minimum(a, b)


@functools.partial(smaller.defjvp, symbolic_zeros=True)
def _smaller_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    share = _share(*primals)
    return jnp.minimum(*primals), _weighed(tangents, (1.0 - share, share))


def within(x: Real, low: Real, high: Real) -> Array:
    """A number brought between two bounds, exactly."""
    return smaller(larger(x, low), high)


def _serial(sharpness: Sharpness) -> bool:
    """Whether nothing overlaps, known without a trace: what is a sum is written as one,
    so that a composition is linear for all to see."""
    return isinstance(sharpness, float) and sharpness == 1.0


def maximum(a: Real, b: Real, sharpness: Sharpness) -> Array:
    r"""The longer of two activities that run side by side.

    $$ \tfrac12\bigl(a + b + \sqrt{(a-b)^2 + 4ab/s^2}\bigr) $$

    This hyperbola is the sum at s = 1 (no overlap) and the maximum as s grows, like a
    p-norm with p from 1 to infinity, but costs one square root instead of the powers
    of a traced exponent. Its slope in either argument lies in [0, 1].
    """
    if sharpness is None:
        return larger(a, b)
    if _serial(sharpness):
        return jnp.add(a, b)
    half = 0.5 * (a - b)
    root = jnp.sqrt(half * half + a * b / (sharpness * sharpness) + _TINY)
    return jnp.add(b + half, root)


def minimum(a: Real, b: Real, sharpness: Sharpness) -> Array:
    """The shorter of two alternatives: `a + b - maximum(a, b)`.

    One step sharper than the maximum, so that at s = 1 a choice is not yet free.
    """
    if sharpness is None:
        return smaller(a, b)
    return jnp.subtract(a + b, maximum(a, b, sharpness + 1.0))


def _each_fold(sharpness: Sharpness, folds: int) -> Sharpness:
    """Sharpness of each of several maxima one inside the other, with which they exceed
    the longest by about one part in the sharpness together, not each; 1 stays 1. Two
    exceed it by little, and there are many of them."""
    if sharpness is None or folds < 3:
        return sharpness
    return 1.0 + folds * (sharpness - 1.0)


def maximum_of(values: Sequence[Real], sharpness: Sharpness) -> Array:
    """The longest of several activities, folded pairwise in the given order."""
    each = _each_fold(sharpness, len(values) - 1)
    result = values[0]
    for value in values[1:]:
        result = maximum(result, value, each)
    return jnp.asarray(result)


def largest(values: Array, sharpness: Sharpness) -> Array:
    """The largest entry of the first axis, by halves while there are many.

    The derivative of a reduction by maximum divides by the number of entries that equal
    it, which a compiler that computes them twice may find to be none: NaN. Pairwise
    maxima have no such division.
    """
    sharpness = _each_fold(sharpness, (values.shape[0] - 1).bit_length())
    while values.shape[0] > _FEW:
        half = values.shape[0] // 2
        longer = maximum(values[:half], values[half : 2 * half], sharpness)
        values = jnp.concatenate([longer, values[2 * half :]])
    few = list(jnp.unstack(values))
    while len(few) > 1:
        half = len(few) // 2
        pairs = zip(few[:half], few[half : 2 * half])
        few = [*(maximum(a, b, sharpness) for a, b in pairs), *few[2 * half :]]
    return few[0]


def overlap_s(a: Real, b: Real, exposed: Real, sharpness: Sharpness) -> Array:
    r"""Time of two activities that overlap imperfectly.

    $$ \max(a, b) + \omega\,\min(a, b), \qquad \omega \in [0, 1] $$

    `exposed` is the share of the shorter activity that is not hidden: 0 is perfect
    overlap and 1 none. It is physics, to be calibrated, in the exact model too.
    """
    if _serial(sharpness):
        return jnp.add(a, b)
    longest = maximum(a, b, sharpness)
    return longest + exposed * (a + b - longest)


def ceil(x: Real, sharpness: Sharpness) -> Array:
    r"""Round up to whole pieces; the relaxation interpolates between whole numbers.

    With f the fraction of x above its floor, $\lfloor x \rfloor + f s / (1 + (s-1) f)$:
    equal to x at s = 1, to the ceiling as s grows, and to x at every whole x.
    """
    if sharpness is None:
        return jnp.ceil(x)
    floor = jnp.floor(x)
    part = x - floor
    return floor + part * sharpness / (1.0 + (sharpness - 1.0) * part)


def positive(x: Real, sharpness: Sharpness) -> Array:
    """Gate of something that is there or not: 1 where `x > 0` and 0 at `x = 0`.

    The relaxation is `s x / (1 + s x)`, for counts above their neutral value, such as
    ranks above one.
    """
    if sharpness is None:
        return (jnp.asarray(x) > 0).astype(jnp.result_type(x, 0.0))
    scaled = sharpness * x
    return jnp.divide(scaled, 1.0 + scaled)


def gate(ratio: Real) -> Array:
    """A soft switch at `ratio = 1`: `r^32 / (1 + r^32)`.

    It is physics (a protocol that changes over a range of sizes), so it does not
    depend on the sharpness.
    """
    # 4**32 is 2e19: the switch is closed long before
    power = jax.lax.integer_pow(smaller(ratio, 4.0), 32)
    return power / (1.0 + power)


def anneal(start: float, stop: float, steps: int) -> Float[Array, " steps"]:
    """A geometric schedule of sharpness from `start` to `stop`."""
    return jnp.geomspace(start, stop, steps)
