"""Percentiles of the wait and of the time to the first token in a bulk queue.

Whoever comes while a service has a rest r to run waits for it, and for a full batch S(B)
for each B that are in front: those that were left, and those that came before in that
service. How many come up to a time with so many in front is a mean of arrivals beyond a
count.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import smooth
from .._types import Scalar
from ..implicit import Function, roots
from ..step.layer import HIGHEST
from ..switch import either
from .arrivals import NONE, arrived
from .bulk import DIGITS, STATES, Bulk, reach_of

LATE = 0.1
"""Share of the requests that take longer than the P90."""

_PLACES, _WEIGHTS = (np.polynomial.legendre.leggauss(8) + np.array([[1.0], [0.0]])) * 0.5
"""Of an integral over those that are missing to a count (Gauss and Legendre)."""

_ROWS = np.minimum(np.arange(STATES + len(_PLACES), dtype=np.int32), STATES - 1)
"""States, and for each place once more the tail."""

CLOSE = 1e-9
"""Of the logarithm of that share, when it is found."""

_AT_ONCE = 1e-6
"""Least time, in mean gaps, in which any come."""

_SIGNS = np.array([1.0, 1.0, -1.0])[:, None]


def _waiting(
    queue: Bulk, after: Float[Array, "state 3"], until_s: Float[Array, "state 3"]
) -> Float[Array, "state age"]:
    """Arrivals of a service up to two times beyond two counts, less those up to a third.

    In the tail others wait beyond its first number, n or more of them with a chance of
    $e^{-q n}$: all arrivals count where these are enough, and else those beyond what is
    missing, over which the integral is taken.
    """
    gaps, far = queue.line.gaps, smooth.larger(after[-1], 0.0)
    reach = smooth.smaller(far, reach_of(queue.line.largest, gaps.variance))
    missing = _PLACES[:, None] * reach
    others = queue.decay * reach * jnp.exp(-queue.decay * (far - missing))
    weights = jnp.concatenate(
        [
            jnp.ones((STATES - 1, len(_SIGNS))),
            jnp.exp(-queue.decay * far)[None],
            _WEIGHTS[:, None] * others,
        ]
    )
    inner = smooth.larger(after[:-1], 0.0)
    counts = jnp.concatenate([inner, 0.0 * far[None], missing])[..., None] + 1.0
    times = queue.per_s * until_s[_ROWS, :, None]
    come = arrived(gaps, counts, smooth.larger(times, _AT_ONCE))
    # those after one that has come: as many as gaps that are left, up to the next one
    next_gap = (queue.arriving[:, None] - queue.first_left) / queue.first
    more = come.left + next_gap[_ROWS] * come.chance
    each = more * ((times > 0.0) * _SIGNS * weights[..., None])
    each = each.sum(axis=1)
    return jnp.concatenate([each[: STATES - 1], each[STATES - 1 :].sum(0)[None]])


def waits_longer(queue: Bulk, wait_s: Scalar) -> Float[Array, ""]:
    """Share of the requests that wait longer than a time; below 0, all do."""
    full_s = queue.line.busy_s[-1]
    at_s = smooth.larger(wait_s, 0.0)
    batches = jnp.floor(at_s / full_s)
    rest_s = smooth.larger(queue.line.busy_s - (at_s - batches * full_s), 0.0)
    more = batches * queue.line.largest - queue.line.left
    beyond = more + queue.line.largest
    after = jnp.stack([beyond, more, beyond], axis=1)
    until_s = jnp.stack([queue.line.busy_s, rest_s, rest_s], axis=1)
    longer = jnp.sum(queue.share * _waiting(queue, after, until_s)) / queue.batch
    return either(wait_s < 0.0, 1.0, longer)


class _Parts(NamedTuple):
    """Of batches that aren't full, by state before and number that is taken."""

    often: Float[Array, "state number"]
    """Share of the services, over the mean batch."""
    come: Float[Array, "state number"]
    """Requests that came in the service before."""
    power: Float[Array, "state 1"]
    """Those who came up to a share x of its time are taken as x to this power: 1 where
    they come at any time, more where the first gap is long."""


def _parts_of(queue: Bulk) -> _Parts:
    line = queue.line
    part = queue.waiting < line.largest
    often = jnp.einsum("sa,snab->sn", queue.share, queue.moves, precision=HIGHEST)
    come, waited_s = jnp.sum(queue.share * jnp.stack([queue.arriving, queue.waited_s]), 2)
    power = come * line.busy_s / smooth.larger(waited_s, NONE) - 1.0
    return _Parts(
        often * part / queue.batch,
        queue.waiting - queue.left[:, None],
        smooth.larger(power, 0.0)[:, None],
    )


