"""Collectives as a library runs them: start-up, algorithm choice, protocol step."""

from collections.abc import Mapping, Sequence

import jax.numpy as jnp
from jaxtyping import Array

from .. import smooth
from .._types import Real, Scalar, Sharpness
from ..machine.libraries import CollectiveLibrary
from ..machine.tiers import Endpoint
from ..switch import Switch
from .algorithms import (
    Cost,
    Offer,
    cheaper,
    direct,
    in_switch,
    ring,
    staged,
    tree,
    whole_s,
)
from .fabric import Group, peers, plane_s, port_s, reach_s, scattered

ALWAYS = Switch(1.0)


def _gathering(group, library, shard_bytes, sharpness) -> list[Offer]:
    """All-gather of shards, or a reduce-scatter run backwards, by algorithm."""
    args = (group, library)
    # outer tiers go first, so an inner stage moves what they have gathered
    gathered = group.ranks / (group.units * group.splits)
    stages = shard_bytes * (group.splits - 1.0) * gathered
    choices = {
        "direct": lambda: direct(*args, shard_bytes, sharpness),
        "ring": lambda: ring(*args, shard_bytes, sharpness, striped=False),
        "striped_ring": lambda: ring(*args, shard_bytes, sharpness, striped=True),
        "staged": lambda: staged(*args, stages, sharpness),
    }
    has = library.algorithms
    return [Offer(has[k], make()) for k, make in choices.items() if k in has]


def _after(first: Cost, second: Cost, library: CollectiveLibrary) -> Cost:
    """Two halves of a collective; the second starts when every rank has its part."""
    latency = first.latency_s + library.step_s + second.latency_s
    return Cost(latency, first.wire_s + second.wire_s)


def _back(cost: Cost, library: CollectiveLibrary) -> Cost:
    """An all-reduce from its second half: the first is that run backwards, adding up."""
    return _after(cost.at(library.reduce_efficiency), cost, library)


def algorithm_s(
    kind: str,
    group: Group,
    library: CollectiveLibrary,
    payload_bytes: Scalar,
    sharpness: Sharpness,
) -> Scalar:
    """Time of the cheapest algorithm that the library has, without start and protocol.

    `payload_bytes` is per rank: the shard of an all_gather (sent) or reduce_scatter
    (received), all that a rank sends in an all_to_all, else the whole buffer.
    """
    args, reduced = (group, library), library.reduce_efficiency
    if kind in ("p2p", "all_to_all"):
        # all-to-all: a rank keeps one part of its payload and sends the others
        part = payload_bytes / (1.0 if kind == "p2p" else group.ranks)
        cost = direct(*args, part, sharpness)
        return cheaper([Offer(ALWAYS, cost)], library, sharpness)
    if kind in ("all_gather", "reduce_scatter"):
        offers = _gathering(*args, payload_bytes, sharpness)
        if not offers:
            offers = [Offer(ALWAYS, direct(*args, payload_bytes, sharpness))]
        if kind == "reduce_scatter":
            offers = [Offer(there, cost.at(reduced)) for there, cost in offers]
        return cheaper(offers, library, sharpness)
    shard, has = payload_bytes / group.ranks, library.algorithms
    gathered = _gathering(*args, shard, sharpness)
    if kind == "all_reduce":
        offers = [Offer(there, _back(cost, library)) for there, cost in gathered]
        if "tree" in has:
            root = tree(*args, payload_bytes, sharpness, returns=True)
            offers.append(Offer(has["tree"], _back(root, library)))
        if "in_switch" in has:
            cost = in_switch(*args, payload_bytes, sharpness)
            offers.append(Offer(has["in_switch"], cost))
        if "one_shot" in has:
            # every rank reads all of every other's and adds up for itself: one latency,
            # for small messages (custom all-reduce of TensorRT-LLM and vLLM; their
            # two-shot form is the direct scatter and gather)
            cost = direct(*args, payload_bytes, sharpness).at(reduced)
            offers.append(Offer(has["one_shot"], cost))
        return cheaper(offers, library, sharpness)
    scatter = direct(*args, shard, sharpness)
    offers = [Offer(there, _after(scatter, cost, library)) for there, cost in gathered]
    if "tree" in has or not offers:
        cost = tree(*args, payload_bytes, sharpness, returns=False)
        offers.append(Offer(has.get("tree", ALWAYS), cost))
    return cheaper(offers, library, sharpness)


def _reaching(group: Group, library: CollectiveLibrary) -> CollectiveLibrary:
    """The library with what the network adds to it, where the group spans one."""
    spans = smooth.smaller(group.splits - 1.0, 1.0) * group.fabric.network
    return library.replace(
        start_s=library.start_s + (spans * group.units).sum() * library.network_start_s,
        chunk_s=library.chunk_s + spans.sum() * library.network_chunk_s,
    )


