"""What one job meets of a system: its parts by role, none by name."""

import jax.numpy as jnp
from flax import struct

from .._types import Leaf
from ..switch import either
from .chip import Chip
from .libraries import CollectiveLibrary, ExpertMode
from .power import Operations, Parts, Power
from .runtimes import Engine, Trainer
from .tiers import Endpoint, Fabric, FabricRate, SideLink, Torus


class Tiers(struct.PyTreeNode, kw_only=True, frozen=True):
    """The tiers of a machine as arrays over tiers, innermost first; see `Tier`."""

    size: Leaf
    bytes_per_s: Leaf
    latency_s: Leaf
    efficiency: Leaf
    oversubscription: Leaf
    reduces: Leaf
    """1 for a tier whose switches add up, (tier,)."""
    planes: tuple[Leaf, ...]
    """For each plane 1 where it has a tier, (tier,)."""
    mesh: Leaf | None
    """1 for a tier whose pairs have links of their own, (tier,); None where none has."""
    torus: Torus | None
    """None where no tier is one."""
    scale_up: Leaf
    """1 for a tier of the scale-up system; those beyond are the network between such."""
    kind: str = struct.field(pytree_node=False, default="tiers")

    @property
    def edge(self) -> Leaf:
        """Mask of the outermost tier of the scale-up system, (tier,)."""
        return self.scale_up - jnp.append(self.scale_up[1:], 0.0)

    @property
    def fabric(self) -> Fabric:
        """Rates and latencies, as transfers meet them."""
        rate = self.bytes_per_s * self.efficiency / self.oversubscription
        return Fabric(
            rate=rate,
            latency_s=self.latency_s,
            reduces=self.reduces,
            network=1.0 - self.scale_up,
            planes=self.planes,
            link_share=None if self.mesh is None else self.mesh / (self.size - self.mesh),
            oversubscription=self.oversubscription,
            torus=self.torus,
        )


class Machine(struct.PyTreeNode, kw_only=True, frozen=True):
    """A device, what joins it to others, and the software that one job runs."""

    chip: Chip
    tiers: Tiers
    runtime: Engine | Trainer
    library: CollectiveLibrary
    exchange: ExpertMode
    """The kernels of MoE dispatch and combine."""
    cluster: FabricRate
    """The published cluster whose network it is; at full rate for the system's own."""
    cache: SideLink | None
    """The link that cached prefixes come over, if any do."""
    offload: SideLink | None
    """Likewise offloaded training state."""
    storage: SideLink
    """Where checkpoints go."""
    endpoint: Endpoint | None
    """What remote memory access reaches, if that is what runs."""
    power: Power
    parts: Parts
    operations: Operations
    package_devices: Leaf
    """Devices in what is sold and quoted as one NPU or GPU."""
    joined: Fabric | None = None
    """What `ready` fills in; it stays when tiers are replaced, so make it ready last."""
    kind: str = struct.field(pytree_node=False, default="machine")

    @property
    def fabric(self) -> Fabric:
        """Rates and latencies of the tiers."""
        return self.tiers.fabric if self.joined is None else self.joined

    @property
    def ready(self) -> "Machine":
        """The machine with its fabric worked out once for all who ask."""
        return self.replace(joined=self.tiers.fabric)

    @property
    def scale_up_devices(self) -> Leaf:
        """Devices of the scale-up system: the product of its tiers' sizes."""
        tiers = self.tiers
        return jnp.prod(either(tiers.scale_up > 0.5, tiers.size, 1.0))
