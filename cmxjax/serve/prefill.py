"""A pool of prefill instances: batches, their queue, and what is handed to decode."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from .. import smooth
from .._types import Scalar, Sharpness
from ..job.layout import Layout, Pool, degree, devices, instances
from ..job.workload import Prefill, Serve
from ..machine.machine import Machine
from ..memory.serving import Memory, prefill_memory
from ..model.architecture import Architecture
from ..step.busy import Filled
from ..step.layer import HIGHEST
from ..step.price import prefill_job
from ..step.serving import times_of
from ..work.serving import cache_bytes
from .queue import highest_utilization

SHARES = tuple(0.5**halvings for halvings in range(7))
"""Parts of the largest batch that an engine considers for its prefill batch."""


class Transfer(NamedTuple):
    """Hand-over of a prompt's keys and values from prefill to decode."""

    seconds: Scalar
    requests_per_s_per_device: Scalar
    """That a device's port sends or receives."""


class PrefillPool(NamedTuple):
    """What a prefill pool does."""

    tokens_per_device: Scalar
    batch_s: Scalar
    """Of a batch, from its admission to the first tokens."""
    steady_s: Scalar
    """Between one batch and the next when they follow each other."""
    filled: Filled
    """Of a device in one batch."""
    memory: Memory
    bare_s: Scalar
    """Time to first token of a request that doesn't wait, hand-over included."""
    full_requests_per_s: Scalar
    """At utilization 1."""
    utilization_limit: Scalar
    """Where the mean wait is all that the limit leaves over."""


class Port(NamedTuple):
    """What a device sends to another pool through."""

    bytes_per_s: Scalar
    latency_s: Scalar


def outer_port(machine: Machine) -> Port:
    """The outermost plane."""
    fabric, across = machine.fabric, machine.exchange.across
    return Port(*((x * across).sum() for x in (fabric.rate, fabric.latency_s)))


def transfer(machine: Machine, a: Architecture, w: Serve, layout: Layout) -> Transfer:
    """Hand-over of a prompt from the devices that hold it, over the outermost plane.

    CloudMatrix384 moves keys and values over RDMA, beside the traffic of the supernode's
    own fabric (CloudMatrix-Infer, arXiv 2506.12708, section 3.2). A tp x cp group that
    holds a prompt sends it together.
    """
    rate, latency_s = outer_port(machine)
    group = degree(layout, "tp") * degree(layout, "cp")
    size = cache_bytes(a, w.software["prefill"].sizes, w.prompt_tokens)
    return Transfer(latency_s + size / (rate * group), rate / size)


def prefill_workload(w: Serve, tokens_per_device: Scalar) -> Prefill:
    """The batch of a prefill instance."""
    return Prefill(
        tokens_per_device=tokens_per_device,
        prompt_tokens=w.prompt_tokens,
        cached_fraction=w.cached_fraction,
        software=w.software["prefill"],
        images=w.images,
    )


def prefill_pool(
    machine: Machine,
    a: Architecture,
    w: Serve,
    pool: Pool,
    hand_over_s: Scalar,
    sharpness: Sharpness,
) -> PrefillPool:
    """A prefill pool with the batch that serves most requests within their limit.

    Large batches are efficient but leave little time to wait. An engine's batch is a
    setting: a power of two below the largest one, with at least one prompt a group.
    Relaxed, batches are weighed by their rates to the power of 8 times the sharpness.
    """
    group = degree(pool.layout, "tp") * degree(pool.layout, "cp")
    batches = smooth.larger(
        w.tokens_per_device * jnp.asarray(SHARES), w.prompt_tokens / group
    )

    def one(tokens: Scalar) -> PrefillPool:
        return _with_batch(machine, a, w, pool, tokens, hand_over_s, sharpness)

    candidates = jax.vmap(one)(batches)
    # where no batch is in time, the one that is the least late
    limits, full = candidates.utilization_limit, candidates.full_requests_per_s
    rates = limits * full + 1e-6 / candidates.bare_s
    if sharpness is None:
        weights = (jnp.arange(len(SHARES)) == jnp.argmax(rates)) * 1.0
    else:
        weights = jax.nn.softmax(8.0 * sharpness * jnp.log(rates))
    return jax.tree.map(lambda x: jnp.dot(weights, x, precision=HIGHEST), candidates)


def _with_batch(
    machine: Machine,
    a: Architecture,
    w: Serve,
    pool: Pool,
    tokens: Scalar,
    hand_over_s: Scalar,
    sharpness: Sharpness,
) -> PrefillPool:
    """A prefill pool: full batches follow each other, new ones wait as in M/D/1.

    A batch that isn't full is taken to last as long as one that is.
    """
    batch = prefill_workload(w, tokens)
    job = prefill_job(machine, a, batch, pool.layout, sharpness)
    times, (filled, _) = times_of(job, sharpness)
    prompts = tokens * devices(pool.layout) / w.prompt_tokens
    bare = times.step_s + hand_over_s
    left = None if w.ttft_limit_s is None else w.ttft_limit_s - bare
    return PrefillPool(
        tokens_per_device=tokens,
        batch_s=times.step_s,
        steady_s=times.steady_s,
        filled=filled,
        memory=prefill_memory(a, batch, pool.layout, sharpness),
        bare_s=bare,
        full_requests_per_s=instances(pool) * prompts / times.steady_s,
        utilization_limit=highest_utilization(left, times.steady_s),
    )
