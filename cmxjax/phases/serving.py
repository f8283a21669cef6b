"""Phases decode and prefill: rates, memory and power of one serving step."""

import jax.numpy as jnp
from flax import struct

from .._types import Leaf, Scalar, Sharpness
from ..cost import of_a_token
from ..energy import job_power_w
from ..job import layout as layouts
from ..job.layout import Layout
from ..job.workload import Decode, Prefill, tokens_per_step
from ..machine.machine import Machine
from ..memory.serving import Memory, decode_memory, excess_bytes, prefill_memory
from ..model.architecture import Architecture, total_parameters
from ..step.busy import Filled
from ..step.costs import Breakdown, Explained, times_in
from ..step.price import decode_job, prefill_job
from ..step.serving import served


class DecodeMetrics(Explained, struct.PyTreeNode, kw_only=True, frozen=True):
    """Metrics of a decode step; suffixes are units, SI throughout."""

    tpot_s: Leaf
    step_time_s: Leaf
    tokens_per_step: Leaf
    layer_time_s: Leaf
    attention_stream_time_s: Leaf
    moe_stream_time_s: Leaf
    dispatch_time_s: Leaf
    combine_time_s: Leaf
    host_time_s: Leaf
    iteration_rest_s: Leaf
    tokens_per_s_per_device: Leaf
    tokens_per_s_per_package: Leaf
    tokens_per_s: Leaf
    memory_bytes: Leaf
    memory_weights_bytes: Leaf
    memory_kv_cache_bytes: Leaf
    memory_communication_bytes: Leaf
    memory_activations_bytes: Leaf
    memory_excess_bytes: Leaf
    placement_excess: Leaf
    power_w: Leaf
    energy_per_token_j: Leaf
    tokens_per_s_per_kw: Leaf
    cost_per_token_usd: Leaf
    parameters: Leaf
    breakdown: Breakdown | None
    """Seconds of the step by component, by Euler's theorem; they sum to the step. None
    unless asked for, as is `busy`."""
    kind: str = struct.field(pytree_node=False, default="decode_metrics")


class PrefillMetrics(Explained, struct.PyTreeNode, kw_only=True, frozen=True):
    """Metrics of a prefill batch; suffixes are units, SI throughout."""

    ttft_s: Leaf
    layer_time_s: Leaf
    dispatch_time_s: Leaf
    combine_time_s: Leaf
    host_time_s: Leaf
    cache_load_time_s: Leaf
    vision_time_s: Leaf | None
    """Of the vision tower, for the images of a batch; None without images."""
    tokens_per_s_per_device: Leaf
    tokens_per_s_per_package: Leaf
    tokens_per_s: Leaf
    memory_bytes: Leaf
    memory_weights_bytes: Leaf
    memory_kv_cache_bytes: Leaf
    memory_communication_bytes: Leaf
    memory_activations_bytes: Leaf
    memory_excess_bytes: Leaf
    placement_excess: Leaf
    power_w: Leaf
    energy_per_token_j: Leaf
    tokens_per_s_per_kw: Leaf
    cost_per_token_usd: Leaf
    parameters: Leaf
    breakdown: Breakdown | None
    kind: str = struct.field(pytree_node=False, default="prefill_metrics")


def decode_metrics(
    machine: Machine,
    a: Architecture,
    w: Decode,
    layout: Layout,
    sharpness: Sharpness,
    explains: bool,
) -> DecodeMetrics:
    """Predict one decode step."""
    job = decode_job(machine, a, w, layout, sharpness)
    step = served(job, sharpness)
    times, breakdown = times_in(step.step, explains)
    per_step = tokens_per_step(w)
    rate = w.sequences_per_device * per_step / times.step_s
    memory = decode_memory(a, w, layout, sharpness)
    return DecodeMetrics(
        tpot_s=times.step_s / per_step,
        step_time_s=times.step_s,
        tokens_per_step=per_step,
        layer_time_s=times.layer.layer_s,
        attention_stream_time_s=times.layer.attention_s,
        moe_stream_time_s=times.layer.feed_forward_s,
        dispatch_time_s=times.layer.dispatch_s,
        combine_time_s=times.layer.combine_s,
        host_time_s=job.host_s,
        iteration_rest_s=times.rest_s,
        breakdown=breakdown,
        **_common(machine, a, layout, rate, memory, step.filled(times)[0], times.step_s),
    )


def prefill_metrics(
    machine: Machine,
    a: Architecture,
    w: Prefill,
    layout: Layout,
    sharpness: Sharpness,
    explains: bool,
) -> PrefillMetrics:
    """Predict one prefill batch, without queueing."""
    job = prefill_job(machine, a, w, layout, sharpness)
    step = served(job, sharpness)
    times, breakdown = times_in(step.step, explains)
    layer, steady = times.layer, times.steady_s
    memory = prefill_memory(a, w, layout, sharpness)
    rate = w.tokens_per_device / steady
    return PrefillMetrics(
        ttft_s=times.step_s,
        layer_time_s=layer.layer_s,
        dispatch_time_s=layer.dispatch_s,
        combine_time_s=layer.combine_s,
        host_time_s=job.host_s,
        cache_load_time_s=job.cache_s,
        vision_time_s=times.vision_s,
        breakdown=breakdown,
        **_common(machine, a, layout, rate, memory, step.filled(times)[0], steady),
    )


def _common(
    machine: Machine,
    a: Architecture,
    layout: Layout,
    device_rate: Scalar,
    memory: Memory,
    filled: Filled,
    step_s: Scalar,
) -> dict[str, Leaf]:
    """Rates, memory and power of a serving phase.

    `filled` is that of the mean device of the pipeline, in a step of `step_s`.
    """
    devices = layouts.devices(layout)
    power = job_power_w(machine, devices, *(seconds / step_s for seconds in filled))
    return {
        "tokens_per_s_per_device": device_rate,
        "tokens_per_s_per_package": device_rate * machine.package_devices,
        "tokens_per_s": device_rate * devices,
        "memory_bytes": memory.total,
        "memory_weights_bytes": memory.weights,
        "memory_kv_cache_bytes": memory.kv_cache,
        "memory_communication_bytes": memory.communication,
        "memory_activations_bytes": memory.activations,
        "memory_excess_bytes": excess_bytes(machine, memory),
        "placement_excess": layouts.excess(layout, machine.tiers.size),
        "power_w": power,
        **of_a_token(machine, devices, device_rate * devices, power),
        "parameters": total_parameters(a) * jnp.ones(()),
    }
