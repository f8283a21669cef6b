"""Which layers of the model each pipeline stage of a training job holds."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import smooth
from .._types import Scalar, Sharpness
from ..job.layout import Layout, degree
from ..job.workload import Train
from ..machine.runtimes import Spread
from ..model.architecture import MOST_LAYERS, Architecture, added, known_of
from ..model.feed_forwards import Experts
from ..switch import either

ROUNDING = 1e-9
"""Layers by which whole numbers may be missed in quotients of them."""

PerStage = Float[Array, "*stage"]


class Span(NamedTuple):
    """What stages hold: layers of each kind, and the ends of the model."""

    position: PerStage
    layers: tuple[PerStage, ...]
    """By kind."""
    embedding: PerStage
    """1 on the stage with the embedding, likewise with the head."""
    head: PerStage
    fullest: PerStage
    """Layers of the fullest of the stages that one stands for, over their mean."""

    @property
    def most(self) -> tuple[PerStage, ...]:
        """Layers of each kind on the fullest stage of those that one stands for."""
        return tuple(self.fullest * held for held in self.layers)


def head_layers(a: Architecture) -> Scalar:
    """Weights of the head over those that a token meets in a layer."""
    known, kind = known_of(a), a.draft
    weights = [known.halves.mixers[i] for i in kind.mixers]
    for i in kind.feed_forwards:
        half, network = a.feed_forwards[i], known.networks[i]
        many = half.topk + half.shared if isinstance(half, Experts) else 1.0
        weights.append(many * network)
    return a.vocabulary * a.hidden / added(weights)


def _below(a: Architecture, layers: PerStage) -> list[PerStage]:
    """Layers of each kind among as many first ones; of a part of a layer its share."""
    if len(a.kinds) == 1:
        return [layers]
    whole = jnp.clip(jnp.floor(layers), 0.0, MOST_LAYERS - 1.0)
    place = whole.astype(int)
    below = []
    for row in jnp.unstack(jnp.asarray(a.order)[:-1]):
        low = row.at[place].get(mode="promise_in_bounds")
        high = row.at[place + 1].get(mode="promise_in_bounds")
        below.append(low + (layers - whole) * (high - low))
    return [*below, layers - added(below)]


def end_spans(
    a: Architecture, layout: Layout, ends: tuple[Scalar, Scalar], sharpness: Sharpness
) -> Span:
    """The first stage, one between and the last of layers spread by rule, (3,).

    A stage holds whole layers; where the stages don't divide them, the last one, which
    has the head too, holds what the others leave. Where they leave nothing it gets its
    share, rounded down, as no stage stays empty while there is a layer for each; but a
    head that counts for more than a stage's mean stands alone. Those between hold the
    mean of what is left of each kind, and the fullest of them whole layers. Without
    stages between, the last one stands in for them.

    Args:
        ends: layers that the embedding and the head count for; 0 spreads layers evenly.
    """
    pp, depth = degree(layout, "pp"), a.layers
    more = smooth.within(pp - 1.0, 0.0, 1.0)
    inner, between = smooth.larger(pp - 2.0, 1.0), smooth.within(pp - 2.0, 0.0, 1.0)
    mean = (depth + sum(ends) * more) / pp
    excess = smooth.ceil(mean - ROUNDING, sharpness) / mean - 1.0
    most = mean * (1.0 + excess * smooth.positive(pp - 1.0, sharpness))
    least = smooth.smaller(jnp.floor(depth / pp), 1.0)
    first = smooth.within(most - ends[0] * more, least, depth)
    left = depth - first - (pp - 2.0) * most
    least = either(ends[1] >= mean, 0.0, least)
    share = smooth.larger(jnp.floor(mean + ROUNDING) - ends[1] * more, least)
    last = either(left > least - ROUNDING, smooth.smaller(left, most), share)
    held = smooth.larger(depth - first - last, 1.0) / inner
    excess = between * (smooth.ceil(held - ROUNDING, sharpness) / held - 1.0)
    layers = []
    cuts = _below(a, jnp.stack([first, depth - last]))
    for total, below in zip(a.counts, cuts, strict=True):
        start, end = jnp.unstack(below)
        after = total - end
        second = after + between * (smooth.larger(end - start, 0.0) / inner - after)
        layers.append(jnp.stack([start, second, after]))
    at_first, at_middle, at_last = np.eye(3)
    return Span(
        position=more * at_middle + (pp - 1.0) * at_last,
        layers=tuple(layers),
        embedding=jnp.asarray(at_first),
        head=1.0 - more * at_first - between * at_middle,
        fullest=1.0 + excess * at_middle,
    )


def listed_spans(a: Architecture, stage_layers: Float[Array, " stage"]) -> Span:
    """Stages whose layers are given one by one, (stage,)."""
    count = stage_layers.shape[-1]
    through = _below(a, jnp.cumsum(stage_layers))
    position = jnp.arange(count, dtype=float)
    return Span(
        position=position,
        layers=tuple(jnp.diff(below, prepend=0.0) for below in through),
        embedding=(position == 0.0).astype(float),
        head=(position == count - 1.0).astype(float),
        fullest=jnp.ones(count),
    )


def spans_of(
    rule: Spread, a: Architecture, w: Train, layout: Layout, sharpness: Sharpness
) -> Span:
    """Stages to look at: those listed, or the two ends and one between.

    Args:
        rule: how the runtime spreads layers.
    """
    if w.stage_layers is not None:
        return listed_spans(a, w.stage_layers)
    ends = (rule.ends.on, rule.ends.on + rule.head.on * head_layers(a))
    return end_spans(a, layout, ends, sharpness)
