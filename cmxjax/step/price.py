"""Price of a serving step: seconds of each component alone, on one machine."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import smooth
from .._types import PyTree, Scalar, Sharpness
from ..job.layout import Layout, degree, devices, head_ways, splits
from ..job.workload import Decode, Prefill, Software
from ..machine.machine import Machine
from ..machine.runtimes import Engine
from ..model.architecture import Architecture
from ..rates.algorithms import chain_costs
from ..rates.collectives import mesh_costs, plane_loads_s, several_of
from ..rates.exchange import ranks_of
from ..rates.fabric import Group, first_ranks, group_of
from ..rates.roofline import filled_s, resources_s
from ..work.chunk import joined_ops, launched
from ..work.routing import ExpertLoad, expert_load
from ..work.serving import (
    Declarations,
    cache_bytes,
    declared,
    joint_experts,
    mixer_part,
)
from ..work.table import sizes_by_name, tabulate
from ..work.vision import with_prompts
from .asks import ACTIVATION_BYTES, Asked, decode_asks, prefill_asks
from .costs import Costs
from .exchanges import copy_bytes, expert_group, price_exchanges, price_split_experts
from .layer import Shape, Sharing, Streams, layer_kinds
from .requests import by_form, price_collectives
from .vision import Tower


class Pools(NamedTuple):
    """Experts on devices of their own. Contexts and layers are not split then."""

    layout: Layout
    domains: Scalar
    """Of attention devices that share them."""


class Job(NamedTuple):
    """A serving step to be priced: what differs between phases."""

    machine: Machine
    a: Architecture
    software: Software
    layout: Layout
    pools: Pools | None
    """Where the experts are; None for on the devices of `layout`."""
    ops: Declarations
    asks: Callable[[Scalar], Asked]
    """Of a micro-batch, from how many there are."""
    skew: Scalar
    """Of the experts' load, as the engine has it."""
    schedule_s: Scalar
    """Of the host, in front of a step."""
    launch_s: Scalar
    """Likewise while the device works: the launches of all layers' kernels."""
    exposed: Scalar
    """Share of two streams' shorter one that is not hidden, as the engine has it."""
    drafts: Scalar
    batch_tokens: Scalar
    """That a device hands to the next pipeline stage."""
    streams: str
    fills: bool
    chunked: bool = False
    cache_s: Scalar | None = None
    """Load of cached prefixes, where there are such."""
    tower: Tower | None = None
    """What encodes the prompts' images, if there are any."""

    @property
    def host_s(self) -> Scalar:
        """Of the host in all, hidden or not."""
        return self.schedule_s + self.launch_s

    @property
    def experts_layout(self) -> Layout:
        return self.layout if self.pools is None else self.pools.layout


def engine_of(machine: Machine) -> Engine:
    """The engine that serves. Raises `TypeError` if a framework trains there."""
    if not isinstance(machine.runtime, Engine):
        raise TypeError(f"{machine.runtime.kind} serves nothing; resolve an engine")
    return machine.runtime


