"""Memory of the worst device while serving, by class; excess is a metric, not a clip."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp

from .. import smooth
from .._types import Scalar, Sharpness
from ..job.layout import Layout, degree, head_ways
from ..job.workload import BYTES, Decode, Prefill, Software, scale_bytes
from ..machine.machine import Machine
from ..machine.runtimes import Engine
from ..model.architecture import Architecture, Halves, added, known_of
from ..model.feed_forwards import Experts
from ..switch import either
from ..work.serving import joint_experts, sequence_bytes
from ..work.vision import Place, with_prompts
from .vision import vision_memory

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
        return added(self)


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
    size, pp = software.sizes.weight, degree(layout, "pp")
    mixers = [
        _mixer_elements(a, i, layout, software, absorbed) for i in range(len(a.mixers))
    ]
    halves = [
        _half_elements(a, i, layout, size, routed) for i in range(len(a.feed_forwards))
    ]
    elements = Halves(mixers, halves)
    counts = zip(a.counts, a.kinds, strict=True)
    total = added(count * a.of_halves(elements, kind) for count, kind in counts)
    total = total + draft_layers * a.of_halves(elements, a.draft)
    # where tables are tied the shared one is split too
    own = either(a.tied.on > 0.5, 0.0, 1.0)
    tables = (own + 1.0 / head_ways(layout)) * a.vocabulary * a.hidden
    head = software.sizes.head / _dense_split(layout)
    stage = smooth.ceil(a.layers / pp, sharpness)
    fullest = either(pp > 1.0, stage / a.layers, 1.0)
    projections = draft_layers * 2.0 * a.hidden**2
    return (total * fullest + projections) * size + tables * head


def _dense_split(layout: Layout) -> Scalar | float:
    """Ways that dense networks and the head are split."""
    return degree(layout, "tp") if layout.attention == "tp" else 1.0


def _mixer_elements(
    a: Architecture, place: int, layout: Layout, software: Software, absorbed: bool
) -> Scalar:
    """Weights of a mixer on a device, in elements of the weights' format."""
    mixer, tp = a.mixers[place], degree(layout, "tp")
    weights, whole = known_of(a).halves.mixers[place], layout.attention != "tp"
    held = mixer.serving_parameters(weights, a.hidden, tp, whole)
    held = held * mixer.stored
    if not absorbed:
        return held
    wider = software.sizes.attention / software.sizes.weight - mixer.stored
    return held + mixer.wide_parameters(tp) * wider


def _half_elements(
    a: Architecture, place: int, layout: Layout, size: Scalar, routed: bool
) -> Scalar:
    """Likewise of a feed-forward half; its router is kept in 16 bits."""
    half, network = a.feed_forwards[place], known_of(a).networks[place]
    if not isinstance(half, Experts):
        return network * half.stored / _dense_split(layout)
    mixed: Scalar = jnp.zeros(())
    if routed:
        mixed = expert_slots(a, layout) * network * half.stored / degree(layout, "etp")
    if not layout.routing.dispatches_shared:
        whole = network + half.wider_parameters
        joint = joint_experts(layout)
        split = 1.0 + joint * (_dense_split(layout) - 1.0)
        mixed = mixed + half.shared * half.shared_stored * whole / split
    router = half.routing_parameters(a.hidden)
    return mixed + router * BYTES["bf16"] / size


