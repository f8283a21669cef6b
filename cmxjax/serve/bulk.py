r"""A queue whose server takes all that wait, at most B, and b of them for a time S(b).

Seen at the ends of services, n wait. Of these b = min(n, B) are taken, or the next one to
come where there is none, and A arrive meanwhile: $n' = n - b + A(S(b))$. The stationary
shares of this chain give, with Little's law, the exact mean wait. With B = 1 and one S it
is that of Pollaczek and Khinchine.

States are whole numbers up to 62 where B is below 40 or so. A larger B spreads them in
proportion to the square root of n, as the numbers that arrive scatter, and what comes
between two states falls to both so that the mean is kept. Beyond the last one the line
falls off geometrically, which is one state more.

References: Bailey, "On queueing processes with bulk service", J. R. Stat. Soc. B 16,
1954; Neuts, "A general class of bulk queues with Poisson input", Ann. Math. Stat. 38,
1967.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import smooth
from .._types import Scalar
from ..step.layer import HIGHEST
from ..switch import either
from .arrivals import STEADIEST, decay_of, excess

STATES = 64
"""The last one is the tail."""

DIGITS = 26
"""Binary ones, of the rates and times that are sought in such a queue."""

FIRST, LAST = np.eye(STATES, dtype=bool)[[0, -1]]
"""Whether a state is that of none that wait, or the tail."""

_LATER = ~np.tri(STATES - 1, STATES - 2, -1, dtype=bool)
"""Whether a step between states is at a state or after it."""


class Stream(NamedTuple):
    """Requests that arrive at one queue."""

    per_s: Scalar
    variance: Scalar
    """Squared coefficient of variation of the gaps between them; 1 is Poisson."""


class Service(NamedTuple):
    """Seconds of batches of several sizes; those between are interpolated."""

    prompts: Float[Array, " size"]
    """Ascending from 1 to the largest batch B."""
    busy_s: Float[Array, " size"]
    """From one batch to the next that follows it at once."""
    step_s: Float[Array, " size"]
    """Of a batch by itself, from its start to its end."""

    @property
    def largest(self) -> Scalar:
        return self.prompts[-1]

    def at(
        self, values: Float[Array, "value size"], batch: Float[Array, " state"]
    ) -> Float[Array, "value state"]:
        """What the sizes have, between them."""
        gaps = smooth.larger(jnp.diff(self.prompts), 1e-6)
        parts = smooth.within((batch - self.prompts[:-1, None]) / gaps[:, None], 0.0, 1.0)
        return values[:, :1] + jnp.dot(jnp.diff(values), parts, precision=HIGHEST)

    @property
    def full_per_s(self) -> Scalar:
        """Most that can be served: all batches are full."""
        return self.largest / self.busy_s[-1]


class Bulk(NamedTuple):
    """Such a queue in balance; arrays are by state, the number that wait at an end."""

    stream: Stream
    largest: Scalar
    spread: Float[Array, "state 1"]
    """Variance over mean of those that arrive meanwhile, in the long run. A service of
    one that has just come starts anew: there it is the variance of the gaps."""
    decay: Scalar
    """Of the tail, see `decay_of`."""
    tail: Scalar
    """How many are beyond the last number that is a state, if some are."""
    waiting: Float[Array, " state"]
    taken: Float[Array, " state"]
    busy_s: Float[Array, " state"]
    step_s: Float[Array, " state"]
    arriving: Float[Array, " state"]
    """Meanwhile."""
    lateness: Scalar
    """Of a service that begins with one that has just come, those who come up to a
    share x of its time go as x to this power: 1 of a Poisson stream."""
    share: Float[Array, " state"]
    moves: Float[Array, "state state"]

    @property
    def left(self) -> Float[Array, " state"]:
        """Those that wait on when a batch is taken."""
        return smooth.larger(self.waiting - self.largest, 0.0)

    @property
    def batch(self) -> Scalar:
        """Mean batch."""
        return self.share @ self.taken

    @property
    def wait_s(self) -> Scalar:
        """Mean wait: by Little's law, over those that wait during a service."""
        rest = either(FIRST, 1.0 / (1.0 + self.lateness), 0.5)
        during = (self.left + rest * self.arriving) * self.busy_s
        return self.share @ during / self.batch

    @property
    def batch_s(self) -> Scalar:
        """Mean time that a request's own batch takes."""
        return self.share @ (self.taken * self.step_s) / self.batch

    def per_second(self, each: Float[Array, " state"]) -> Scalar:
        """What services do in a second, from what each does."""
        return self.share @ each * self.stream.per_s / self.batch


