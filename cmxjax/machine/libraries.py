"""What collective and expert-exchange libraries cost."""

from flax import struct

from .._types import Leaf
from ..switch import Switch

ALGORITHMS = ("direct", "ring", "striped_ring", "staged", "tree", "in_switch", "one_shot")


class CollectiveLibrary(struct.PyTreeNode, kw_only=True, frozen=True):
    """Costs of one collective library, such as HCCL or NCCL."""

    start_s: Leaf
    step_s: Leaf
    """Cost of one step of a ring or tree beyond the link's latency."""
    efficiency: Leaf
    small_efficiency: Leaf
    """Likewise for messages below `protocol_bytes`."""
    reduce_efficiency: Leaf
    """Further factor on the rate of collectives that reduce."""
    switch_efficiency: Leaf
    """Share of a port's rate that an all-reduce inside the switches reaches."""
    chunk_s: Leaf
    """Cost of handing on one chunk, where messages are cut into chunks."""
    protocol_s: Leaf
    """Floor under the time of messages beyond `protocol_bytes` per rank."""
    protocol_bytes: Leaf
    protocol_exposed_fraction: Leaf
    network_start_s: Leaf
    """Added to the start of a group that spans a network, for each of its ranks in one
    scale-up system: each has connections and a proxy of its own."""
    network_chunk_s: Leaf
    """Added to the cost of a chunk there, which a host hands on."""
    sdma_slowdown: Leaf
    algorithms: dict[str, Switch]
    """Those of `ALGORITHMS` that it chooses from. One that is switched off has a time,
    which nothing takes."""
    pipelined: Switch
    """It cuts messages into chunks that follow each other through stages."""
    kind: str = struct.field(pytree_node=False, default="collective_library")


class ExpertMode(struct.PyTreeNode, kw_only=True, frozen=True):
    """Costs of MoE dispatch and combine in one mode of a library."""

    dispatch_start_s: Leaf
    combine_start_s: Leaf
    jitter_s: Leaf
    """Scale of a rank's random delay; n ranks wait for the worst of n."""
    spread: Leaf
    """Likewise of the part of its sending time that is random."""
    efficiency: Leaf
    dispatch_copy_s: Leaf
    """Time a device spends on each token copy it sends, however small."""
    combine_copy_s: Leaf
    """Time to add up a copy that has come back, beyond reading it."""
    dispatch_peer_s: Leaf
    """Time spent on each other rank: counts, addresses and flags to exchange."""
    combine_peer_s: Leaf
    dispatch_least_s: Leaf
    """Time that moving tokens takes at least, however few there are."""
    combine_least_s: Leaf
    cores: Leaf
    """That drive the kernel, unless a benchmark says otherwise."""
    dispatch_core_s: Leaf
    """Time that one of them spends on a copy, besides that of its bytes."""
    combine_core_s: Leaf
    core_bytes_per_s: Leaf
    """Rate at which one of them moves bytes."""
    sdma_slowdown: Leaf
    scale_slot_bytes: Leaf
    """Slot of scales beside each 8-bit token, however wide."""
    scale_share: Leaf
    """Bytes of scales for each value of such a token."""
    core_share: Leaf
    """Share of the cores that drive the copies while compute runs beside them."""
    deduplicates: Switch | None = None
    """A token crosses to each unit of the outer plane once and is spread there. None
    where no such way is priced, which takes a quarter of a gradient's time."""
    gathers: Switch | None = None
    """All tokens go to all ranks, whatever their experts, and sums come back: all-gather
    and reduce-scatter. None as above."""
    fused_exposed_fraction: Leaf | None = None
    """Of one kernel for both exchanges and the experts between them: share of the shorter
    of sending and computing that it does not hide. None where each is a kernel of its
    own, as above."""
    only: Leaf = None
    """Mask of the tier that all traffic takes, (tier,); zeros where it takes whichever
    joins two ranks. A machine has it, in place of the system's `plane`."""
    across: Leaf = None
    """Likewise of the outermost tier, which tokens cross once."""
    plane: str = struct.field(pytree_node=False, default="")
    """Where not empty, all traffic between ranks takes this plane (DeepEP over RDMA)."""
    kind: str = struct.field(pytree_node=False, default="expert_mode")
