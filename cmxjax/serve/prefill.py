"""A pool of prefill instances: batches, their queue, and what is handed to decode.

A free instance takes all prompts that wait, at most as many as its tokens allow, and
computes them in the time of that batch.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .. import smooth
from .._types import Leaf, Scalar, Sharpness
from ..energy import job_power_w
from ..implicit import roots
from ..job.layout import Layout, Pool, degree, devices, instances
from ..job.workload import Prefill, Serve
from ..machine.machine import Machine
from ..memory.serving import Memory, prefill_memory
from ..model.architecture import Architecture
from ..step.busy import Filled
from ..step.price import prefill_job
from ..step.serving import times_of
from ..work.serving import cache_bytes
from .arrivals import gaps_of
from .bulk import DIGITS, Bulk, Line, Service, bulk_queue, line_of
from .queue import BUSIEST, gap_variance

SIZES = 7
"""Batches that are priced, from one prompt to the largest, in equal ratios."""

IDLE = 1e-6
"""Least share of its capacity at which a queue is evaluated."""


class Transfer(NamedTuple):
    """Hand-over of a prompt's keys and values from prefill to decode."""

    seconds: Scalar
    requests_per_s_per_device: Scalar
    """That a device's port sends or receives."""


class PrefillPool(NamedTuple):
    """What a prefill pool does."""

    service: Service
    """Of batches on one instance."""
    filled: Filled
    """Of a device in each of those batches, (size,)."""
    memory: Memory
    """With the largest one."""
    tokens_per_device: Scalar
    """Of the largest one."""
    hand_over_s: Scalar
    instances: Leaf
    line: Line
    """Of prompts that wait for one instance."""
    ttft_limit_s: Scalar | None

    @property
    def full_requests_per_s(self) -> Scalar:
        """With full batches, one after another."""
        return self.instances * self.line.full_per_s

    def queue_at(self, requests_per_s: Scalar) -> Bulk:
        """The queue of an instance, at a rate of the pool that is stable."""
        full = self.full_requests_per_s
        bounded = smooth.within(requests_per_s, IDLE * full, BUSIEST * full)
        return bulk_queue(self.line, bounded / self.instances)

    def ttft_s(self, queue: Bulk) -> Scalar:
        """Mean wait, batch and hand-over."""
        return queue.wait_s + queue.batch_s + self.hand_over_s


def within_limit(pool: PrefillPool, most_per_s: Scalar) -> tuple[Scalar, Scalar | None]:
    """Requests per second, up to some, at which the mean time to the first token is at
    its limit, and how much of the limit it uses there. 0 if a lone request exceeds it.
    """
    if pool.ttft_limit_s is None:
        return most_per_s, None
    solution = roots(_lateness, pool, most_per_s, DIGITS)
    return solution.x[0], solution.values[0]


def _lateness(pool: PrefillPool, requests_per_s: Scalar) -> tuple[Array, Scalar]:
    """One over the time goes to zero with the room that is left, nearly on a line."""
    assert pool.ttft_limit_s is not None
    share = pool.ttft_s(pool.queue_at(requests_per_s)) / pool.ttft_limit_s
    return jnp.stack([1.0 - 1.0 / share]), share


def prefill_power_w(
    machine: Machine, pool: Pool, prefill: PrefillPool, queue: Bulk
) -> Scalar:
    """Power of the pool; devices without a batch idle."""
    each = prefill.service.at(jnp.stack(prefill.filled), queue.line.taken)
    loads = map(queue.per_second, each)
    return job_power_w(machine, jnp.asarray(pool.devices), *loads)


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
    """A prefill pool with its batches priced, each as one of phase `prefill`.

    The largest batch is as many whole prompts as fit into the tokens of an instance, one
    at least. One of fewer prompts than groups leaves some of them without work, and takes
    as long as one prompt in each.
    """
    group = degree(pool.layout, "tp") * degree(pool.layout, "cp")
    room = w.tokens_per_device * devices(pool.layout) / w.prompt_tokens
    # a hair more, so that whole numbers aren't lost in rounding
    largest = smooth.larger(smooth.ceil(room * (1.0 + 1e-5) - 1.0, sharpness), 1.0)
    prompts = largest ** (jnp.arange(SIZES) / (SIZES - 1.0))
    tokens = prompts * w.prompt_tokens / devices(pool.layout)

    def one(tokens: Scalar) -> tuple[Array, Array, Filled]:
        batch = prefill_workload(w, smooth.larger(tokens, w.prompt_tokens / group))
        job = prefill_job(machine, a, batch, pool.layout, sharpness)
        times, (filled, _) = times_of(job, sharpness)
        return jnp.asarray(times.steady_s), jnp.asarray(times.step_s), filled

    busy_s, step_s, filled = jax.vmap(one)(tokens)
    service, count = Service(prompts, busy_s, step_s), instances(pool)
    most = smooth.larger(tokens[-1], w.prompt_tokens / group)
    batch = prefill_workload(w, most)
    return PrefillPool(
        service=service,
        filled=filled,
        memory=prefill_memory(a, batch, pool.layout, sharpness),
        tokens_per_device=most,
        hand_over_s=hand_over_s,
        instances=count,
        line=line_of(gaps_of(gap_variance(w, count)), service),
        ttft_limit_s=w.ttft_limit_s,
    )
