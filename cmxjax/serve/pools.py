"""Pools together: the rate that all of them can take, and what bounds each."""

from collections.abc import Container, Mapping
from typing import NamedTuple

import jax.numpy as jnp
from flax import struct

from .. import smooth
from .._types import Leaf, Scalar, Sharpness
from ..job.layout import Pool, instances
from ..job.workload import Serve
from ..memory.serving import excess_bytes
from ..work.serving import cache_bytes
from .bulk import Bulk
from .colocated import COLOCATED
from .encode import EncodePool, encode_pool
from .generation import (
    Generation,
    Inputs,
    Load,
    Scheme,
    generate,
    generation_power_w,
    step_scheme,
)
from .percentile import P90, p90
from .prefill import (
    PrefillPool,
    Transfer,
    prefill_pool,
    prefill_power_w,
    transfer,
    within_limit,
)
from .queue import BUSIEST, burst_wait_s, queue_power_w, queue_wait_s, seen_share

LEAST_LEFT = 1e-6
"""Share of a limit that stands for nothing."""


class PoolMetrics(struct.PyTreeNode, kw_only=True, frozen=True):
    """One pool; suffixes are units."""

    devices: Leaf
    instances: Leaf
    requests_per_s: Leaf
    """Most that it can serve within the limits."""
    utilization: Leaf
    """Requests over those that it could serve with full batches, or of a pool that
    generates with its memory full."""
    memory_bytes: Leaf
    memory_excess_bytes: Leaf
    limits: dict[str, Leaf]
    """How much of each limit is used at `requests_per_s`; the largest binds. Where the
    model steps, as at one more tile, even that one is below 1."""
    kind: str = struct.field(pytree_node=False, default="pool_metrics")


class Served(NamedTuple):
    """Pools at the rate of requests that all of them can take."""

    inputs: Inputs
    """With an encode pool, what is left for the others: no images, and of a limit on the
    time to the first token what encoding leaves."""
    scheme: Scheme
    prefill: PrefillPool | None
    queue: Bulk | None
    """Of a prefill instance."""
    hand_over: Transfer | None
    cache_per_s: Scalar | None
    """Requests whose prefixes the cache can send in a second."""
    generation: Generation
    encode: EncodePool | None = None

    @property
    def per_s(self) -> Scalar:
        return self.generation.served_requests_per_s


def scheme_of(roles: Container[str]) -> Scheme:
    """How the pools generate: with a pool of experts, beside prompts, or alone."""
    if "expert" in roles:
        return step_scheme("attention")
    return step_scheme("decode") if "prefill" in roles else COLOCATED


def served(inputs: Inputs, sharpness: Sharpness) -> Served:
    """Let requests through at the rate that arrives, or else the most that is stable."""
    machines, a, w, layout = inputs
    scheme = scheme_of(layout.pools)
    prefill = queue = hand_over = cache = encode = None
    rate = None if w.requests_per_s is None else jnp.asarray(w.requests_per_s)
    fixed, seen = jnp.zeros(()), jnp.ones(())
    if "encode" in layout.pools:
        pool = layout.pools["encode"]
        encode = encode_pool(machines["encode"], a, w, pool, sharpness)
        rate = _least(rate, BUSIEST * encode.full_requests_per_s, sharpness)
        passed = _embeddings_per_s(encode, inputs, scheme, sharpness)
        rate = _least(rate, passed, sharpness)
        w = _without_images(w, encode, rate)
        inputs = inputs._replace(workload=w)
    if "prefill" in layout.pools:
        pool = layout.pools["prefill"]
        hand_over = transfer(machines["prefill"], a, w, pool.layout)
        prefill = prefill_pool(
            machines["prefill"], a, w, pool, hand_over.seconds, sharpness
        )
        rate = _least(rate, BUSIEST * prefill.full_requests_per_s, sharpness)
        count = prefill.instances
        seen = seen_share(w.concurrency, count)
        each = count / prefill.full_requests_per_s
        burst = burst_wait_s(w.concurrency, count, w.rounds, each)
        fixed = hand_over.seconds + burst
        for role in ("prefill", scheme.role):
            most = _handed_over_per_s(hand_over, layout.pools[role])
            rate = _least(rate, most, sharpness)
    if "cache" in layout.pools:
        cache = _cache_per_s(inputs, scheme)
        rate = _least(rate, BUSIEST * cache, sharpness)
    load = Load(rate, w.concurrency, prefill, fixed, seen)
    generation = generate(scheme, inputs, load, sharpness)
    if prefill is not None:
        queue = prefill.queue_at(generation.served_requests_per_s * seen)
    return Served(inputs, scheme, prefill, queue, hand_over, cache, generation, encode)


