"""Work of the operators of a block, as one struct of arrays over operators.

An operator is declared by names: which token count gives its rows, which degree splits
its columns. `tabulate` turns declarations into arrays that share a trailing operator
axis, by sums of (feature x constant mask) and products with such masks. No array is
gathered over a batch of scenarios, and none of operators is concatenated over it, so a
vmapped table compiles fast and vectorizes well.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

from .._types import Leaf, Real, Scalar
from ..job.workload import BYTES, Sizes
from ..machine.chip import EIGHT, PLAIN
from ..model.architecture import Architecture
from ..model.feed_forwards import Experts
from ..switch import either

SOFTMAX_FLOP = 12.0
"""Vector FLOP per score (assumed: scale, maximum, subtract, sum and two conversions one
each, an exponential about six)."""

SCAN = "index scores"
"""Operator of an indexer: attention without a softmax."""

INDEX_FLOP = 3.0
"""Vector FLOP of an indexer's score of one head: rectified, weighed, summed."""

CHOICE = "choice"
"""Kind of operator that finds the largest of many scores."""

GATHER = "gather"
"""Kind of operator that moves once more what an indexer has chosen, on machines that
can't multiply it as it comes."""

VECTOR = ("vector", CHOICE, GATHER)
"""Kinds that use no matrix unit."""

BIASED_GATE = "biased gate"
"""Size of an element that the gate of biased experts moves beside fused kernels."""

Form = float | Mapping[str, float]
"""A number, or a sum of named sizes, each times a number; `one` is 1."""


class Op(NamedTuple):
    """Declaration of one operator; features are named, sizes are per whole model.

    A GEMM multiplies `groups` times (rows x depth) by (depth x columns). Attention is
    written as rows = query-key pairs, columns = heads x (key + value width), depth = 1,
    so that 2 x rows x columns x depth is its FLOP too. A vector operator has rows x
    columns elements.
    """

    name: str
    block: str
    kind: str
    """`gemm`, `attention`, `vector`, `choice` or `gather`."""
    rows: str
    columns: Scalar
    depth: Scalar = 1.0
    groups: str = "one"
    split_columns: str = "one"
    split_depth: str = "one"
    dtype: str = "bf16"
    """Tensor class of its format; `bf16` for what is always computed so."""
    weight_bytes: Form = 0.0
    """Bytes of an element, likewise the next two."""
    in_bytes: Form = 0.0
    out_bytes: Form = 0.0
    extra: tuple[str, Scalar] = ("one", 0.0)
    """Feature and bytes for each unit of it, such as key-value cache read."""
    vector_flop: Scalar = 0.0
    """Vector FLOP for each row and column."""
    launches: Form = 1.0
    role: str = ""
    """What of a block it is where that matters: `norm`, `cache` (written), `core` of a
    mixer (tokens meeting), or `core gemm` (a projection that belongs to the core)."""


def choice(share: Scalar = 1.0) -> Op:
    """An indexer finds the largest of its scores, of which there is one for `share` of
    the tokens scanned; they are written in fp32 and read again."""
    return Op(
        "index choice",
        "attention",
        CHOICE,
        "scanned",
        share,
        out_bytes=8.0,
        role="core",
    )


def gather(width_bytes: Scalar) -> Op:
    """Chosen entries of the cache on their way from where they lie to the matrix units,
    in the kernel that multiplies them."""
    return Op(
        "gathered entries",
        "attention",
        GATHER,
        "kv_read",
        width_bytes,
        out_bytes=1.0,
        launches=0.0,
        role="core",
    )


def gemm(
    name: str,
    rows: str,
    columns: Scalar,
    depth: Scalar,
    **more: Form | str | tuple[str, Scalar],
) -> Op:
    """A weight GEMM of a mixer."""
    op = Op(
        name,
        "attention",
        "gemm",
        rows,
        columns,
        depth,
        dtype="activation",
        weight_bytes={"weight": 1.0},
        in_bytes={"activation": 1.0},
        out_bytes=2.0,
    )
    return op._replace(**more)


FEATURES = (
    *("pairs", "kv_read", "kv_write", "kv_expanded"),
    *("per_kv", "local_heads", "batch_heads", "sequences", "scanned", "scan_read"),
)
"""That differ between mixers."""


def at_place(feature: str, place: int) -> str:
    """The name of a feature that a mixer or feed-forward half has for itself."""
    return f"{feature}.{place}"


