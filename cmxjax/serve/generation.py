r"""Pools that generate: their batch follows from the rate of requests.

Little's law: with $\lambda$ requests a second of O tokens each, $\lambda O\,t(b)$
sequences are decoded at once by D devices, so the batch on each is the fixed point

$$ b = \frac{\lambda\, O}{D}\, t(b) $$

with t the time per output token. The largest batch is what memory holds, or what a limit
on the time per token allows. Devices that generate decode alone; or leave the experts to
a pool of their own, which domains of them share; or compute prompts beside (`colocated`).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .. import smooth
from .._types import Leaf, Scalar, Sharpness
from ..energy import job_power_w
from ..implicit import roots
from ..job.layout import Pools, degree, devices, instances
from ..job.workload import Decode, Serve, tokens_per_step
from ..machine.machine import Machine
from ..memory.serving import (
    Memory,
    attention_memory,
    decode_memory,
    expert_memory,
    usable_bytes,
)
from ..model.architecture import Architecture
from ..step.busy import Filled
from ..step.price import Pools as ExpertPools
from ..step.price import decode_job, engine_of
from ..step.serving import times_of
from .prefill import PrefillPool
from .queue import waiting_s


class Inputs(NamedTuple):
    """What a generating step depends on."""

    machines: dict[str, Machine]
    """By role of the pool, likewise the pools."""
    a: Architecture
    workload: Serve
    pools: Pools


class Point(NamedTuple):
    """A step at some batch."""

    tpot_s: Scalar
    limits: dict[str, Scalar]
    """How much of each limit is used; 1 is all of it. None falls with the batch."""
    stable: Scalar
    """Likewise of what can't be exceeded, limits or not."""
    loads: dict[str, tuple[Scalar, Scalar]]
    """Shares of the step that compute units and memory are busy, by pool."""
    extra: dict[str, Scalar]


class Scheme(NamedTuple):
    """A way to generate, such as decode on devices of its own."""

    role: str
    """The pool whose devices hold the sequences."""
    point: Callable[[Inputs, Scalar, Sharpness], Point]
    memory: Callable[[Inputs, Scalar, Sharpness], dict[str, Memory]]
    """By pool, with a batch; the first is that of `role`."""


class Load(NamedTuple):
    """Requests that reach the pools that generate."""

    most_per_s: Scalar | None
    """That arrive, or else (None: any) that the pools before let through."""
    concurrency: Scalar | None
    """Requests in flight in a closed loop."""
    before: PrefillPool | None
    """Where they wait to be computed."""
    fixed_s: Scalar
    """Seconds of a request beside its prefill and first token: its hand-over, and what
    it waits as the loop begins."""
    seen: Scalar
    """Share of the load before that a request finds."""

    def before_s(self, point: Point, requests_per_s: Scalar) -> Scalar:
        """Seconds of a request before it is decoded."""
        if self.before is not None:
            queue = self.before.queue_at(requests_per_s * self.seen)
            return self.fixed_s + queue.wait_s + queue.batch_s
        return sum(
            (point.extra.get(x, 0.0) for x in ("waiting", "prefill")), self.fixed_s
        )


class Generation(NamedTuple):
    """What the pools that generate do at the rate of requests that they get."""

    served_requests_per_s: Scalar
    sequences_per_device: Scalar
    tpot_s: Scalar
    full_requests_per_s: Scalar
    """With memory full, or where a queue gets unstable; no limit counts."""
    requests_per_s: Scalar
    """Most that can be served within the limits."""
    limits: dict[str, Scalar]
    """How much of each limit is used at that rate."""
    memory_shares: dict[str, Scalar]
    """Likewise of the memory, by pool."""
    point: Point
    slot_wait_s: Scalar
    """Mean wait for a place among the sequences that are decoded; in a closed loop it is
    in the wait that Little's law leaves."""
    memory_bytes: dict[str, Scalar]
    memory_excess_bytes: dict[str, Scalar]
    """Beyond what is there, even with one sequence a group."""


def decode_workload(w: Serve, role: str, batch: Scalar) -> Decode:
    """The decode step at a batch; the context is the mean over the generation."""
    return Decode(
        sequences_per_device=batch,
        kv_tokens=w.prompt_tokens + 0.5 * w.output_tokens,
        draft_tokens=w.draft_tokens,
        acceptance=w.acceptance,
        software=w.software[role],
    )


def tpot_share(w: Serve, tpot_s: Scalar) -> dict[str, Scalar]:
    """Use of the limit on the time per token, if there is one."""
    return {} if w.tpot_limit_s is None else {"tpot": tpot_s / w.tpot_limit_s}


def busy_shares(filled: Filled, step_s: Scalar) -> tuple[Scalar, Scalar]:
    return filled.compute_s / step_s, filled.memory_s / step_s


