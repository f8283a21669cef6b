r"""Time of collectives under the alpha-beta model, algorithm by algorithm.

n ranks, m payload bytes per rank in the sense of each function. An algorithm is a
number of latency terms and the bytes that a device's port sends through each tier;
tiers of one plane share the port.

Reference: Thakur, Rabenseifner & Gropp, IJHPCA 19(1), 2005; Chan et al., Concurrency
and Computation 19(13), 2007 (hierarchical and pipelined forms).
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import smooth
from .._types import Scalar, Sharpness
from ..machine.libraries import CollectiveLibrary
from ..switch import Switch, either
from .fabric import Group, distance, neighboring, peers, port_s, reach_s, scattered

_TINY = 1e-30  # keeps sqrt differentiable where nothing is sent


class Cost(NamedTuple):
    """The two parts of a collective's time."""

    latency_s: Scalar
    wire_s: Scalar

    def at(self, rate: Scalar) -> "Cost":
        """The same at a share of the rate, as where ranks add up what arrives."""
        return Cost(self.latency_s, self.wire_s / rate)


def direct(
    group: Group,
    library: CollectiveLibrary,
    bytes_to_each: Scalar,
    sharpness: Sharpness,
) -> Cost:
    """Every rank sends to every other at once (full mesh): one latency.

    The bytes for a peer travel on the lowest tier that joins both, so a sibling's part
    goes over the package's own link.
    """
    sent = bytes_to_each * peers(group)
    wire = port_s(scattered(group), sent, library.efficiency, sharpness)
    return Cost(reach_s(group, sharpness), wire)


def ring(
    group: Group,
    library: CollectiveLibrary,
    bytes_per_step: Scalar,
    sharpness: Sharpness,
    striped: bool,
) -> Cost:
    r"""n - 1 steps to the next rank.

    One ring loads the port of a rank at a unit's edge with the whole volume on each
    tier that the group spans. Striped over all ports (one ring for each rank of a unit)
    a tier carries only the share of the n edges that cross it and no higher one: with
    c ranks in each of its units, 1 / c of the edges leave a unit.

    A tier that is oversubscribed o times carries 1 / o of what a unit's devices send. A
    striped ring has all of them send, so it takes o times as long there; a single one has
    one of c send, and takes o / c times, but no less than one port does.
    """
    steps = group.ranks - 1.0
    if striped:
        leaving = smooth.positive(group.ranks / group.units - 1.0, sharpness)
        leaving = leaving / group.units
        loaded = leaving - jnp.append(leaving[1:], 0.0)
    else:
        loaded = smooth.positive(group.splits - 1.0, sharpness)
    sent = steps * bytes_per_step * loaded
    if striped:
        wire = port_s(group.fabric, sent, library.efficiency, sharpness)
    else:
        fabric = group.fabric
        alone = fabric.rate * smooth.smaller(fabric.oversubscription, group.units)
        each = list(sent / (alone * library.efficiency))
        wire = smooth.maximum_of(each, sharpness)
    return Cost(_ring_latency_s(group, library, sharpness), wire)


def _ring_latency_s(
    group: Group, library: CollectiveLibrary, sharpness: Sharpness
) -> Scalar:
    """The steps of a ring, each as long as to the farthest rank; where a group spans a
    torus, those along its dimensions and then those of each other tier."""
    steps = group.ranks - 1.0
    flat = steps * (reach_s(group, sharpness) + library.step_s)
    if group.block is None:
        return flat
    hops = distance(group, group.splits - 1.0)
    apart = (hops * (group.fabric.latency_s + library.step_s)).sum()
    spanned = smooth.positive(group.splits - 1.0, None) * group.block.there
    return either(spanned.sum() > 0.5, apart, flat)


def _crossing(group: Group) -> Float[Array, " tier"]:
    """Share of a chain's edges that cross each tier and no higher one."""
    return (group.splits - 1.0) / (group.units * group.splits)


def staged(
    group: Group,
    library: CollectiveLibrary,
    stage_bytes: Float[Array, " tier"],
    sharpness: Sharpness,
) -> Cost:
    """One direct exchange within each tier after another; latencies and wires add."""
    wire = stage_bytes / (scattered(group).rate * library.efficiency)
    hops = group.fabric.latency_s + library.step_s
    used = distance(group, smooth.positive(group.splits - 1.0, sharpness))
    return Cost((hops * used).sum(), wire.sum())