def _spread(stream: Stream, full: Scalar) -> Scalar:
    """Variance over mean of arrivals in one service as if services were independent.

    In a time that sees m on average the variance is $k m + (1 - k^2) / 6$, of which the
    second part is there once however many services follow (Cox, Renewal Theory, 4.5);
    the 1 keeps it finite for a few arrivals.
    """
    k = stream.variance
    own = k - (1.0 - k**2) / (6.0 * full + 1.0)
    return smooth.larger(own, STEADIEST)


def _states(largest: Scalar, spread: Scalar) -> Float[Array, " inner"]:
    """Numbers that are states: 0, 1 and so on to well beyond B."""
    n = jnp.arange(STATES - 1.0)
    last = n[-1]
    reach = largest + 4.0 * jnp.sqrt(largest * smooth.larger(spread, 1.0)) + 4.0
    bend = smooth.larger(reach - last, 0.0) / (last * (last - 1.0))
    return n + bend * n * (n - 1.0)


def bulk_queue(stream: Stream, service: Service) -> Bulk:
    """The queue in balance, at a rate above 0 and below `service.full_per_s`."""
    stream = stream._replace(variance=smooth.larger(stream.variance, STEADIEST))
    largest = service.largest
    full = stream.per_s * service.busy_s[-1]
    spread = _spread(stream, full)
    states = _states(largest, spread)
    decay = decay_of(full / largest)
    tail = spread / jnp.expm1(decay)
    waiting = jnp.append(states, states[-1] + tail)
    taken = smooth.within(waiting, 1.0, largest)
    busy_s, step_s = service.at(jnp.stack([service.busy_s, service.step_s]), taken)
    means = stream.per_s * busy_s
    # the tail begins at the last number, and goes on from there
    left = smooth.larger(jnp.append(states, states[-1]) - largest, 0.0)[:, None]
    counts = states - left
    spreads = either(FIRST, stream.variance, spread)[:, None]
    beyond, reach = excess(counts, means[:, None], spreads, decay, tail)
    # who begins alone has just come
    gaps = jnp.diff(states)
    part = 0.5 + 0.5 / gaps  # of the way to a state, in the mean of the numbers up to it
    each = reach[0, :-1] + part * jnp.diff(reach[0])
    alone = jnp.dot(_LATER, each * gaps, precision=HIGHEST)
    # they come late where gaps are alike: their rests add up to an integral of `alone`
    each = beyond[0, :-1] + part * jnp.diff(beyond[0])
    rests = each @ gaps / means[0]
    lateness = alone[0] / smooth.larger(rests, 1e-12) - 1.0
    rarely = 1.0 / stream.variance  # where next to none come
    ends = smooth.smaller(rarely, 1.0), smooth.larger(rarely, 1.0)
    lateness = smooth.within(lateness, *ends)
    beyond = either(FIRST[:, None], alone, beyond)
    # E (n' - x)+ falls by the chance to be beyond x
    chances = -jnp.diff(beyond, append=0.0) / jnp.append(gaps, tail)
    moves = -jnp.diff(chances, prepend=1.0, append=0.0)
    # one of the balances follows from the others, and makes room for the sum
    balance = either(FIRST[:, None], 1.0, moves.T - jnp.eye(STATES))
    share = jnp.linalg.solve(balance, jnp.asarray(FIRST, balance.dtype))
    return Bulk(
        stream=stream,
        largest=largest,
        spread=spreads,
        decay=decay,
        tail=tail,
        waiting=waiting,
        taken=taken,
        busy_s=busy_s,
        step_s=step_s,
        arriving=either(FIRST, alone[0], means),
        lateness=lateness,
        share=share,
        moves=moves,
    )
