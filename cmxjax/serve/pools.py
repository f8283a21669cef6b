"""Pools together: the rate that all of them can take, and what bounds each."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import struct

from .. import smooth
from .._types import Leaf, Scalar, Sharpness
from ..job.layout import Pool, instances
from ..memory.serving import excess_bytes
from ..work.serving import cache_bytes
from .colocated import COLOCATED
from .generation import (
    Generation,
    Inputs,
    Scheme,
    generate,
    generation_power_w,
    step_scheme,
)
from .prefill import (
    PrefillPool,
    Transfer,
    prefill_pool,
    prefill_power_w,
    prefill_wait_s,
    transfer,
)
from .queue import BUSIEST


class PoolMetrics(struct.PyTreeNode, kw_only=True, frozen=True):
    """One pool; suffixes are units."""

    devices: Leaf
    instances: Leaf
    requests_per_s: Leaf
    """Most that it can serve within the limits."""
    utilization: Leaf
    """Share of the time that a prefill instance or the cache is busy; of a pool that
    generates, the requests over those with its memory full."""
    memory_bytes: Leaf
    memory_excess_bytes: Leaf
    limits: dict[str, Leaf]
    """How much of each limit is used at `requests_per_s`; the largest binds. Where the
    model steps, as at one more tile, even that one is below 1."""
    kind: str = struct.field(pytree_node=False, default="pool_metrics")


class Served(NamedTuple):
    """Pools at the rate of requests that all of them can take."""

    inputs: Inputs
    scheme: Scheme
    prefill: PrefillPool | None
    hand_over: Transfer | None
    cache_per_s: Scalar | None
    """Requests whose prefixes the cache can send in a second."""
    generation: Generation

    @property
    def per_s(self) -> Scalar:
        return self.generation.served_requests_per_s


def scheme_of(roles: Any) -> Scheme:
    """How the pools generate: with a pool of experts, beside prompts, or alone."""
    if "expert" in roles:
        return step_scheme("attention")
    return step_scheme("decode") if "prefill" in roles else COLOCATED


def served(inputs: Inputs, sharpness: Sharpness) -> Served:
    """Let requests through at the rate that arrives, or else the most that is stable."""
    machines, a, w, layout = inputs
    scheme = scheme_of(layout.pools)
    prefill = hand_over = cache = None
    rate = jnp.asarray(w.requests_per_s)
    if "prefill" in layout.pools:
        pool = layout.pools["prefill"]
        hand_over = transfer(machines["prefill"], a, w, pool.layout)
        prefill = prefill_pool(
            machines["prefill"], a, w, pool, hand_over.seconds, sharpness
        )
        rate = smooth.minimum(rate, BUSIEST * prefill.full_requests_per_s, sharpness)
        for role in ("prefill", scheme.role):
            most = _handed_over_per_s(hand_over, layout.pools[role])
            rate = smooth.minimum(rate, most, sharpness)
    if "cache" in layout.pools:
        cache = _cache_per_s(inputs, scheme)
        rate = smooth.minimum(rate, BUSIEST * cache, sharpness)
    found = generate(scheme, inputs, rate, sharpness)
    return Served(inputs, scheme, prefill, hand_over, cache, found)


def _handed_over_per_s(hand_over: Transfer, pool: Pool) -> Scalar:
    """Requests whose keys and values the ports of a pool can pass on."""
    return BUSIEST * pool.devices * hand_over.requests_per_s_per_device


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


def prefill_tokens(found: Served) -> Scalar | None:
    """Prompt tokens per device that are computed at once."""
    if found.prefill is not None:
        return found.prefill.tokens_per_device
    return found.inputs.workload.tokens_per_device if _colocated(found) else None


def _colocated(found: Served) -> bool:
    return found.scheme.role == "decode" and found.prefill is None


def request_parts(found: Served) -> dict[str, Scalar]:
    """Seconds of a request, one after another."""
    decode = found.generation.tpot_s * found.inputs.workload.output_tokens
    parts = {}
    if found.prefill is not None and found.hand_over is not None:
        parts = {
            "waiting": prefill_wait_s(found.prefill, found.per_s),
            "prefill": found.prefill.batch_s,
            "transfer": found.hand_over.seconds,
        }
    elif "prefill" in found.generation.point.extra:
        own = found.generation.point.extra
        parts = {name: own[name] for name in ("waiting", "prefill")}
    return {**parts, "decode": decode}


def power_w(found: Served) -> Scalar:
    """Power of all pools; the hosts that hold the cache are counted with the devices."""
    machines, _, _, layout = found.inputs
    power = generation_power_w(found.inputs, found.generation)
    if found.prefill is not None:
        pool = layout.pools["prefill"]
        power = power + prefill_power_w(
            machines["prefill"], pool, found.prefill, found.per_s
        )
    return power


def pool_metrics(found: Served, sharpness: Sharpness) -> dict[str, PoolMetrics]:
    """Every pool by role."""
    metrics = {}
    for role in found.inputs.pools.pools:
        if role == "prefill":
            metrics[role] = _of_prefill(found, sharpness)
        elif role == "cache":
            metrics[role] = _of_cache(found)
        else:
            metrics[role] = _of_generation(found, role, sharpness)
    return metrics


def _of_cache(found: Served) -> PoolMetrics:
    assert found.cache_per_s is not None
    zero = jnp.zeros(())
    return PoolMetrics(
        devices=found.inputs.pools.pools["cache"].devices,
        instances=jnp.ones(()),
        requests_per_s=BUSIEST * found.cache_per_s,
        utilization=found.per_s / found.cache_per_s,
        memory_bytes=zero,
        memory_excess_bytes=zero,
        limits={"bandwidth": jnp.ones(())},
    )


def _of_prefill(found: Served, sharpness: Sharpness) -> PoolMetrics:
    machines, _, w, layout = found.inputs
    pool, own, hand_over = layout.pools["prefill"], found.prefill, found.hand_over
    assert own is not None
    assert hand_over is not None
    within = own.utilization_limit * own.full_requests_per_s
    sent = _handed_over_per_s(hand_over, pool)
    per_s = smooth.minimum(within, sent, sharpness)
    limits = {
        "compute": per_s / (BUSIEST * own.full_requests_per_s),
        "transfer": per_s / sent,
    }
    if w.ttft_limit_s is not None:
        limits["ttft"] = (own.bare_s + prefill_wait_s(own, per_s)) / w.ttft_limit_s
    return PoolMetrics(
        devices=pool.devices,
        instances=instances(pool),
        requests_per_s=per_s,
        utilization=found.per_s / own.full_requests_per_s,
        limits=limits,
        memory_bytes=own.memory.total,
        memory_excess_bytes=excess_bytes(machines["prefill"], own.memory),
    )


def _of_generation(found: Served, role: str, sharpness: Sharpness) -> PoolMetrics:
    pool, own = found.inputs.pools.pools[role], found.generation
    per_s = own.requests_per_s
    limits = {**own.limits, "memory": own.memory_shares[role]}
    if found.hand_over is not None and role == found.scheme.role:
        most = _handed_over_per_s(found.hand_over, pool)
        limits["transfer"] = per_s / most
        per_s = smooth.minimum(per_s, most, sharpness)
    return PoolMetrics(
        devices=pool.devices,
        instances=instances(pool),
        requests_per_s=per_s,
        utilization=found.per_s / own.full_requests_per_s,
        limits=limits,
        memory_bytes=own.memory_bytes[role],
        memory_excess_bytes=own.memory_excess_bytes[role],
    )
