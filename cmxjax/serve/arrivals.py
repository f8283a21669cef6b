r"""How soon so many arrive: a stream whose gaps have a gamma distribution.

With a squared coefficient of variation k of the gaps, which are 1 on average, n of them
take no longer than u with the chance

$$ F_n(u) = P\left(\frac{n}{k}, \frac{u}{k}\right), $$

the regularized incomplete gamma function. With k = 1 that is a Poisson stream. Generators
of load send such streams: `--burstiness` of vLLM's benchmark is 1 / k. Of n instances
that are served in turn each gets every n-th request, whose gaps have a gamma distribution
with k / n.

What comes next depends on the age of the gap that runs. Ages are those of a few nodes,
from a gap that has just begun to one that has run for ever, whose rest is exponential.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .. import smooth
from .._types import Real, Scalar
from ..switch import either

Many = Float[Array, "..."]

STEADIEST = 0.01
"""Least squared coefficient of variation of gaps that is told from none."""

APART = 1e-4
"""And the least distance from 1: the ages of a Poisson stream can't be told apart."""

_REGULAR = np.array([0.25, 0.5, 0.75, 1.0])
"""Ages in mean gaps, where gaps are alike."""

_BURSTY = np.array([0.02, 0.07, 0.23, 0.8])
"""Ages over k, where they differ."""

AGES = 2 + len(_REGULAR)

_YOUNG, _OLD = np.eye(AGES)[[0, -1]]
"""Whether a gap has just begun or has run for ever."""

NONE = 1e-30
"""Chance below which nothing comes."""

_TEMME = (
    (-1 / 3, 1 / 12, -2 / 135, 1 / 864, 1 / 2835, -139 / 777600, 1 / 25515),
    (-1 / 540, -1 / 288, 1 / 378, -77 / 77760),
    (25 / 6048, -139 / 51840, 1 / 1296),
)
"""Coefficients of powers of eta, by power of 1 / a."""

_ETA = (1.0, -1 / 3, 7 / 36, -73 / 540, 1331 / 12960)
"""Of powers of x / a - 1, for eta over it."""

_STIRLING = (1.0, 1 / 12, 1 / 288, -139 / 51840)
"""Of powers of 1 / a, for the gamma function over Stirling's formula."""

_SHIFT = 8
"""The expansion is taken at a + 8, where it is good to 1e-7."""

_NEAR = 0.02
"""Distance from x = a within which eta is a series."""


def _polynomial(coefficients: tuple, x: Real) -> Real:
    total = coefficients[-1]
    for coefficient in reversed(coefficients[:-1]):
        total = total * x + coefficient
    return total


def reached(count: Many, mean: Many) -> tuple[Many, Many]:
    r"""$P(a, x)$ of a `count` a > 0 at a `mean` x > 0, and $x^a e^{-x} / \Gamma(a + 1)$:
    the chances that a Poisson number reaches a, and that it is a.

    `jax.scipy.special.gammainc` iterates, a hundred times as long, and has no second
    derivative. Errors are below 1e-7.

    Source: Temme, "The asymptotic expansion of the incomplete gamma functions", SIAM J.
    Math. Anal. 10, 1979; then by steps $P(a, x) = P(a + 1, x) + x^a e^{-x} / a!$.
    """
    a = count + _SHIFT
    part = 1.0 / a
    ratio = mean * part
    apart = ratio - 1.0
    near = jnp.abs(apart) < _NEAR
    safe = near.astype(ratio.dtype)
    far = apart + safe
    eta = jnp.sign(far) * jnp.sqrt(2.0 * (far - jnp.log(ratio + safe)))
    eta = either(near, apart * _polynomial(_ETA, apart), eta)
    root = jnp.sqrt(0.5 * a)
    below = -eta * root
    fall = -below * below
    scale = root * part / np.sqrt(np.pi)
    rest = _polynomial(tuple(_polynomial(each, eta) for each in _TEMME), part)
    chance = 0.5 * jax.lax.erfc(below) - rest * scale * jnp.exp(fall)
    # in front of the steps, as powers alone would leave the range of a float32
    scale = scale / _polynomial(_STIRLING, part)
    first = scale * jnp.exp(fall - _SHIFT * jnp.log(ratio))
    steps = exact = share = 1.0
    for _ in range(1, _SHIFT):
        share = share - part
        exact = exact * share
        steps = exact + ratio * steps
    return chance + first * steps, first * exact