def decode_job(
    machine: Machine,
    a: Architecture,
    w: Decode,
    layout: Layout,
    sharpness: Sharpness,
    chunk: Prefill | None = None,
    pools: Pools | None = None,
) -> Job:
    """A decode step: every sequence verifies its drafts and yields tokens.

    Args:
        chunk: prompt tokens that ride along, if any.
        pools: experts on other devices, if so.
    """
    engine, drafts, sizes = engine_of(machine), w.draft_tokens, w.software.sizes
    ops = declared(a, pools.layout if pools else layout, sizes, decodes=True)
    together = "cores" if engine.partitions_cores else "links"
    held = w.sequences_per_device * degree(layout, "tp") * degree(layout, "cp")
    schedule_s = engine.decode_step_s + held * engine.sequence_s
    schedule_s = schedule_s + drafts * engine.draft_step_s
    if a.experts is not None:
        schedule_s = schedule_s + engine.agreement_s * jnp.log2(degree(layout, "dp"))
    each_s = engine.launch_s["decode"]
    if chunk is not None:
        new = chunk.tokens_per_device * (1.0 - chunk.cached_fraction)
        there = smooth.positive(new, sharpness)
        each_s = each_s + there * (engine.launch_s["prefill"] - each_s)
    return Job(
        machine=machine,
        a=a,
        software=w.software,
        layout=layout,
        pools=pools,
        ops=ops if chunk is None else joined_ops(a, sizes, ops),
        asks=lambda count: decode_asks(a, w, layout, count, chunk, sharpness),
        skew=engine.routing_skew,
        schedule_s=schedule_s,
        launch_s=(a.layers + drafts) * each_s,
        exposed=engine.stream_exposed_fraction,
        drafts=drafts,
        batch_tokens=w.sequences_per_device * (1.0 + drafts),
        streams=together if pools is None else "pools",
        fills=False,
        chunked=chunk is not None,
        tower=None if chunk is None else tower_of(a, chunk, layout),
    )


def prefill_job(
    machine: Machine, a: Architecture, w: Prefill, layout: Layout, sharpness: Sharpness
) -> Job:
    """A prefill batch, without queueing."""
    engine = engine_of(machine)
    return Job(
        machine=machine,
        a=a,
        software=w.software,
        layout=layout,
        pools=None,
        ops=declared(a, layout, w.software.sizes, decodes=False),
        asks=lambda count: prefill_asks(a, w, layout, count),
        skew=engine.prefill_routing_skew,
        schedule_s=engine.prefill_batch_s + w.prompt_tokens * engine.prompt_token_s,
        launch_s=a.layers * engine.launch_s["prefill"],
        exposed=engine.prefill_stream_exposed_fraction,
        drafts=jnp.zeros(()),
        batch_tokens=w.tokens_per_device * (1.0 - w.cached_fraction),
        streams="links",
        fills=True,
        cache_s=cache_load_s(machine, a, w, sharpness),
        tower=tower_of(a, w, layout),
    )


def tower_of(a: Architecture, w: Prefill, layout: Layout) -> Tower | None:
    """What encodes the images of prompts on the devices that compute them."""
    if a.vision is None or w.images is None:
        return None
    gathers = layout.attention != "dp" and not w.images.splits_heads
    return Tower(a.vision, with_prompts(w, layout), gathers)


def cache_load_s(
    machine: Machine, a: Architecture, w: Prefill, sharpness: Sharpness
) -> Scalar:
    """Load of the cached prefixes' keys and values over a side link, if over any."""
    link = machine.cache
    if link is None:
        return jnp.zeros(())
    prompts = w.tokens_per_device / w.prompt_tokens
    cached = w.prompt_tokens * w.cached_fraction
    size = prompts * cache_bytes(a, w.software.sizes, cached)
    there = smooth.positive(w.cached_fraction, sharpness)
    return link.latency_s * there + size / (link.bytes_per_s * link.efficiency)


def shape_of(job: Job) -> Shape:
    return Shape(
        ops=job.ops,
        streams=job.streams,
        microbatches=job.layout.microbatches,
        kinds=layer_kinds(job.a),
        mixture=job.a.experts is not None,
        fills=job.fills,
    )


def sharing_of(job: Job, sharpness: Sharpness) -> Sharing:
    """How the machine and its engine overlap and wait."""
    chip, engine, mode = job.machine.chip, engine_of(job.machine), job.machine.exchange
    return Sharing(
        roofline=chip.roofline_exposed_fraction,
        streams=job.exposed,
        host=engine.host_exposed_fraction if not job.fills else jnp.ones(()),
        protocol=job.machine.library.protocol_exposed_fraction,
        core_exponent=chip.core_exponent,
        beside=(1.0 - mode.core_share) ** -chip.core_exponent,
        wait=engine.wait_excess,
        tensor=several_of(degree(job.layout, "tp"), sharpness),
        ranks=ranks_of(_experts_group(job), mode, sharpness),
        joint=(
            joint_experts(job.layout)
            if job.layout.attention == "tp" and job.pools is None
            else None
        ),
        fused=None if job.pools else mode.fused_exposed_fraction,
    )