def placed(op: Op, place: int) -> Op:
    """An operator that reads the features of its mixer."""

    def local(feature: str) -> str:
        return at_place(feature, place) if feature in FEATURES else feature

    weight = op.weight_bytes
    if isinstance(weight, Mapping) and "weight" in weight:
        weight = {at_place("mixer weight", place): weight["weight"]}
    return op._replace(
        weight_bytes=weight,
        rows=local(op.rows),
        groups=local(op.groups),
        split_columns=local(op.split_columns),
        extra=(local(op.extra[0]), op.extra[1]),
    )


def sizes_by_name(
    a: Architecture,
    sizes: Sizes,
    trains: bool = False,
    unpacks: bool = False,
    gate_bytes: Scalar | float = 0.0,
    joint: Scalar | float = 0.0,
) -> dict[str, Scalar]:
    r"""What forms are made of: bytes of an element by tensor class, and flags.

    A weight that a kernel unpacks apart from its product is read as stored, written in
    the activations' format and read again: s + 2 a bytes for s < a, where a fused kernel
    reads s. So 4 bits under 16 cost 4.5 bytes, where 16-bit weights cost 2.

    Weights that a checkpoint leaves wider than the job's activations, such as attention
    in 16 bits beside experts in 4, are multiplied in their own format: no kernel rounds
    the activations of such a module.

    Args:
        trains: all weights have the job's format, however a file stores them.
        unpacks: weights narrower than activations are unpacked apart.
        gate_bytes: moved beside fused kernels for an element of the width of experts
            with biases.
        joint: 1 where experts lie on the tensor group that has the tokens.
    """
    flags = {"dropout": a.dropout.on, "joint": joint}

    def add(name: str, place: int, ratio: Scalar) -> None:
        name, moved = at_place(name, place), 0.0
        stored = sizes.weight if trains else sizes.weight * ratio
        if unpacks:
            moved = either(stored < sizes.activation, 2.0 * sizes.activation, 0.0)
        flags[name] = stored + moved
        if not trains:
            wider = either(stored > 1.5, BYTES[PLAIN], BYTES["fp8"])
            keeps = stored < 1.5 * sizes.activation
            flags[product_of(name)] = either(keeps, sizes.activation, wider)

    for place, mixer in enumerate(a.mixers):
        add("mixer weight", place, mixer.stored)
    for place, half in enumerate(a.feed_forwards):
        flags[at_place("gated", place)] = half.gated.on
        add("weight", place, half.stored)
        if isinstance(half, Experts) and half.has_shared:
            add("shared weight", place, half.shared_stored)
    if a.experts is not None:
        flags[BIASED_GATE] = a.experts.biased.on * gate_bytes
    flags["narrow_head"] = either(sizes.head < BYTES["bf16"], 1.0, 0.0)
    plain = {PLAIN: BYTES[PLAIN], EIGHT: BYTES["fp8"]}
    return plain | sizes._asdict() | flags


def product_of(weight: str) -> str:
    """Name of the bytes of an element that a weight's product multiplies."""
    return f"{weight} product"


FEW = 3
"""Traced numbers of a column that are not worth a product."""


def placed_in(values: Sequence[Scalar], masks: Sequence[np.ndarray]) -> Real:
    """Sum of (number x constant mask).

    A stack of a column over a batch is a branch for each entry in the innermost loop, and
    a long sum takes many equations: more than a few are stacked alone and placed by a
    product.
    """
    if len(values) > FEW:
        row = jnp.stack([jnp.asarray(value, float) for value in values])
        return jnp.dot(row, np.stack(masks), precision=jax.lax.Precision.HIGHEST)
    total = 0.0
    for value, mask in zip(values, masks, strict=True):
        total = total + value * mask
    return total


def evaluated(
    forms: Sequence[Form], sizes: Mapping[str, Scalar]
) -> Float[Array, " form"] | Float[np.ndarray, " form"]:
    """The number of each form, as a sum of (size x constant column)."""
    maps = [form if isinstance(form, Mapping) else {"one": form} for form in forms]
    known = np.array([form.get("one", 0.0) for form in maps])
    names = dict.fromkeys(name for form in maps for name in form if name != "one")
    masks = [np.array([form.get(name, 0.0) for form in maps]) for name in names]
    return known + placed_in([sizes[name] for name in names], masks)


