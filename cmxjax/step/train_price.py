"""Price of a training step: seconds of each component alone, on one machine."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import smooth
from .._types import Leaf, PyTree, Scalar, Sharpness
from ..job.layout import Layout, degree, devices, splits
from ..job.workload import BYTES, Train
from ..machine.chip import Chip
from ..machine.machine import Machine
from ..machine.runtimes import Trainer
from ..model.architecture import Architecture, added
from ..model.recurrent import Recurrent
from ..rates.algorithms import chain_costs
from ..rates.collectives import ALWAYS
from ..rates.fabric import first_ranks, group_of
from ..rates.roofline import resources_s
from ..switch import either
from ..work.buckets import Moved, fullest, in_buckets
from ..work.held import Held, Holding, data_ranks, kept_of_layer
from ..work.table import Op, at_place, sizes_by_name
from ..work.training import ELEMENT, declared, tabulate_passes, train_rows
from .costs import Costs
from .exchanges import copy_bytes, expert_group, price_exchanges, price_split_experts
from .requests import Request, price_collectives

MOMENTS_MOVES = 16.0
"""Bytes that Adam moves per weight it owns for its two moments in fp32, each read and
written."""

NORM_MOVES = 2.0
"""Passes over the gradients that a device holds: read for their norm, and zeroed."""


class Job(NamedTuple):
    """A training step to be priced."""

    machine: Machine
    a: Architecture
    w: Train
    layout: Layout
    holding: Holding
    """What a device holds and handles."""
    ops: list[tuple[str, Op]]
    """Forward operators with their parts; GEMMs first."""
    requests: list[Request]


def trainer_of(machine: Machine) -> Trainer:
    """The framework that trains. Raises `TypeError` if an engine serves there."""
    if not isinstance(machine.runtime, Trainer):
        raise TypeError(f"{machine.runtime.kind} trains nothing; resolve a framework")
    return machine.runtime


def nodes_of(machine: Machine, layout: Layout) -> Scalar:
    """Scale-up systems that a job fills, at least one."""
    return smooth.larger(devices(layout) / machine.scale_up_devices, 1.0)


def on_cluster(machine: Machine, layout: Layout) -> Machine:
    """The machine with the tiers beyond the scale-up system at the rate of a published
    cluster, which falls with the nodes of a job."""
    cluster, tiers = machine.cluster, machine.tiers
    factor = cluster.rate_factor * nodes_of(machine, layout) ** -cluster.node_exponent
    efficiency = tiers.efficiency * either(tiers.scale_up > 0.5, 1.0, factor)
    return machine.replace(tiers=tiers.replace(efficiency=efficiency)).ready


def train_job(
    machine: Machine, a: Architecture, w: Train, layout: Layout, holding: Holding
) -> Job:
    """A training step on its machine."""
    sizes, how = w.software.sizes, (w.fused_attention, w.quantized)
    ops = declared(a, sizes, w.sequence_tokens, *how)
    requests = [
        *_layer_requests(a, w, layout, holding),
        *_data_requests(a, w, layout, holding),
    ]
    return Job(on_cluster(machine, layout), a, w, layout, holding, ops, requests)


def price(job: Job, sharpness: Sharpness) -> Costs:
    """Seconds of each component of one micro-batch, layer or step."""
    machine, a, w, layout, holding = job[:5]
    software, trainer = w.software, trainer_of(machine)
    hop_bytes = holding.tokens * a.hidden * ELEMENT
    stages = group_of(machine.fabric, splits(layout, "pp"))
    times: dict[str, PyTree] = {
        "operators": _operators(job, sharpness),
        "collectives": _collectives(job, sharpness),
        "pipeline": chain_costs(stages, machine.library, hop_bytes),
        "host": _host(machine, trainer, layout, sharpness) | _owners(trainer, w, layout),
        "optimizer": {"step": _update_s(job, sharpness)},
    }
    if a.experts is not None:
        group = expert_group(machine, layout, elsewhere=False)
        sizes = copy_bytes(a, software, machine.exchange)
        args = holding.load, holding.tokens, sizes, sharpness
        sent, _ = price_exchanges(machine, a, group, *args)
        split = price_split_experts(machine, a, layout, *args)
        times |= sent | {"expert_tensor": split}
    if machine.offload is not None:
        times["offload"] = _offload(job, sharpness)
    return Costs({"step": times}, {})


def _driven(chip: Chip, trainer: Trainer, sizes: Mapping[str, Scalar]) -> Chip:
    """The device as a training framework drives it: its kernels and eager launches."""
    peaks = {
        of: peak * either(sizes[of] <= 1.0, trainer.narrow_efficiency, 1.0)
        for of, peak in chip.matrix_flop_per_s.items()
    }
    return chip.replace(
        matrix_flop_per_s=peaks,
        gemm_efficiency=chip.gemm_efficiency * trainer.matrix_rate_factor,
        attention_efficiency=chip.attention_efficiency * trainer.attention_rate_factor,
        memory_efficiency=chip.memory_efficiency * trainer.vector_rate_factor,
        matrix_launch_s=trainer.launch_s,
        vector_launch_s=trainer.launch_s,
    )


def _operators(
    job: Job, sharpness: Sharpness
) -> dict[str, dict[str, Float[Array, "*pass op"]]]:
    """Operators of the forward pass and of the gradients of inputs, (2, op), and of the
    gradients of weights; eager launches, at the rates of the framework's kernels."""
    a, w, holding = job.a, job.w, job.holding
    rows = train_rows(a, w, job.layout) | {
        "expert_rows": holding.load.rows,
        "experts": holding.load.active,
        "copies": holding.load.rows * holding.load.active,
    }
    trainer = trainer_of(job.machine)
    gate = trainer.biased_gate_bytes
    sizes = sizes_by_name(a, w.software.sizes, trains=True, gate_bytes=gate)
    passes = tabulate_passes([op for _, op in job.ops], rows, sizes)
    chip = _driven(job.machine.chip, trainer, sizes)
    # the last of c ranks in a row has 2 - 1/c times the mean causal work of a ring
    most = 2.0 - 1.0 / degree(job.layout, "cp") if w.context == "ring" else 1.0
    share = jnp.stack([1.0, trainer.backward_attention_efficiency])[:, None]
    share = share / trainer.balances_ring.pick(1.0, most)
    scans = np.array([_scans(a, part) for part, _ in job.ops])
    paced = either(scans, trainer.recurrent_rate_factor, 1.0)
    both = chip.replace(
        attention_efficiency=chip.attention_efficiency * share * paced,
        memory_efficiency=chip.memory_efficiency * paced,
        vector_efficiency=chip.vector_efficiency * paced,
    )
    return {
        "inputs": resources_s(both, passes.inputs, sharpness),
        "weights": resources_s(chip, passes.weights, sharpness),
    }


