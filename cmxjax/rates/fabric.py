"""A group of ranks placed on the tiers: its peers, latencies and port times."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import smooth
from .._types import Scalar, Sharpness
from ..machine.tiers import Fabric
from ..switch import either
from .torus import Block, block_of


class Group(NamedTuple):
    """Ranks of one axis and how they split over the tiers, innermost first."""

    fabric: Fabric
    splits: Float[Array, " tier"]
    units: Float[Array, " tier"]
    """Ranks of the group within one unit of each tier: 1, f0, f0 f1, ..."""
    ranks: Scalar
    block: Block | None = None
    """What it meets of tori; None where no tier is one."""


def group_of(fabric: Fabric, splits: Float[Array, " tier"]) -> Group:
    """The group whose axis splits `splits[t]` ways within tier t.

    Where each pair of devices has a link of its own (HCCS of an Atlas A2 node), n ranks
    have the n - 1 links between them. On a torus the rate is that of its rings; see
    `scattered` and `neighboring` for others.
    """
    block = None
    if fabric.link_share is not None:
        links = smooth.larger(splits - 1.0, 1.0) * fabric.link_share
        share = either(fabric.link_share > 0.0, smooth.smaller(links, 1.0), 1.0)
        fabric = fabric.replace(rate=fabric.rate * share)
    if fabric.torus is not None:
        block = block_of(fabric.torus, splits)
        fabric = fabric.replace(rate=fabric.rate * block.rings)
    units = [jnp.ones(())]
    for split in jnp.unstack(splits):
        units.append(units[-1] * split)
    return Group(fabric, splits, jnp.stack(units[:-1]), units[-1], block)


def scattered(group: Group) -> Fabric:
    """The fabric for transfers in which each rank sends to every other, over many hops of
    a torus."""
    fabric, block = group.fabric, group.block
    if block is None:
        return fabric
    return fabric.replace(rate=fabric.rate * (block.pairs / block.rings))


def neighboring(group: Group) -> Fabric:
    """The fabric for transfers to the next rank, over one link of a torus."""
    fabric, block = group.fabric, group.block
    if block is None:
        return fabric
    return fabric.replace(rate=fabric.rate * (block.link / block.rings))


def distance(group: Group, levels: Float[Array, " tier"]) -> Float[Array, " tier"]:
    """Hops through each tier: some levels of switches, or those of a torus."""
    block = group.block
    return levels if block is None else either(block.there, block.hops, levels)


def first_ranks(split: Float[Array, " tier"], count: Scalar) -> Float[Array, " tier"]:
    """How the first `count` ranks of an axis split over the tiers, innermost first."""
    below = jnp.cumprod(split) / split
    return smooth.within(count / below, 1.0, split)


def peers(group: Group) -> Float[Array, " tier"]:
    """Ranks that a rank reaches through each tier and no lower one; sums to n - 1."""
    return group.units * (group.splits - 1.0)


def port_s(
    fabric: Fabric,
    tier_bytes: Float[Array, " tier"],
    efficiency: Scalar,
    sharpness: Sharpness,
) -> Scalar:
    """Time for a device to send `tier_bytes[t]` through each tier.

    Planes run beside each other, so the longest counts.
    """
    return smooth.maximum_of(plane_s(fabric, tier_bytes, efficiency), sharpness)


def plane_s(
    fabric: Fabric, tier_bytes: Float[Array, " tier"], efficiency: Scalar
) -> list[Scalar]:
    """Time that each plane's port is busy; tiers of one plane share it, so they add."""
    spent = tier_bytes / (fabric.rate * efficiency)
    return [(spent * mask).sum() for mask in fabric.planes]


def contended_s(
    first: Sequence[Scalar], second: Sequence[Scalar], sharpness: Sharpness
) -> Scalar:
    """Least time of two sets of transfers at once: on a shared plane they add up."""
    both = [a + b for a, b in zip(first, second, strict=True)]
    return smooth.maximum_of(both, sharpness)


def reach_s(group: Group, sharpness: Sharpness) -> Scalar:
    """Latency to the farthest rank: the largest of the tiers that the group spans."""
    hops = distance(group, smooth.positive(group.splits - 1.0, sharpness))
    return smooth.maximum_of(jnp.unstack(group.fabric.latency_s * hops), sharpness)
