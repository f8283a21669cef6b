r"""What a device holds in training: weights by layer and stage, activations of a layer.

Activations of a transformer layer with sequences of s tokens, batch b, width h, a heads
and tensor parallelism t take

$$ s b h \Bigl(10 + \frac{24}{t} + 5\frac{a s}{h t}\Bigr) $$

bytes in 16 bits with dropout; sequence parallelism divides the 10 by t too, selective
recompute drops the quadratic term. Here each term is taken from the shapes, so that
grouped queries, gated networks, latents and experts are right as well.

Reference: Korthikanti et al., arXiv 2205.05198, equations 1 to 6; Rajbhandari et al.,
arXiv 1910.02054 (ZeRO).
"""

from typing import NamedTuple

import jax.numpy as jnp

from .. import smooth
from .._types import Scalar, Sharpness
from ..job.layout import Layout, degree
from ..job.workload import Train
from ..machine.runtimes import Spread
from ..model.architecture import (
    Architecture,
    Latent,
    attention_parameters,
    feed_forward_parameters,
    norm_parameters,
    spread_kv_heads,
)
from .routing import ExpertLoad, expert_load
from .stages import PerStage, Span, spans_of
from .training import ELEMENT


class Held(NamedTuple):
    """Weights on one device: those that data-parallel ranks share, and experts."""

    shared: PerStage
    expert: PerStage


def layer_weights(a: Architecture, layout: Layout) -> tuple[Held, Held]:
    """Weights that one device holds of a dense and of an expert layer."""
    tp, ep, etp = (degree(layout, axis) for axis in ("tp", "ep", "etp"))
    attention = attention_parameters(a)
    kept = norm_parameters(a)
    if isinstance(a.attention, Latent):
        at = a.attention
        whole = a.hidden * (at.query_rank + at.latent_dim + at.rope_dim)
        kept, attention = kept + whole, attention - whole
    else:  # each device holds at least one head of keys and values
        copies = spread_kv_heads(a.attention, tp) - a.attention.kv_heads
        attention = attention + 2.0 * copies * a.attention.head_dim * a.hidden
    common = kept + attention / tp
    dense = common + feed_forward_parameters(a, a.intermediate) / tp
    zero = jnp.zeros(())
    if a.experts is None:
        return Held(dense, zero), Held(zero, zero)
    e = a.experts
    expert = feed_forward_parameters(a, e.intermediate)
    held = (e.routed + layout.routing.redundant_experts) / (ep * etp)
    router = (a.hidden + 1.0) * e.routed
    mixed = common + router + e.shared * expert
    return Held(dense, zero), Held(mixed, held * expert)


def stage_weights(
    a: Architecture, layout: Layout, span: Span, layers: tuple[Held, Held]
) -> Held:
    """Weights that a device of each stage holds, (stage,).

    A tied head that is not on the embedding's stage is a copy of it.
    """
    tp = degree(layout, "tp")
    dense, expert = layers
    table = a.vocabulary * a.hidden / tp
    both = a.tied.on * span.embedding * span.head
    tables = table * (span.embedding + span.head - both)
    tables = tables + span.embedding * a.positions * a.hidden
    per_draft = expert if a.experts is not None else dense
    drafts = span.head * a.draft_layers
    projection = drafts * 2.0 * a.hidden**2
    return Held(
        span.dense * dense.shared
        + span.expert * expert.shared
        + drafts * per_draft.shared
        + projection
        + tables,
        span.expert * expert.expert + drafts * per_draft.expert,
    )


class Layers(NamedTuple):
    """Bytes of activations that a layer keeps for its backward pass."""

    dense: Scalar
    expert: Scalar
    entry: Scalar
    """Its input alone, which is what recompute keeps."""


