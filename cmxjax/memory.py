"""Memory of the worst device while serving, by class; excess is a metric, not a clip."""

from typing import NamedTuple

import jax.numpy as jnp

from ._types import Scalar
from .architecture import (
    Architecture,
    Latent,
    attention_parameters,
    feed_forward_parameters,
    kv_width,
)
from .hardware import System
from .layout import Layout, degree
from .workload import BYTES, SCALE_SLOT_BYTES, Decode, Prefill, Serving

WORKSPACE_ROWS = 4.0
"""Copies of the batch's hidden states that are alive at once. Assumes that kernels work
through wider intermediates in pieces."""


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


def weight_bytes(a: Architecture, layout: Layout, serving: Serving) -> Scalar:
    """Weights of one device; layers split over pp, heads over tp, experts over ep.

    The fullest stage counts: layers over stages, rounded up. Assumes that one stage
    holds both the embedding and the head.
    """
    size = BYTES[serving.dtypes.weight]
    tp, pp, etp = (degree(layout, axis) for axis in ("tp", "pp", "etp"))
    whole = layout.attention == "tp"
    attention = attention_parameters(a)
    if isinstance(a.attention, Latent):
        at = a.attention
        kept = a.hidden * (at.query_rank + at.latent_dim + at.rope_dim)
        if not whole:
            kept = kept + at.heads * at.value_dim * a.hidden
        attention = kept + (attention - kept) / tp
    else:
        attention = attention / tp
    layers = a.layers + a.draft_layers
    dense = feed_forward_parameters(a, a.intermediate) / (tp if whole else 1.0)
    total = layers * attention + a.dense_layers * dense
    if a.experts is not None:
        expert = feed_forward_parameters(a, a.experts.intermediate)
        mixed = expert_slots(a, layout) * expert / etp
        if not layout.routing.dispatches_shared:
            mixed = mixed + a.experts.shared * expert
        expert_layers = layers - a.dense_layers
        router = a.hidden * a.experts.routed * 2.0
        total = total + expert_layers * mixed + expert_layers * router / size
    tables = (1.0 if a.tied else 2.0) * a.vocabulary * a.hidden
    head = BYTES[serving.dtypes.head] / (tp if whole else 1.0)
    fullest = jnp.where(pp > 1.0, jnp.ceil(a.layers / pp) / a.layers, 1.0)
    drafts = a.draft_layers * 2.0 * a.hidden**2
    return (total * fullest + drafts) * size + tables * head


def decode_memory(a: Architecture, w: Decode, layout: Layout) -> Memory:
    """Memory while decoding at the mean context length."""
    tp = degree(layout, "tp")
    held = (
        w.sequences_per_device * w.kv_tokens * (1.0 if layout.attention == "dp" else tp)
    )
    tokens = w.sequences_per_device * (1.0 + w.draft_tokens)
    return _serving_memory(a, layout, w.serving, held, tokens, tokens)


def prefill_memory(a: Architecture, w: Prefill, layout: Layout) -> Memory:
    """Memory at the end of a prefill batch."""
    tp = degree(layout, "tp")
    # under sp_tp_sp each device keeps its own tokens' latents, but a group's heads
    kept = layout.attention == "sp_tp_sp" and isinstance(a.attention, Latent)
    held = w.tokens_per_device * (1.0 if layout.attention == "dp" or kept else tp)
    tokens = w.tokens_per_device * (1.0 - w.cached_fraction)
    logits = w.tokens_per_device / w.prompt_tokens
    return _serving_memory(a, layout, w.serving, held, tokens, logits)


def _serving_memory(
    a: Architecture,
    layout: Layout,
    serving: Serving,
    kv_held: Scalar,
    tokens: Scalar,
    logit_tokens: Scalar,
) -> Memory:
    dtypes, tp = serving.dtypes, degree(layout, "tp")
    width = kv_width(a) * BYTES[dtypes.kv]
    if not isinstance(a.attention, Latent):
        width = width * jnp.maximum(1.0 / tp, 1.0 / a.attention.kv_heads)
    cache = kv_held * width * (a.layers + a.draft_layers)
    replicated = layout.attention == "tp" and not layout.sequence_parallel
    rows = tokens * tp if replicated else tokens
    alive = WORKSPACE_ROWS * rows * a.hidden * BYTES["bf16"]
    alive = alive + logit_tokens * a.vocabulary * BYTES["fp32"]
    return Memory(
        weights=weight_bytes(a, layout, serving),
        kv_cache=cache,
        communication=_buffer_bytes(a, layout, serving, tokens),
        activations=alive,
    )


def _buffer_bytes(
    a: Architecture, layout: Layout, serving: Serving, tokens: Scalar
) -> Scalar:
    """Dispatch and combine buffers.

    Low-latency kernels reserve a slot for every token of every rank, 225 + 420 MB for
    96 tokens on 320 ranks (CloudMatrix-Infer, arXiv 2506.12708, section 4.2.1); normal
    ones hold the copies that arrive.
    """
    if a.experts is None:
        return jnp.zeros(())
    both = a.hidden * (BYTES[serving.dtypes.dispatch] + BYTES[serving.dtypes.combine])
    if BYTES[serving.dtypes.dispatch] <= 1.0:
        both = both + SCALE_SLOT_BYTES
    ep = degree(layout, "ep")
    several = jnp.where(ep > 1.0, 1.0, 0.0)
    copies = a.experts.topk + (1.0 if layout.routing.dispatches_shared else 0.0)
    slots = ep if serving.expert_mode == "low_latency" else copies
    return several * slots * tokens * both


def excess_bytes(system: System, memory: Memory) -> Scalar:
    """Bytes beyond a device's usable memory; 0 where the job fits."""
    return jnp.maximum(memory.total - system.chip.memory_usable_bytes, 0.0)
