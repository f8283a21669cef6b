r"""A queue whose server takes all that wait, at most B, and b of them for a time S(b).

Seen at the ends of services, n wait. Of these b = min(n, B) are taken, or the next one to
come where there is none, and A arrive meanwhile: $n' = n - b + A(S(b))$. The stationary
shares of this chain give, with Little's law, the mean wait. With B = 1, one S and a
Poisson stream it is that of Pollaczek and Khinchine.

How many arrive depends on the age of the gap that runs, which is the other half of a
state. With R the mean rest of the gap at an age, and u the time of a service,

$$ E(A) = u + E(R') - R $$

(Wald), and likewise of those R' where at least n have come, which says how old the gap is
then: it falls to the two ages between whose rests its mean rest is. So as many arrive as
are sent, whatever else the ages leave out.

States are whole numbers up to 19 where B is below 7 or so. A larger B spreads them, the
more the larger they are, as the numbers that arrive scatter, and what comes between two
states falls to both so that the mean is kept. Beyond the last one the line falls off
geometrically, which is one state more.

References: Bailey, "On queueing processes with bulk service", J. R. Stat. Soc. B 16,
1954; Neuts, "A general class of bulk queues with Poisson input", Ann. Math. Stat. 38,
1967.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .. import smooth
from .._types import Scalar
from ..step.layer import HIGHEST
from .arrivals import AGES, NONE, Gaps, arrived, decay_of
from .balance import balance

STATES = 21
"""Numbers that wait; the last one is the tail. With ages they make 126 states, as many
as `balance` eliminates in six blocks."""

DIGITS = 26
"""Binary ones, of the rates and times that are sought in such a queue."""

_SOME = 1.0 - np.eye(STATES)[0]
"""Whether any wait, by state."""

_BEFORE, _TAIL = np.eye(STATES)[-2:]
"""Whether a state is the last number, or the tail."""

_LATER = np.tri(STATES - 2, STATES - 1).T
"""Whether a step between numbers is at a number or after it."""

_NEVER = 1e-8
"""Chance of what has no age worth a state."""

_STEEPEST = 7.0
"""Of the tail, which is next to nothing where it falls off as steeply."""

_SPREAD = 0.4
"""How far rests lie from their mean, over its distance from the nearest age there is.
Were they even it would be 0.58; this is nearest to simulations of 4 to 64 instances."""


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


class Line(NamedTuple):
    """The states of such a queue, by the number that wait; the tail is the last one."""

    gaps: Gaps
    """Of the stream of requests."""
    largest: Scalar
    numbers: Float[Array, " inner"]
    """Those that are states, the tail's first one included."""
    taken: Float[Array, " state"]
    busy_s: Float[Array, " state"]
    step_s: Float[Array, " state"]
    left: Float[Array, " state"]
    """Those that wait on when a batch is taken, of the tail at least."""
    counts: Float[Array, "state inner 1"]
    """Arrivals up to each number."""
    some: Bool[Array, "state state 1"]
    """Whether any must come for a number to wait."""
    parts: tuple[Array, Array]
    """Of a sum over the whole numbers between two that are states, by its upper and its
    lower end, (state, step, 1)."""
    full_per_s: Scalar
    """Most that can be served: all batches are full."""


class Bulk(NamedTuple):
    """Such a queue in balance."""

    line: Line
    per_s: Scalar
    """Requests that come."""
    decay: Scalar
    """Of the tail by each request: how many are beyond the last number that is a state,
    if some are, falls off as its exponential."""
    tail: Scalar
    """How many these are."""
    waiting: Float[Array, " state"]
    left: Float[Array, " state"]
    arriving: Float[Array, "state age"]
    """In a service."""
    waited_s: Float[Array, "state age"]
    """Sum of what these wait until the service ends."""
    first: Float[Array, "state one age"]
    """Whether the first has come by the end."""
    first_left: Float[Array, "state one age"]
    """Mean gaps that are left since."""
    share: Float[Array, "state age"]
    """Of the services."""
    often: Float[Array, " state"]
    """Likewise, whatever the age."""
    batch: Scalar
    """Mean batch."""
    moves: Float[Array, "state number age age"]
    """To numbers that wait at the next end, and ages then."""

    @property
    def wait_s(self) -> Scalar:
        """Mean wait: by Little's law, over those that wait during a service."""
        before = self.often @ (self.left * self.line.busy_s)
        return (before + jnp.sum(self.share * self.waited_s)) / self.batch

    @property
    def batch_s(self) -> Scalar:
        """Mean time that a request's own batch takes."""
        return self.often @ (self.line.taken * self.line.step_s) / self.batch

    def per_second(self, each: Float[Array, " state"]) -> Scalar:
        """What services do in a second, from what each does."""
        return self.often @ each * self.per_s / self.batch