def layer_activations(
    a: Architecture, w: Train, layout: Layout, load: ExpertLoad
) -> Layers:
    """Bytes that one micro-batch leaves in a layer, nothing recomputed in full."""
    tp, cp = degree(layout, "tp"), degree(layout, "cp")
    group = w.micro_batch * w.sequence_tokens / cp
    tokens = group / tp
    stream = tokens if layout.sequence_parallel else group
    linear = w.software.sizes.activation
    mask = a.biased.on
    # norm inputs, linear inputs, dropout masks: split only along the sequence
    block = stream * a.hidden * (ELEMENT + linear + mask)
    attention = block + group / tp * attention_width(a, tp) * ELEMENT
    if not w.fused_attention:
        at, score = a.attention, (1.0 - w.selective.on) * (2.0 * ELEMENT + mask)
        attention = attention + group * at.heads / tp * w.sequence_tokens * score
    wide = (1.0 + a.gated.on) * ELEMENT + linear
    dense = attention + block + group * a.intermediate / tp * wide
    entry = stream * a.hidden * ELEMENT
    if a.experts is None:
        return Layers(dense, dense, entry)
    e = a.experts
    # an etp group gathers its tokens and splits the width of each expert
    copies, width = load.rows * load.active, e.intermediate / degree(layout, "etp")
    routed = copies * (a.hidden * (linear + ELEMENT) + width * wide)
    shared = tokens * e.shared * e.intermediate * wide
    return Layers(dense, attention + block + routed + shared, entry)


def kept_of_layer(w: Train, layer: Layers) -> tuple[Scalar, Scalar]:
    """Bytes that a micro-batch leaves in a dense and in an expert layer: all of its
    activations, but of the share of layers that run again the input alone."""
    entry, share = w.recompute_fraction * layer.entry, 1.0 - w.recompute_fraction
    return entry + share * layer.dense, entry + share * layer.expert


def attention_width(a: Architecture, tp: Scalar) -> Scalar:
    """Elements that attention keeps of a token on a tp group: queries, keys, values,
    outputs. Each device holds at least one head of keys and values."""
    at = a.attention
    if isinstance(at, Latent):
        key = at.nope_dim + at.rope_dim
        latents = at.query_rank + at.latent_dim + at.rope_dim
        return at.heads * (2.0 * key + 2.0 * at.value_dim) + latents
    return (2.0 * at.heads + 2.0 * spread_kv_heads(at, tp)) * at.head_dim


class Plan(NamedTuple):
    """What a device holds and handles, worked out once for times and memory."""

    tokens: Scalar
    """Of one micro-batch on one device."""
    load: ExpertLoad
    span: Span
    weights: Held
    """Of each stage; of one dense and one expert layer."""
    layer_weights: tuple[Held, Held]
    activations: Layers


def plan_of(
    a: Architecture,
    w: Train,
    layout: Layout,
    skew: Scalar,
    stages: Spread,
    sharpness: Sharpness,
) -> Plan:
    """The state of a job on its devices.

    Args:
        skew: of the experts' load, as the runtime has it.
        stages: how the runtime spreads layers.
    """
    split = degree(layout, "cp") * degree(layout, "tp")
    tokens = w.micro_batch * w.sequence_tokens / split
    load = expert_load(a, layout, w.software.balance, skew, tokens)
    span = spans_of(stages, a, w, layout, sharpness)
    layers = layer_weights(a, layout)
    weights = stage_weights(a, layout, span, layers)
    if w.schedule == "dualpipe":  # a device holds a stage and its mirror image
        more = smooth.within(degree(layout, "pp") - 1.0, 0.0, 1.0)
        weights = Held(*(x + more * x[::-1] for x in weights))
    activations = layer_activations(a, w, layout, load)
    return Plan(tokens, load, span, weights, layers, activations)


def microbatches_of(w: Train, layout: Layout) -> Scalar:
    """Micro-batches of a data-parallel rank in a step; whole in a layout that can run."""
    return w.global_batch / (w.micro_batch * degree(layout, "dp"))


def data_ranks(layout: Layout) -> tuple[Scalar, Scalar]:
    """Ranks that share the state of common weights, and of experts."""
    return degree(layout, "dp") * degree(layout, "cp"), degree(layout, "edp")
