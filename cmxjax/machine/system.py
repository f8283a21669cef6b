"""What a machine file says: the device, its tiers, and the software on it, by name."""

import math

from flax import struct

from .chip import Chip
from .libraries import CollectiveLibrary, ExpertMode
from .power import Operations, Parts, Power
from .runtimes import Engine, Trainer
from .tiers import Endpoint, FabricRate, SideLink, Tier


class System(struct.PyTreeNode, kw_only=True, frozen=True):
    """A machine: its device, the tiers that join devices, and the software on it."""

    chip: Chip
    tiers: dict[str, Tier]
    endpoints: dict[str, Endpoint]
    links: dict[str, SideLink]
    collectives: dict[str, CollectiveLibrary]
    expert_parallel: dict[str, dict[str, ExpertMode]]
    """By library and then by mode, `low_latency` or `normal`."""
    engines: dict[str, Engine]
    trainers: dict[str, Trainer]
    fabrics: dict[str, FabricRate]
    """By the publication whose cluster it is."""
    operations: Operations
    power: Power
    parts: Parts
    name: str = struct.field(pytree_node=False)
    tier_order: tuple[str, ...] = struct.field(pytree_node=False)
    """Names of the tiers, innermost first."""
    package_tier: str = struct.field(pytree_node=False, default="")
    """The tier that makes a package of devices; empty where a device is a package."""
    scale_up_tier: str = struct.field(pytree_node=False)
    """The tier that closes the scale-up system: totals count its devices."""
    defaults: tuple[tuple[str, str], ...] = struct.field(pytree_node=False)
    """Default `collective`, `serving_collective`, `expert`, `engine` and `trainer`."""
    kind: str = struct.field(pytree_node=False, default="system")


def scale_up_devices(system: System) -> float:
    """Devices of one scale-up system."""
    inside = system.tier_order[: system.tier_order.index(system.scale_up_tier) + 1]
    return math.prod(float(system.tiers[name].size) for name in inside)


def ordered_tiers(system: System) -> list[Tier]:
    """The tiers, innermost first."""
    return [system.tiers[name] for name in system.tier_order]
