"""Hardware pytrees: every leaf is SI and differentiable, names are static.

A *device* is one rank (a die on Ascend 910C, a GPU elsewhere). Bandwidths are one
direction per device. Peaks are stored as printed; efficiencies are leaves of their own.
"""

from flax import struct

from ._types import Leaf


class Chip(struct.PyTreeNode, kw_only=True, frozen=True):
    """One device: peaks, memory, and how much of them kernels reach."""

    matrix_flop_per_s: dict[str, Leaf]
    """Dense peak by dtype."""
    vector_flop_per_s: Leaf
    memory_bytes: Leaf
    memory_usable_bytes: Leaf
    memory_bytes_per_s: Leaf
    matrix_cores: Leaf
    tile_rows: Leaf
    tile_columns: Leaf
    gemm_efficiency: Leaf
    """Share of the peak that an unlimited GEMM reaches."""
    eight_bit_efficiency: Leaf
    """Further factor on GEMMs with 8-bit operands (power limit, promotion of sums)."""
    attention_efficiency: Leaf
    memory_efficiency: Leaf
    vector_efficiency: Leaf
    half_rows: Leaf
    """Rows at which a GEMM reaches half its efficiency; likewise columns and depth."""
    half_columns: Leaf
    half_depth: Leaf
    half_memory_bytes: Leaf
    """Bytes at which a kernel reaches half its memory bandwidth."""
    attention_fill_s: Leaf
    """Fill and drain of a fused attention kernel: uneven blocks, split keys to add up."""
    roofline_exposed_fraction: Leaf
    """Share of the shorter of compute and memory time that a kernel does not hide."""
    matrix_launch_s: Leaf
    vector_launch_s: Leaf
    core_exponent: Leaf
    """A kernel on a share f of the cores slows by f to minus this power."""
    kind: str = struct.field(pytree_node=False, default="chip")


class Tier(struct.PyTreeNode, kw_only=True, frozen=True):
    """A level of the machine that joins `size` units of the level below."""

    size: Leaf
    bytes_per_s: Leaf
    latency_s: Leaf
    efficiency: Leaf
    oversubscription: Leaf
    plane: str = struct.field(pytree_node=False)
    """Tiers on one plane share a device's port; different planes run side by side."""
    kind: str = struct.field(pytree_node=False, default="tier")


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
    latency_s: Leaf
    efficiency: Leaf
    kind: str = struct.field(pytree_node=False, default="side_link")


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
    sdma_slowdown: Leaf
    algorithms: tuple[str, ...] = struct.field(pytree_node=False)
    """Those it chooses from: `direct`, `ring`, `striped_ring`, `staged`, `tree`,
    `in_switch`."""
    pipelined: bool = struct.field(pytree_node=False, default=False)
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
    sdma_slowdown: Leaf
    scale_slot_bytes: Leaf
    """Scales sent beside each 8-bit token."""
    core_share: Leaf
    """Share of the cores that drive the copies while compute runs beside them."""
    plane: str = struct.field(pytree_node=False, default="")
    """Where not empty, all traffic between ranks takes this plane (DeepEP over RDMA)."""
    deduplicates: bool = struct.field(pytree_node=False, default=False)
    """A token crosses to each unit of the outer plane once and is spread there."""
    kind: str = struct.field(pytree_node=False, default="expert_mode")


class Engine(struct.PyTreeNode, kw_only=True, frozen=True):
    """A serving engine: host overhead, overlap of streams, routing skew."""

    decode_step_s: Leaf
    """Scheduler, sampling and graph launch of one decode step."""
    draft_step_s: Leaf
    prefill_batch_s: Leaf
    wait_excess: Leaf
    """Dispatch and combine in a step take 1 + this times their benchmark time."""
    stream_exposed_fraction: Leaf
    routing_skew: Leaf
    """Excess load of the busiest expert rank beyond sampling noise, in decode."""
    prefill_routing_skew: Leaf
    """Likewise in prefill, where the tokens of a prompt take similar ways."""
    partitions_cores: bool = struct.field(pytree_node=False, default=False)
    """Decode splits the cores between attention and experts, as suits the batch."""
    kind: str = struct.field(pytree_node=False, default="engine")