def _branches(
    splits: Float[Array, " tier"], sharpness: Sharpness
) -> Float[Array, " tier"]:
    """Times that the busiest of n units sends the volume on in a double binary tree, in
    the mean of both ways.

    Each tree carries half. Of four or more, one passes its half up and to two others in
    one tree, and up in the other: twice in all. The busiest of three does so one and a
    half times, each of two once.
    """
    used = smooth.positive(splits - 1.0, sharpness)
    return used * (0.25 * smooth.smaller(splits, 4.0))


def tree(
    group: Group,
    library: CollectiveLibrary,
    volume: Scalar,
    sharpness: Sharpness,
    returns: bool,
) -> Cost:
    """A pipelined double binary tree: log2(n) latencies; each port passes the volume.

    Striped like the ring, so only one rank of a unit sends on the tier above.

    Args:
        returns: it is one way of two, up and down again; see `_branches`.

    Reference: Sanders, Speck & Traff, Parallel Computing 35(12), 2009.
    """
    hops = group.fabric.latency_s + library.step_s
    latency = (distance(group, jnp.log2(group.splits)) * hops).sum()
    if returns:
        passes = _branches(group.splits, sharpness)
    else:
        passes = smooth.positive(group.splits - 1.0, sharpness)
    sent = volume / group.units * passes
    wire = port_s(group.fabric, sent, library.efficiency, sharpness)
    return Cost(latency, wire)


def in_switch(
    group: Group,
    library: CollectiveLibrary,
    volume: Scalar,
    sharpness: Sharpness,
) -> Cost:
    """An all-reduce inside the switches: a port passes the buffer once each way.

    A ring passes it twice, so a switch that reaches half the rate of a port is as fast.
    Inner tiers reduce first; on the next one a rank sends its share of their sum. Where
    a tier's switches don't reduce, a tree joins the units (NVLSTree of NCCL).

    Reference: Graham et al., COMHPC 2016 (SHARP); Klenk et al., ISCA 2020 (NVLink).
    """
    used = smooth.positive(group.splits - 1.0, sharpness)
    reduces = group.fabric.reduces > 0.5
    passes = either(reduces, used, 2.0 * _branches(group.splits, sharpness))
    adding = library.efficiency * library.reduce_efficiency
    efficiency = either(reduces, library.switch_efficiency, adding)
    sent = volume / group.units * passes / efficiency
    wire = port_s(group.fabric, sent, 1.0, sharpness)
    levels = either(reduces, used, distance(group, jnp.log2(group.splits)))
    hops = group.fabric.latency_s + library.step_s
    return Cost(2.0 * (hops * levels).sum(), wire)


def chain_costs(
    group: Group, library: CollectiveLibrary, payload_bytes: Scalar
) -> dict[str, Scalar]:
    """Seconds to hand a payload from rank to rank through all of a group (a pipeline)."""
    wire = payload_bytes / (neighboring(group).rate * library.efficiency)
    hops = group.ranks * _crossing(group) * (group.fabric.latency_s + wire)
    return {"start": (group.ranks - 1.0) * library.start_s, "transfer": hops.sum()}


def whole_s(cost: Cost, library: CollectiveLibrary) -> Scalar:
    r"""Latency, wire time and, where messages are cut into chunks, what cutting costs.

    $$ t = \alpha + b + 2 \sqrt{\gamma\, b} $$

    With k chunks, one more stage costs b / k to fill and each chunk gamma to hand on;
    the square root is their sum at the best k, so the rate climbs slowly with size.

    Reference: Johnsson & Ho, IEEE Transactions on Computers 38(9), 1989.
    """
    whole = cost.latency_s + cost.wire_s
    cut = 2.0 * jnp.sqrt(library.chunk_s * cost.wire_s + _TINY)
    return whole + library.pipelined.on * cut


class Offer(NamedTuple):
    """An algorithm that a library may have."""

    there: Switch
    cost: Cost


def cheaper(
    offers: list[Offer], library: CollectiveLibrary, sharpness: Sharpness
) -> Scalar:
    """Time of the cheapest algorithm of those that are there; the first one is."""
    best = whole_s(offers[0].cost, library)
    for there, cost in offers[1:]:
        least = smooth.minimum(best, whole_s(cost, library), sharpness)
        best = there.pick(least, best)
    return best