def _experts_of(inputs: Inputs, role: str) -> ExpertPools | None:
    """The pool of experts. More of its devices than an instance has work on a part of
    the domains each."""
    if "expert" not in inputs.pools.pools:
        return None
    near, far = inputs.pools.pools[role], inputs.pools.pools["expert"]
    return ExpertPools(far.layout, instances(near) / instances(far))


def _step_point(role: str, inputs: Inputs, batch: Scalar, sharpness: Sharpness) -> Point:
    """A decode step by itself."""
    w, layout = inputs.workload, inputs.pools.pools[role].layout
    work, pools = decode_workload(w, role, batch), _experts_of(inputs, role)
    args = inputs.machines[role], inputs.a, work, layout, sharpness
    times, (near, far) = times_of(decode_job(*args, pools=pools), sharpness)
    tpot, layer = times.step_s / tokens_per_step(work), times.layer
    loads, extra = {role: busy_shares(near, times.step_s)}, {}
    if pools is not None:
        loads["expert"] = busy_shares(far, times.step_s)
        extra = {
            "attention_time": layer.attention_s,
            "expert_time": layer.feed_forward_s,
            "dispatch_time": layer.dispatch_s,
            "combine_time": layer.combine_s,
        }
    return Point(tpot, tpot_share(w, tpot), jnp.zeros(()), loads, extra)


def _decode_memory(
    inputs: Inputs, batch: Scalar, sharpness: Sharpness
) -> dict[str, Memory]:
    layout = inputs.pools.pools["decode"].layout
    work = decode_workload(inputs.workload, "decode", batch)
    return {"decode": decode_memory(inputs.a, work, layout, sharpness)}


def _apart_memory(
    inputs: Inputs, batch: Scalar, sharpness: Sharpness
) -> dict[str, Memory]:
    w, a, layout = inputs.workload, inputs.a, inputs.pools.pools["attention"].layout
    work, pools = decode_workload(w, "attention", batch), _experts_of(inputs, "attention")
    assert pools is not None
    count = 2.0 if layout.microbatches == "2" else 1.0
    tokens = batch * (1.0 + w.draft_tokens) / count
    senders = pools.domains * devices(layout)
    return {
        "attention": attention_memory(a, work, layout, pools.layout, sharpness),
        "expert": expert_memory(a, work, pools.layout, tokens, senders),
    }


def step_scheme(role: str) -> Scheme:
    """Steps by themselves, of devices with all parts or without the experts."""
    memory = _decode_memory if role == "decode" else _apart_memory
    return Scheme(role, lambda *args: _step_point(role, *args), memory)


def one_sequence(scheme: Scheme, inputs: Inputs) -> Scalar:
    """Batch per device at which a tp x cp group holds one sequence."""
    layout = inputs.pools.pools[scheme.role].layout
    return 1.0 / (degree(layout, "tp") * degree(layout, "cp"))


class _Held(NamedTuple):
    """Bytes on a device of a pool, at one batch or at several."""

    total: Leaf
    kv_cache: Leaf


def _held(
    scheme: Scheme, inputs: Inputs, batches: list[Scalar], sharpness: Sharpness
) -> dict[str, _Held]:
    """Memory by pool at several batches, a `_Held` with a leading axis."""

    def one(batch: Scalar) -> dict[str, _Held]:
        memories = scheme.memory(inputs, batch, sharpness)
        return {
            role: _Held(memory.total, memory.kv_cache)
            for role, memory in memories.items()
        }

    return jax.vmap(one)(jnp.stack([jnp.asarray(batch, float) for batch in batches]))


def _usable_bytes(scheme: Scheme, inputs: Inputs) -> Scalar:
    return usable_bytes(inputs.machines[scheme.role])


def fullest_batch(scheme: Scheme, inputs: Inputs, sharpness: Sharpness) -> Scalar:
    """The batch that fills the memory, or as much as the engine decodes at once; at least
    one sequence a group.

    The cache alone bounds the search from above.
    """
    least, usable = one_sequence(scheme, inputs), _usable_bytes(scheme, inputs)
    cache = _held(scheme, inputs, [least, 2.0 * least], sharpness)[scheme.role].kv_cache

    def excess(args: tuple[Inputs, Sharpness], batch: Scalar) -> tuple:
        inputs, sharpness = args
        memories = scheme.memory(inputs, batch, sharpness)
        fullest = smooth.maximum_of([memory.total for memory in memories.values()], None)
        return fullest[None] - _usable_bytes(scheme, inputs), ()

    end = usable / (cache[1] - cache[0]) * least
    most = least * engine_of(inputs.machines[scheme.role]).max_sequences
    held = smooth.smaller(roots(excess, (inputs, sharpness), end).x[0], most)
    return smooth.larger(held, least)