class Priced(NamedTuple):
    """Costs, and the seconds that each operator would fill the matrix units."""

    costs: Costs
    filled_s: Float[Array, "*mode op"]


def price(job: Job, streams: Streams, sharpness: Sharpness) -> Priced:
    """Price one micro-batch of a layer, in one way to overlap; and the ends of a step."""
    machine, a = job.machine, job.a
    asked, pools = job.asks(streams.microbatches), job.pools
    rows, experts = asked.rows, job.experts_layout
    tokens = rows["tokens"]
    arriving = tokens
    if pools is not None:
        arriving = tokens * devices(job.layout) / devices(experts)
    spread = engine_of(machine).routing_spread
    routed = job.software.balance, job.skew
    load = expert_load(a, experts, *routed, arriving, spread)
    rows = rows | {
        "expert_rows": load.rows,
        "experts": load.active,
        "per_etp": 1.0 / degree(experts, "etp"),
    }
    software = job.software
    several = several_of(degree(job.layout, "tp"), None)
    joint = joint_experts(job.layout) * several if pools is None else 0.0
    kept = {"unpacks": software.unpacks, "joint": joint}
    sizes = sizes_by_name(a, software.sizes, **kept)
    table = tabulate([op for _, op in job.ops], rows, sizes)
    used = _with_kernels(job, resources_s(machine.chip, table, sharpness))
    if job.chunked:
        there = launched(job.ops, rows)
        used = {name: seconds * there for name, seconds in used.items()}
    cp = group_of(machine.fabric, splits(job.layout, "cp"))
    mesh = partial(mesh_costs, library=machine.library, sharpness=sharpness)
    tensor = price_collectives(machine, asked.tensor, sharpness)
    context = [] if pools is not None else asked.context
    times: dict[str, PyTree] = {
        "operators": used,
        "tensor_parallel": {
            request.name: {part: x[i] for part, x in tensor[form].items()}
            for form, requests in by_form(asked.tensor).items()
            for i, request in enumerate(requests)
        },
        "context_parallel": {
            mixer_part(i): {
                str(k): cost for k, cost in enumerate(mesh(cp, bytes_to_each=sizes))
            }
            for i, sizes in enumerate(context)
        },
    }
    loads = _loads(job, asked, cp, used["memory"])
    if a.experts is not None:
        sent, occupied = _exchanges(job, load, tokens, sharpness)
        times |= sent
        loads |= occupied if job.streams != "links" else {}
    return Priced(Costs(times, loads), filled_s(machine.chip, table))


def _with_kernels(job: Job, used: dict[str, Array]) -> dict[str, Array]:
    """Seconds of the operators with the engine's own GEMM kernels, which are slower or
    faster than the chip's; experts' kernels read weights slower too."""
    engine = engine_of(job.machine)
    grouped = np.array([float(op.block == "experts") for _, op in job.ops])
    plain = np.array([float(op.kind == "gemm") for _, op in job.ops]) * (1.0 - grouped)
    matrix = (1.0 + plain * (1.0 / engine.matrix_rate_factor - 1.0)) * used["matrix"]
    if not grouped.any():
        return used | {"matrix": matrix}
    hides = np.array([float(op.block == "shared") for _, op in job.ops])
    launch = used["launch"]
    if hides.any() and not job.fills:
        launch = (1.0 - hides * (1.0 - engine.shared_launch_fraction)) * launch
    faster = engine.expert_rate_factor * engine.expert_format_factor["experts"]
    slower = 1.0 + grouped * (1.0 / faster - 1.0)
    memory = slower * used["memory"]
    return used | {"matrix": slower * matrix, "memory": memory, "launch": launch}


