"""The one function that everything calls: metrics of a scenario."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import struct

from .._types import Leaf, Scalar, Sharpness
from ..energy import job_power_w
from ..job import layout as layouts
from ..job.layout import Layout, Pools, counted
from ..job.workload import (
    Collective,
    Decode,
    Operator,
    Prefill,
    Serve,
    SystemQuery,
    Train,
    Workload,
    tokens_per_step,
)
from ..machine.system import System, devices_per_package, ordered_tiers
from ..memory import Memory, decode_memory, excess_bytes, prefill_memory
from ..model.architecture import Architecture, total_parameters
from ..parameters import apply
from ..serve.metrics import ServeMetrics, serve_metrics
from ..step import decode as decoding
from ..step import prefill as prefilling
from ..step.collective import CollectiveMetrics, collective_metrics
from ..step.operator import OperatorMetrics, operator_metrics
from ..step.serving import components
from ..step.shares import Scales, breakdown, busy
from ..step.totals import SystemMetrics, system_metrics
from .training import TrainMetrics, train_metrics


class DecodeMetrics(struct.PyTreeNode, kw_only=True, frozen=True):
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
    parameters: Leaf
    breakdown: dict[str, Any] | None
    """Seconds of the step by component, by Euler's theorem; they sum to the step."""
    busy: dict[str, Any] | None
    """Seconds that each component is busy, hidden or not."""
    kind: str = struct.field(pytree_node=False, default="decode_metrics")


class PrefillMetrics(struct.PyTreeNode, kw_only=True, frozen=True):
    """Metrics of a prefill batch; suffixes are units, SI throughout."""

    ttft_s: Leaf
    layer_time_s: Leaf
    dispatch_time_s: Leaf
    combine_time_s: Leaf
    host_time_s: Leaf
    cache_load_time_s: Leaf
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
    parameters: Leaf
    breakdown: dict[str, Any] | None
    busy: dict[str, Any] | None
    kind: str = struct.field(pytree_node=False, default="prefill_metrics")


Metrics = (
    SystemMetrics
    | OperatorMetrics
    | CollectiveMetrics
    | DecodeMetrics
    | PrefillMetrics
    | TrainMetrics
    | ServeMetrics
)


def metrics(
    system: System,
    architecture: Architecture | None,
    workload: Workload,
    layout: Layout | Pools,
    theta: dict[str, Any],
    sharpness: Sharpness = None,
    *,
    explain: bool = True,
) -> Any:
    """Predict a scenario: pure, and differentiable in every float leaf.

    Args:
        system: the machine.
        architecture: the model; None for phases system, op and collective.
        workload: what runs; its class is the phase.
        layout: parallel degrees and placement; of phase `serve` the pools.
        theta: unconstrained parameters by leaf path of `system`; {} is the spec.
        sharpness: None for the exact model, a number of at least 1 for its relaxation.
        explain: also compute the breakdown and busy times, which cost derivatives.

    Returns:
        The phase's metrics, a pytree of scalars.

    Raises:
        KeyError: `theta` names no leaf of `system`.
        TypeError: the workload belongs to no phase, or the phase needs a model.
    """
    machine = apply(system, theta)
    if isinstance(workload, SystemQuery):
        return system_metrics(machine, workload)
    if isinstance(workload, Operator):
        return operator_metrics(machine, workload, sharpness)
    if isinstance(workload, Serve):
        if architecture is None or not isinstance(layout, Pools):
            raise TypeError("phase serve needs an architecture and pools")
        return serve_metrics(machine, architecture, workload, layout, sharpness, explain)
    if isinstance(layout, Pools):
        raise TypeError(f"only phase serve has pools, not {workload.kind}")
    layout = counted(layout)
    if isinstance(workload, Collective):
        return collective_metrics(machine, workload, layout, sharpness)
    if architecture is None:
        raise TypeError("phases decode, prefill and train need an architecture")
    if isinstance(workload, Decode):
        return _decode(machine, architecture, workload, layout, sharpness, explain)
    if isinstance(workload, Prefill):
        return _prefill(machine, architecture, workload, layout, sharpness, explain)
    if isinstance(workload, Train):
        return train_metrics(machine, architecture, workload, layout, sharpness, explain)
    raise TypeError(f"no phase has workloads of type {type(workload).__name__}")