def _scans(a: Architecture, part: str) -> bool:
    """Whether a part is what a recurrent layer does between its projections."""
    cores = {at_place("core", i): mixer for i, mixer in enumerate(a.mixers)}
    return isinstance(cores.get(part), Recurrent)


def _host(
    machine: Machine, trainer: Trainer, layout: Layout, sharpness: Sharpness
) -> dict[str, Scalar | dict[str, Scalar]]:
    """The host's time in a step and for a layer, and in jobs on several nodes for a layer
    (asynchronous tensor parallelism cuts a GEMM into as many pieces as the group has
    ranks) and for a message between stages, of which the busiest has up to two in a
    pass."""
    apart = smooth.positive(nodes_of(machine, layout) - 1.0, sharpness)
    messages = smooth.smaller(degree(layout, "pp") - 1.0, 2.0)
    pieces = trainer.tensor_host_s * degree(layout, "tp") * apart
    return {
        "step": trainer.step_s,
        "issued": {"layer": trainer.layer_host_s + pieces},
        "blocked": {"layer": messages * trainer.message_host_s * apart},
    }


def _owners(trainer: Trainer, w: Train, layout: Layout) -> dict[str, dict[str, Scalar]]:
    """Messages of all ranks that own a part of the updated weights, one after another."""
    if w.gathers != "by_owner":
        return {}
    ranks, _ = data_ranks(w, layout)
    once = either((w.zero >= 1.0) & (w.zero < 3.0), trainer.owner_message_s, 0.0)
    return {"owners": {"step": (ranks - 1.0) * once}}


