"""One decode step: attention and experts in two streams, drafts, head, host."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from .. import smooth
from .._types import Scalar, Sharpness
from ..architecture import Architecture, Latent
from ..collectives.algorithms import chain_s
from ..fabric import contended_s
from ..hardware import System
from ..layout import Layout, degree
from ..workload import Decode
from .serving import (
    ACTIVATION_BYTES,
    HIGHEST,
    Busy,
    Parts,
    Stage,
    busy_s,
    declared,
    expert_load,
    faster,
    overlapped_s,
    row_features,
    slowest_stage,
    stage_of,
    timed,
    weighed,
)
from .shares import Scales

SPLITS = tuple(cores / 12.0 for cores in range(3, 11))
"""Shares of the cores that an engine considers for its attention stream."""


class Streams(NamedTuple):
    """How micro-batches overlap; one entry for each mode that is weighed."""

    microbatches: Scalar
    exposed: Scalar
    overlapped: Scalar
    """1 where two micro-batches run side by side, else 0."""


class LayerTimes(NamedTuple):
    """Seconds of one layer for all micro-batches, and of its parts for one."""

    expert_layer_s: Scalar
    dense_layer_s: Scalar
    attention_stream_s: Scalar
    expert_stream_s: Scalar
    dispatch_s: Scalar
    combine_s: Scalar
    tail_s: Scalar
    """Embedding and head of one pass over the whole batch, likewise the draft part."""
    draft_s: Scalar
    busy: Busy
    """Of a device in all layers, drafts, embedding and heads of the step."""


class DecodeTimes(NamedTuple):
    """Seconds of one decode step and its parts."""

    step_s: Scalar
    layer: LayerTimes
    host_s: Scalar
    iteration_rest_s: Scalar


def streams_of(stage: Stage) -> Streams:
    """One micro-batch in sequence, two overlapped, or both to be weighed."""
    one = jnp.ones(())
    serial = Streams(one, one, 0.0 * one)
    double = Streams(2.0 * one, stage.engine.stream_exposed_fraction * one, one)
    return weighed(stage.layout, serial, double)


def _slowdown(stage: Stage, streams: Streams, share: Scalar, has_experts: bool) -> Parts:
    """Slowdown of the compute of each part.

    Where the engine partitions the cores, a stream with a share f of them slows by
    f to the power of minus the chip's core exponent (CloudMatrix-Infer, arXiv
    2506.12708, section 4.2.3). Otherwise compute and communication are the streams,
    and the cores that drive the communication are missing from compute.
    """
    one = 1.0
    if stage.engine.partitions_cores:
        exponent = stage.system.chip.core_exponent
        first, second = share**-exponent, (1.0 - share) ** -exponent
    else:
        first = second = stage.beside_slowdown if has_experts else jnp.ones(())
    first = one + streams.overlapped * (first - one)
    second = one + streams.overlapped * (second - one)
    return Parts(first, second, second, one, one)


def features_of(
    a: Architecture, w: Decode, layout: Layout, microbatches: Scalar
) -> dict[str, Scalar]:
    """Token counts of one micro-batch on one device; the tail runs on the whole batch.

    A tp group of t devices holds the requests of all t; a cp group splits each
    request's context, so pairs and cache traffic per device do not depend on cp.
    """
    sequences = w.sequences_per_device / microbatches
    tokens = sequences * (1.0 + w.draft_tokens)
    rows = row_features(a, layout, tokens)
    held = sequences * rows["tp"]
    held_kv = held * rows["per_kv"]
    batch = tokens * microbatches
    return rows | {
        "pairs": held * (1.0 + w.draft_tokens) * w.kv_tokens,
        "kv_read": held_kv * w.kv_tokens,
        "kv_write": held_kv * (1.0 + w.draft_tokens),
        "batch_tokens": batch,
        "logit_rows": batch * rows["tp"],
        "draft_logit_rows": w.sequences_per_device * rows["tp"],
    }


class _Work(NamedTuple):
    """What a layer consists of, whatever the split of the cores."""

    features: dict[str, Scalar]
    attention_comm_s: Scalar
    dense_comm_s: Scalar
    exchanged_s: Sequence[Scalar]
    loads_s: list
    """Busy time of each plane from attention, from a dense layer, from experts."""


def _work(stage: Stage, a: Architecture, w: Decode, streams: Streams) -> _Work:
    features = features_of(a, w, stage.layout, streams.microbatches)
    tokens = features["tokens"]
    load = expert_load(a, stage.layout, stage.serving, stage.skew("decode"), tokens)
    features |= {"expert_rows": load.rows, "experts": load.active}
    reduced = tokens * features["tp"] * a.hidden * ACTIVATION_BYTES
    reduce_s, reduce_loads = _shared(stage, "all_reduce", "tp", reduced)
    context_s, context_loads = _context_parallel(stage, a, tokens)
    loads = [x + y for x, y in zip(reduce_loads, context_loads, strict=True)]
    exchanged, exchange_loads = [jnp.zeros(()), jnp.zeros(())], reduce_loads
    if a.experts is not None:
        exchanged = stage.exchanges(a, load, tokens)
        exchange_loads = stage.exchange_loads_s(a, load, tokens)
    return _Work(
        features,
        reduce_s + context_s,
        reduce_s,
        exchanged,
        [loads, reduce_loads, exchange_loads],
    )


def _layer(stage: Stage, a: Architecture, w: Decode, streams: Streams) -> LayerTimes:
    """Layers under one mode of overlap.

    An engine that partitions the cores takes the split that makes a layer shortest. The
    published one, 16 of 24 for a context of 4096 tokens, is what this gives; a shorter
    context leaves more cores to the experts. The choice does not follow the scales of a
    breakdown. Relaxed, splits are weighed by their times to the power of minus 8 times
    the sharpness.
    """
    work = _work(stage, a, w, streams)
    if not stage.engine.partitions_cores:
        return _times(stage, a, w, streams, work, jnp.asarray(0.5))
    shares = jnp.asarray(SPLITS)
    times = plain = jax.vmap(lambda f: _times(stage, a, w, streams, work, f))(shares)
    if stage.scales.given:
        own = stage._replace(scales=Scales({}))
        at_one = _work(own, a, w, streams)
        plain = jax.vmap(lambda f: _times(own, a, w, streams, at_one, f))(shares)
    layer = plain.dense_layer_s if a.experts is None else plain.expert_layer_s
    if stage.sharpness is None:
        weights = (jnp.arange(len(SPLITS)) == jnp.argmin(layer)) * 1.0
    else:
        weights = jax.nn.softmax(-8.0 * stage.sharpness * jnp.log(layer))
    return jax.tree.map(lambda x: jnp.dot(weights, x, precision=HIGHEST), times)


def _times(
    stage: Stage,
    a: Architecture,
    w: Decode,
    streams: Streams,
    work: _Work,
    share: Scalar,
) -> LayerTimes:
    """A layer's times when attention has this share of the cores."""
    slowdown = _slowdown(stage, streams, share, a.experts is not None)
    declarations = declared(a, stage.layout, stage.serving, absorbed=True)
    ops = timed(stage, declarations, work.features, slowdown)
    attention = (ops.total_s.attention, work.attention_comm_s)
    dense = (ops.total_s.dense, work.dense_comm_s)
    attention_loads, dense_loads, exchange_loads = work.loads_s
    memory = ops.memory_s.attention
    bounds = (memory + ops.memory_s.dense, attention_loads, dense_loads)
    dense_layer = _combined(stage, streams, attention, dense, bounds)
    layer, second = dense_layer, dense
    if a.experts is not None:
        second = (ops.total_s.experts, sum(work.exchanged_s))
        bounds = (memory + ops.memory_s.experts, attention_loads, exchange_loads)
        layer = _combined(stage, streams, attention, second, bounds)
    count, drafts = streams.microbatches, w.draft_tokens
    runs = Parts(
        attention=(a.layers + drafts) * count,
        dense=a.dense_layers * count,
        experts=(a.layers - a.dense_layers + drafts) * count,
        tail=jnp.ones(()),
        draft=drafts,
    )
    return LayerTimes(
        expert_layer_s=layer,
        dense_layer_s=dense_layer,
        attention_stream_s=sum(attention),
        expert_stream_s=sum(second),
        dispatch_s=work.exchanged_s[0],
        combine_s=work.exchanged_s[1],
        tail_s=ops.total_s.tail,
        draft_s=ops.total_s.draft,
        busy=busy_s(ops, runs),
    )