def _decode(
    system: System,
    a: Architecture,
    w: Decode,
    layout: Layout,
    sharpness: Sharpness,
    explain: bool,
) -> DecodeMetrics:
    times = decoding.decode_times(system, a, w, layout, Scales({}), sharpness)

    def step_s(scales: Scales, layout: Layout = layout):
        args = (system, a, w, layout, scales, sharpness, times.core_share)
        return decoding.decode_times(*args).step_s

    shares = used = None
    if explain:
        parts = decoding.operator_blocks(a, w, layout), components(a, layout)
        shares = breakdown(step_s, *parts)
        used = _busy(step_s, layout, parts)
    per_step = tokens_per_step(w)
    rate = w.sequences_per_device * per_step / times.step_s
    memory = decode_memory(a, w, layout, sharpness)
    loads = [seconds / times.step_s for seconds in times.layer.busy]
    return DecodeMetrics(
        tpot_s=times.step_s / per_step,
        step_time_s=times.step_s,
        tokens_per_step=per_step,
        layer_time_s=times.layer.expert_layer_s,
        attention_stream_time_s=times.layer.attention_stream_s,
        moe_stream_time_s=times.layer.expert_stream_s,
        dispatch_time_s=times.layer.dispatch_s,
        combine_time_s=times.layer.combine_s,
        host_time_s=times.host_s,
        iteration_rest_s=times.iteration_rest_s,
        breakdown=shares,
        busy=used,
        **_common(system, a, layout, rate, memory, loads),
    )


def _prefill(
    system: System,
    a: Architecture,
    w: Prefill,
    layout: Layout,
    sharpness: Sharpness,
    explain: bool,
) -> PrefillMetrics:
    def step_s(scales: Scales, layout: Layout = layout):
        return prefilling.prefill_times(system, a, w, layout, scales, sharpness).batch_s

    times = prefilling.prefill_times(system, a, w, layout, Scales({}), sharpness)
    shares = used = None
    if explain:
        parts = (
            prefilling.operator_blocks(a, w, layout),
            prefilling.prefill_components(a, layout),
        )
        shares = breakdown(step_s, *parts)
        used = _busy(step_s, layout, parts)
    rate = w.tokens_per_device / times.steady_s
    memory = prefill_memory(a, w, layout, sharpness)
    loads = [seconds / times.steady_s for seconds in times.busy]
    return PrefillMetrics(
        ttft_s=times.batch_s,
        layer_time_s=times.layer_s,
        dispatch_time_s=times.dispatch_s,
        combine_time_s=times.combine_s,
        host_time_s=times.host_s,
        cache_load_time_s=times.cache_load_s,
        breakdown=shares,
        busy=used,
        **_common(system, a, layout, rate, memory, loads),
    )


def _busy(step_s: Callable[..., Any], layout: Layout, parts: tuple) -> dict[str, Any]:
    """Busy times, for `auto` those of the mode that is faster as things are."""
    if layout.microbatches != "auto":
        return busy(step_s, *parts)
    one, two = (
        partial(step_s, layout=layout.replace(microbatches=count)) for count in "12"
    )
    serial = one(Scales({})) <= two(Scales({}))
    first, second = busy(one, *parts), busy(two, *parts)
    return {name: jnp.where(serial, first[name], second[name]) for name in first}


def _common(
    system: System,
    a: Architecture,
    layout: Layout,
    device_rate: Scalar,
    memory: Memory,
    loads: list[Scalar],
) -> dict[str, Any]:
    """Rates, memory and power of a serving phase.

    `loads` are the shares of the step that compute units and memory are busy, on the
    mean device of the pipeline.
    """
    devices = layouts.devices(layout)
    power = job_power_w(system, devices, *loads)
    sizes = [tier.size for tier in ordered_tiers(system)]
    return {
        "tokens_per_s_per_device": device_rate,
        "tokens_per_s_per_package": device_rate * devices_per_package(system),
        "tokens_per_s": device_rate * devices,
        "memory_bytes": memory.total,
        "memory_weights_bytes": memory.weights,
        "memory_kv_cache_bytes": memory.kv_cache,
        "memory_communication_bytes": memory.communication,
        "memory_activations_bytes": memory.activations,
        "memory_excess_bytes": excess_bytes(system, memory),
        "placement_excess": layouts.excess(layout, sizes),
        "power_w": power,
        "energy_per_token_j": power / (device_rate * devices),
        "parameters": total_parameters(a) * jnp.ones(()),
    }