def _collectives(job: Job, sharpness: Sharpness) -> dict[str, dict[str, Leaf]]:
    """Collectives of layers and of data parallelism, those of a library that stripes
    nothing in one ring through one port of each node."""
    machine, w, requests = job.machine, job.w, job.requests
    if w.gathers != "one_port":
        return price_collectives(machine, requests, sharpness)
    apart = ("data_parallel", "expert_data_parallel")
    inside = [r for r in requests if r.component not in apart or r.name == "whole"]
    one = machine.library.replace(algorithms={"ring": ALWAYS})
    layers = price_collectives(machine, inside, sharpness)
    data = requests[len(inside) :]
    found = price_collectives(machine.replace(library=one), data, sharpness)
    for form, parts in layers.items():
        if form in found:
            found[form] = jax.tree.map(
                lambda *both: jnp.concatenate(both), parts, found[form]
            )
        else:
            found[form] = parts
    return found


def _layer_requests(
    a: Architecture, w: Train, layout: Layout, holding: Holding
) -> list[Request]:
    """Gathers, reductions and exchanges of one layer and micro-batch. A device holds at
    least one head of keys and values, so that few of them are copied: over tp in a ring,
    over tp and cp where all-to-all splits heads (Jacobs et al., arXiv 2309.14509).

    Inputs of GEMMs are gathered in the format that these read, which was quantized
    before; what they put out is summed in bf16 (Transformer Engine,
    transformer_engine/pytorch/module/linear.py: quantizers of its gathers).
    """
    tokens, requests = holding.tokens, []
    rank_bytes, tp = tokens * a.hidden * ELEMENT, degree(layout, "tp")
    quantized = tokens * a.hidden * w.software.sizes.activation

    def ask(kind: str, axis: str, component: str, payload: Scalar, name: str) -> None:
        requests.append(Request(name, component, kind, splits(layout, axis), payload))

    if layout.attention != "dp":  # along the sequence the first two, else the third
        ask("all_gather", "tp", "tensor_parallel", quantized, "tp")
        ask("reduce_scatter", "tp", "tensor_parallel", rank_bytes, "tp")
        ask("all_reduce", "tp", "tensor_parallel", rank_bytes * tp, "tp")
    for i, mixer in enumerate(a.mixers):
        cp, holders = at_place("cp", i), degree(layout, "tp")
        if w.context == "all_to_all":
            holders = holders * degree(layout, "cp")
            moved = mixer.split_elements(tokens, w.micro_batch, holders) * ELEMENT
            ask("all_to_all", "cp", "context_parallel", moved, cp)
            continue
        pairs = mixer.ring_elements(tokens, w.micro_batch, holders) * ELEMENT
        ask("all_gather", "cp", "context_parallel", pairs, cp)
        ask("reduce_scatter", "cp", "context_parallel", pairs, cp)
    return requests


def _data_axes(
    a: Architecture, w: Train, layout: Layout
) -> dict[str, tuple[Float[Array, " tier"], Scalar]]:
    """How the ranks that hold the same weights split over the tiers, and how many of them
    share their state, by component."""
    ranks, expert_ranks = data_ranks(w, layout)
    axes = {"data_parallel": (splits(layout, "dp") * splits(layout, "cp"), ranks)}
    if a.experts is not None:
        axes["expert_data_parallel"] = (splits(layout, "edp"), expert_ranks)
    return axes


