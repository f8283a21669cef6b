"""Memory of the worst device while serving, by class; excess is a metric, not a clip."""

from typing import NamedTuple

import jax.numpy as jnp

from .. import smooth
from .._types import Scalar, Sharpness
from ..job.layout import Layout, degree
from ..job.workload import BYTES, SCALE_SLOT_BYTES, Decode, Prefill, Software
from ..machine.machine import Machine
from ..model.architecture import (
    Architecture,
    GroupedQuery,
    Latent,
    attention_parameters,
    feed_forward_parameters,
    kv_share,
    kv_width,
)
from ..switch import either

WORKSPACE_ROWS = 4.0
"""Copies of the batch's hidden states that are alive at once (assumed): residual, normed
input, output of a block, and one that is being sent or received."""

COMPUTED_BYTES = 2.0
"""Bytes of an element that a projection writes, before it is quantized: bf16."""


class Memory(NamedTuple):
    """Bytes on the worst device."""

    weights: Scalar
    kv_cache: Scalar
    communication: Scalar
    activations: Scalar

    @property
    def total(self) -> Scalar:
        return sum(self, jnp.zeros(()))


def expert_slots(a: Architecture, layout: Layout) -> Scalar:
    """Routed, redundant and replicated shared experts that a device holds."""
    if a.experts is None:
        return jnp.zeros(())
    r = layout.routing
    held = a.experts.routed + r.redundant_experts + r.shared_replicas
    return held / degree(layout, "ep")


def weight_bytes(
    a: Architecture,
    layout: Layout,
    software: Software,
    absorbed: bool = False,
    draft_layers: Scalar | float = 0.0,
    sharpness: Sharpness = None,
    routed: bool = True,
) -> Scalar:
    """Weights of one device; layers split over pp, heads over tp, experts over ep.

    The fullest stage counts: layers over stages, rounded up. Assumes that one stage
    holds both the embedding and the head.

    Args:
        absorbed: MLA keeps the expansions of keys and values in the attention dtype, in
            which they multiply queries and outputs, and not as they are stored.
        draft_layers: multi-token-prediction modules that are loaded.
        routed: the device holds experts that tokens are sent to.
    """
    size = software.sizes.weight
    tp, pp, etp = (degree(layout, axis) for axis in ("tp", "pp", "etp"))
    whole = layout.attention == "tp"
    attention = attention_parameters(a)
    if isinstance(a.attention, Latent):
        at = a.attention
        kept = a.hidden * (at.query_rank + at.latent_dim + at.rope_dim)
        if not whole:
            kept = kept + at.heads * at.value_dim * a.hidden
        attention = kept + (attention - kept) / tp
        if absorbed:
            expansion = at.latent_dim * at.heads * (at.nope_dim + at.value_dim) / tp
            wider = software.sizes.attention / size - 1.0
            attention = attention + expansion * wider
    else:
        attention = attention / tp
    layers = a.layers + draft_layers
    dense = feed_forward_parameters(a, a.intermediate) / (tp if whole else 1.0)
    total = layers * attention + a.dense_layers * dense
    if a.experts is not None:
        expert = feed_forward_parameters(a, a.experts.intermediate)
        mixed = expert_slots(a, layout) * expert / etp if routed else 0.0
        if not layout.routing.dispatches_shared:
            mixed = mixed + a.experts.shared * expert
        expert_layers = layers - a.dense_layers
        router = a.hidden * a.experts.routed * 2.0
        total = total + expert_layers * mixed + expert_layers * router / size
    tables = (2.0 - a.tied.on) * a.vocabulary * a.hidden
    head = software.sizes.head / (tp if whole else 1.0)
    stage = smooth.ceil(a.layers / pp, sharpness)
    fullest = either(pp > 1.0, stage / a.layers, 1.0)
    drafts = draft_layers * 2.0 * a.hidden**2
    return (total * fullest + drafts) * size + tables * head


