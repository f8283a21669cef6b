r"""A decode step whose attention and experts run on different devices.

Domains of attention devices share one pool of expert devices. Of m micro-batches a
domain's devices run the attention of one while the tokens of the others are away, so
with t_a and t_e the times of a layer's attention and experts for one micro-batch, and a
trip to the experts and back, a layer takes for all micro-batches

$$ T = \max\bigl(m\,t_a,\; n\,m\,t_e,\; m\,t_\mathrm{port},\; t_a + t_\mathrm{A2E} + t_e
+ t_\mathrm{E2A}\bigr) $$

with n domains. Different devices don't slow each other, so nothing is exposed. Router,
norms, a shared expert that isn't sent to, dense layers, draft step and head stay with
attention.

Reference: xDeepServe, arXiv 2508.02520, section 3.3 and its sum of a step, 2 x 61 x t_a,
the draft layer and the scheduler.
"""

from typing import NamedTuple

import jax.numpy as jnp

from .. import smooth
from .._types import Scalar, Sharpness
from ..job.layout import Layout, degree, devices
from ..job.workload import Decode
from ..machine.system import System
from ..model.architecture import Architecture
from ..rates.fabric import Group, group_of, plane_s
from .decode import Streams, features_of, runs_of, streams_of
from .serving import (
    ACTIVATION_BYTES,
    Busy,
    ExpertLoad,
    Parts,
    Stage,
    Work,
    busy_s,
    declared,
    expert_load,
    faster,
    in_each,
    stage_of,
    totals_s,
    work_of,
)
from .shares import Scales

WHOLE = Parts(1.0, 1.0, 1.0, 1.0, 1.0)
"""Slowdown of compute that has all cores."""


class Pair(NamedTuple):
    """Layouts of both sides and how many domains there are."""

    attention: Layout
    """Of one domain."""
    expert: Layout
    domains: Scalar


class ApartTimes(NamedTuple):
    """Seconds of one decode step and its parts."""

    step_s: Scalar
    attention_s: Scalar
    """Of one layer and micro-batch, likewise the next three."""
    expert_s: Scalar
    dispatch_s: Scalar
    """From attention to experts."""
    combine_s: Scalar
    attention_busy: Busy
    """Of a device in a step."""
    expert_busy: Busy


class _Side(NamedTuple):
    """Operators of one side."""

    ops: Parts
    work: Work


class _Trips(NamedTuple):
    """Exchanges of one micro-batch."""

    dispatch_s: Scalar
    combine_s: Scalar
    port_s: Scalar
    """Busiest port of the two sides in a layer, for one micro-batch of each domain."""


class _Layer(NamedTuple):
    layer_s: Scalar
    dense_layer_s: Scalar
    times: ApartTimes
    tail_s: Scalar
    draft_s: Scalar


def _across(far: Stage) -> Group:
    """The expert ranks as a sender on other nodes reaches them: over the outermost tier
    of the scale-up system."""
    system = far.system
    splits = jnp.ones(len(system.tier_order))
    outer = system.tier_order.index(system.scale_up_tier)
    splits = splits.at[outer].set(degree(far.layout, "ep"))
    return group_of(far.fabric, splits)


def _sides(
    near: Stage, far: Stage, a: Architecture, features: dict[str, Scalar]
) -> tuple[_Side, _Side]:
    """Operators of attention devices, and those of expert devices."""
    every = declared(a, far.layout, near.serving, absorbed=True)
    found = []
    for stage, routed in ((near, False), (far, True)):
        ops = [row for row in every if (row[1].block == "experts") == routed]
        work = work_of(stage, ops, features)
        found.append(_Side(totals_s(stage, ops, work, WHOLE), work))
    return found[0], found[1]


def _trips(far: Stage, a: Architecture, load: ExpertLoad, tokens, pair: Pair) -> _Trips:
    """To the experts and back.

    A sender's port is busy with its own copies, an expert's with those that arrive, from
    all domains; the library's costs are those of a sender.
    """
    group, mode = _across(far), far.expert_mode
    ratio = load.busiest * devices(pair.attention) / devices(pair.expert)
    sent = load._replace(busiest=smooth.larger(ratio, 1.0))
    all_domains = sent._replace(busiest=smooth.larger(ratio * pair.domains, 1.0))
    sizes, copies = far.copy_bytes(a), far.copies(a, group, sent, tokens)
    trips = [far.exchange(kind, copies, size) for kind, size in sizes.items()]
    tiers = far.copies(a, group, all_domains, tokens).tiers
    ports = [
        seconds
        for size in sizes.values()
        for seconds in plane_s(far.fabric, size * tiers, mode.efficiency)
    ]
    return _Trips(trips[0], trips[1], smooth.maximum_of(ports, far.sharpness))


def _layer(
    near: Stage, far: Stage, a: Architecture, w: Decode, pair: Pair, streams: Streams
) -> _Layer:
    """A layer on both sides, for one number of micro-batches."""
    count, sharpness = streams.microbatches, near.sharpness
    features = features_of(a, w, near.layout, count)
    tokens = features["tokens"]
    arriving = tokens * devices(pair.attention) / devices(pair.expert)
    load = expert_load(a, pair.expert, far.serving, far.skew("decode"), arriving)
    features |= {
        "expert_rows": load.rows,
        "experts": load.active,
        "per_etp": 1.0 / degree(pair.expert, "etp"),
    }
    own, others = _sides(near, far, a, features)
    reduce_s = jnp.zeros(())
    if near.layout.attention != "dp":
        size = tokens * features["tp"] * a.hidden * ACTIVATION_BYTES
        reduce_s = near.collective("all_reduce", "tp", size, "tensor_parallel")
    attention = own.ops.attention + own.ops.experts + reduce_s
    experts, trips = others.ops.experts, _trips(far, a, load, tokens, pair)
    bounds = [
        count * attention,
        pair.domains * count * experts,
        count * trips.port_s,
        attention + trips.dispatch_s + experts + trips.combine_s,
    ]
    dense = own.ops.attention + own.ops.dense + 2.0 * reduce_s
    runs = runs_of(a, w, count)
    times = ApartTimes(
        step_s=jnp.zeros(()),
        attention_s=attention,
        expert_s=experts,
        dispatch_s=trips.dispatch_s,
        combine_s=trips.combine_s,
        attention_busy=busy_s(own.work, runs),
        expert_busy=Busy(*(pair.domains * s for s in busy_s(others.work, runs))),
    )
    layer_s = smooth.maximum_of(bounds, sharpness)
    return _Layer(layer_s, count * dense, times, own.ops.tail, own.ops.draft)


def apart_times(
    system: System, a: Architecture, w: Decode, pair: Pair, sharpness: Sharpness
) -> ApartTimes:
    """Time of one decode step with attention and experts on devices of their own."""
    stage = stage_of(system, pair.attention, w.serving, Scales({}), sharpness)
    far = stage_of(system, pair.expert, w.serving, Scales({}), sharpness)
    streams = streams_of(stage)
    modes = in_each((streams,), lambda mode: _layer(stage, far, a, w, pair, mode))
    drafts = w.draft_tokens
    layers = (a.layers - a.dense_layers + drafts) * modes.layer_s
    layers = layers + a.dense_layers * modes.dense_layer_s
    best, layer = faster(pair.attention, layers, modes, sharpness)
    host = stage.engine.decode_step_s + drafts * stage.engine.draft_step_s
    step = best + layer.tail_s + drafts * layer.draft_s + host
    return layer.times._replace(step_s=step)
