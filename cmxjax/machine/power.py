"""Power, parts, failures and prices of a system."""

from flax import struct

from .._types import Leaf


class Operations(struct.PyTreeNode, kw_only=True, frozen=True):
    """Failures, restarts and the price of a device."""

    device_mtbf_s: Leaf
    """Mean time between failures of one device with its share of everything else."""
    restart_s: Leaf
    device_hour_usd: Leaf
    kind: str = struct.field(pytree_node=False, default="operations")


class Power(struct.PyTreeNode, kw_only=True, frozen=True):
    """All-in power of the scale-up system and how it splits."""

    all_in_w: Leaf
    network_w: Leaf
    """Part of it that the scale-up network draws, busy or not."""
    idle_fraction: Leaf
    """Share of the rest that is drawn without load."""
    memory_share: Leaf
    """Share of what load adds that busy memory draws, busy compute the other part."""
    kind: str = struct.field(pytree_node=False, default="power")


class Parts(struct.PyTreeNode, kw_only=True, frozen=True):
    """Counted parts of the scale-up system."""

    cpus: Leaf
    switches: Leaf
    optical_modules: Leaf
    kind: str = struct.field(pytree_node=False, default="parts")
