r"""How many arrive in a time: a stream whose gaps have a gamma distribution.

With a squared coefficient of variation k of the gaps, n of them take less than the time
in which m arrive on average with the chance

$$ F_n(m) = P\left(\frac{n}{k}, \frac{m}{k}\right), $$

the regularized incomplete gamma function. Of a stream that has run for long, the arrivals
A in such a time have $E(A - t)^+ = \int_0^m F_t(v)\,dv$ (Cox, Renewal Theory, 1962,
chapter 4), in closed form, for any t. With k = 1 they are those of Poisson. Generators of
load send such streams: `--burstiness` of vLLM's benchmark is 1 / k.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .. import smooth
from .._types import Real, Scalar
from ..switch import either

Many = Float[Array, "..."]

STEADIEST = 0.01
"""Least squared coefficient of variation of gaps that is told from none."""

_TEMME = (
    (-1 / 3, 1 / 12, -2 / 135, 1 / 864, 1 / 2835, -139 / 777600, 1 / 25515),
    (-1 / 540, -1 / 288, 1 / 378, -77 / 77760, 1 / 4860),
    (25 / 6048, -139 / 51840, 1 / 1296),
)
"""Coefficients of powers of eta, by power of 1 / a."""

_ETA = (1.0, -1 / 3, 7 / 36, -73 / 540, 1331 / 12960)
"""Of powers of x / a - 1, for eta over it."""

_STIRLING = (1.0, 1 / 12, 1 / 288, -139 / 51840, -571 / 2488320)
"""Of powers of 1 / a, for the gamma function over Stirling's formula."""

_SHIFT = 8
"""The expansion is taken at a + 8, where it is good to 1e-7."""

_NEAR = 0.02
"""Distance from x = a within which eta is a series."""


def _polynomial(coefficients: tuple, x: Real) -> Real:
    total = 0.0
    for coefficient in reversed(coefficients):
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
    apart = mean / a - 1.0
    near = jnp.abs(apart) < _NEAR
    far = either(near, 0.5, apart)
    eta = jnp.sign(far) * jnp.sqrt(2.0 * (far - jnp.log1p(far)))
    eta = either(near, apart * _polynomial(_ETA, apart), eta)
    density = jnp.exp(-0.5 * a * eta**2) / jnp.sqrt(2.0 * jnp.pi * a)
    rest = _polynomial(tuple(_polynomial(each, eta) for each in _TEMME), 1.0 / a)
    chance = 0.5 * jax.lax.erfc(-eta * jnp.sqrt(0.5 * a)) - rest * density
    exact = density / _polynomial(_STIRLING, 1.0 / a)
    for i in range(_SHIFT, 0, -1):
        exact = exact * (count + i) / mean
        chance = chance + exact
    return chance, exact


def _excess(count: Many, mean: Many) -> tuple[Many, Many]:
    """E (A - t)+ and the chance that A reaches t, with gaps of variance 1."""
    some = count > 0.0
    at = either(some, count, 1.0)
    chance, exact = reached(at, mean)
    excess = mean * chance - at * (chance - exact)
    return either(some, excess, mean - count), either(some, chance, 1.0)


def excess(
    count: Many, mean: Many, variance: Many, decay: Scalar, tail: Scalar
) -> tuple[Many, Many]:
    r"""Mean arrivals beyond counts, of several states, and the chances that so many come
    after one that has just come. Beside the last state's arrivals there are others, whose
    number falls off as $e^{-q n / k}$.

    Where A exceeds t, all of those are beyond; where it doesn't, they are with a chance
    of $E(e^{-q (t - A) / k}; A < t)$, which is another incomplete gamma function, of the
    mean $m e^q$.

    Args:
        count: t, (state, ...); below 0 where so many wait already.
        mean: m that are expected, likewise.
        variance: k, the squared coefficient of variation of the gaps, (state, 1).
        decay: q.
        tail: how many those others are on average, $k / (e^q - 1)$.
    """
    t, m = count / variance, mean / variance
    t = jnp.concatenate([t, t[-1:]])
    m = jnp.concatenate([m, m[-1:] * jnp.exp(decay)])
    own, chance = _excess(t, m)
    t, m = t[-1], m[-2]
    # bounded, where a large power meets a chance that is lost in rounding
    power = jnp.exp(smooth.smaller(m * jnp.expm1(decay) - decay * t, 60.0))
    short = smooth.within(power * (1.0 - chance[-1]), 0.0, 1.0 - chance[-2])
    others = tail * either(t > 0.0, chance[-2] + short, 1.0)
    last = jnp.arange(count.shape[0])[:, None] == count.shape[0] - 1
    return variance * own[:-1] + last * others, chance[:-1]


def decay_of(load: Scalar) -> Scalar:
    r"""How fast a waiting line falls off: q with $(e^q - 1) / q = 1 / u$.

    Of a line from which B leave at a time, while A arrive, $E\,e^{q (A - B) / k} = 1$.
    Newton's method from above, as $q < -2 \ln u$.
    """

    def closer(_: Int[Array, ""], q: Scalar) -> Scalar:
        gap = jnp.log(jnp.expm1(q) / q) + jnp.log(load)
        return q - gap / (-1.0 / jnp.expm1(-q) - 1.0 / q)

    return jax.lax.fori_loop(0, 7, closer, -2.0 * jnp.log(load))
