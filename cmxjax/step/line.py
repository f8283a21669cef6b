"""Stages of a pipeline: what each works on a micro-batch, what lies before and after."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import smooth
from .._types import Leaf, Scalar


class PassTimes(NamedTuple):
    """Seconds of one micro-batch on one stage, or on each of several."""

    forward: Leaf
    backward: Leaf
    """Gradients of the inputs, with what is recomputed for them."""
    weight: Leaf
    """Gradients of the weights."""

    @property
    def total(self) -> Leaf:
        return self.forward + self.backward + self.weight


def scaled(work: PassTimes, factor: Scalar) -> PassTimes:
    """A stage that takes `factor` times as long."""
    return PassTimes(*(factor * x for x in work))


def in_turn(*works: PassTimes) -> PassTimes:
    """Stages one after another."""
    return PassTimes(*(sum(parts[1:], parts[0]) for parts in zip(*works)))


class Line(NamedTuple):
    """Stages that may hold up the others, and what lies before and after each.

    Arrays are over these candidates; `before` and `after` are sums over stages.
    """

    work: PassTimes
    before: PassTimes
    after: PassTimes
    whole: PassTimes
    """Sum over all stages; scalars, as is `stages`."""
    behind: Float[Array, " candidate"]
    """Stages after each."""
    ahead: Float[Array, " candidate"]
    """Stages before each."""
    present: Float[Array, " candidate"]
    """1, or less where there are too few stages for it."""
    first: PassTimes
    stages: Scalar


def line_of_stages(work: PassTimes) -> Line:
    """A line of stages given one by one, (stage,) arrays."""
    count = work.forward.shape[-1]
    whole = PassTimes(*(x.sum() for x in work))
    through = PassTimes(*(jnp.cumsum(x) for x in work))
    before = PassTimes(*(x - y for x, y in zip(through, work)))
    after = PassTimes(*(x - y for x, y in zip(whole, through)))
    ahead = jnp.arange(count, dtype=float)
    return Line(
        work,
        before,
        after,
        whole,
        count - 1.0 - ahead,
        ahead,
        jnp.ones(count),
        PassTimes(*(x[0] for x in work)),
        jnp.asarray(float(count)),
    )


def _coefficients() -> np.ndarray:
    """What the candidates of `line_of_classes` are made of, (row, class, weight).

    Rows: work of the first, both outermost middle and the last stage; what is
    before each; what is after each; the whole line. Classes: first, middle, last.
    Weights: 1, more (a second stage), some (a third), rest (a fourth and so on, where
    there is a third), inner (stages between the ends).
    """
    one, more, some, rest, inner = np.eye(5)
    o = np.zeros(5)
    work = [[one, o, o], [o, some, o], [o, some, o], [one - more, o, more]]
    before = [[o, o, o], [some, o, o], [some, rest, o], [more, inner, o]]
    after = [[o, inner, more], [o, rest, some], [o, o, some], [o, o, o]]
    return np.array([*work, *before, *after, [one, inner, more]])


_COEFFICIENTS = _coefficients()
_OF_CANDIDATE = np.array([[1.0, 0, 0, 0], [0, 1.0, 1.0, 0], [0, 0, 0, 1.0]])
"""Which class each candidate is of, (class, candidate)."""


_EVEN = np.ones(3)


def line_of_classes(
    first: PassTimes,
    middle: PassTimes,
    last: PassTimes,
    stages: Scalar,
    fullest: Float[Array, " class"] | Float[np.ndarray, " class"] = _EVEN,
) -> Line:
    """A line of a first, a last and equal stages between; the count may be fractional.

    With one stage the first is also the last and must hold everything. The candidates
    are the first, both outermost middle ones, and the last.

    Args:
        middle: the mean stage between the ends.
        fullest: work of the fullest stage of each class over the mean.
    """
    inner = smooth.larger(stages - 2.0, 0.0)
    some, one = smooth.smaller(inner, 1.0), jnp.ones(())
    more = smooth.smaller(smooth.larger(stages - 1.0, 0.0), 1.0)
    rest = some * smooth.larger(inner - 1.0, 0.0)
    highest = jax.lax.Precision.HIGHEST
    weights = jnp.stack([one, more, some, rest, inner])
    rows = jnp.dot(_COEFFICIENTS, weights, precision=highest)
    # a stage counts for one beside its three kinds of work
    classes = jnp.stack([*first, one, *middle, one, *last, one]).reshape(3, 4)
    table = jnp.einsum("cw,rc->wr", classes, rows, precision=highest)
    listed = jnp.split(table[:, :12].reshape(12, 4), 12)
    work, before, after = (
        PassTimes(*(x[0] for x in listed[k : k + 9 : 3])) for k in range(3)
    )
    most = jnp.dot(fullest, _OF_CANDIDATE, precision=highest)
    work = PassTimes(*(x * most for x in work))
    present, ahead, behind = (x[0] for x in listed[9:])
    whole = PassTimes(*(x[0] for x in jnp.split(table[:3, 12], 3)))
    return Line(work, before, after, whole, behind, ahead, present, first, stages)
