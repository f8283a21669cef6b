"""Percentiles of the wait and of the time to the first token in a bulk queue.

Whoever comes while a service has a rest r to run waits for it, and for a full batch S(B)
for each B that are in front: those that were left, and those that came before in that
service. How long r is with at least so many in front is an integral of a chance over the
service, and so a difference of `excess`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import smooth
from .._types import Scalar
from ..implicit import roots
from ..switch import either
from .arrivals import excess
from .bulk import DIGITS, LAST, Bulk

LATE = 0.1
"""Share of the requests that take longer than the P90."""


def _spent_s(
    queue: Bulk, count: Float[Array, "state time"], until_s: Float[Array, "state time"]
) -> Float[Array, "state time"]:
    """Seconds of a service, up to a time, in which so many have arrived; in the tail
    those beyond its first number count too."""
    decay, tail, spread = queue.decay, queue.tail, queue.spread
    began = until_s > 0.0
    means = queue.stream.per_s * either(began, until_s, queue.busy_s[:, None])
    there = smooth.larger(-count, 0.0)
    soon = tail * jnp.exp(-decay * smooth.larger(count[-1], 0.0) / spread[-1])
    arrived = excess(count, means, spread, decay, tail)[0]
    arrived = arrived - there - LAST[:, None] * soon
    return either(began, arrived / queue.stream.per_s, 0.0)


def _come(queue: Bulk, part: Float[Array, "state ..."]) -> Float[Array, "state ..."]:
    """Share of a service's arrivals that come up to a part of its time: the same, but
    of the services that begin with one that has just come."""
    some = part[:1] > 0.0
    late = jnp.exp(queue.lateness * jnp.log(either(some, part[:1], 1.0)))
    return jnp.concatenate([either(some, late, 0.0), part[1:]])


def waits_longer(queue: Bulk, wait_s: Scalar) -> Float[Array, ""]:
    """Share of the requests that wait longer than a time; below 0, all do."""
    full_s = queue.busy_s[-1]
    at_s = smooth.larger(wait_s, 0.0)
    batches = jnp.floor(at_s / full_s)
    rest_s = smooth.larger(queue.busy_s - (at_s - batches * full_s), 0.0)
    rest_s = queue.busy_s * _come(queue, rest_s / queue.busy_s)
    more = (batches + 1.0) * queue.largest - (queue.left - LAST * queue.tail)
    counts = jnp.stack([more, more, more - queue.largest], axis=1)
    until_s = jnp.stack([queue.busy_s, rest_s, rest_s], axis=1)
    seconds = _spent_s(queue, counts, until_s) @ jnp.array([1.0, -1.0, 1.0])
    came = queue.arriving / queue.busy_s
    longer = queue.share @ (came * seconds) / queue.batch
    return either(wait_s < 0.0, 1.0, longer)


def _in_part(queue: Bulk, more_s: Scalar) -> Scalar:
    """What `waits_longer` than a full batch leaves out of those whose wait and batch take
    longer than a batch of one, and more: they are in batches that aren't full.

    Such a batch takes all that wait: those that have just come, at any time of the
    service before, and those that it left, the last to come before it.
    """
    time_s, full_s = queue.step_s[0] + more_s, queue.step_s[-1]
    before_s, left = queue.busy_s[:, None], queue.left[:, None]
    came = queue.waiting - left
    partly = queue.share[:, None] * queue.moves * (queue.waiting < queue.largest)
    spans_s = smooth.larger(left, 1e-6) / queue.stream.per_s

    def longer(own_s: Scalar | Float[Array, " state"]) -> Float[Array, "state state"]:
        waited = time_s - own_s
        new = _come(queue, smooth.within(1.0 - waited / before_s, 0.0, 1.0))
        old = smooth.within(1.0 - (waited - before_s) / spans_s, 0.0, 1.0)
        return came * new + left * old

    own = partly * (longer(queue.step_s) - longer(full_s))
    at_once = (more_s < 0.0) * 1.0 - (time_s < full_s)
    return (own.sum() + queue.share[0] * at_once) / queue.batch


def _too_few(queue: Bulk, time_s: Scalar) -> tuple[Array, tuple]:
    """Share of the requests that take no longer, less 0.9: of the wait, and of what wait
    and batch take beyond a batch of one."""
    beyond_s = jnp.stack([time_s, time_s + queue.step_s[0] - queue.step_s[-1]])
    waits, first = jax.vmap(lambda wait_s: waits_longer(queue, wait_s))(beyond_s)
    first = first + _in_part(queue, time_s)
    return LATE - jnp.stack([waits, first]), ()


class P90(NamedTuple):
    """Nine of ten requests take no longer."""

    wait_s: Scalar
    first_s: Scalar
    """Wait and batch."""


def p90(queue: Bulk) -> P90:
    """By Markov's inequality both are at most ten times the mean."""
    most_s = (queue.wait_s + queue.batch_s) / LATE
    wait_s, more_s = roots(_too_few, queue, most_s, DIGITS).x
    return P90(wait_s, queue.step_s[0] + more_s)