class Trainer(struct.PyTreeNode, kw_only=True, frozen=True):
    """A training framework: host overhead, and what it hides behind compute.

    An exposed fraction is the share of the shorter of compute and communication that
    is not hidden: 0 hides all of it and 1 runs one after the other.
    """

    launch_s: Leaf
    """Host time to launch one kernel without a captured graph."""
    tensor_host_s: Leaf
    """Least time of a layer, forward and backward, for each rank of its tensor group,
    in jobs that leave the scale-up system."""
    message_host_s: Leaf
    """Time that both stages spend on a message between them, in such jobs, where sending
    and receiving block: a middle stage has four for each micro-batch, an end two."""
    step_s: Leaf
    """Data loading, gradient norm, logging of one step."""
    jitter_fraction: Leaf
    """Standard deviation of a rank's step time over its mean."""
    tensor_forward_exposed_fraction: Leaf
    tensor_backward_exposed_fraction: Leaf
    """Beside the gradient of the weights."""
    context_exposed_fraction: Leaf
    """Of a ring; what follows an all-to-all waits for all of it."""
    expert_exposed_fraction: Leaf
    """Where micro-batches overlap; without, all of an exchange is exposed."""
    pipeline_exposed_fraction: Leaf
    data_exposed_fraction: Leaf
    offload_exposed_fraction: Leaf
    matrix_rate_factor: Leaf
    """Rate of this framework's GEMM kernels over the chip's, likewise the next two."""
    attention_rate_factor: Leaf
    vector_rate_factor: Leaf
    """Of kernels bound by memory: below 1 where they are not fused."""
    backward_attention_efficiency: Leaf
    """Rate of the attention kernel backward over forward."""
    narrow_efficiency: Leaf
    """Share of its peak that an 8-bit GEMM reaches, over that of a bf16 one."""
    wait_excess: Leaf
    """Dispatch and combine in a step take 1 + this times their benchmark time."""
    routing_skew: Leaf
    memory_overhead_bytes: Leaf
    """Context, kernels and communicators of a process."""
    activation_slack: Leaf
    """Memory lost to fragments and temporaries, over that of the activations."""
    context: str = struct.field(pytree_node=False, default="ring")
    """How context parallelism exchanges keys and values, unless a job says it: `ring`
    or `all_to_all`."""
    stages: str = struct.field(pytree_node=False, default="even")
    """How layers are spread over a pipeline: `even`; `by_cost`, the head's included; or
    `with_ends`, where embedding and head count as a layer each."""
    keeps_working_gradients: bool = struct.field(pytree_node=False, default=False)
    """Gradients of a micro-batch stay, as wide as the weights, beside those that add up
    in a wider format; otherwise a kernel adds them there as they come."""
    kind: str = struct.field(pytree_node=False, default="trainer")


class FabricRate(struct.PyTreeNode, kw_only=True, frozen=True):
    """The scale-out network of one published cluster against that of the system."""

    rate_factor: Leaf
    node_exponent: Leaf
    """A job on n nodes sees the rate divided by n to this power."""
    kind: str = struct.field(pytree_node=False, default="fabric_rate")


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


def ordered_tiers(system: System) -> list[Tier]:
    """The tiers, innermost first."""
    return [system.tiers[name] for name in system.tier_order]


def default_of(system: System, what: str) -> str:
    """Name of the default `collective` or `expert` library or `engine`."""
    return dict(system.defaults)[what]


def devices_per_package(system: System):
    """Devices in what is sold and quoted as one NPU or GPU."""
    return system.tiers[system.package_tier].size if system.package_tier else 1.0


def scale_up_devices(system: System):
    """Devices of the scale-up system: the product of its tiers' sizes."""
    count = 1.0
    for name in system.tier_order:
        count = count * system.tiers[name].size
        if name == system.scale_up_tier:
            break
    return count


def scale_up_bytes_per_s(system: System):
    """One-way bandwidth of a device into the scale-up fabric."""
    return system.tiers[system.scale_up_tier].bytes_per_s