def _loads(job: Job, asked: Asked, cp: Group, memory_s: Array) -> dict[str, PyTree]:
    """What attention keeps busy that both streams share, where they share it."""
    if job.streams != "cores":
        return {}
    library, fabric = job.machine.library, job.machine.fabric
    loads: dict[str, PyTree] = {"operators": {"memory": memory_s}}
    tensor: dict[str, dict[str, list[Scalar]]] = {}
    for request in asked.tensor:
        group = group_of(fabric, request.splits)
        planes = plane_loads_s(request.kind, group, library, request.payload_bytes)
        tensor[request.name] = {"transfer": planes}
    loads["tensor_parallel"] = tensor
    loads["context_parallel"] = {
        mixer_part(i): {
            "transfer": plane_loads_s("all_to_all", cp, library, sum(sizes) * cp.ranks)
        }
        for i, sizes in enumerate(asked.context)
    }
    return loads


def _exchanges(
    job: Job, load: ExpertLoad, tokens: Scalar, sharpness: Sharpness
) -> tuple[dict[str, PyTree], dict[str, dict[str, list[Scalar]]]]:
    """Dispatch and combine of one micro-batch, and what they keep each plane busy with.

    To a pool a sender's port is busy with its own copies, an expert's with those that
    arrive, from all domains; the library's costs are those of a sender.
    """
    arriving, pools, args = 1.0, job.pools, (job.machine, job.a)
    sizes = copy_bytes(job.a, job.software, job.machine.exchange)
    if pools is not None:
        ratio = load.busiest * devices(job.layout) / devices(pools.layout)
        load = load._replace(busiest=smooth.larger(ratio, 1.0))
        arriving = smooth.larger(ratio * pools.domains, 1.0) / load.busiest
    group = _experts_group(job)
    moved = load, tokens, sizes, sharpness
    times, loads = price_exchanges(*args, group, *moved, arriving)
    split: dict[str, dict[str, Scalar]] = {}
    if pools is None:
        split = price_split_experts(*args, job.layout, *moved)
    return times | {"expert_tensor": split}, loads


def _experts_group(job: Job) -> Group:
    return expert_group(job.machine, job.experts_layout, job.pools is not None)


def _logits(job: Job, sharpness: Sharpness) -> dict[str, Scalar]:
    """Between ranks that share the head: hidden states to all, each rank's part of their
    logits back. A draft's pass has its sequences' newest tokens only.
    """
    machine, ways = job.machine, head_ways(job.layout)
    group = group_of(machine.fabric, first_ranks(machine.tiers.size, ways))
    passes = 1.0 + job.drafts
    tokens = job.batch_tokens * (1.0 + job.drafts / passes) / passes
    each = tokens * (job.a.hidden + job.a.vocabulary / ways) * ACTIVATION_BYTES
    costs = mesh_costs(group, machine.library, [each], sharpness)[0]
    return {part: passes * seconds for part, seconds in costs.items()}


def price_once(job: Job, sharpness: Sharpness) -> dict[str, dict[str, Scalar]]:
    """What a step does once: the host, hand-over between stages, cached prefixes."""
    machine = job.machine
    stages = group_of(machine.fabric, splits(job.layout, "pp"))
    payload = job.batch_tokens * job.a.hidden * ACTIVATION_BYTES
    host = {"step": job.schedule_s, "layer": job.launch_s}
    once: dict[str, dict[str, Scalar]] = {"host": host}
    if job.layout.head is not None and not job.fills:
        once["logits"] = _logits(job, sharpness)
    if job.pools is None:
        once["pipeline"] = chain_costs(stages, machine.library, payload)
    return once if job.cache_s is None else once | {"cache": {"load": job.cache_s}}
