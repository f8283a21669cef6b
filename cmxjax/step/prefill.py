"""One prefill batch: causal attention, experts, cached prefixes, host."""

from typing import NamedTuple

import jax.numpy as jnp

from .. import smooth
from .._types import Scalar, Sharpness
from ..job.layout import Layout, degree
from ..job.workload import BYTES, Prefill
from ..machine.system import System
from ..model.architecture import Architecture, Latent, kv_width
from ..rates.algorithms import chain_s
from .serving import (
    ACTIVATION_BYTES,
    Busy,
    Parts,
    Stage,
    busy_s,
    components,
    declared,
    expert_load,
    faster,
    in_each,
    kv_split,
    overlapped_s,
    row_features,
    slowest_stage,
    stage_of,
    totals_s,
    weighed,
    work_of,
)
from .shares import Scales


class PrefillTimes(NamedTuple):
    """Seconds of one prefill batch and its parts."""

    batch_s: Scalar
    """From admission to the last token's logits."""
    steady_s: Scalar
    """Between one batch and the next when batches follow each other."""
    layer_s: Scalar
    dispatch_s: Scalar
    combine_s: Scalar
    host_s: Scalar
    cache_load_s: Scalar
    busy: Busy
    """Of a device in one batch."""


class Modes(NamedTuple):
    """Micro-batches, exposed share of the shorter stream, slowdown of compute."""

    microbatches: Scalar
    exposed: Scalar
    slowdown: Scalar


class Layers(NamedTuple):
    """Seconds of one layer for all micro-batches, and of its exchanges for one."""

    expert_layer_s: Scalar
    dense_layer_s: Scalar
    dispatch_s: Scalar
    combine_s: Scalar
    tail_s: Scalar
    busy: Busy
    """Of a device in all layers, embedding and head of the batch."""


def features_of(
    a: Architecture, w: Prefill, layout: Layout, microbatches: Scalar
) -> dict[str, Scalar]:
    r"""Token counts of one micro-batch on one device.

    Of a prompt of P tokens a fraction c is cached, so N = (1 - c) P are computed. Causal
    attention of the new tokens sees c P + (N + 1) / 2 keys on average, not P. Latents
    of cached tokens are expanded to keys and values too. A cp group gathers the keys and
    values of all its tokens; its queries stay split.
    """
    admitted = w.tokens_per_device / microbatches
    tokens = admitted * (1.0 - w.cached_fraction)
    rows = row_features(a, layout, tokens)
    tp = rows["tp"]
    new = w.prompt_tokens * (1.0 - w.cached_fraction)
    keys = w.prompt_tokens * w.cached_fraction + 0.5 * (new + 1.0)
    kv, gathered = rows["per_kv"], admitted * degree(layout, "cp")
    return rows | {
        "up_rows": gathered * tp,
        "pairs": tokens * tp * keys,
        "kv_read": gathered * tp * kv,
        "kv_expanded": 2.0 * gathered,
        "kv_write": tokens * tp * kv,
        "batch_tokens": tokens * microbatches,
        "logit_rows": w.tokens_per_device / w.prompt_tokens * tp,
    }


def _attention_comm_s(
    stage: Stage, a: Architecture, w: Prefill, tokens: Scalar, admitted: Scalar
):
    """Collectives of one attention block, and of one dense feed-forward network.

    `sp_tp_sp` gathers the small latents before the heads are split and returns the
    heads' outputs by all-to-all (CloudMatrix-Infer, arXiv 2506.12708, section 4.3).
    """
    zero, tp = jnp.zeros(()), degree(stage.layout, "tp")
    at = a.attention
    element = BYTES[stage.serving.dtypes.attention]
    held = admitted * (1.0 if stage.layout.attention == "dp" else tp) * kv_split(a, tp)
    cache = held * kv_width(a) * BYTES[stage.serving.dtypes.kv]
    context = stage.full_mesh("cp", cache, "context_parallel")
    if stage.layout.attention == "dp":
        return context, zero
    if stage.layout.attention == "tp":
        payload = tokens * tp * a.hidden * ACTIVATION_BYTES
        reduced = stage.collective("all_reduce", "tp", payload, "tensor_parallel")
        return context + reduced, reduced
    if isinstance(at, Latent):
        width = at.query_rank + at.latent_dim + at.rope_dim
        value_dim = at.value_dim
    else:
        width, value_dim = a.hidden, at.head_dim
    args = ("tp", tokens * width * ACTIVATION_BYTES, "tensor_parallel")
    gathered = stage.collective("all_gather", *args)
    outputs = tokens * at.heads * value_dim * element
    exchanged = stage.collective("all_to_all", "tp", outputs, "tensor_parallel")
    return context + gathered + exchanged, zero