def reach_of(largest: Scalar, variance: Scalar) -> Scalar:
    """A number that seldom comes in a service that takes B."""
    bursts = smooth.larger(variance, 1.0)
    return largest + 3.0 * jnp.sqrt(largest * bursts) + 4.0


def line_of(gaps: Gaps, service: Service) -> Line:
    """States are 0, 1 and so on to well beyond B, and the tail."""
    largest, n = service.largest, np.arange(STATES - 1.0)
    last = n[-1]
    reach = reach_of(largest, gaps.variance)
    # few at first, where each one counts
    bent = n * np.maximum(n - 1.0, 0.0) ** 1.5
    numbers = n + smooth.larger(reach - last, 0.0) * (bent / bent[-1])
    waiting = jnp.concatenate([numbers, numbers[-1:]])
    taken = smooth.within(waiting, 1.0, largest)
    left = smooth.larger(waiting - largest, 0.0)
    busy_s, step_s = service.at(jnp.stack([service.busy_s, service.step_s]), taken)
    counts = numbers[:, None] - left[:, None, None]
    steps = jnp.diff(smooth.larger(counts, 0.0), axis=1)
    upper = 0.5 * (steps + smooth.smaller(steps, 1.0))
    return Line(
        gaps=gaps,
        largest=largest,
        numbers=numbers,
        taken=taken,
        busy_s=busy_s,
        step_s=step_s,
        left=left,
        counts=counts,
        some=(waiting > left[:, None] + 0.5)[..., None],
        parts=(upper, steps - upper),
        full_per_s=service.full_per_s,
    )


class _Come(NamedTuple):
    """Those that come in services, by state, number n and age."""

    chance: Float[Array, "state inner age"]
    """That n or more wait in the end."""
    beyond: Float[Array, "state inner age"]
    """Mean of how many more."""
    rest: Float[Array, "state inner age"]
    """Mean rest of the gap, counted where n or more wait."""
    arriving: Float[Array, "state age"]
    waited: Float[Array, "state age"]
    first: Float[Array, "state one age"]
    first_left: Float[Array, "state one age"]


def _come(line: Line, per_s: Scalar) -> _Come:
    gaps, counts, u = line.gaps, line.counts, per_s * line.busy_s[:, None, None]
    come = arrived(gaps, counts, u)
    none = (counts <= 0.0) * 1.0
    chance, spare = jnp.maximum(come.chance, none), jnp.maximum(come.left, none * u)
    upper, lower = line.parts
    # beyond the last number, given that it is reached
    end, sure = spare[:, -1], chance[:, -1]
    since = end / smooth.larger(sure, NONE)
    soon = 0.5 * (1.0 - gaps.variance) * jnp.expm1(-since)
    between = upper * chance[:, 1:] + lower * chance[:, :-1]
    later = jnp.einsum("is,bsa->bia", _LATER, between, precision=HIGHEST)
    beyond = later + (end + soon * sure)[:, None]
    arriving = beyond[:, 0]
    waits = (upper * spare[:, 1:] + lower * spare[:, :-1]).sum(axis=1)
    waited = waits + (0.5 * since + soon) * end
    positive = smooth.larger(counts, 0.0)
    rest = smooth.smaller(positive, 1.0) * chance + beyond - spare + none * gaps.rest
    beyond = beyond + positive - counts
    return _Come(chance, beyond, rest, arriving, waited, come.first, come.first_left)