def _combined(
    stage: Stage, streams: Streams, attention: tuple, feed_forward: tuple, bounds: tuple
) -> Scalar:
    """A layer from (compute, communication) of its two halves.

    Partitioned cores run attention beside the feed-forward half; otherwise the compute
    of one micro-batch runs beside the communication of the other. Whatever the streams
    share can't be busy for longer than the layer: the memory, and each plane of links.

    Args:
        bounds: memory time of both halves, and the times that each half's transfers
            keep each plane busy.
    """
    count, sharpness = streams.microbatches, stage.sharpness
    if not stage.engine.partitions_cores:
        first = attention[0] + feed_forward[0]
        second = attention[1] + feed_forward[1]
        return overlapped_s(first, second, count, streams.exposed, sharpness)
    memory, first_loads, second_loads = bounds
    layer = overlapped_s(
        sum(attention), sum(feed_forward), count, streams.exposed, sharpness
    )
    links = contended_s(first_loads, second_loads, sharpness)
    layer = smooth.maximum(layer, count * memory, sharpness)
    return smooth.maximum(layer, count * links, sharpness)


def _shared(stage: Stage, kind: str, axis: str, payload_bytes: Scalar):
    """Time of a tp collective inside attention, and what it loads each plane with."""
    if stage.layout.attention == "dp":
        return jnp.zeros(()), [jnp.zeros(()) for _ in dict.fromkeys(stage.fabric.planes)]
    time = stage.collective(kind, axis, payload_bytes, "tensor_parallel")
    loads = stage.collective_loads_s(kind, axis, payload_bytes, "tensor_parallel")
    return time, loads