def _surplus(
    scheme: Scheme, inputs: Inputs, load: Load, batch: Scalar, point: Point
) -> Scalar:
    """Sequences on a device beyond those that the load brings there, by Little's law."""
    if load.concurrency is None:
        assert load.most_per_s is not None
        offered = _tokens_per_device(scheme, inputs, load.most_per_s)
        return batch - offered * point.tpot_s
    per_s = _requests_per_s(scheme, inputs, batch, point.tpot_s)
    before = per_s * load.before_s(point, per_s) - load.concurrency
    surplus = batch + before / inputs.pools.pools[scheme.role].devices
    if load.most_per_s is None:
        return surplus
    return smooth.larger(surplus, batch * (per_s / load.most_per_s - 1.0))


def generate(
    scheme: Scheme, inputs: Inputs, load: Load, sharpness: Sharpness
) -> Generation:
    """Batch, time per token and capacity of the pools that generate."""
    fullest = fullest_batch(scheme, inputs, sharpness)

    def conditions(
        args: tuple[Inputs, Load, Scalar, Sharpness], batch: Scalar
    ) -> tuple[Array, Point]:
        inputs, load, fullest, sharpness = args
        point = scheme.point(inputs, batch, sharpness)
        limit_s = inputs.workload.ttft_limit_s
        if "ttft" in point.limits and limit_s is not None:
            wait = _slot_wait_s(scheme, inputs, fullest, batch, point.tpot_s)
            late = point.limits["ttft"] + wait / limit_s
            point = point._replace(limits=point.limits | {"ttft": late})
        held = _surplus(scheme, inputs, load, batch, point)
        unstable = point.stable - 1.0
        worst = unstable
        for share in point.limits.values():
            worst = smooth.larger(worst, share - 1.0)
        held = smooth.larger(held, unstable * batch)
        return jnp.stack([held, worst, unstable]), point

    solution = roots(conditions, (inputs, load, fullest, sharpness), fullest)
    points = [jax.tree.map(lambda leaf: leaf[i], solution.values) for i in range(3)]  # noqa: B023
    rates = [
        _requests_per_s(scheme, inputs, batch, point.tpot_s)
        for batch, point in zip(solution.x, points)
    ]
    batch, tpot, served = solution.x[0], points[0].tpot_s, rates[0]
    if load.concurrency is None and load.most_per_s is not None:
        short = served < load.most_per_s * (1.0 - 1e-6)
        by_little = batch / _tokens_per_device(scheme, inputs, load.most_per_s)
        served = jnp.where(short, served, load.most_per_s)
        tpot = jnp.where(short | (batch <= 0.0), tpot, by_little)
    usable = _usable_bytes(scheme, inputs)
    batches = [batch, solution.x[1], one_sequence(scheme, inputs)]
    held = _held(scheme, inputs, batches, sharpness)
    totals = {role: memory.total for role, memory in held.items()}
    return Generation(
        served_requests_per_s=served,
        sequences_per_device=batch,
        tpot_s=tpot,
        full_requests_per_s=rates[2],
        requests_per_s=rates[1],
        limits=points[1].limits,
        memory_shares={role: total[1] / usable for role, total in totals.items()},
        point=points[0],
        slot_wait_s=_slot_wait_s(scheme, inputs, fullest, batch, tpot),
        memory_bytes={role: total[0] for role, total in totals.items()},
        memory_excess_bytes={
            role: smooth.larger(total[2] - usable, 0.0) for role, total in totals.items()
        },
    )


def _slot_wait_s(
    scheme: Scheme, inputs: Inputs, fullest: Scalar, batch: Scalar, tpot_s: Scalar
) -> Scalar:
    """Mean wait for a slot of the pool, whose devices hold up to `fullest` each; a
    request goes where one is free, and takes it for its outputs."""
    w = inputs.workload
    if w.concurrency is not None:
        return jnp.zeros(())
    slots = fullest * inputs.pools.pools[scheme.role].devices
    service_s = w.output_tokens * tpot_s
    return waiting_s(batch / fullest, service_s, w.arrival_cv**2 / slots)


def _tokens_per_device(scheme: Scheme, inputs: Inputs, requests_per_s: Scalar) -> Scalar:
    w, pool = inputs.workload, inputs.pools.pools[scheme.role]
    return requests_per_s * w.output_tokens / pool.devices


def _requests_per_s(scheme: Scheme, inputs: Inputs, batch, tpot_s) -> Scalar:
    return batch / (tpot_s * _tokens_per_device(scheme, inputs, 1.0))


def generation_power_w(inputs: Inputs, generation: Generation) -> Scalar:
    """Power of the pools that generate, at the batch that they have."""
    total = jnp.zeros(())
    for role, loads in generation.point.loads.items():
        count = jnp.asarray(inputs.pools.pools[role].devices)
        total = total + job_power_w(inputs.machines[role], count, *loads)
    return total
