"""What one job meets of a system: its parts by role, none by name."""

from flax import struct

from .._types import Leaf
from .chip import Chip
from .libraries import CollectiveLibrary, ExpertMode
from .power import Operations, Power
from .runtimes import Engine, Trainer
from .tiers import Fabric, FabricRate, SideLink


class Machine(struct.PyTreeNode, kw_only=True, frozen=True):
    """A device, what joins it to others, and the software that one job runs."""

    chip: Chip
    kernels: Chip
    """The device as the runtime's kernels drive it."""
    fabric: Fabric
    sizes: Leaf
    """Units that each tier joins, innermost first, (tier,)."""
    runtime: Engine | Trainer
    library: CollectiveLibrary
    exchange: ExpertMode
    """The kernels of MoE dispatch and combine."""
    cluster: FabricRate | None
    """The published cluster whose network it is; None for the system's own."""
    cache: SideLink | None
    """The link that cached prefixes come over, if any do."""
    offload: SideLink | None
    """Likewise offloaded training state."""
    storage: SideLink
    """Where checkpoints go."""
    power: Power
    operations: Operations
    package_devices: Leaf
    """Devices in what is sold and quoted as one NPU or GPU."""
    scale_up_devices: Leaf
    scale_up_tiers: int = struct.field(pytree_node=False)
    """Tiers of the scale-up system; those beyond are the network between systems."""
    kind: str = struct.field(pytree_node=False, default="machine")
