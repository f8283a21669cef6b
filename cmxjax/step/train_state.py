r"""What a device holds in training: weights, gradients, optimizer state, activations.

Activations of a transformer layer with sequences of s tokens, batch b, width h, a heads
and tensor parallelism t take

$$ s b h \Bigl(10 + \frac{24}{t} + 5\frac{a s}{h t}\Bigr) $$

bytes in 16 bits with dropout; sequence parallelism divides the 10 by t too, selective
recompute drops the quadratic term. Here each term is taken from the shapes, so that
grouped queries, gated networks, latents and experts are right as well.

Reference: Korthikanti et al., arXiv 2205.05198, equations 1 to 6; Rajbhandari et al.,
arXiv 1910.02054 (ZeRO).
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import smooth
from .._types import Scalar, Sharpness
from ..job.layout import Layout, degree
from ..job.workload import BYTES, Train
from ..machine.runtimes import Trainer
from ..machine.system import System
from ..model.architecture import (
    Architecture,
    Latent,
    attention_parameters,
    feed_forward_parameters,
    norm_parameters,
    spread_kv_heads,
)
from ..work.training import ELEMENT
from .pipeline import in_flight
from .serving import ExpertLoad, expert_load

QUANTIZED_COPIES = 2.0
"""8-bit training keeps each weight quantized twice, as it is and transposed."""

PRESENT_LAYERS = 2.0
"""Layers whose sharded or offloaded state is on the device at once: the current one, and
the one that comes next or has just left."""


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
    trainer: Trainer, a: Architecture, w: Train, layout: Layout, sharpness: Sharpness
) -> Span:
    """Stages to look at: those listed, or the two ends and one between."""
    if w.stage_layers is not None:
        return listed_spans(a, w.stage_layers)
    zero, one = jnp.zeros(()), jnp.ones(())
    ends = (zero, zero)
    if trainer.stages == "by_cost":
        ends = (zero, head_layers(a))
    elif trainer.stages == "with_ends":
        ends = (one, one)
    return end_spans(a, layout, ends, sharpness)


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
    both = span.embedding * span.head if a.tied else 0.0
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
    linear = BYTES[w.serving.dtypes.activation]
    mask = 1.0 if a.biased else 0.0
    # norm inputs, linear inputs, dropout masks: split only along the sequence
    block = stream * a.hidden * (ELEMENT + linear + mask)
    attention = block + group / tp * attention_width(a, tp) * ELEMENT
    if not w.fused_attention and not w.selective:
        at, score = a.attention, 2.0 * ELEMENT + mask
        attention = attention + group * at.heads / tp * w.sequence_tokens * score
    wide = (2.0 if a.gated else 1.0) * ELEMENT + linear
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
    system: System, a: Architecture, w: Train, layout: Layout, sharpness: Sharpness
) -> Plan:
    """The state of a job on its devices."""
    split = degree(layout, "cp") * degree(layout, "tp")
    tokens = w.micro_batch * w.sequence_tokens / split
    given = w.serving.skew
    trainer = system.trainers[w.serving.engine]
    skew = trainer.routing_skew if given is None else given
    load = expert_load(a, layout, w.serving, skew, tokens)
    span = spans_of(trainer, a, w, layout, sharpness)
    layers = layer_weights(a, layout)
    weights = stage_weights(a, layout, span, layers)
    if w.schedule == "dualpipe":  # a device holds a stage and its mirror image
        more = smooth.within(degree(layout, "pp") - 1.0, 0.0, 1.0)
        weights = Held(*(x + more * x[::-1] for x in weights))
    return Plan(
        tokens=tokens,
        load=load,
        span=span,
        weights=weights,
        layer_weights=layers,
        activations=layer_activations(a, w, layout, load),
    )


class TrainMemory(NamedTuple):
    """Bytes on a device of each stage, by class."""

    weights: PerStage
    gradients: PerStage
    optimizer: PerStage
    activations: PerStage
    communication: PerStage
    """Gathered weights, communicators, the process itself, fragments."""

    @property
    def total(self) -> PerStage:
        return sum(self, jnp.zeros(()))


def microbatches_of(w: Train, layout: Layout) -> Scalar:
    """Micro-batches of a data-parallel rank in a step; whole in a layout that can run."""
    return w.global_batch / (w.micro_batch * degree(layout, "dp"))


def data_ranks(layout: Layout) -> tuple[Scalar, Scalar]:
    """Ranks that share the state of common weights, and of experts."""
    return degree(layout, "dp") * degree(layout, "cp"), degree(layout, "edp")


def train_memory(
    system: System, a: Architecture, w: Train, layout: Layout, plan: Plan
) -> TrainMemory:
    """Memory of a device of each stage, offloaded parts left out."""
    weights = plan.weights
    trainer, dtypes = system.trainers[w.serving.engine], w.serving.dtypes
    ranks, expert_ranks = data_ranks(layout)
    whole = weights.shared + weights.expert
    split = weights.shared / ranks + weights.expert / expert_ranks
    size = BYTES["bf16"]
    if BYTES[dtypes.activation] < size:
        size = size + QUANTIZED_COPIES * BYTES[dtypes.activation]
    held = split if w.zero >= 3 else whole
    dense, expert = plan.layer_weights
    gathered = smooth.larger(sum(dense), sum(expert)) * PRESENT_LAYERS * size
    state = split if w.zero >= 1 else whole
    kept = (split if w.zero >= 2 else whole) * BYTES[dtypes.gradient]
    if trainer.keeps_working_gradients and BYTES[dtypes.gradient] > BYTES["bf16"]:
        kept = kept + whole * BYTES["bf16"]
    alive = _activations(a, w, layout, plan)
    overhead = trainer.memory_overhead_bytes + alive * trainer.activation_slack
    here, optimizer = held * size, 3.0 * state * BYTES[dtypes.master]
    if w.zero >= 3:
        overhead = overhead + gathered
    if w.offload_link:
        away = here * w.offload_weights
        here, optimizer = here - away, optimizer * (1.0 - w.offload_optimizer)
        if w.zero < 3:
            overhead = overhead + smooth.smaller(gathered, away)
    return TrainMemory(
        weights=here,
        gradients=kept,
        optimizer=optimizer,
        activations=alive,
        communication=overhead,
    )


def _activations(a: Architecture, w: Train, layout: Layout, plan: Plan) -> PerStage:
    pp, tp, cp = (degree(layout, axis) for axis in ("pp", "tp", "cp"))
    microbatches = microbatches_of(w, layout)
    layer, span = plan.activations, plan.span
    flight = in_flight(w.schedule, span.position, pp, microbatches, w.chunks)
    dense, expert = kept_of_layer(w, layer)
    kept = flight * (span.dense * dense + span.expert * expert)
    again = w.recompute_fraction * smooth.larger(layer.dense, layer.expert)
    group = w.micro_batch * w.sequence_tokens / cp
    logits = span.head * group * a.vocabulary / tp * (ELEMENT + BYTES["fp32"])
    if w.offload_link:
        away = kept * w.offload_activations
        moving = smooth.smaller(PRESENT_LAYERS * smooth.larger(dense, expert), away)
        kept = kept - away + moving
    return kept + again + logits
