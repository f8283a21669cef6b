"""Phase `collective`: one collective on a group placed on the tiers."""

from collections.abc import Callable

import jax.numpy as jnp
from flax import struct

from .._types import Leaf, Scalar, Sharpness
from ..job.layout import Layout, splits
from ..job.workload import Collective
from ..machine.machine import Machine
from ..model.feed_forwards import GroupLimit
from ..rates.collectives import (
    access_costs,
    bus_bytes,
    collective_costs,
    collective_s,
    several_of,
)
from ..rates.exchange import copies_of, exchange_costs, exchange_s, ranks_of
from ..rates.fabric import Group, group_of
from ..step.costs import Breakdown, Explained, composed
from ..work.routing import busiest_rank_load


class CollectiveMetrics(Explained, struct.PyTreeNode, kw_only=True, frozen=True):
    """Metrics of one collective."""

    time_s: Leaf
    bytes_per_s: Leaf
    """Payload over time; for dispatch and combine all copies that a rank sends."""
    bus_bytes_per_s: Leaf
    """Bus bandwidth as nccl-tests define it."""
    breakdown: Breakdown | None
    """Seconds by part, by Euler's theorem; they sum to the time."""
    kind: str = struct.field(pytree_node=False, default="collective_metrics")


Costs = dict[str, Scalar]
Compose = Callable[[Costs], Scalar]


def collective_metrics(
    machine: Machine,
    w: Collective,
    layout: Layout,
    sharpness: Sharpness,
    explains: bool,
) -> CollectiveMetrics:
    """Time and rates of one collective call on the mean rank."""
    group = group_of(machine.fabric, splits(layout, "ep"))
    exchange = w.collective in ("dispatch", "combine")
    price = _price_exchange if exchange else _price_collective
    costs, compose = price(machine, w, group, sharpness)
    time, shares = composed(costs, compose, explains)
    if exchange:
        sent = moved = w.tokens_per_rank * w.topk * _copy_bytes(w)
    else:
        sent = w.payload_bytes
        moved = bus_bytes(w.collective, group, sent)
    return CollectiveMetrics(
        time_s=time,
        bytes_per_s=sent / time,
        bus_bytes_per_s=moved / time,
        breakdown=shares,
    )


def _price_collective(
    machine: Machine, w: Collective, group: Group, sharpness: Sharpness
) -> tuple[Costs, Compose]:
    """Sending to host memory (p2p on the npu-cpu path) is a remote write."""
    kind, payload, library = w.collective, w.payload_bytes, machine.library
    endpoint = machine.endpoint
    if endpoint is not None:
        access = "write" if kind == "p2p" else kind
        if w.driver == "sdma":
            payload = payload * library.sdma_slowdown
        costs = access_costs(access, group, endpoint, payload, sharpness)
        costs["protocol"] = jnp.zeros(())
        return costs, lambda costs: sum(costs.values(), jnp.zeros(()))
    costs = collective_costs(kind, group, library, payload, sharpness, w.driver)
    several, exposed = (
        several_of(group.ranks, sharpness),
        library.protocol_exposed_fraction,
    )
    return costs, lambda costs: collective_s(costs, several, exposed, sharpness)


def _copy_bytes(w: Collective) -> Scalar:
    return w.hidden * w.element_bytes + w.scale_bytes


def _price_exchange(
    machine: Machine, w: Collective, group: Group, sharpness: Sharpness
) -> tuple[Costs, Compose]:
    """Dispatch or combine as a benchmark runs it: no wait in situ."""
    skew, copies = machine.runtime.routing_skew, w.tokens_per_rank * w.topk
    load = busiest_rank_load(w.balance, skew, copies, group.ranks, jnp.zeros(()))
    chip, mode = machine.chip, machine.exchange
    limit = GroupLimit(experts=w.experts)
    sent = copies_of(group, mode, w.tokens_per_rank, w.topk, load, limit)
    rate = chip.memory_bytes_per_s * chip.memory_efficiency
    args = w.collective, sent, mode, _copy_bytes(w), rate, sharpness
    ranks = ranks_of(group, mode, sharpness)
    costs = exchange_costs(*args, w.driver, cores=w.cores)
    return costs, lambda costs: exchange_s(costs, ranks, sharpness)