def _data_requests(
    a: Architecture, w: Train, layout: Layout, holding: Holding
) -> list[Request]:
    """Data-parallel collectives of a device of the first stage.

    ZeRO 0 all-reduces gradients once a step; 1 and 2 scatter them reduced and gather the
    updated weights, 2 scatters for every micro-batch; 3 also gathers each layer's weights
    for every pass. All of it is asked for; `Reduction` counts what a stage does.
    Experts reduce over the ranks that hold the same ones. With groups that is done inside
    of each, and what a rank has left of the gradients is summed over the groups (hybrid
    sharding: Zhao et al., arXiv 2304.11277, section 3.2.2).

    Reference: Rajbhandari et al., arXiv 1910.02054, section 7.
    """
    gradient, weight = w.software.sizes.gradient, BYTES["bf16"]
    axes = whole = _data_axes(a, w, layout)
    outer = {}
    if w.zero_group is not None:
        axes = {}
        for component, (split, ranks) in whole.items():
            axes[component] = first_ranks(split, ranks), ranks
            outer[component] = split / axes[component][0]

    def ask(kind: str, name: str, moved: list[Moved], size: Scalar) -> list[Request]:
        return [
            Request(name, component, kind, split, weights * size, runs)
            for (component, (split, _)), (weights, runs) in zip(axes.items(), moved)
        ]

    def shards(moved: list[Moved]) -> list[Moved]:
        ranks = [ranks for _, ranks in axes.values()]
        return [Moved(x / share, runs) for (x, runs), share in zip(moved, ranks)]

    first = Held(*(x[0] for x in holding.weights))
    once = in_buckets(w, first, first)

    def scatter(name: str, parts: list[Moved]) -> list[Request]:
        asked = ask("reduce_scatter", name, parts, gradient)
        for (component, split), (part, runs) in zip(outer.items(), parts):
            size = part * gradient
            asked.append(Request(name, component, "all_reduce", split, size, runs))
        return asked

    parts = shards(once)
    most = first if w.zero_bucket is None else fullest(holding.weights)
    requests = [
        Request("whole", component, "all_reduce", split, weights * gradient, runs)
        for (component, (split, _)), (weights, runs) in zip(whole.items(), once)
    ]
    requests += ask("all_gather", "once", parts, weight) + scatter("once", parts)
    for i, held in enumerate(holding.layer_weights):
        moved = in_buckets(w, held, most)
        layer, parts = at_place("layer", i), shards(moved)
        requests += scatter(layer, parts) + ask("all_gather", layer, parts, weight)
    return requests


def _owned(job: Job, sharpness: Sharpness) -> tuple[Scalar, Scalar]:
    """Weights of which a device of the fullest stage owns the state, and all it has."""
    owned = whole = jnp.zeros(())
    for held, (_, ranks) in zip(
        job.holding.weights, _data_axes(job.a, job.w, job.layout).values()
    ):
        whole = whole + held
        owned = owned + held / either(job.w.zero >= 1.0, ranks, 1.0)
    return smooth.largest(owned, sharpness), smooth.largest(whole, sharpness)


def update_bytes(w: Train) -> Scalar:
    """Bytes that Adam moves per weight it owns: moments and the gradient; the master
    weight, read and written, and the weight that passes read, written. Without a master
    weight that one is read too. In fp32: 16 + 4 + 8 + 2."""
    sizes, weight = w.software.sizes, BYTES["bf16"]
    copied = either(sizes.master > 0.0, 2.0 * sizes.master, weight)
    return MOMENTS_MOVES + sizes.gradient + copied + weight


def _update_s(job: Job, sharpness: Sharpness) -> Scalar:
    """Time of the optimizer on the device: bytes of the states that it owns there over
    the memory's rate."""
    w, chip, (owned, whole) = job.w, job.machine.chip, _owned(job, sharpness)
    kept = either(w.zero >= 2.0, owned, whole)
    here = owned * (1.0 - w.offload_optimizer) if w.offloads else owned
    rate = chip.memory_bytes_per_s * chip.memory_efficiency
    return (update_bytes(w) * here + NORM_MOVES * w.software.sizes.gradient * kept) / rate


def _offload(job: Job, sharpness: Sharpness) -> dict[str, dict[str, Scalar]]:
    """Traffic over the host link: in each pass of a layer a share of its activations and
    weights; in the optimizer gradients go out, the host updates its share of the state in
    its own memory, and weights come back (Ren et al., arXiv 2101.06840, section 4)."""
    w, holding, link = job.w, job.holding, job.machine.offload
    assert link is not None
    rate = link.bytes_per_s * link.efficiency
    times: dict[str, dict[str, Scalar]] = {}
    layers = zip(
        kept_of_layer(w, holding.activations), holding.layer_weights, strict=True
    )
    for i, (kept, held) in enumerate(layers):
        weights = added(held) * BYTES["bf16"] * w.offload_weights
        moved = kept * w.offload_activations + weights
        times[at_place("layer", i)] = {"transfer": moved / rate}
    owned, _ = _owned(job, sharpness)
    away = owned * w.offload_optimizer
    moved = away * (w.software.sizes.gradient + BYTES["bf16"])
    host = link.memory_bytes_per_s * link.efficiency
    update = away * update_bytes(w) / host
    return times | {"optimizer": {"transfer": moved / rate, "update": update}}
