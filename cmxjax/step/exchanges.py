"""Dispatch and combine of a mixture layer, for serving and training alike."""

from collections.abc import Mapping

import jax.numpy as jnp

from .._types import Scalar, Sharpness
from ..job.layout import Layout, degree, splits
from ..job.workload import Software, scale_bytes
from ..machine.libraries import ExpertMode
from ..machine.machine import Machine
from ..model.architecture import Architecture
from ..model.feed_forwards import ANY_GROUP, COUNTLESS
from ..rates.collectives import mesh_costs
from ..rates.exchange import copies_of, exchange_costs
from ..rates.fabric import Group, group_of, plane_s, scattered
from ..switch import either
from ..work.routing import ExpertLoad, visited

EXCHANGES = ("dispatch", "combine")


def expert_group(machine: Machine, layout: Layout, elsewhere: bool) -> Group:
    """The expert ranks as a sender reaches them.

    Args:
        elsewhere: on nodes of their own, behind the scale-up system's outermost tier.
    """
    if not elsewhere:
        return group_of(machine.fabric, splits(layout, "ep"))
    there = machine.tiers.edge > 0.5
    return group_of(machine.fabric, either(there, degree(layout, "ep"), 1.0))


def copy_bytes(
    a: Architecture, software: Software, mode: ExpertMode
) -> dict[str, Scalar]:
    """Bytes of a token copy in dispatch and combine, scales of 8-bit tokens included."""
    sizes = jnp.stack([getattr(software.sizes, kind) for kind in EXCHANGES])
    width = a.hidden if a.experts is None else a.experts.token_width(a.hidden)
    scales = scale_bytes(width, sizes, mode.scale_slot_bytes, mode.scale_share)
    copies = width * sizes + scales
    return dict(zip(EXCHANGES, jnp.unstack(copies), strict=True))


def price_exchanges(
    machine: Machine,
    a: Architecture,
    group: Group,
    load: ExpertLoad,
    tokens: Scalar,
    sizes: Mapping[str, Scalar],
    sharpness: Sharpness,
    arriving: Scalar = 1.0,
) -> tuple[dict[str, dict[str, Scalar]], dict[str, dict[str, list[Scalar]]]]:
    """Costs of both exchanges of some tokens, and what they keep each plane busy with.

    Args:
        sizes: bytes of a token's copy, see `copy_bytes`.
        tokens: of one micro-batch on one device.
        arriving: copies that a rank of experts gets, over those that a rank sends.
    """
    limit = ANY_GROUP if a.experts is None else a.experts.limit
    mode, chip = machine.exchange, machine.chip
    copies = copies_of(group, mode, tokens, load.copies_per_token, load.busiest, limit)
    rate = chip.memory_bytes_per_s * chip.memory_efficiency
    # a mesh is busy with what its links carry in all, a torus with each byte's hops
    fabric = machine.fabric if group.block is None else scattered(group)
    planes = plane_s(fabric, copies.tiers * arriving, mode.efficiency)
    times, loads = {}, {}
    for kind, size in sizes.items():
        times[kind] = exchange_costs(kind, copies, mode, size, rate, sharpness)
        loads[kind] = {"transfer": [size * seconds for seconds in planes]}
    return times, loads


def price_split_experts(
    machine: Machine,
    a: Architecture,
    layout: Layout,
    load: ExpertLoad,
    tokens: Scalar,
    sizes: Mapping[str, Scalar],
    sharpness: Sharpness,
) -> dict[str, dict[str, Scalar]]:
    """Ranks that split an expert between them also share the tokens that each got, once
    for each rank of experts, and add up their parts of the results."""
    group = group_of(machine.fabric, splits(layout, "etp"))
    experts = COUNTLESS if a.experts is None else a.experts.routed
    places = visited(degree(layout, "ep"), load.copies_per_token, experts)
    held = tokens * places * load.busiest
    sent = [held * size for size in sizes.values()]
    costs = mesh_costs(group, machine.library, sent, sharpness)
    return dict(zip(sizes, costs, strict=True))