def _least(rate: Scalar | None, most: Scalar, sharpness: Sharpness) -> Scalar:
    """The smaller of a rate, if there is one, and the most that passes."""
    return most if rate is None else smooth.minimum(rate, most, sharpness)


def _without_images(w: Serve, encode: EncodePool, rate: Scalar) -> Serve:
    """What is left of a request once its images are encoded; a limit that this exceeds
    leaves next to nothing."""
    left = w.ttft_limit_s
    if left is not None:
        spent = encode.bare_s + queue_wait_s(encode, rate)
        left = smooth.larger(left - spent, LEAST_LEFT * left)
    return w.replace(images=None, ttft_limit_s=left)


def _handed_over_per_s(hand_over: Transfer, pool: Pool) -> Scalar:
    """Requests whose keys and values the ports of a pool can pass on."""
    return BUSIEST * pool.devices * hand_over.requests_per_s_per_device


def _embeddings_per_s(
    encode: EncodePool, inputs: Inputs, scheme: Scheme, sharpness: Sharpness
) -> Scalar:
    """Requests whose embeddings the ports of both ends can pass on."""
    pools = inputs.pools.pools
    ends = pools["encode"], pools["prefill" if "prefill" in pools else scheme.role]
    sent, received = (_handed_over_per_s(encode.hand_over, pool) for pool in ends)
    return smooth.minimum(sent, received, sharpness)


def _cache_per_s(inputs: Inputs, scheme: Scheme) -> Scalar:
    """Requests whose prefixes the cache can send in a second.

    Each device that the pool spans adds its share of the hosts' links. A cache that
    holds nothing sends nothing: a tiny share keeps the rate finite.
    """
    machines, a, w, layout = inputs
    link = machines[scheme.role].cache
    assert link is not None
    rate = layout.pools["cache"].devices * link.bytes_per_s * link.efficiency
    role = "prefill" if "prefill" in w.software else scheme.role
    cached = w.prompt_tokens * smooth.larger(w.cached_fraction, 1e-9)
    return rate / cache_bytes(a, w.software[role].sizes, cached)


def prefill_tokens(state: Served) -> Scalar | None:
    """Prompt tokens per device that are computed at once."""
    if state.prefill is not None:
        return state.prefill.tokens_per_device
    return state.inputs.workload.tokens_per_device if _colocated(state) else None


def _colocated(state: Served) -> bool:
    return state.scheme.role == "decode" and state.prefill is None


def request_parts(state: Served) -> dict[str, Scalar]:
    """Seconds of a request, one after another."""
    decode = state.generation.tpot_s * state.inputs.workload.output_tokens
    parts, first = {}, {}
    if state.encode is not None:
        first = {
            "encode_waiting": queue_wait_s(state.encode, state.per_s),
            "encode": state.encode.steady_s,
            "encode_transfer": state.encode.hand_over.seconds,
        }
    slot_wait = state.generation.slot_wait_s
    if state.queue is not None and state.hand_over is not None:
        parts = {
            "waiting": state.queue.wait_s,
            "prefill": state.queue.batch_s,
            "transfer": state.hand_over.seconds,
        }
    elif "prefill" in state.generation.point.extra:
        extra = state.generation.point.extra
        parts = {"waiting": extra["waiting"] + slot_wait, "prefill": extra["prefill"]}
        slot_wait = jnp.zeros(())
    concurrency = state.inputs.workload.concurrency
    if concurrency is not None and "waiting" in parts:
        # by Little's law; where the memory is full, the wait for a place in it is in it
        others = sum((x for name, x in parts.items() if name != "waiting"), decode)
        parts["waiting"] = smooth.larger(concurrency / state.per_s - others, 0.0)
    return {**first, **parts, "decode_waiting": slot_wait, "decode": decode}