def _layer(stage: Stage, a: Architecture, w: Prefill, modes: Modes) -> Layers:
    """Layers under one mode: compute of a micro-batch beside communication of another."""
    features = features_of(a, w, stage.layout, modes.microbatches)
    tokens = features["tokens"]
    load = expert_load(a, stage.layout, stage.serving, stage.skew("prefill"), tokens)
    features |= {"expert_rows": load.rows, "experts": load.active}
    declarations = declared(a, stage.layout, stage.serving, absorbed=False)
    slow = modes.slowdown
    slowdown = Parts(slow, slow, slow, 1.0, 1.0)
    work = work_of(stage, declarations, features)
    ops = totals_s(stage, declarations, work, slowdown)
    count = modes.microbatches
    runs = Parts(
        attention=a.layers * count,
        dense=a.dense_layers * count,
        experts=(a.layers - a.dense_layers) * count,
        tail=1.0,
        draft=0.0,
    )
    admitted = w.tokens_per_device / modes.microbatches
    comm, dense_comm = _attention_comm_s(stage, a, w, tokens, admitted)
    overlap = (modes.microbatches, modes.exposed, stage.sharpness)
    dense_layer = overlapped_s(ops.attention + ops.dense, comm + dense_comm, *overlap)
    layer, exchanged = dense_layer, [jnp.zeros(()), jnp.zeros(())]
    if a.experts is not None:
        exchanged = stage.exchanges(a, load, tokens)
        compute = ops.attention + ops.experts
        layer = overlapped_s(compute, comm + sum(exchanged), *overlap)
    busy = busy_s(work, runs)
    return Layers(layer, dense_layer, exchanged[0], exchanged[1], ops.tail, busy)


def _modes_of(stage: Stage, has_experts: bool) -> Modes:
    one = jnp.ones(())
    serial = Modes(one, one, one)
    slow = stage.beside_slowdown * one if has_experts else one
    double = Modes(2.0 * one, stage.engine.stream_exposed_fraction * one, slow)
    return weighed(stage.layout, serial, double)


def cache_load_s(stage: Stage, a: Architecture, w: Prefill) -> Scalar:
    """Load of the cached prefixes' keys and values over a side link."""
    if not w.cache_link:
        return jnp.zeros(())
    link = stage.system.links[w.cache_link]
    cached = w.tokens_per_device * w.cached_fraction
    size = cached * a.layers * kv_width(a) * BYTES[w.serving.dtypes.kv]
    wire = size / (link.bytes_per_s * link.efficiency)
    there = smooth.positive(w.cached_fraction, stage.sharpness)
    return link.latency_s * there + wire


def prefill_times(
    system: System,
    a: Architecture,
    w: Prefill,
    layout: Layout,
    scales: Scales,
    sharpness: Sharpness,
) -> PrefillTimes:
    """Time of one prefill batch, host and cache load included, without queueing."""
    stage = stage_of(system, layout, w.serving, scales, sharpness)
    settings = _modes_of(stage, a.experts is not None)
    modes = in_each((settings,), lambda mode: _layer(stage, a, w, mode))
    expert_layers = a.layers - a.dense_layers
    layers = expert_layers * modes.expert_layer_s + a.dense_layers * modes.dense_layer_s
    best, chosen = faster(layout, layers, modes, sharpness)
    computed = w.tokens_per_device * (1.0 - w.cached_fraction)
    hand_over = chain_s(
        stage.group("pp"),
        stage.library,
        computed * a.hidden * ACTIVATION_BYTES,
        scales.prefixed("pipeline"),
    )
    host = stage.engine.prefill_batch_s * jnp.ones(())
    load = cache_load_s(stage, a, w) * scales("cache.load")
    stages = degree(layout, "pp")
    best = best * slowest_stage(a, stages, sharpness)
    steady = best + stages * (chosen.tail_s + host * scales("host.step")) + load
    # the pp micro-batches of a batch also have to fill and drain the pipeline
    batch = steady + hand_over + (1.0 - 1.0 / stages) * best
    layer_s = jnp.where(expert_layers > 0, chosen.expert_layer_s, chosen.dense_layer_s)
    return PrefillTimes(
        batch_s=batch,
        steady_s=steady,
        layer_s=layer_s,
        dispatch_s=chosen.dispatch_s,
        combine_s=chosen.combine_s,
        host_s=host,
        cache_load_s=load,
        busy=chosen.busy,
    )


def operator_blocks(a: Architecture, w: Prefill, layout: Layout) -> tuple[str, ...]:
    """The block of each operator of a prefill batch, for the breakdown."""
    return tuple(op.block for _, op in declared(a, layout, w.serving, absorbed=False))


def prefill_components(a: Architecture, layout: Layout) -> tuple[str, ...]:
    """Components of a prefill batch that are not operators."""
    return (*components(a, layout), "cache.load")