class Gaps(NamedTuple):
    """Gaps of a stream, 1 on average, by the age of the one that runs."""

    variance: Scalar
    """k."""
    age: Float[Array, " age"]
    """The last one is a stand-in: its gap has run for ever."""
    shape: Float[Array, " age"]
    """Of the gamma distribution whose rest is looked for: that of the gaps, or 1."""
    mean: Float[Array, " age"]
    """Of that distribution: 1 or k."""
    gone: Float[Array, " age"]
    """Share of it that is shorter than the age."""
    longer: Float[Array, " age"]
    """Share that isn't."""
    saved: Float[Array, " age"]
    """Mean of what it is shorter by, counted over all."""
    rest: Float[Array, " age"]
    """Mean rest of the gap: from 1 to k."""
    scatter: Float[Array, " age"]
    """Variance of that rest."""
    bursts: Float[Array, " age"]
    """How far the gaps after the first are others than the rest of the first; from 0 to
    1."""


def gaps_of(variance: Scalar) -> Gaps:
    """The gaps of a stream, from their squared coefficient of variation."""
    k = smooth.larger(variance, STEADIEST)
    k = k + either(k < 1.0, -APART, APART)
    age = either(k < 1.0, jnp.asarray(_REGULAR), k * _BURSTY)
    gone, exact = reached(1.0 / k, age / k)
    later = gone - exact
    latest = later - exact * age / (1.0 + k)
    left = 1.0 - gone
    saved = age * gone - later
    rest = (1.0 - age + saved) / left
    squares = age * (saved - later) + (1.0 + k) * latest
    scatter = (1.0 + k + age * (age - 2.0) - squares) / left - rest**2
    zero, a = 0.0 * k, 1.0 / k
    age, gone, saved, rest, scatter = (
        jax.lax.pad(x, zero, ((1, 1, 0),)) for x in (age, gone, saved, rest, scatter)
    )
    return Gaps(
        variance=k,
        age=age,
        shape=a + _OLD * (1.0 - a),
        mean=1.0 + _OLD * (k - 1.0),
        gone=gone,
        longer=1.0 - gone,
        saved=saved,
        rest=rest + _YOUNG + _OLD * k,
        scatter=scatter + (_YOUNG + _OLD * k) * k,
        bursts=smooth.larger(1.0 - a * a, 0.0) * (1.0 - _YOUNG - _OLD),
    )


class Arrived(NamedTuple):
    """Whether so many have come up to a time."""

    left: Many
    r"""Mean time that is left then, $E (u - T_n)^+$."""
    chance: Many
    r"""$P(T_n \le u)$."""
    first_left: Many
    """Likewise of the first one."""
    first: Many


def arrived(gaps: Gaps, count: Many, time: Many) -> Arrived:
    """Arrivals after a gap of each age.

    Of the first one all is exact. $T_n$ of others has a gamma distribution with its mean
    and variance, which is exact for a gap that has just begun or has run for ever. In
    bursts that is poor at other ages, as gaps after the first are far shorter: there the
    others come in the mean time that the first one leaves, if its chance falls as one
    over the gap.

    Args:
        gaps: by age.
        count: n, (state, count, 1); below 1 it is the first one.
        time: u > 0, in mean gaps, (state, 1, 1) or as `count`.
    """
    k, age, u = gaps.variance, gaps.age, time
    more = smooth.larger(count - 1.0, 0.0)
    mean = gaps.rest + more
    apart = gaps.bursts / (1.0 + u * u)
    share = (1.0 - apart) * mean / (gaps.scatter + more * k)
    spare = u + age - u / jnp.log1p(u / smooth.larger(age, _NEAR))
    part = apart / k
    # in front of the others, how old the gap is by then
    run = age + u
    chance, exact = reached(
        jnp.concatenate(
            [jnp.broadcast_to(gaps.shape, run.shape), mean * share + part * more], axis=1
        ),
        jnp.concatenate([run / k, u * share + part * spare], axis=1),
    )
    bare = chance - exact
    gone, chance = jnp.split(chance, [u.shape[1]], axis=1)
    gone_bare, bare = jnp.split(bare, [u.shape[1]], axis=1)
    first = smooth.larger((gone - gaps.gone) / gaps.longer, NONE)
    early = run * gone - gaps.mean * gone_bare - gaps.saved - u * gaps.gone
    early = early / gaps.longer
    came = jnp.exp(apart * jnp.log(first))
    left = (u + apart * (spare - u)) * chance - (mean - apart * gaps.rest) * bare
    few = count <= 1.0
    return Arrived(
        either(few, early, came * left), either(few, first, came * chance), early, first
    )


def decay_of(load: Scalar) -> Scalar:
    r"""How fast a waiting line falls off: q with $(e^q - 1) / q = 1 / u$.

    Of a line from which B leave at a time, while A arrive, $E\,e^{q (A - B) / k} = 1$.
    Newton's method from above, as $q < -2 \ln u$.
    """

    def closer(_: Int[Array, ""], q: Scalar) -> Scalar:
        gap = jnp.log(jnp.expm1(q) / q) + jnp.log(load)
        return q - gap / (-1.0 / jnp.expm1(-q) - 1.0 / q)

    return jax.lax.fori_loop(0, 7, closer, -2.0 * jnp.log(load))