def _context_parallel(stage: Stage, a: Architecture, tokens: Scalar):
    """Attention of requests whose context is split: time and load of each plane.

    Every rank sends its queries to all ranks of the group, and each other rank's
    partial outputs back with the log-sum-exp of every head, in fp32.
    """
    at = a.attention
    if isinstance(at, Latent):
        query, output = at.latent_dim + at.rope_dim, at.latent_dim
    else:
        query, output = at.head_dim, at.head_dim
    queries = tokens * at.heads * query * ACTIVATION_BYTES
    partials = tokens * at.heads * (output * ACTIVATION_BYTES + 4.0)
    prefix, ranks = "context_parallel", degree(stage.layout, "cp")
    time = stage.full_mesh("cp", queries, prefix) + stage.full_mesh(
        "cp", partials, prefix
    )
    payload = (queries + partials) * ranks
    return time, stage.collective_loads_s("all_to_all", "cp", payload, prefix)


def decode_times(
    system: System,
    a: Architecture,
    w: Decode,
    layout: Layout,
    scales: Scales,
    sharpness: Sharpness,
) -> DecodeTimes:
    """Time of one decode step.

    Layers x layer time, one more mixture layer for each draft, embedding, heads, and the
    host. With pp stages, pp micro-batches of this size are in flight: a step takes as
    long as the whole model takes for one, and the last stage's tail holds up all pp.
    """
    stage = stage_of(system, layout, w.serving, scales, sharpness)
    modes = jax.vmap(lambda s: _layer(stage, a, w, s))(streams_of(stage))
    drafts = w.draft_tokens
    expert_layers = a.layers - a.dense_layers
    repeated = expert_layers * modes.expert_layer_s + a.dense_layers * modes.dense_layer_s
    layers = repeated + drafts * modes.expert_layer_s
    best, (layer, own) = faster(layout, layers, (modes, repeated), sharpness)
    host = stage.engine.decode_step_s + drafts * stage.engine.draft_step_s
    once = layer.tail_s + drafts * layer.draft_s + host * scales("host.step")
    batch = w.sequences_per_device * (1.0 + drafts)
    hand_over = chain_s(
        stage.group("pp"),
        stage.library,
        batch * a.hidden * ACTIVATION_BYTES,
        scales.prefixed("pipeline"),
    )
    pp = degree(layout, "pp")
    fullest = slowest_stage(a, pp, sharpness)
    step = best * fullest + pp * once + hand_over
    return DecodeTimes(step, layer, host, step - own * fullest)


def operator_blocks(a: Architecture, w: Decode, layout: Layout) -> tuple[str, ...]:
    """The block of each operator of a decode step, for the breakdown."""
    return tuple(op.block for _, op in declared(a, layout, w.serving, absorbed=True))
