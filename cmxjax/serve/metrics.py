"""Metrics of phase `serve`: latency, goodput and what bounds each pool."""

import jax.numpy as jnp
from flax import struct

from .. import smooth
from .._types import Leaf, Scalar, Sharpness
from ..cost import of_a_token
from ..job.layout import Pools, excess
from ..job.workload import Serve, tokens_per_step
from ..machine.machine import Machine
from ..model.architecture import Architecture, total_parameters
from ..step.costs import Breakdown, Explained, breakdown_of
from .generation import Inputs
from .pools import (
    PoolMetrics,
    percentiles,
    pool_metrics,
    power_w,
    prefill_tokens,
    request_parts,
    served,
)


class ServeMetrics(Explained, struct.PyTreeNode, kw_only=True, frozen=True):
    """Metrics of serving; suffixes are units, SI throughout."""

    ttft_s: Leaf | None
    """Mean time to the first token: encoding of images where a pool of its own does it,
    then wait, own prefill batch, hand-over. None where no pool computes prompts."""
    ttft_p90_s: Leaf | None
    """Nine of ten requests have their first token by then: the P90 of wait and batch, and
    the mean of the rest. Of pools that compute prompts alone, outside of closed loops;
    likewise the next."""
    waiting_time_p90_s: Leaf | None
    encode_waiting_time_s: Leaf | None
    """Where images are encoded on a pool of their own, likewise the next two; elsewhere
    that is part of the prefill batch."""
    encode_time_s: Leaf | None
    encode_transfer_time_s: Leaf | None
    """Hand-over of embeddings."""
    waiting_time_s: Leaf | None
    prefill_time_s: Leaf | None
    transfer_time_s: Leaf | None
    decode_waiting_time_s: Leaf
    """For a place among the sequences that the pool decodes, after the hand-over; where
    prompts are computed beside decode steps that is in front, in `waiting_time_s`."""
    tpot_s: Leaf
    step_time_s: Leaf
    """Mean step of the devices that generate."""
    attention_stream_time_s: Leaf | None
    """Where attention and experts are apart, of one layer and micro-batch; likewise the
    next three."""
    moe_stream_time_s: Leaf | None
    dispatch_time_s: Leaf | None
    """From attention to experts."""
    combine_time_s: Leaf | None
    request_time_s: Leaf
    """From arrival to the last token."""
    sequences_per_device: Leaf
    """Mean batch on a device that generates, by Little's law."""
    prefill_tokens_per_device: Leaf | None
    """Prompt tokens of the largest prefill batch."""
    served_requests_per_s: Leaf
    requests_per_s: Leaf
    """Goodput: of the requests that arrive, those that the pools can serve within all
    limits."""
    capacity_requests_per_s: Leaf
    """Most requests that could be served within all limits."""
    tokens_per_s: Leaf
    tokens_per_s_per_device: Leaf
    tokens_per_s_per_package: Leaf
    utilization: Leaf
    """Of the busiest pool."""
    memory_bytes: Leaf
    """Worst device of all pools."""
    memory_excess_bytes: Leaf
    placement_excess: Leaf
    excess_requests_per_s: Leaf
    """Requests that arrive beyond what can be served, limits or not."""
    ttft_excess_s: Leaf | None
    tpot_excess_s: Leaf | None
    power_w: Leaf
    energy_per_token_j: Leaf
    """Of a token that is generated, for all pools; likewise the next two."""
    tokens_per_s_per_kw: Leaf
    cost_per_token_usd: Leaf
    parameters: Leaf
    pools: dict[str, PoolMetrics]
    breakdown: Breakdown | None
    """Seconds of a request by what it waits for; they sum to `request_time_s`."""
    kind: str = struct.field(pytree_node=False, default="serve_metrics")


