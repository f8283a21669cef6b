r"""How a job sits on the machine: the placement matrix `factor[axis, tier]`.

Entry (a, t) says how many ways axis a splits within tier t. The product over tiers is
the axis's degree; the product over the axes of a tier is at most the tier's size.
A rank order and bare degrees are points of this space. The attention axes
`tp cp dp` and the expert axes `etp ep edp` are two foldings of the same devices.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

from .. import smooth
from .._types import Leaf, Scalar
from ..switch import Switch, switch

AXES = ("tp", "cp", "dp", "pp", "etp", "ep", "edp")
ATTENTION_AXES = ("tp", "cp", "dp", "pp")
EXPERT_AXES = ("etp", "ep", "edp", "pp")
DEFAULT_ORDER = ("tp", "cp", "dp", "pp")


class Routing(struct.PyTreeNode, kw_only=True, frozen=True):
    """Where the experts sit."""

    redundant_experts: Leaf
    shared_replicas: Leaf
    dispatches_shared: bool = struct.field(pytree_node=False, default=False)
    """Ranks of their own hold the shared expert, so tokens are sent to it too."""
    kind: str = struct.field(pytree_node=False, default="routing")


class Ways(NamedTuple):
    """How an axis splits."""

    splits: Float[Array, " tier"]
    degree: Scalar


class Layout(struct.PyTreeNode, kw_only=True, frozen=True):
    """Parallel degrees and their placement on the tiers."""

    factor: Leaf
    """Ways that each axis splits within each tier, (axis, tier); at least 1."""
    routing: Routing
    attention: str = struct.field(pytree_node=False, default="dp")
    """`dp`, `tp` or, for prefill, `sp_tp_sp` (sequence, head, sequence split)."""
    sequence_parallel: Switch = struct.field(default_factory=lambda: switch(False))
    """What a tensor group does not split, it splits along the sequence."""
    microbatches: str = struct.field(pytree_node=False, default="1")
    """Overlapped micro-batches: `1`, `2`, or `auto`, the faster of the two."""
    overlaps: Switch = struct.field(default_factory=lambda: switch(False))
    """`auto` is 2 even where 1 is faster: two batches of half the size hold less."""
    head: Leaf | None = None
    """Most data-parallel ranks that share the output head, each with a part of the
    vocabulary. None: each has it whole, as a tensor group of several always has."""
    ways: dict[str, Ways] | None = None
    """What `counted` fills in, by axis; it stays when `factor` is replaced, so count
    last, as `metrics` does."""
    kind: str = struct.field(pytree_node=False, default="layout")


class Pool(struct.PyTreeNode, kw_only=True, frozen=True):
    """Devices of one role, which hold instances of one layout."""

    devices: Leaf
    layout: Layout
    kind: str = struct.field(pytree_node=False, default="pool")


class Pools(struct.PyTreeNode, kw_only=True, frozen=True):
    """The layout of phase `serve`: pools by role."""

    pools: dict[str, Pool]
    kind: str = struct.field(pytree_node=False, default="pools")


def splits(layout: Layout, axis: str) -> Float[Array, " tier"]:
    """How many ways `axis` splits within each tier, innermost first."""
    if layout.ways is not None:
        return layout.ways[axis].splits
    return layout.factor[AXES.index(axis)]


def degree(layout: Layout, axis: str) -> Scalar:
    """How many ways `axis` splits in all."""
    if layout.ways is not None:
        return layout.ways[axis].degree
    return jnp.prod(splits(layout, axis))


def head_ways(layout: Layout) -> Scalar:
    """Data-parallel ranks that share the output head: one where a tensor group of
    several has it."""
    if layout.head is None or layout.attention == "sp_tp_sp":
        return jnp.ones(())
    ways = smooth.smaller(layout.head, degree(layout, "dp"))
    if layout.attention == "dp":
        return ways
    alone = 1.0 - smooth.within(degree(layout, "tp") - 1.0, 0.0, 1.0)
    return 1.0 + (ways - 1.0) * alone


def counted(layout: Layout) -> Layout:
    """The layout with its axes taken apart and multiplied once for all who ask."""
    # each of their slopes is computed once, before they make up that of the whole
    splits = jax.lax.optimization_barrier(jnp.unstack(layout.factor))
    degrees = [math.prod(jnp.unstack(split)) for split in splits]
    ways = map(Ways, splits, jax.lax.optimization_barrier(degrees))
    return layout.replace(ways=dict(zip(AXES, ways, strict=True)))


def devices(layout: Layout) -> Scalar:
    """Devices that the attention axes span; they are the first rows of the matrix."""
    tp, *others = (degree(layout, axis) for axis in ATTENTION_AXES)
    return math.prod(others, start=tp)


def place(
    degrees: dict[str, float], sizes: list[float], order: tuple[str, ...]
) -> dict[str, list[float]]:
    """Fill the tiers from the innermost with the axes in `order`, on the host.

    Each axis takes what is left of a tier before it goes on to the next one, so ranks
    of the first axis are contiguous. Where a degree does not divide a tier the last
    split is fractional: a group of 24 devices on nodes of 16 spans 1.5 nodes.

    Returns:
        For each axis the ways it splits within each tier.

    Raises:
        ValueError: the devices do not fit into the tiers.
    """
    free = [float(size) for size in sizes]
    placed = {}
    for axis in order:
        left = float(degrees[axis])
        row = []
        for t, room in enumerate(free):
            take = min(left, room)
            free[t] = room / take
            left /= take
            row.append(take)
        if left > 1.0 + 1e-9:
            raise ValueError(
                f"{axis} = {degrees[axis]:g} does not fit: the machine's tiers hold"
                f" {np.prod(sizes):g} devices in all"
            )
        placed[axis] = row
    return placed


def placement(
    degrees: dict[str, float], sizes: list[float], order: tuple[str, ...]
) -> np.ndarray:
    """The placement matrix of a rank order such as `tp-cp-dp-pp`, (axis, tier).

    The expert axes fold over the same devices, `etp` innermost and then `ep`, in front
    of the pipeline axis wherever `order` has it.

    Raises:
        ValueError: the devices do not fit into the tiers.
    """
    attention = place(degrees, sizes, order)
    pipeline_first = order.index("pp") == 0
    expert = ("etp", "ep", "edp")
    expert_order = ("pp", *expert) if pipeline_first else (*expert, "pp")
    rows = place(degrees, sizes, expert_order) | attention
    return np.array([rows[axis] for axis in AXES])


def instances(pool: Pool) -> Scalar:
    """How many instances of its layout a pool holds; need not be whole."""
    return pool.devices / devices(pool.layout)


def excess(layout: Layout, sizes: Float[Array, " tier"]) -> Float[Array, ""]:
    """Worst ratio of splits to a tier's size, minus one; 0 where everything fits."""
    used = [
        jnp.prod(layout.factor[np.array([AXES.index(axis) for axis in axes])], axis=0)
        for axes in (ATTENTION_AXES, EXPERT_AXES)
    ]
    ratios = jnp.stack(used) / sizes - 1.0
    return smooth.larger(smooth.largest(ratios.ravel(), None), 0.0)