def _others(
    numbers: Float[Array, " inner"],
    steps: Float[Array, " inner"],
    decay: Scalar,
    tail: Scalar,
) -> Float[Array, "state state"]:
    """Where a number falls with as many others as there are beyond the last one."""
    apart = numbers - numbers[:, None]
    ahead = smooth.larger(apart, 0.0)
    beyond = tail * jnp.exp(-decay * ahead) + ahead - apart
    inner = _parted(_falls(beyond) / steps, 1.0 + 0.0 * beyond[:, :1])
    return jnp.concatenate([inner, (2.0 * _TAIL - _BEFORE)[None]])


def _falls(of: Float[Array, "row from *rest"], axis: int = 1) -> Array:
    """From each to the next one, of the last one to 0."""
    ends = [(-int(i == axis), int(i == axis), 0) for i in range(of.ndim)]
    return of - jax.lax.pad(of, jnp.zeros((), of.dtype), ends)


def _parted(
    of: Float[Array, "row from *rest"], first: Float[Array, "row one *rest"]
) -> Float[Array, "row to *rest"]:
    """What falls to each number and to the tail, from what goes beyond them."""
    return _falls(jnp.concatenate([first, of], axis=1))


def _ages(
    gaps: Gaps,
    some: Bool[Array, "state state 1"],
    chance: Float[Array, "state number age"],
    rest: Float[Array, "state number age"],
) -> Float[Array, "state number age age"]:
    """Shares of the ages that have a mean rest, of each chance. Where some have come, the
    last of them at any time, gaps that are alike have two rests instead of one. Where
    none wait the next to come is waited for, and a gap begins."""
    mean = rest * chance / smooth.larger(chance * chance, _NEVER**2)
    off = smooth.larger(smooth.smaller(1.0 - mean, mean - gaps.variance), 0.0)
    off = _SPREAD * off * some
    rests = jnp.stack([mean - off, mean + off])[..., None]
    older = (rests - gaps.rest[:-1]) / jnp.diff(gaps.rest)
    older = smooth.within(older, 0.0, 1.0).sum(0) * (0.5 * _SOME[:, None, None])
    chance = chance[..., None]
    return _falls(jnp.concatenate([chance, older * chance], axis=3), axis=3)


def _moves(
    gaps: Gaps,
    come: _Come,
    some: Bool[Array, "state state 1"],
    steps: Float[Array, "inner 1"],
    with_others: Float[Array, "state state"],
) -> Float[Array, "state number age age"]:
    """Chances of numbers that wait at the next end and of the gap's age then."""
    # E (n' - x)+ falls by the chance to be beyond x
    above = _falls(come.beyond) / steps
    # those between two numbers that fall to the upper one have a gap like the others
    between, rest = _falls(come.chance), _falls(come.rest)
    mean = rest / smooth.larger(between, _NEVER)
    aged = come.rest - rest + (above - come.chance + between) * mean
    whole = come.rest[:, :1]
    both = jnp.stack([_parted(above, 1.0 + 0.0 * whole), _parted(aged, whole)])
    last = jnp.einsum("nm,xna->xma", with_others, both[:, -1], precision=HIGHEST)
    shares, rests = jnp.concatenate([both[:, :-1], last[:, None]], axis=1)
    return _ages(gaps, some, shares, rests)


def bulk_queue(line: Line, per_s: Scalar) -> Bulk:
    """The queue in balance, at a rate above 0 and below `line.full_per_s`."""
    decay = decay_of(per_s / line.full_per_s) / line.gaps.variance
    decay = smooth.smaller(decay, _STEEPEST)
    tail = 1.0 / jnp.expm1(decay)
    waiting = jnp.concatenate([line.numbers, line.numbers[-1:] + tail])
    come = _come(line, per_s)
    steps = jnp.diff(waiting)
    others = _others(line.numbers, steps, decay, tail)
    moves = _moves(line.gaps, come, line.some, steps[:, None], others)
    count = STATES * AGES
    chances = moves.transpose(0, 2, 1, 3).reshape(count, count)
    share = balance(chances).reshape(STATES, AGES)
    often = share.sum(axis=1)
    return Bulk(
        line=line,
        per_s=per_s,
        decay=decay,
        tail=tail,
        waiting=waiting,
        left=line.left + _TAIL * tail,
        arriving=come.arriving,
        waited_s=come.waited / per_s,
        first=come.first,
        first_left=come.first_left,
        share=share,
        often=often,
        batch=often @ line.taken,
        moves=moves,
    )