def collective_costs(
    kind: str,
    group: Group,
    library: CollectiveLibrary,
    payload_bytes: Scalar,
    sharpness: Sharpness,
    driver: str = "vector_cores",
) -> dict[str, Scalar]:
    """Seconds of the parts of one collective between several ranks.

    Beyond the algorithm there is the library's start. Messages of a rank to another
    beyond its protocol threshold go another way: at the rate of `efficiency` instead of
    `small_efficiency`, but no sooner than one at the threshold, and with a floor under
    their time, most of which hides behind the wire time. So more bytes never take less.
    """
    pieces = group.ranks if kind in ("all_reduce", "all_to_all") else 1.0
    ratio = payload_bytes / pieces / library.protocol_bytes
    large = smooth.gate(ratio)
    # the inverse of a share of the rate; beyond the threshold the whole message takes no
    # less than its bytes up to there took
    small = 1.0 / (library.small_efficiency * smooth.larger(ratio, 1.0))
    slow = small + large * (smooth.larger(1.0 / library.efficiency, small) - small)
    moving = _reaching(group, library).replace(efficiency=1.0 / slow)
    moved = algorithm_s(kind, group, moving, payload_bytes, sharpness)
    if driver == "sdma":
        moved = moved * library.sdma_slowdown
    return {
        "start": moving.start_s,
        "transfer": moved,
        "protocol": large * library.protocol_s,
    }


def several_of(ranks: Scalar, sharpness: Sharpness) -> Scalar:
    """1 where a group has several ranks, 0 where it has one and needs no collective."""
    return smooth.positive(ranks - 1.0, sharpness)


def collective_s(
    costs: Mapping[str, Real], several: Real, exposed: Real, sharpness: Sharpness
) -> Array:
    """Time of a collective, or of some along an axis, from the seconds of their parts.

    Args:
        several: see `several_of`.
        exposed: share of the protocol's floor that does not hide behind the wire time.
    """
    busy = smooth.overlap_s(costs["transfer"], costs["protocol"], exposed, sharpness)
    return jnp.multiply(several, costs["start"] + busy)


def mesh_costs(
    group: Group,
    library: CollectiveLibrary,
    bytes_to_each: Sequence[Scalar],
    sharpness: Sharpness,
) -> list[dict[str, Scalar]]:
    """Seconds of some gathers, scatters or all-to-alls in which every rank sends so much
    to every other; the parts of one add up."""
    library = _reaching(group, library)
    several = several_of(group.ranks, sharpness)
    start = several * library.start_s
    costs = [direct(group, library, size, sharpness) for size in bytes_to_each]
    return [
        {"start": start, "transfer": several * whole_s(cost, library)} for cost in costs
    ]


def plane_loads_s(
    kind: str, group: Group, library: CollectiveLibrary, payload_bytes: Scalar
) -> list[Scalar]:
    """Time that a collective keeps each plane's port busy.

    Assumes the direct algorithm's split over the tiers.
    """
    rate = library.reduce_efficiency
    if kind == "all_gather":
        part = payload_bytes
    elif kind == "reduce_scatter":
        part = payload_bytes / rate
    elif kind == "all_reduce":
        part = payload_bytes / group.ranks * (1.0 + 1.0 / rate)
    else:
        part = payload_bytes / group.ranks
    rings = kind in ("all_gather", "reduce_scatter", "all_reduce")
    fabric = group.fabric if rings else scattered(group)
    return plane_s(fabric, part * peers(group), library.efficiency)


def access_costs(
    kind: str,
    group: Group,
    endpoint: Endpoint,
    payload_bytes: Scalar,
    sharpness: Sharpness,
) -> dict[str, Scalar]:
    r"""Seconds of a device that reads or writes memory elsewhere: no library between.

    $$ t = \alpha_\mathrm{tier} + \alpha_\mathrm{end} + m / (B\,e) $$
    """
    share = payload_bytes / (group.ranks - 1.0)
    sent = share * peers(group)
    writes = kind == "write"
    efficiency = endpoint.write_efficiency if writes else endpoint.read_efficiency
    latency = reach_s(group, sharpness) + endpoint.latency_s
    if writes:
        latency = latency + endpoint.write_latency_s
    wire = port_s(scattered(group), sent, efficiency, sharpness)
    return {"start": latency, "transfer": wire}


def bus_bytes(kind: str, group: Group, payload_bytes: Scalar) -> Scalar:
    """Bytes that nccl-tests divide by the time for the bus bandwidth."""
    n = group.ranks
    return payload_bytes * {
        "all_reduce": 2.0 * (n - 1.0) / n,
        "all_gather": n - 1.0,
        "reduce_scatter": n - 1.0,
        "all_to_all": (n - 1.0) / n,
    }.get(kind, 1.0)