class OpTable(struct.PyTreeNode, kw_only=True, frozen=True):
    """Work of each operator per device; leaves share a trailing `op` axis."""

    rows: Leaf
    columns: Leaf
    depth: Leaf
    groups: Leaf
    memory_bytes: Leaf
    vector_flop: Leaf
    launches: Leaf
    element_bytes: Leaf
    """Of what matrix units multiply."""
    widened: Leaf | None = None
    """1 where weights wider than the job's activations set that format; None where none
    could."""
    names: tuple[str, ...] = struct.field(pytree_node=False)
    blocks: tuple[str, ...] = struct.field(pytree_node=False)
    kinds: tuple[str, ...] = struct.field(pytree_node=False)
    dtypes: tuple[str, ...] = struct.field(pytree_node=False)
    kind: str = struct.field(pytree_node=False, default="op_table")

    def of_kind(self, *kinds: str) -> np.ndarray:
        """1 for each operator of some kinds and 0 for others, (op,)."""
        return np.array([float(kind in kinds) for kind in self.kinds])


def select(values: Mapping[str, Scalar], names: Sequence[str]) -> Real:
    """`values[names[i]]` for each operator i."""
    every = [*dict.fromkeys(names)]
    masks = [np.array([float(other == name) for other in names]) for name in every]
    return placed_in([values[name] for name in every], masks)


def column(values: Sequence[Scalar | int]) -> Real:
    """Numbers of the operators as one array."""
    numbers = float | int | np.ndarray | np.generic
    traced = {id(value): value for value in values if not isinstance(value, numbers)}
    known = np.array([0.0 if id(value) in traced else float(value) for value in values])
    masks = [np.array([float(id(value) == key) for value in values]) for key in traced]
    return known + placed_in([*traced.values()], masks)


def tabulate(
    ops: list[Op], features: Mapping[str, Scalar], sizes: Mapping[str, Scalar]
) -> OpTable:
    """Evaluate declarations with a scenario's features (scalars, traced).

    `features["one"]` is 1. Splits multiply: a feature such as `per_tp` is 1 / tp.

    Args:
        sizes: what forms are made of.
    """
    rows = select(features, [op.rows for op in ops])
    groups = select(features, [op.groups for op in ops])
    columns = column([op.columns for op in ops])
    columns = columns * select(features, [op.split_columns for op in ops])
    depth = column([op.depth for op in ops])
    depth = depth * select(features, [op.split_depth for op in ops])
    weight = evaluated([op.weight_bytes for op in ops], sizes)
    products = [_product(op, sizes) for op in ops]
    renamed = [_renamed(op.in_bytes, of) for op, of in zip(ops, products)]
    read = evaluated(renamed, sizes)
    element = evaluated([{of: 1.0} for of in products], sizes)
    widened = None
    if products != [op.dtype for op in ops]:
        least = evaluated([{op.dtype: 1.0} for op in ops], sizes)
        widened = either(element > least, 1.0, 0.0)
    written = evaluated([op.out_bytes for op in ops], sizes)
    extra = column([op.extra[1] for op in ops])
    extra = extra * select(features, [op.extra[0] for op in ops])
    once = columns * depth * weight + rows * (depth * read + columns * written)
    return OpTable(
        rows=rows,
        columns=columns,
        depth=depth,
        groups=groups,
        memory_bytes=groups * once + extra,
        vector_flop=groups * rows * columns * column([op.vector_flop for op in ops]),
        launches=evaluated([op.launches for op in ops], sizes),
        element_bytes=element,
        widened=widened,
        names=tuple(op.name for op in ops),
        blocks=tuple(op.block for op in ops),
        kinds=tuple(op.kind for op in ops),
        dtypes=tuple(op.dtype for op in ops),
    )


def _product(op: Op, sizes: Mapping[str, Scalar]) -> str:
    """Name of the size of what an operator multiplies."""
    weights = op.weight_bytes if isinstance(op.weight_bytes, Mapping) else {}
    names = (product_of(name) for name in weights if op.dtype == "activation")
    return next((name for name in names if name in sizes), op.dtype)


def _renamed(form: Form, activation: str) -> Form:
    """A form with activations of another name."""
    if not isinstance(form, Mapping):
        return form
    return {activation if n == "activation" else n: by for n, by in form.items()}


def matrix_flop(table: OpTable):
    """Useful matrix FLOP of each operator, a multiply-add counted as two."""
    is_matrix = 1.0 - table.of_kind(*VECTOR)
    return 2.0 * table.groups * table.rows * table.columns * table.depth * is_matrix
