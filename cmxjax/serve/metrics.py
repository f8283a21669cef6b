"""Metrics of phase `serve`: latency, goodput and what bounds each pool."""

from typing import Any

import jax.numpy as jnp
from flax import struct

from .. import smooth
from .._types import Leaf, Scalar, Sharpness
from ..architecture import Architecture, total_parameters
from ..hardware import System, devices_per_package, ordered_tiers
from ..layout import Pools, excess, instances
from ..memory import Memory, excess_bytes
from ..workload import Serve
from .generation import (
    DECODE,
    Generation,
    Inputs,
    Scheme,
    generate,
    generation_power_w,
)
from .prefill import (
    PrefillPool,
    Transfer,
    cache_bytes,
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
    """How much of each limit is used at `requests_per_s`: the pool is bound by those
    at 1."""
    kind: str = struct.field(pytree_node=False, default="pool_metrics")


class ServeMetrics(struct.PyTreeNode, kw_only=True, frozen=True):
    """Metrics of serving; suffixes are units, SI throughout."""

    ttft_s: Leaf | None
    """Mean time to the first token: wait, prefill batch, hand-over. None where no pool
    computes prompts."""
    waiting_time_s: Leaf | None
    prefill_time_s: Leaf | None
    transfer_time_s: Leaf | None
    tpot_s: Leaf
    request_time_s: Leaf
    """From arrival to the last token."""
    sequences_per_device: Leaf
    """Mean batch on a device that generates, by Little's law."""
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
    parameters: Leaf
    pools: dict[str, PoolMetrics]
    breakdown: dict[str, Any] | None
    """Seconds of a request by what it waits for; they sum to `request_time_s`."""
    busy: dict[str, Any] | None
    """The same seconds: the parts of a request follow each other."""
    kind: str = struct.field(pytree_node=False, default="serve_metrics")


def _scheme(pools: Pools) -> Scheme:
    return DECODE


def serve_metrics(
    system: System,
    a: Architecture,
    w: Serve,
    layout: Pools,
    sharpness: Sharpness,
    explain: bool,
) -> ServeMetrics:
    """Predict pools under a stream of requests that arrive at random.

    A request waits for a prefill batch (M/D/1), is computed, handed to decode, and is
    decoded in a batch whose size follows from Little's law. Where more arrive than can be
    served, metrics are those at what is served.
    """
    found = _Served(system, a, w, layout, sharpness)
    rate = found.served_per_s
    tokens = rate * w.output_tokens
    total = sum(
        (p.devices for role, p in layout.pools.items() if role != "cache"), jnp.zeros(())
    )
    power = found.power_w()
    parts = found.request_parts()
    pools = found.pool_metrics()
    within = [pool.requests_per_s for pool in pools.values()]
    capacity = within[0]
    for other in within[1:]:
        capacity = smooth.minimum(capacity, other, sharpness)
    sizes = [tier.size for tier in ordered_tiers(system)]
    placed = [excess(p.layout, sizes) for p in layout.pools.values()]
    ttft = found.ttft_s
    return ServeMetrics(
        ttft_s=ttft,
        waiting_time_s=parts.get("waiting"),
        prefill_time_s=parts.get("prefill"),
        transfer_time_s=parts.get("transfer"),
        tpot_s=found.generation.tpot_s,
        request_time_s=sum(parts.values(), jnp.zeros(())),
        sequences_per_device=found.generation.sequences_per_device,
        served_requests_per_s=rate,
        requests_per_s=smooth.minimum(w.requests_per_s, capacity, sharpness),
        capacity_requests_per_s=capacity,
        tokens_per_s=tokens,
        tokens_per_s_per_device=tokens / total,
        tokens_per_s_per_package=tokens / total * devices_per_package(system),
        utilization=_largest([p.utilization for p in pools.values()]),
        memory_bytes=_largest([p.memory_bytes for p in pools.values()]),
        memory_excess_bytes=_largest([p.memory_excess_bytes for p in pools.values()]),
        placement_excess=_largest(placed),
        excess_requests_per_s=w.requests_per_s - rate,
        ttft_excess_s=_beyond(ttft, w.ttft_limit_s),
        tpot_excess_s=_beyond(found.generation.tpot_s, w.tpot_limit_s),
        power_w=power,
        energy_per_token_j=power / tokens,
        parameters=total_parameters(a) * jnp.ones(()),
        pools=pools,
        breakdown=dict(parts) if explain else None,
        busy=dict(parts) if explain else None,
    )


def _largest(values: list) -> Scalar:
    return jnp.stack([jnp.asarray(value, float) for value in values]).max()


def _beyond(value: Scalar | None, limit: Scalar | None) -> Scalar | None:
    if value is None or limit is None:
        return None
    return jnp.maximum(value - limit, 0.0)


class _Served:
    """Pools at the rate of requests that all of them can take."""

    def __init__(
        self, system: System, a: Architecture, w: Serve, layout: Pools, s: Sharpness
    ):
        self.inputs = Inputs(system, a, w, layout)
        self.sharpness = s
        self.prefill: PrefillPool | None = None
        self.hand_over: Transfer | None = None
        offered = jnp.asarray(w.requests_per_s)
        if "prefill" in layout.pools:
            pool = layout.pools["prefill"]
            self.hand_over = transfer(system, a, w, pool.layout)
            self.prefill = prefill_pool(system, a, w, pool, self.hand_over.seconds, s)
            offered = smooth.minimum(
                offered, BUSIEST * self.prefill.full_requests_per_s, s
            )
            for role in ("prefill", self.scheme.role):
                ports = layout.pools[role].devices
                most = ports * self.hand_over.requests_per_s_per_device
                offered = smooth.minimum(offered, BUSIEST * most, s)
        if "cache" in layout.pools:
            offered = smooth.minimum(offered, BUSIEST * self.cache_per_s, s)
        self.generation: Generation = generate(self.scheme, self.inputs, offered, s)
        self.served_per_s = self.generation.served_requests_per_s

    @property
    def scheme(self) -> Scheme:
        return _scheme(self.inputs.pools)

    @property
    def cache_per_s(self) -> Scalar:
        """Requests whose prefixes the cache can send in a second.

        Each device that the pool spans adds its share of the hosts' links. What isn't
        cached isn't sent: a tiny share keeps the rate finite.
        """
        system, a, w, layout = self.inputs
        link = system.links[w.cache_link]
        rate = layout.pools["cache"].devices * link.bytes_per_s * link.efficiency
        role = "prefill" if "prefill" in w.serving else self.scheme.role
        cached = w.prompt_tokens * jnp.maximum(w.cached_fraction, 1e-9)
        return rate / cache_bytes(a, w, role, cached)

    @property
    def ttft_s(self) -> Scalar | None:
        parts = self.request_parts()
        if "prefill" not in parts:
            return None
        return sum((v for k, v in parts.items() if k != "decode"), jnp.zeros(()))

    def request_parts(self) -> dict[str, Scalar]:
        """Seconds of a request, one after another."""
        decode = self.generation.tpot_s * self.inputs.workload.output_tokens
        if self.prefill is None or self.hand_over is None:
            return {"decode": decode}
        return {
            "waiting": prefill_wait_s(self.prefill, self.served_per_s),
            "prefill": self.prefill.times.batch_s,
            "transfer": self.hand_over.seconds,
            "decode": decode,
        }

    def power_w(self) -> Scalar:
        system, _, _, layout = self.inputs
        power = generation_power_w(self.inputs, self.generation)
        if self.prefill is not None:
            pool = layout.pools["prefill"]
            power = power + prefill_power_w(
                system, pool, self.prefill, self.served_per_s
            )
        return power

    def pool_metrics(self) -> dict[str, PoolMetrics]:
        found, s = {}, self.sharpness
        for role, pool in self.inputs.pools.pools.items():
            if role == "prefill":
                found[role] = self._of_prefill()
            elif role == "cache":
                per_s = self.cache_per_s
                zero = jnp.zeros(())
                found[role] = PoolMetrics(
                    devices=pool.devices,
                    instances=jnp.ones(()),
                    requests_per_s=BUSIEST * per_s,
                    utilization=self.served_per_s / per_s,
                    memory_bytes=zero,
                    memory_excess_bytes=zero,
                    limits={"bandwidth": jnp.ones(())},
                )
            else:
                found[role] = self._of_generation(role, s)
        return found

    def _of_prefill(self) -> PoolMetrics:
        system, _, w, layout = self.inputs
        pool, found, hand_over = layout.pools["prefill"], self.prefill, self.hand_over
        assert found is not None
        assert hand_over is not None
        within = found.utilization_limit * found.full_requests_per_s
        sent = BUSIEST * pool.devices * hand_over.requests_per_s_per_device
        per_s = smooth.minimum(within, sent, self.sharpness)
        limits = {
            "compute": per_s / (BUSIEST * found.full_requests_per_s),
            "transfer": per_s / sent,
        }
        if w.ttft_limit_s is not None:
            wait = prefill_wait_s(found, per_s)
            limits["ttft"] = (found.bare_s + wait) / w.ttft_limit_s
        return PoolMetrics(
            devices=pool.devices,
            instances=instances(pool),
            requests_per_s=per_s,
            utilization=self.served_per_s / found.full_requests_per_s,
            limits=limits,
            **_memory(system, found.memory, excess_bytes(system, found.memory)),
        )

    def _of_generation(self, role: str, sharpness: Sharpness) -> PoolMetrics:
        system, _, _, layout = self.inputs
        pool, found = layout.pools[role], self.generation
        per_s, limits = found.requests_per_s, dict(found.limits)
        if self.hand_over is not None and role == self.scheme.role:
            most = BUSIEST * pool.devices * self.hand_over.requests_per_s_per_device
            limits["transfer"] = per_s / most
            per_s = smooth.minimum(per_s, most, sharpness)
        return PoolMetrics(
            devices=pool.devices,
            instances=instances(pool),
            requests_per_s=per_s,
            utilization=self.served_per_s / found.full_requests_per_s,
            limits=limits,
            **_memory(system, found.memory[role], found.memory_excess_bytes[role]),
        )


def _memory(system: System, memory: Memory, excess: Scalar) -> dict[str, Scalar]:
    return {"memory_bytes": memory.total, "memory_excess_bytes": excess}