def decode_memory(
    a: Architecture, w: Decode, layout: Layout, sharpness: Sharpness = None
) -> Memory:
    """Memory while decoding at the mean context length.

    The modules that draft tokens, and their cache, are there where drafts are: a
    fraction of a draft holds that fraction of them.
    """
    tp = degree(layout, "tp")
    held = (
        w.sequences_per_device * w.kv_tokens * (1.0 if layout.attention == "dp" else tp)
    )
    tokens = w.sequences_per_device * (1.0 + w.draft_tokens)
    drafting = a.draft_layers * smooth.smaller(w.draft_tokens, 1.0)
    at = a.attention
    if isinstance(at, Latent):
        per_token = at.heads * (2.0 * at.latent_dim + at.rope_dim)
    else:
        per_token = _queries_and_outputs(at) + tp * kv_share(at, tp) * kv_width(a)
    attention = tokens * per_token * w.software.sizes.attention
    return Memory(
        weights=weight_bytes(a, layout, w.software, True, drafting, sharpness),
        kv_cache=_cache_bytes(a, layout, w.software, held, a.layers + drafting),
        communication=_buffer_bytes(a, layout, w.software, tokens),
        activations=_activations(a, layout, w.software, tokens, attention, tokens),
    )


def prefill_memory(
    a: Architecture, w: Prefill, layout: Layout, sharpness: Sharpness = None
) -> Memory:
    """Memory at the end of a prefill batch.

    MLA expands the latents of all tokens, cached ones included, to keys and values; a cp
    group gathers them. No draft module is held, for none runs in this phase.
    """
    tp, cp = degree(layout, "tp"), degree(layout, "cp")
    # under sp_tp_sp each device keeps its own tokens' latents, but a group's heads
    kept = layout.attention == "sp_tp_sp" and isinstance(a.attention, Latent)
    held = w.tokens_per_device * (1.0 if layout.attention == "dp" or kept else tp)
    tokens = w.tokens_per_device * (1.0 - w.cached_fraction)
    logits = w.tokens_per_device / w.prompt_tokens
    at = a.attention
    if isinstance(at, Latent):
        # one head's queries and outputs are as wide as its keys and values
        pair = at.heads * (at.nope_dim + at.rope_dim + at.value_dim)
        elements = (tokens + w.tokens_per_device * cp) * pair
    else:
        gathered = tokens + w.tokens_per_device * (cp - 1.0)
        elements = tokens * _queries_and_outputs(at) + gathered * tp * kv_share(
            at, tp
        ) * kv_width(a)
    attention = elements * w.software.sizes.attention
    return Memory(
        weights=weight_bytes(a, layout, w.software, sharpness=sharpness),
        kv_cache=_cache_bytes(a, layout, w.software, held, a.layers),
        communication=_buffer_bytes(a, layout, w.software, tokens),
        activations=_activations(a, layout, w.software, tokens, attention, logits),
    )


def attention_memory(
    a: Architecture,
    w: Decode,
    layout: Layout,
    expert: Layout,
    sharpness: Sharpness = None,
) -> Memory:
    """Memory of a device that decodes all but the experts, which others hold.

    Args:
        layout: of the devices with attention, dense layers and head.
        expert: of those with the experts.
    """
    own = layout.replace(routing=expert.routing)
    whole = decode_memory(a, w, own, sharpness)
    drafting = a.draft_layers * smooth.smaller(w.draft_tokens, 1.0)
    tokens = w.sequences_per_device * (1.0 + w.draft_tokens)
    copies = _copies(a, expert) * tokens
    return whole._replace(
        weights=weight_bytes(a, own, w.software, True, drafting, sharpness, routed=False),
        communication=copies * _copy_bytes(a, w.software),
    )


def expert_memory(
    a: Architecture, w: Decode, expert: Layout, tokens: Scalar, senders: Scalar
) -> Memory:
    """Memory of a device that holds experts only.

    Args:
        tokens: of one micro-batch on each sender, for which low-latency kernels reserve
            a slot; two batches of copies are being worked on.
        senders: devices that send, all instances together.
    """
    e = a.experts
    zero = jnp.zeros(())
    if e is None:
        return Memory(zero, zero, zero, zero)
    each = feed_forward_parameters(a, e.intermediate) / degree(expert, "etp")
    layers = (
        a.layers - a.dense_layers + a.draft_layers * smooth.smaller(w.draft_tokens, 1.0)
    )
    weights = layers * expert_slots(a, expert) * each * w.software.sizes.weight
    arrived = tokens * senders * _copies(a, expert) / degree(expert, "ep")
    up = (1.0 + a.gated.on) * COMPUTED_BYTES
    up = up + w.software.sizes.activation
    return Memory(
        weights=weights,
        kv_cache=zero,
        communication=tokens * senders * _copy_bytes(a, w.software),
        activations=2.0 * arrived * (e.intermediate * up + a.hidden * COMPUTED_BYTES),
    )