def _in_part(queue: Bulk, parts: _Parts, more_s: Scalar) -> Scalar:
    """What `waits_longer` than a full batch leaves out of those whose wait and batch take
    longer than a batch of one, and more: they are in batches that aren't full.

    Such a batch takes all that wait: those that have just come, and those that the
    service before left, the last to come before it.
    """
    line, left = queue.line, queue.left[:, None]
    time_s, full_s = line.step_s[0] + more_s, line.step_s[-1]
    own_s = jnp.stack([line.step_s, full_s + 0.0 * line.step_s])
    waits_s, before_s = time_s - own_s[:, None], line.busy_s[:, None]
    at = smooth.within(1.0 - waits_s / before_s, 0.0, 1.0)
    new = jnp.exp(parts.power * jnp.log(smooth.larger(at, NONE))) * (at > 0.0)
    spans_s = smooth.larger(left, 1e-6) / queue.per_s
    old = smooth.within(1.0 - (waits_s - before_s) / spans_s, 0.0, 1.0)
    longer, full = parts.come * new + left * old
    at_once = (more_s < 0.0) * 1.0 - (time_s < full_s)
    alone = queue.often[0] / queue.batch
    return jnp.sum(parts.often * (longer - full)) + alone * at_once


class _Sought(NamedTuple):
    """A time that is sought."""

    queue: Bulk
    parts: _Parts
    with_batch: Scalar
    """0 for the wait, or 1 for what wait and batch take beyond a batch of one."""
    mean_s: Scalar


def _too_few(sought: _Sought, time_s: Scalar) -> tuple[Array, tuple]:
    """Share of the requests that take no longer, less 0.9."""
    queue, parts, with_batch, _ = sought
    step_s = queue.line.step_s
    longer = waits_longer(queue, time_s - with_batch * (step_s[-1] - step_s[0]))
    longer = longer + with_batch * _in_part(queue, parts, time_s)
    return LATE - longer[None], ()


class _Points(NamedTuple):
    """Times between which the one that is sought lies, and one before them; with the
    logarithms of `LATE` over the share that takes longer, which is nearly a line."""

    new: Scalar
    new_log: Scalar
    far: Scalar
    far_log: Scalar
    old: Scalar
    old_log: Scalar
    part: Scalar
    """Of the way from the new one to the far one, where to try next."""
    tries: Scalar


def _from_guess(
    function: Function, halvings: int, sought: _Sought, upper: Scalar
) -> tuple[Array, tuple]:
    """From the time that it would be if all that wait did so for exponential times, by
    inverse quadratic interpolation where that is safe, and halving elsewhere.

    Reference: Chandrupatla, Advances in Engineering Software 28(3), 1997.
    """
    least = upper * 0.5**halvings
    waits = jax.lax.max(1.0 - sought.queue.often[0] / sought.queue.batch, NONE)
    # where fewer wait, the first try is next to 0 and the last one
    begin = jax.lax.min(jnp.log(LATE / waits), -CLOSE)
    guess = -(begin + CLOSE) * sought.mean_s / (waits * upper)
    guess = jax.lax.clamp(0.5**halvings, guess, 0.9)
    none = 0.0 * upper
    end = -begin / guess + begin
    start = _Points(none, begin, upper, end, upper, end, guess, none)

    def unfinished(p: _Points) -> Array:
        open_ = (jnp.abs(p.new_log) > CLOSE) & (jnp.abs(p.far - p.new) > 2.0 * least)
        return (p.tries < 1.0) | (open_ & (p.tries < 2.0 * halvings))

    def closer(p: _Points) -> _Points:
        x = p.new + p.part * (p.far - p.new)
        longer = LATE - function(sought, x)[0][0]
        y = np.log(LATE) - jnp.log(jax.lax.max(longer, NONE))
        same = (y > 0.0) == (p.new_log > 0.0)
        old, old_log = either(same, p.new, p.far), either(same, p.new_log, p.far_log)
        far, far_log = either(same, p.far, p.new), either(same, p.far_log, p.new_log)
        place = (x - far) / (old - far)
        height = (y - far_log) / (old_log - far_log)
        safe = (height**2 < place) & ((1.0 - height) ** 2 < 1.0 - place)
        a, b = y / (far_log - y), y / (old_log - y)
        curved = a * old_log / (far_log - old_log)
        curved = curved + (old - x) / (far - x) * b * far_log / (old_log - far_log)
        edge = least / jnp.abs(far - x)
        part = jax.lax.clamp(edge, either(safe, curved, 0.5), 1.0 - edge)
        return _Points(x, y, far, far_log, old, old_log, part, p.tries + 1.0)

    return jnp.stack([jax.lax.while_loop(unfinished, closer, start).new]), ()


class P90(NamedTuple):
    """Nine of ten requests take no longer."""

    wait_s: Scalar
    first_s: Scalar
    """Wait and batch."""


def p90(queue: Bulk) -> P90:
    """By Markov's inequality both are at most ten times the mean."""
    most_s, parts = (queue.wait_s + queue.batch_s) / LATE, _parts_of(queue)
    least_s = queue.line.step_s[0]

    def found(with_batch: Scalar) -> Array:
        mean_s = queue.wait_s + with_batch * (queue.batch_s - least_s)
        sought = _Sought(queue, parts, with_batch, mean_s)
        return roots(_too_few, sought, most_s, DIGITS, _from_guess).x[0]

    wait_s, more_s = jnp.unstack(jax.lax.map(found, jnp.array([0.0, 1.0])))
    return P90(wait_s, least_s + more_s)
