"""A pool of prefill instances: batches, their queue, and what is handed to decode."""

from typing import NamedTuple

import jax.numpy as jnp

from .._types import Scalar, Sharpness
from ..architecture import Architecture, kv_width
from ..energy import job_power_w
from ..hardware import System, ordered_tiers
from ..layout import Layout, Pool, degree, devices, instances
from ..memory import Memory, prefill_memory
from ..step.prefill import PrefillTimes, prefill_times
from ..step.shares import Scales
from ..workload import BYTES, Prefill, Serve
from .queue import highest_utilization, waiting_s


class Transfer(NamedTuple):
    """Hand-over of a prompt's keys and values from prefill to decode."""

    seconds: Scalar
    requests_per_s_per_device: Scalar
    """That a device's port sends or receives."""


class PrefillPool(NamedTuple):
    """What a prefill pool does."""

    times: PrefillTimes
    memory: Memory
    bare_s: Scalar
    """Time to first token of a request that doesn't wait, hand-over included."""
    full_requests_per_s: Scalar
    """At utilization 1."""
    utilization_limit: Scalar
    """Where the mean wait is all that the limit leaves over."""


def cache_bytes(a: Architecture, w: Serve, role: str, tokens: Scalar) -> Scalar:
    """Keys and values of some tokens, all layers."""
    return tokens * a.layers * kv_width(a) * BYTES[w.serving[role].dtypes.kv]


def transfer(system: System, a: Architecture, w: Serve, layout: Layout) -> Transfer:
    """Hand-over of a prompt from the devices that hold it, over the outermost plane.

    CloudMatrix384 moves keys and values over RDMA, beside the traffic of the supernode's
    own fabric (CloudMatrix-Infer, arXiv 2506.12708, section 3.2). A tp x cp group that
    holds a prompt sends it together.
    """
    tier = ordered_tiers(system)[-1]
    rate = tier.bytes_per_s * tier.efficiency / tier.oversubscription
    group = degree(layout, "tp") * degree(layout, "cp")
    size = cache_bytes(a, w, "prefill", w.prompt_tokens)
    return Transfer(tier.latency_s + size / (rate * group), rate / size)


def prefill_workload(w: Serve) -> Prefill:
    """The batch of a prefill instance."""
    return Prefill(
        tokens_per_device=w.tokens_per_device,
        prompt_tokens=w.prompt_tokens,
        cached_fraction=w.cached_fraction,
        serving=w.serving["prefill"],
        cache_link=w.cache_link,
    )


def prefill_pool(
    system: System,
    a: Architecture,
    w: Serve,
    pool: Pool,
    hand_over_s: Scalar,
    sharpness: Sharpness,
) -> PrefillPool:
    """A prefill pool: full batches follow each other, new ones wait as in M/D/1.

    A batch that isn't full is taken to last as long as one that is.
    """
    batch = prefill_workload(w)
    times = prefill_times(system, a, batch, pool.layout, Scales({}), sharpness)
    prompts = w.tokens_per_device * devices(pool.layout) / w.prompt_tokens
    bare = times.batch_s + hand_over_s
    left = None if w.ttft_limit_s is None else w.ttft_limit_s - bare
    return PrefillPool(
        times=times,
        memory=prefill_memory(a, batch, pool.layout, sharpness),
        bare_s=bare,
        full_requests_per_s=instances(pool) * prompts / times.steady_s,
        utilization_limit=highest_utilization(left, times.steady_s),
    )


def prefill_wait_s(pool: PrefillPool, requests_per_s: Scalar) -> Scalar:
    """Mean wait of a request for its batch."""
    busy = requests_per_s / pool.full_requests_per_s
    return waiting_s(busy, pool.times.steady_s)


def prefill_power_w(
    system: System, pool: Pool, found: PrefillPool, requests_per_s: Scalar
) -> Scalar:
    """Power of the pool at a rate of requests; waiting devices idle."""
    busy = requests_per_s / found.full_requests_per_s
    loads = [busy * seconds / found.times.steady_s for seconds in found.times.busy]
    return job_power_w(system, jnp.asarray(pool.devices), *loads)