def percentiles(state: Served) -> P90 | None:
    """Of the wait for a prefill batch, and of wait and batch; None in a closed loop, and
    where prompts are computed beside decode steps."""
    if state.queue is None or state.inputs.workload.concurrency is not None:
        return None
    return p90(state.queue)


def power_w(state: Served) -> Scalar:
    """Power of all pools; the hosts that hold the cache are counted with the devices."""
    machines, _, _, layout = state.inputs
    power = generation_power_w(state.inputs, state.generation)
    if state.prefill is not None and state.queue is not None:
        where = machines["prefill"], layout.pools["prefill"]
        power = power + prefill_power_w(*where, state.prefill, state.queue)
    if state.encode is not None:
        where = machines["encode"], layout.pools["encode"]
        power = power + queue_power_w(*where, state.encode, state.per_s)
    return power


def pool_metrics(state: Served, sharpness: Sharpness) -> dict[str, PoolMetrics]:
    """Every pool by role."""
    metrics = {}
    for role in state.inputs.pools.pools:
        if role == "prefill":
            metrics[role] = _of_prefill(state, sharpness)
        elif role == "cache":
            metrics[role] = _of_cache(state)
        elif role == "encode":
            metrics[role] = _of_encode(state, sharpness)
        else:
            metrics[role] = _of_generation(state, role, sharpness)
    return metrics


def _of_cache(state: Served) -> PoolMetrics:
    assert state.cache_per_s is not None
    zero = jnp.zeros(())
    return PoolMetrics(
        devices=state.inputs.pools.pools["cache"].devices,
        instances=jnp.ones(()),
        requests_per_s=BUSIEST * state.cache_per_s,
        utilization=state.per_s / state.cache_per_s,
        memory_bytes=zero,
        memory_excess_bytes=zero,
        limits={"bandwidth": jnp.ones(())},
    )


def _of_encode(state: Served, sharpness: Sharpness) -> PoolMetrics:
    encode = state.encode
    assert encode is not None
    within = BUSIEST * encode.full_requests_per_s
    sent = _embeddings_per_s(encode, state.inputs, state.scheme, sharpness)
    per_s = smooth.minimum(within, sent, sharpness)
    limits = {"compute": per_s / within, "transfer": per_s / sent}
    return _of_queue(state, "encode", encode, per_s, limits)


def _of_prefill(state: Served, sharpness: Sharpness) -> PoolMetrics:
    pool = state.inputs.pools.pools["prefill"]
    prefill, hand_over = state.prefill, state.hand_over
    assert prefill is not None
    assert hand_over is not None
    stable = BUSIEST * prefill.full_requests_per_s
    sent = _handed_over_per_s(hand_over, pool)
    per_s, ttft = within_limit(prefill, smooth.minimum(stable, sent, sharpness))
    limits = {"compute": per_s / stable, "transfer": per_s / sent}
    if ttft is not None:
        limits["ttft"] = ttft
    return _of_queue(state, "prefill", prefill, per_s, limits)


def _of_queue(
    state: Served,
    role: str,
    queue: PrefillPool | EncodePool,
    per_s: Scalar,
    limits: Mapping[str, Scalar],
) -> PoolMetrics:
    pool, machine = state.inputs.pools.pools[role], state.inputs.machines[role]
    return PoolMetrics(
        devices=pool.devices,
        instances=instances(pool),
        requests_per_s=per_s,
        utilization=state.per_s / queue.full_requests_per_s,
        limits=dict(limits),
        memory_bytes=queue.memory.total,
        memory_excess_bytes=excess_bytes(machine, queue.memory),
    )


def _of_generation(state: Served, role: str, sharpness: Sharpness) -> PoolMetrics:
    pool, generation = state.inputs.pools.pools[role], state.generation
    per_s = generation.requests_per_s
    limits = {**generation.limits, "memory": generation.memory_shares[role]}
    if state.hand_over is not None and role == state.scheme.role:
        most = _handed_over_per_s(state.hand_over, pool)
        limits["transfer"] = per_s / most
        per_s = smooth.minimum(per_s, most, sharpness)
    return PoolMetrics(
        devices=pool.devices,
        instances=instances(pool),
        requests_per_s=per_s,
        utilization=state.per_s / generation.full_requests_per_s,
        limits=limits,
        memory_bytes=generation.memory_bytes[role],
        memory_excess_bytes=generation.memory_excess_bytes[role],
    )
