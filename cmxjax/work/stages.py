"""Which layers of the model each pipeline stage of a training job holds."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import smooth
from .._types import Scalar, Sharpness
from ..job.layout import Layout, degree
from ..job.workload import Train
from ..machine.runtimes import Spread
from ..model.architecture import (
    Architecture,
    attention_parameters,
    feed_forward_parameters,
)

PerStage = Float[Array, "*stage"]


class Span(NamedTuple):
    """What stages hold: layers of each sort, and the ends of the model."""

    position: PerStage
    dense: PerStage
    expert: PerStage
    embedding: PerStage
    """1 on the stage with the embedding, likewise with the head."""
    head: PerStage


def head_layers(a: Architecture) -> Scalar:
    """Weights of the head over those that a token meets in a layer."""
    layer = attention_parameters(a)
    if a.experts is None:
        layer = layer + feed_forward_parameters(a, a.intermediate)
    else:
        met = a.experts.topk + a.experts.shared
        layer = layer + met * feed_forward_parameters(a, a.experts.intermediate)
    return a.vocabulary * a.hidden / layer


def end_spans(
    a: Architecture, layout: Layout, ends: tuple[Scalar, Scalar], sharpness: Sharpness
) -> Span:
    """The first stage, one between and the last of layers spread by rule, (3,).

    The dense layers come first. A stage holds whole layers; where the stages don't
    divide them, the last one, which has the head too, holds what the others leave.
    Without stages between, the last one stands in for them.

    Args:
        ends: layers that the embedding and the head count for; 0 spreads layers evenly.
    """
    pp = degree(layout, "pp")
    more = smooth.within(pp - 1.0, 0.0, 1.0)
    inner, between = smooth.larger(pp - 2.0, 1.0), smooth.within(pp - 2.0, 0.0, 1.0)
    mean = (a.layers + sum(ends) * more) / pp
    excess = smooth.ceil(mean, sharpness) / mean - 1.0
    most = mean * (1.0 + excess * smooth.positive(pp - 1.0, sharpness))
    first = smooth.within(most - ends[0] * more, 0.0, a.layers)
    last = smooth.within(a.layers - first - (pp - 2.0) * most, 0.0, most)
    middle = smooth.larger(a.layers - first - last, 0.0) / inner
    dense_first = smooth.smaller(a.dense_layers, first)
    dense_last = smooth.within(a.dense_layers - (a.layers - last), 0.0, last)
    rest = a.dense_layers - dense_first - dense_last
    dense_middle = smooth.within(rest / inner, 0.0, middle)
    layers = jnp.stack([first, middle, last])
    dense = jnp.stack([dense_first, dense_middle, dense_last])
    span = Span(
        position=jnp.stack([jnp.zeros(()), more, pp - 1.0]),
        dense=dense,
        expert=layers - dense,
        embedding=jnp.stack([jnp.ones(()), jnp.zeros(()), 1.0 - more]),
        head=jnp.stack([1.0 - more, jnp.zeros(()), jnp.ones(())]),
    )
    parts = jnp.stack(span)
    second = between * parts[:, 1] + (1.0 - between) * parts[:, 2]
    return Span(*jnp.unstack(parts.at[:, 1].set(second)))


def listed_spans(a: Architecture, stage_layers: Any) -> Span:
    """Stages whose layers are given one by one, (stage,)."""
    count = stage_layers.shape[-1]
    above = jnp.cumsum(stage_layers) - stage_layers
    dense = smooth.within(a.dense_layers - above, 0.0, stage_layers)
    position = jnp.arange(count, dtype=float)
    return Span(
        position=position,
        dense=dense,
        expert=stage_layers - dense,
        embedding=(position == 0.0).astype(float),
        head=(position == count - 1.0).astype(float),
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
