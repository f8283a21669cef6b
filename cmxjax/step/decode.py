"""One decode step: attention and experts in two streams, drafts, head, host."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from .. import smooth
from .._types import Scalar, Sharpness
from ..job.layout import Layout, degree
from ..job.workload import Decode, Prefill
from ..machine.system import System
from ..model.architecture import Architecture, Latent
from ..rates.algorithms import chain_s
from ..rates.fabric import contended_s
from .chunk import gated, joined, joined_ops
from .serving import (
    ACTIVATION_BYTES,
    HIGHEST,
    Busy,
    Declarations,
    Parts,
    Stage,
    Work,
    busy_s,
    declared,
    expert_load,
    faster,
    in_each,
    overlapped_s,
    row_features,
    slowest_stage,
    stage_of,
    totals_s,
    weighed,
    work_of,
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
    core_share: Scalar
    """Share of the cores that attention gets where two micro-batches overlap."""


def _serial() -> Streams:
    return Streams(jnp.ones(()), jnp.ones(()), jnp.zeros(()))


def _double(stage: Stage) -> Streams:
    one = jnp.ones(())
    return Streams(2.0 * one, stage.engine.stream_exposed_fraction * one, one)


def streams_of(stage: Stage) -> Streams:
    """One micro-batch in sequence, two overlapped, or both to be weighed."""
    return weighed(stage.layout, _serial(), _double(stage))


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


def runs_of(a: Architecture, w: Decode, count: Scalar) -> Parts:
    """How often a step of `count` micro-batches runs each part."""
    drafts = w.draft_tokens
    return Parts(
        attention=(a.layers + drafts) * count,
        dense=a.dense_layers * count,
        experts=(a.layers - a.dense_layers + drafts) * count,
        tail=jnp.ones(()),
        draft=drafts,
    )


class _Layer(NamedTuple):
    """What layers consist of, whatever the split of the cores.

    Entries by the feed-forward half: `dense`, and `experts` where the model has them.
    """

    work: Work
    attention_comm_s: Scalar
    comm_s: dict[str, Scalar]
    floor_s: dict[str, Scalar]
    """Busy time of what both streams share: the memory, and each plane of links."""
    exchanged_s: Sequence[Scalar]


def _layer(
    stage: Stage,
    a: Architecture,
    w: Decode,
    streams: Streams,
    ops: Declarations,
    chunk: Prefill | None,
) -> _Layer:
    features = features_of(a, w, stage.layout, streams.microbatches)
    if chunk is not None:
        count = streams.microbatches
        features = joined(features, a, chunk, stage.layout, count, stage.sharpness)
    tokens = features["tokens"]
    load = expert_load(a, stage.layout, stage.serving, stage.skew("decode"), tokens)
    features |= {"expert_rows": load.rows, "experts": load.active}
    reduced = tokens * features["tp"] * a.hidden * ACTIVATION_BYTES
    reduce_s, reduce_loads = _shared(stage, "all_reduce", "tp", reduced)
    context_s, context_loads = _context_parallel(stage, a, tokens)
    comm, loads = {"dense": reduce_s}, {"dense": reduce_loads}
    exchanged = [jnp.zeros(()), jnp.zeros(())]
    if a.experts is not None:
        exchanged = stage.exchanges(a, load, tokens)
        comm["experts"] = sum(exchanged)
        loads["experts"] = stage.exchange_loads_s(a, load, tokens)
    work = work_of(stage, ops, features)
    if chunk is not None:
        work = gated(work, ops, features)
    memory, floors = work.memory_s, {}
    attention = [x + y for x, y in zip(reduce_loads, context_loads, strict=True)]
    for kind, own in loads.items():
        links = contended_s(attention, own, stage.sharpness)
        read = memory.attention + getattr(memory, kind)
        floors[kind] = smooth.maximum(read, links, stage.sharpness)
    return _Layer(work, reduce_s + context_s, comm, floors, exchanged)


def _feed_forward(a: Architecture) -> str:
    """The half beside attention that most layers have."""
    return "dense" if a.experts is None else "experts"


def _ops_s(
    stage: Stage,
    a: Architecture,
    streams: Streams,
    layer: _Layer,
    ops: Declarations,
    share: Scalar,
) -> Parts:
    """Operator times when attention has this share of the cores."""
    slowdown = _slowdown(stage, streams, share, a.experts is not None)
    return totals_s(stage, ops, layer.work, slowdown)


def _core_share(
    stage: Stage, a: Architecture, layer: _Layer, ops: Declarations
) -> Scalar:
    """Share of the cores that attention gets where two micro-batches overlap.

    An engine that partitions the cores takes the split that makes a layer shortest. The
    published one, 16 of 24 for a context of 4096 tokens, is what this gives; a shorter
    context leaves more cores to the experts. Relaxed, the share is the mean over the
    splits, weighed by their times to the power of minus 8 times the sharpness.
    """
    sharpness, splits = stage.sharpness, jnp.asarray(SPLITS)
    if sharpness is None:  # the choice is piecewise constant
        system, layer = jax.lax.stop_gradient((stage.system, layer))
        stage = stage._replace(system=system)
    streams = _double(stage)

    def layer_s(share: Scalar) -> Scalar:
        times = _ops_s(stage, a, streams, layer, ops, share)
        return _layer_s(stage, streams, layer, times, _feed_forward(a))

    def visit(_: None, share: Scalar) -> tuple[None, Scalar]:
        return None, layer_s(share)

    # a loop keeps the compiler from pricing the operators again for every split
    _, times = jax.lax.scan(visit, None, splits, unroll=4)
    if sharpness is None:
        weights = (jnp.arange(len(SPLITS)) == jnp.argmin(times)) * 1.0
    else:
        weights = jax.nn.softmax(-8.0 * sharpness * jnp.log(times))
    return jnp.dot(weights, splits, precision=HIGHEST)


def _layer_times(
    stage: Stage,
    a: Architecture,
    w: Decode,
    streams: Streams,
    layer: _Layer,
    declarations: Declarations,
    share: Scalar,
) -> LayerTimes:
    """Layers under one mode of overlap and one split of the cores."""
    ops = _ops_s(stage, a, streams, layer, declarations, share)
    kind = _feed_forward(a)
    runs = runs_of(a, w, streams.microbatches)
    return LayerTimes(
        expert_layer_s=_layer_s(stage, streams, layer, ops, kind),
        dense_layer_s=_layer_s(stage, streams, layer, ops, "dense"),
        attention_stream_s=ops.attention + layer.attention_comm_s,
        expert_stream_s=getattr(ops, kind) + layer.comm_s[kind],
        dispatch_s=layer.exchanged_s[0],
        combine_s=layer.exchanged_s[1],
        tail_s=ops.tail,
        draft_s=ops.draft,
        busy=busy_s(layer.work, runs),
    )


def _layer_s(
    stage: Stage, streams: Streams, layer: _Layer, ops: Parts, kind: str
) -> Scalar:
    """A layer whose feed-forward half is of this kind.

    Partitioned cores run attention beside the feed-forward half; otherwise the compute
    of one micro-batch runs beside the communication of the other. Whatever the streams
    share can't be busy for longer than the layer.
    """
    compute = ops.attention, getattr(ops, kind)
    comm = layer.attention_comm_s, layer.comm_s[kind]
    overlap = streams.microbatches, streams.exposed, stage.sharpness
    if not stage.engine.partitions_cores:
        return overlapped_s(sum(compute), sum(comm), *overlap)
    time = overlapped_s(compute[0] + comm[0], compute[1] + comm[1], *overlap)
    floor = streams.microbatches * layer.floor_s[kind]
    return smooth.maximum(time, floor, stage.sharpness)


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
    core_share: Scalar | None = None,
    chunk: Prefill | None = None,
) -> DecodeTimes:
    """Time of one decode step.

    Layers x layer time, one more mixture layer for each draft, embedding, heads, and the
    host. With pp stages, pp micro-batches of this size are in flight: a step takes as
    long as the whole model takes for one, and the last stage's tail holds up all pp.

    Args:
        core_share: of attention beside the other stream; None for the best one. A
            breakdown keeps it as it is without its factors.
        chunk: prompt tokens that ride along, if any.
    """
    stage = stage_of(system, layout, w.serving, scales, sharpness)
    streams = streams_of(stage)
    ops = declared(a, layout, w.serving, absorbed=True)
    if chunk is not None:
        ops = joined_ops(a, w.serving, ops)
    layers = in_each((streams,), lambda mode: _layer(stage, a, w, mode, ops, chunk))
    share = core_share
    if share is None:
        share = jnp.asarray(0.5)
        if layout.microbatches != "1" and stage.engine.partitions_cores:
            share = _core_share(stage, a, jax.tree.map(lambda x: x[-1], layers), ops)
    modes = in_each(
        (streams, layers),
        lambda mode, layer: _layer_times(stage, a, w, mode, layer, ops, share),
    )
    drafts = w.draft_tokens
    expert_layers = a.layers - a.dense_layers
    repeated = expert_layers * modes.expert_layer_s + a.dense_layers * modes.dense_layer_s
    total = repeated + drafts * modes.expert_layer_s
    best, (layer, own) = faster(layout, total, (modes, repeated), sharpness)
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
    return DecodeTimes(step, layer, host, step - own * fullest, share)


def operator_blocks(a: Architecture, w: Decode, layout: Layout) -> tuple[str, ...]:
    """The block of each operator of a decode step, for the breakdown."""
    return tuple(op.block for _, op in declared(a, layout, w.serving, absorbed=True))