def serve_metrics(
    machines: dict[str, Machine],
    a: Architecture,
    w: Serve,
    layout: Pools,
    sharpness: Sharpness,
    explains: bool,
) -> ServeMetrics:
    """Predict pools under a stream of requests that arrive at random.

    A request waits for a prefill batch (Bailey's bulk queue), is computed, handed to
    decode, waits for a slot there, and is decoded in a batch whose size follows from
    Little's law. Where more arrive than can be served, metrics are those at what is
    served. In a closed loop the rate is the one that keeps as many requests in flight as
    the workload says.
    """
    state = served(Inputs(machines, a, w, layout), sharpness)
    generation = state.generation
    pools = pool_metrics(state, sharpness)
    parts = request_parts(state)
    first = [parts[part] for part in parts if not part.startswith("decode")]
    ttft = sum(first, jnp.zeros(())) if first else None
    late, ttft_p90 = percentiles(state), None
    if ttft is not None and late is not None:
        ttft_p90 = ttft - parts["waiting"] - parts["prefill"] + late.first_s
    tokens, power = state.per_s * w.output_tokens, power_w(state)
    devices = sum(
        (p.devices for role, p in layout.pools.items() if role != "cache"), jnp.zeros(())
    )
    offered = state.per_s if w.requests_per_s is None else w.requests_per_s
    capacity = _smallest([p.requests_per_s for p in pools.values()], sharpness)
    machine = next(iter(machines.values()))
    placed = [excess(pool.layout, machine.tiers.size) for pool in layout.pools.values()]
    return ServeMetrics(
        ttft_s=ttft,
        ttft_p90_s=ttft_p90,
        waiting_time_p90_s=None if late is None else late.wait_s,
        encode_waiting_time_s=parts.get("encode_waiting"),
        encode_time_s=parts.get("encode"),
        encode_transfer_time_s=parts.get("encode_transfer"),
        waiting_time_s=parts.get("waiting"),
        prefill_time_s=parts.get("prefill"),
        transfer_time_s=parts.get("transfer"),
        decode_waiting_time_s=parts["decode_waiting"],
        tpot_s=generation.tpot_s,
        step_time_s=generation.tpot_s * tokens_per_step(w),
        attention_stream_time_s=generation.point.extra.get("attention_time"),
        moe_stream_time_s=generation.point.extra.get("expert_time"),
        dispatch_time_s=generation.point.extra.get("dispatch_time"),
        combine_time_s=generation.point.extra.get("combine_time"),
        request_time_s=sum(parts.values(), jnp.zeros(())),
        sequences_per_device=generation.sequences_per_device,
        prefill_tokens_per_device=prefill_tokens(state),
        served_requests_per_s=state.per_s,
        requests_per_s=smooth.minimum(offered, capacity, sharpness),
        capacity_requests_per_s=capacity,
        tokens_per_s=tokens,
        tokens_per_s_per_device=tokens / devices,
        tokens_per_s_per_package=tokens / devices * machine.package_devices,
        utilization=smooth.maximum_of([p.utilization for p in pools.values()], None),
        memory_bytes=smooth.maximum_of([p.memory_bytes for p in pools.values()], None),
        memory_excess_bytes=smooth.maximum_of(
            [p.memory_excess_bytes for p in pools.values()], None
        ),
        placement_excess=smooth.maximum_of(placed, None),
        excess_requests_per_s=offered - state.per_s,
        ttft_excess_s=_beyond(ttft, w.ttft_limit_s),
        tpot_excess_s=_beyond(generation.tpot_s, w.tpot_limit_s),
        power_w=power,
        **of_a_token(machine, devices, tokens, power),
        parameters=total_parameters(a) * jnp.ones(()),
        pools=pools,
        breakdown=breakdown_of(parts, parts) if explains else None,
    )


def _smallest(rates: list, sharpness: Sharpness) -> Scalar:
    least = rates[0]
    for rate in rates[1:]:
        least = smooth.minimum(least, rate, sharpness)
    return least


def _beyond(value: Scalar | None, limit: Scalar | None) -> Scalar | None:
    """What a value is beyond its limit; None where there is no limit."""
    if value is None or limit is None:
        return None
    return smooth.larger(value - limit, 0.0)
