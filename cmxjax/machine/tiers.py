"""What joins devices: tiers, side links, remote memory, published networks.

Bandwidths are one direction per device.
"""

from flax import struct

from .._types import Leaf


class Tier(struct.PyTreeNode, kw_only=True, frozen=True):
    """A level of the machine that joins `size` units of the level below."""

    size: Leaf
    bytes_per_s: Leaf
    latency_s: Leaf
    efficiency: Leaf
    oversubscription: Leaf
    plane: str = struct.field(pytree_node=False)
    """Tiers on one plane share a device's port; different planes run side by side."""
    mesh: bool = struct.field(pytree_node=False, default=False)
    """A link of its own joins each pair, so a group has only those between its ranks."""
    reduces: bool = struct.field(pytree_node=False, default=False)
    """Its switches add up what they pass on."""
    shape: tuple[int, ...] = struct.field(pytree_node=False, default=())
    """Units along each dimension of a torus, whose product is the size; empty for
    switches and meshes."""
    closes: tuple[int, ...] = struct.field(pytree_node=False, default=())
    """Units along each dimension from which on a group's line of them is a ring."""
    kind: str = struct.field(pytree_node=False, default="tier")


class Torus(struct.PyTreeNode, kw_only=True, frozen=True):
    """The tiers that are tori, (tier, dimension), with ones for other tiers."""

    shape: Leaf
    """Units along each dimension."""
    closes: Leaf
    """Units from which on a group's line is a ring; see `Tier`."""
    kind: str = struct.field(pytree_node=False, default="torus")


class Fabric(struct.PyTreeNode, kw_only=True, frozen=True):
    """The tiers of a machine as arrays over tiers, innermost first."""

    rate: Leaf
    """One-way bytes per second of a device through a tier, library efficiency apart: of a
    torus through all of its links, of switches while all devices send at once."""
    latency_s: Leaf
    reduces: Leaf
    """1 for a tier whose switches add up, (tier,)."""
    network: Leaf
    """1 for a tier beyond the scale-up system, (tier,)."""
    planes: tuple[Leaf, ...]
    """Which tiers share a port: for each plane 1 where it has a tier, (tier,)."""
    link_share: Leaf | None = None
    """Of a tier whose pairs have links of their own the share of one link in a device's
    rate, else 0, (tier,). None where no tier is such."""
    oversubscription: Leaf = 1.0
    """What devices send into a tier over what its uplinks carry, (tier,)."""
    torus: Torus | None = None
    """None where no tier is one."""
    kind: str = struct.field(pytree_node=False, default="fabric")


class Endpoint(struct.PyTreeNode, kw_only=True, frozen=True):
    """What remote access reaches: another device's memory or the host's."""

    read_efficiency: Leaf
    write_efficiency: Leaf
    latency_s: Leaf
    write_latency_s: Leaf
    kind: str = struct.field(pytree_node=False, default="endpoint")


class SideLink(struct.PyTreeNode, kw_only=True, frozen=True):
    """A plane outside the tiers: the VPC network or the pool of host memory."""

    bytes_per_s: Leaf
    memory_bytes_per_s: Leaf
    """Of the memory at its far end, a device's share: an optimizer there reads and
    writes at this rate."""
    latency_s: Leaf
    efficiency: Leaf
    kind: str = struct.field(pytree_node=False, default="side_link")


class FabricRate(struct.PyTreeNode, kw_only=True, frozen=True):
    """The scale-out network of one published cluster against that of the system."""

    rate_factor: Leaf
    node_exponent: Leaf
    """A job on n nodes sees the rate divided by n to this power."""
    kind: str = struct.field(pytree_node=False, default="fabric_rate")
