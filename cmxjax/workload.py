"""What runs: one class per phase. Sizes are traced; kinds and dtypes are static."""

from typing import NamedTuple

import jax.numpy as jnp
from flax import struct

from ._types import Leaf

BYTES = {
    "fp32": 4.0,
    "tf32": 4.0,
    "bf16": 2.0,
    "fp16": 2.0,
    "fp8": 1.0,
    "mxfp8": 1.0,
    "int8": 1.0,
    "fp4": 0.5,
    "int4": 0.5,
}
"""Bytes of one element. Scales of quantized blocks are counted where they are sent."""

SCALE_SLOT_BYTES = 512.0
"""Slot of scales beside each 8-bit token in a buffer, the largest of all libraries
(CloudMatrix-Infer, arXiv 2506.12708, section 4.2.1)."""


class Dtypes(NamedTuple):
    """Number formats by tensor class."""

    weight: str = "bf16"
    activation: str = "bf16"
    attention: str = "bf16"
    kv: str = "bf16"
    dispatch: str = "bf16"
    combine: str = "bf16"
    head: str = "bf16"
    master: str = "fp32"
    gradient: str = "fp32"


class SystemQuery(struct.PyTreeNode, kw_only=True, frozen=True):
    """Totals of the scale-up system."""

    dtypes: Dtypes = struct.field(pytree_node=False, default=Dtypes())
    kind: str = struct.field(pytree_node=False, default="system_query")


class Operator(struct.PyTreeNode, kw_only=True, frozen=True):
    """One operator on one device. Fields that its kind doesn't use are 1 or 0."""

    groups: Leaf
    m: Leaf
    n: Leaf
    k: Leaf
    heads: Leaf
    kv_heads: Leaf
    head_dim: Leaf
    value_dim: Leaf
    latent_dim: Leaf
    rope_dim: Leaf
    sequences: Leaf
    query_tokens: Leaf
    kv_tokens: Leaf
    tokens: Leaf
    hidden: Leaf
    payload_bytes: Leaf
    operator: str = struct.field(pytree_node=False)
    latent: bool = struct.field(pytree_node=False, default=False)
    causal: bool = struct.field(pytree_node=False, default=True)
    dtype: str = struct.field(pytree_node=False, default="bf16")
    out_dtype: str = struct.field(pytree_node=False, default="bf16")
    kind: str = struct.field(pytree_node=False, default="operator")


class Collective(struct.PyTreeNode, kw_only=True, frozen=True):
    """One collective on a group; its placement is the `ep` row of the layout."""

    payload_bytes: Leaf
    tokens_per_rank: Leaf
    hidden: Leaf
    topk: Leaf
    scale_bytes: Leaf
    skew: Leaf | None
    collective: str = struct.field(pytree_node=False)
    library: str = struct.field(pytree_node=False)
    mode: str = struct.field(pytree_node=False, default="low_latency")
    driver: str = struct.field(pytree_node=False, default="vector_cores")
    """What moves the data: `vector_cores` or `sdma`."""
    path: str = struct.field(pytree_node=False, default="npu-npu")
    engine: str = struct.field(pytree_node=False)
    balance: str = struct.field(pytree_node=False, default="uniform")
    dtype: str = struct.field(pytree_node=False, default="bf16")
    kind: str = struct.field(pytree_node=False, default="collective")


class Serving(struct.PyTreeNode, kw_only=True, frozen=True):
    """What decode and prefill share: software, formats, load balance."""

    skew: Leaf | None
    """Excess load of the busiest rank; None takes the engine's calibrated skew."""
    engine: str = struct.field(pytree_node=False)
    collective_library: str = struct.field(pytree_node=False)
    expert_library: str = struct.field(pytree_node=False)
    expert_mode: str = struct.field(pytree_node=False)
    balance: str = struct.field(pytree_node=False, default="typical")
    dtypes: Dtypes = struct.field(pytree_node=False, default=Dtypes())
    kind: str = struct.field(pytree_node=False, default="serving")


class Decode(struct.PyTreeNode, kw_only=True, frozen=True):
    """One decode step: every sequence verifies its drafts and yields tokens."""

    sequences_per_device: Leaf
    kv_tokens: Leaf
    """Mean context over the generation: prompt + output / 2."""
    draft_tokens: Leaf
    acceptance: Leaf
    """Acceptance of each draft given that the one before it was accepted, (draft,)."""
    serving: Serving
    kind: str = struct.field(pytree_node=False, default="decode")


class Prefill(struct.PyTreeNode, kw_only=True, frozen=True):
    """One prefill batch."""

    tokens_per_device: Leaf
    """Prompt tokens admitted per device and batch, cached ones included."""
    prompt_tokens: Leaf
    cached_fraction: Leaf
    serving: Serving
    cache_link: str = struct.field(pytree_node=False, default="")
    """Side link that cached prefixes come over; empty loads nothing."""
    kind: str = struct.field(pytree_node=False, default="prefill")


Workload = SystemQuery | Operator | Collective | Decode | Prefill


def tokens_per_step(w: Decode):
    r"""Tokens that a step yields per sequence: $1 + a_1 + a_1 a_2 + \dots$

    A draft counts only if all before it were accepted. A fractional number of drafts
    counts the last one by its fraction.
    """
    product, total = 1.0, 1.0
    for i in range(w.acceptance.shape[-1]):
        product = product * w.acceptance[..., i]
        total = total + product * jnp.clip(w.draft_tokens - i, 0.0, 1.0)
    return total
