"""A device: peaks, memory, and how much of them kernels reach.

A *device* is one rank (a die on Ascend 910C, a GPU elsewhere). Peaks are stored as
printed; efficiencies are leaves of their own. Every leaf is SI and differentiable.
"""

from flax import struct

from .._types import Leaf

PLAIN = "bf16"
"""What routers, scores that no kernel fuses, and products of 16-bit weights beside
narrower ones are computed in."""

EIGHT = "eight bits"
"""Likewise products of 8-bit weights beside narrower ones."""


class Chip(struct.PyTreeNode, kw_only=True, frozen=True):
    """One device: peaks, memory, and how much of them kernels reach."""

    matrix_flop_per_s: dict[str, Leaf]
    """Dense peak by dtype; of a machine by tensor class, in the format of the job."""
    vector_flop_per_s: Leaf
    exponential_flop_per_s: Leaf
    """Exponentials of a unit that has no other work, beside the vector lanes; 0 where the
    lanes compute them."""
    memory_bytes: Leaf
    memory_usable_bytes: Leaf
    memory_reported_ratio: Leaf
    """What the driver reports over what the sheet prints; engines take a share of it."""
    memory_bytes_per_s: Leaf
    matrix_cores: Leaf
    tile_rows: Leaf
    tile_columns: Leaf
    gemm_efficiency: Leaf
    """Share of the peak that an unlimited GEMM reaches."""
    eight_bit_efficiency: Leaf
    """Further factor on GEMMs with 8-bit operands (power limit, promotion of sums)."""
    four_bit_efficiency: Leaf
    """Likewise with 4-bit operands."""
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
    choice_s: Leaf
    """Time for each entry among which an indexer finds the largest, on all cores."""
    gather_passes: Leaf
    """Further reads and writes of cache entries that an indexer chose: 2 where vector
    cores gather them and matrix units read them from memory again."""
    roofline_exposed_fraction: Leaf
    """Share of the shorter of compute and memory time that a kernel does not hide."""
    matrix_launch_s: Leaf
    vector_launch_s: Leaf
    four_bit_launch_s: Leaf
    """Further launch of a GEMM with 4-bit operands, whose activations and their scales
    are made for it."""
    expert_start_s: Leaf
    """Of experts with 4-bit operands that run alone: what routes, sorts and quantizes
    tokens in front of their GEMMs and adds up copies behind them."""
    expert_passes: Leaf
    """Times that this reads or writes every copy in 16 bits."""
    depth_latency_s: Leaf
    """Least time of a GEMM for each element of depth: a core adds up a tile one block
    after another, however few tiles there are."""
    core_exponent: Leaf
    """A kernel on a share f of the cores slows by f to minus this power."""
    kind: str = struct.field(pytree_node=False, default="chip")