def decode_memory(
    a: Architecture, w: Decode, layout: Layout, sharpness: Sharpness = None
) -> Memory:
    """Memory while decoding at the mean context length.

    The modules that draft tokens, and their cache, are there where drafts are: a
    fraction of a draft holds that fraction of them.
    """
    tp = degree(layout, "tp")
    held = w.sequences_per_device * (1.0 if layout.attention == "dp" else tp)
    tokens = w.sequences_per_device * (1.0 + w.draft_tokens)
    drafting = a.draft_layers * smooth.smaller(w.draft_tokens, 1.0)
    per_token = smooth.larger_of(mixer.decode_width(tp) for mixer in a.mixers)
    attention = tokens * per_token * w.software.sizes.attention
    cache = _cache_bytes(
        a, layout, w.software, [held] * len(a.mixers), w.kv_tokens, drafting
    )
    return Memory(
        weights=weight_bytes(a, layout, w.software, True, drafting, sharpness),
        kv_cache=cache,
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
    held = []
    for mixer in a.mixers:
        # under sp_tp_sp each device keeps its own tokens' latents, but a group's heads
        alone = layout.attention == "sp_tp_sp" and mixer.shares_cache
        group = 1.0 if layout.attention == "dp" or alone else tp
        held.append(w.tokens_per_device / w.prompt_tokens * group)
    tokens = w.tokens_per_device * (1.0 - w.cached_fraction)
    logits = w.tokens_per_device / w.prompt_tokens
    sizes = tokens, w.tokens_per_device, w.tokens_per_device * cp, tp
    elements = smooth.larger_of(mixer.prefill_elements(*sizes) for mixer in a.mixers)
    attention = elements * w.software.sizes.attention
    memory = Memory(
        weights=weight_bytes(a, layout, w.software, sharpness=sharpness),
        kv_cache=_cache_bytes(a, layout, w.software, held, w.prompt_tokens, 0.0),
        communication=_buffer_bytes(a, layout, w.software, tokens),
        activations=_activations(a, layout, w.software, tokens, attention, logits),
    )
    if w.images is None:
        return memory
    return _with_tower(memory, a, with_prompts(w, layout), sharpness)


def _with_tower(
    memory: Memory, a: Architecture, place: Place, sharpness: Sharpness
) -> Memory:
    """Memory of a device that encodes images too; the first stage holds the tower."""
    if a.vision is None:
        return memory
    tower = vision_memory(a.vision, place, sharpness)
    activations = smooth.larger(memory.activations, tower.activations)
    return memory._replace(
        weights=memory.weights + tower.weights,
        activations=activations + tower.embeddings,
    )


def encode_memory(a: Architecture, place: Place, sharpness: Sharpness = None) -> Memory:
    """Memory of a device that encodes images only."""
    zero = jnp.zeros(())
    return _with_tower(Memory(zero, zero, zero, zero), a, place, sharpness)


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
    routed_layout = layout.replace(routing=expert.routing)
    whole = decode_memory(a, w, routed_layout, sharpness)
    drafting = a.draft_layers * smooth.smaller(w.draft_tokens, 1.0)
    tokens = w.sequences_per_device * (1.0 + w.draft_tokens)
    copies = _copies(a, expert) * tokens
    return whole._replace(
        weights=weight_bytes(
            a, routed_layout, w.software, True, drafting, sharpness, routed=False
        ),
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
    each = e.network_parameters(a.hidden) * e.stored / degree(expert, "etp")
    drafting = a.draft_layers * smooth.smaller(w.draft_tokens, 1.0)
    layers = a.expert_layers + (drafting if a.has_experts(a.draft) else 0.0)
    weights = layers * expert_slots(a, expert) * each * w.software.sizes.weight
    arrived = tokens * senders * _copies(a, expert) / degree(expert, "ep")
    outer = e.token_width(a.hidden)
    up = (1.0 + e.gated.on) * COMPUTED_BYTES + w.software.sizes.activation
    return Memory(
        weights=weights,
        kv_cache=zero,
        communication=tokens * senders * _copy_bytes(a, w.software),
        activations=2.0 * arrived * (e.intermediate * up + outer * COMPUTED_BYTES),
    )


def _cache_bytes(
    a: Architecture,
    layout: Layout,
    software: Software,
    sequences: Sequence[Scalar],
    tokens: Scalar,
    drafts: Scalar | float,
) -> Scalar:
    """Keys and values, in the heads that a device holds, of its sequences' tokens that
    each mixer keeps.

    Args:
        sequences: held on a device, by mixer.
        tokens: of each of them.
        drafts: modules that draft tokens.
    """
    tp, mixer_bytes = degree(layout, "tp"), []
    for i, count in enumerate(a.half_counts.mixers):
        mixer, often = a.mixers[i], count + drafts if i in a.draft.mixers else count
        kept = sequence_bytes(mixer, software.sizes, tokens) * mixer.kv_share(tp)
        mixer_bytes.append(sequences[i] * kept * often)
    return added(mixer_bytes)


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
    rows = tokens
    if layout.attention == "tp":
        rows = layout.sequence_parallel.pick(tokens, tokens * degree(layout, "tp"))
    hidden = WORKSPACE_ROWS * rows * a.hidden * COMPUTED_BYTES
    feed_forward = smooth.larger_of(
        _networks(a, i, layout, software, tokens) for i in range(len(a.feed_forwards))
    )
    buffers, both = smooth.larger(attention, feed_forward), attention + feed_forward
    if layout.microbatches == "2":
        buffers = 0.5 * both
    elif layout.microbatches == "auto":
        buffers = layout.overlaps.pick(0.5 * both, buffers)
    logits = logit_tokens * a.vocabulary * BYTES["fp32"]
    return hidden + smooth.larger(buffers, logits)


def _networks(
    a: Architecture, place: int, layout: Layout, software: Software, tokens: Scalar
) -> Scalar:
    """Bytes that a feed-forward half works on: up and gate projections, and their product
    as the next projection reads it."""
    half = a.feed_forwards[place]
    up = (1.0 + half.gated.on) * COMPUTED_BYTES + software.sizes.activation
    if not isinstance(half, Experts):
        there = a.half_counts.feed_forwards[place] > 0.0
        return tokens * either(there, half.intermediate, 0.0) * up
    # a dispatched shared expert is one more copy, a local one runs on every token
    shared = 1.0 if layout.routing.dispatches_shared else half.shared
    return tokens * (half.topk + shared) * half.intermediate * up


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
    sizes, scales = software.sizes, (software.scale_slot_bytes, software.scale_share)
    width = a.hidden if a.experts is None else a.experts.token_width(a.hidden)
    sent = width * (sizes.dispatch + sizes.combine)
    return sent + scale_bytes(width, sizes.dispatch, *scales)


def usable_bytes(machine: Machine) -> Scalar:
    """Memory of a device that its engine may use."""
    chip, engine = machine.chip, machine.runtime
    if not isinstance(engine, Engine):
        return chip.memory_usable_bytes
    most = chip.memory_bytes * engine.memory_fraction
    return chip.memory_reported_ratio * smooth.smaller(most, chip.memory_usable_bytes)


def excess_bytes(machine: Machine, memory: Memory) -> Scalar:
    """Bytes beyond what the engine may use of a device; 0 where the job fits."""
    return smooth.larger(memory.total - usable_bytes(machine), 0.0)
