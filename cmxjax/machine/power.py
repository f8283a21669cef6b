"""Power, parts, failures and prices of a system."""

from flax import struct

from .._types import Leaf


class Operations(struct.PyTreeNode, kw_only=True, frozen=True):
    """Failures by component, restarts and prices.

    A mean time between failures is that of what interrupts a job.
    """

    package_mtbf_s: Leaf
    """Of a package with its memory."""
    host_mtbf_s: Leaf
    """Of a host with the software on it."""
    optical_module_mtbf_s: Leaf
    """Of an optical module with its share of cables, adapters and switches."""
    host_packages: Leaf
    """Packages that one host drives."""
    restart_s: Leaf
    package_hour_usd: Leaf
    """Of a package with its share of all else; 0 where no price is known."""
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
    """All of them, those of the network between scale-up systems too."""
    scale_up_optical_modules: Leaf
    """Part of them that joins the devices of the scale-up system."""
    kind: str = struct.field(pytree_node=False, default="parts")