def _queries_and_outputs(at: GroupedQuery) -> Scalar | float:
    """Elements of a token's queries and attention outputs, all heads."""
    return 2.0 * at.heads * at.head_dim


def _cache_bytes(
    a: Architecture, layout: Layout, software: Software, held: Scalar, layers: Scalar
) -> Scalar:
    """Keys and values of the tokens held, in the heads that a device holds."""
    share = kv_share(a.attention, degree(layout, "tp"))
    return held * share * kv_width(a) * software.sizes.kv * layers


def _activations(
    a: Architecture,
    layout: Layout,
    software: Software,
    tokens: Scalar,
    attention: Scalar,
    logit_tokens: Scalar,
) -> Scalar:
    """Hidden states, and the largest of what attention, experts and head work on.

    Two overlapped micro-batches of half the tokens are in attention and in the
    feed-forward half at the same time. Where the faster of one and two is taken, one
    counts: it never holds less. Assumes that copies are spread evenly over the experts.

    Args:
        attention: bytes of queries, keys, values and outputs of all tokens.
    """
    replicated = layout.attention == "tp" and not layout.sequence_parallel
    rows = tokens * degree(layout, "tp") if replicated else tokens
    hidden = WORKSPACE_ROWS * rows * a.hidden * COMPUTED_BYTES
    # up and gate projections, and their product as the next projection reads it
    up = (1.0 + a.gated.on) * COMPUTED_BYTES + software.sizes.activation
    feed_forward = tokens * either(a.dense_layers > 0.0, a.intermediate, 0.0) * up
    if a.experts is not None:
        # a dispatched shared expert is one more copy, a local one runs on every token
        copies = a.experts.topk + (
            1.0 if layout.routing.dispatches_shared else a.experts.shared
        )
        mixed = tokens * copies * a.experts.intermediate * up
        feed_forward = smooth.larger(feed_forward, mixed)
    if layout.microbatches == "2":
        buffers = 0.5 * (attention + feed_forward)
    else:
        buffers = smooth.larger(attention, feed_forward)
    logits = logit_tokens * a.vocabulary * BYTES["fp32"]
    return hidden + smooth.larger(buffers, logits)


def _buffer_bytes(
    a: Architecture, layout: Layout, software: Software, tokens: Scalar
) -> Scalar:
    """Dispatch and combine buffers.

    Low-latency kernels reserve a slot for every token of every rank, 225 + 420 MB for
    96 tokens on 320 ranks (CloudMatrix-Infer, arXiv 2506.12708, section 4.2.1); normal
    ones hold the copies that arrive.
    """
    if a.experts is None:
        return jnp.zeros(())
    ep = degree(layout, "ep")
    several = either(ep > 1.0, 1.0, 0.0)
    slots = software.low_latency.pick(ep, _copies(a, layout))
    return several * slots * tokens * _copy_bytes(a, software)


def _copies(a: Architecture, layout: Layout) -> Scalar | float:
    """Ranks that a token is sent to."""
    topk = 0.0 if a.experts is None else a.experts.topk
    return topk + (1.0 if layout.routing.dispatches_shared else 0.0)


def _copy_bytes(a: Architecture, software: Software) -> Scalar:
    """Bytes of a token's copy in the dispatch and in the combine buffer."""
    sizes = software.sizes
    slot = either(sizes.dispatch <= 1.0, SCALE_SLOT_BYTES, 0.0)
    return a.hidden * (sizes.dispatch + sizes.combine) + slot


def excess_bytes(machine: Machine, memory: Memory) -> Scalar:
    """Bytes beyond a device's usable memory; 0 where the job fits."""
    return smooth.larger(memory.total - machine.chip.memory_usable_bytes, 0.0)
