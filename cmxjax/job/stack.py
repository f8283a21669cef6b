"""Jobs side by side: pytrees of one kind along a leading axis, for `vmap`."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TypeGuard, TypeVar

import jax
import jax.numpy as jnp

from .._types import PyTree
from ..machine.machine import Machine
from ..machine.pad import (
    WAYS,
    padded,
    with_algorithms,
    with_tiers,
    with_torus,
    with_ways,
)
from .layout import Layout
from .workload import Decode, Serve, Train

T = TypeVar("T")
Shaped = Machine | Layout | Decode | Serve | Train

ALL_RANKS = 1e9
"""A group of ZeRO that holds all data-parallel ranks of any job."""

USUAL = {"zero_group": ALL_RANKS, "zero_prefetch": 1.0}
"""What a training job that shards has where others say it."""


def stack(trees: Sequence[T], tiers: int = 0) -> T:
    """Machines, models, workloads or layouts as one, along a new leading axis.

    Machines get as many tiers as the one with most of them, tori where any has one, and
    a switch for each algorithm that any library has; layouts as many tiers as the
    longest, and heads of one rank where others share theirs; lists of acceptances as many
    entries as the longest; training groups of ZeRO of all ranks, and a gather ahead,
    where others have any. None of it changes a number.

    Args:
        trees: of one class, at least one. Dicts of them, as phase `serve` has, too.
        tiers: of machines and layouts, if those stacked elsewhere have more.

    Returns:
        One of the class, each leaf with a leading axis as long as `trees`.

    Raises:
        ValueError: there is none, or two differ in what programs are keyed on, such as
            an engine that splits the cores and one that does not; the message names it.
    """
    if not trees:
        raise ValueError("nothing to stack; give one at least")
    nodes = [node for tree in trees for node in _nodes(tree)]
    count = max([tiers, *map(_tiers, nodes)])
    drafts = max([0, *(x.acceptance.shape[-1] for x in nodes if _drafts(x))])
    machines = [node for node in nodes if isinstance(node, Machine)]
    names = dict.fromkeys(name for m in machines for name in m.library.algorithms)
    tori = [m.tiers.torus.shape for m in machines if m.tiers.torus is not None]
    dimensions = max((shape.shape[-1] for shape in tori), default=0)
    shares = any(isinstance(x, Layout) and x.head is not None for x in nodes)
    trained = [x for x in nodes if isinstance(x, Train)]
    said = {k for k in USUAL for w in trained if getattr(w, k) is not None}
    ways = [w for w in WAYS if any(getattr(m.exchange, w) is not None for m in machines)]

    def shaped(node: PyTree) -> PyTree:
        if isinstance(node, Machine):
            machine = with_torus(with_tiers(node, count), dimensions)
            return with_ways(with_algorithms(machine, tuple(names)), ways)
        if isinstance(node, Layout):
            node = node.replace(factor=padded(node.factor, count, 1.0))
            whole = shares and node.head is None
            return node.replace(head=jnp.ones(node.factor.shape[:-2])) if whole else node
        if isinstance(node, Train):
            unsaid = (k for k in said if getattr(node, k) is None)
            shape = jnp.shape(node.zero)
            return node.replace(**{k: jnp.full(shape, USUAL[k]) for k in unsaid})
        if _drafts(node):
            return node.replace(acceptance=padded(node.acceptance, drafts, 0.0))
        return node

    alike = [jax.tree.map(shaped, tree, is_leaf=_is_shaped) for tree in trees]
    for i, other in enumerate(alike[1:], 1):
        if jax.tree.structure(other) != jax.tree.structure(alike[0]):
            where = next(_differences(alike[0], other), "their classes")
            raise ValueError(
                f"entries 0 and {i} can't be stacked: they differ in {where}"
            )
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *alike)


def _is_shaped(node: object) -> TypeGuard[Shaped]:
    return isinstance(node, Shaped)


def _nodes(tree: PyTree) -> list[Shaped]:
    return [x for x in jax.tree.leaves(tree, is_leaf=_is_shaped) if _is_shaped(x)]


def _drafts(node: object) -> TypeGuard[Decode | Serve]:
    return isinstance(node, Decode | Serve)


def _tiers(node: Shaped) -> int:
    if isinstance(node, Machine):
        return node.tiers.size.shape[-1]
    return node.factor.shape[-1] if isinstance(node, Layout) else 0


def _differences(one: object, other: object, path: str = "") -> Iterator[str]:
    """Where two trees differ in structure, with both values."""
    if type(one) is not type(other):
        yield f"{path or 'class'} ({type(one).__name__}, {type(other).__name__})"
    elif isinstance(one, dict) and isinstance(other, dict):
        for key in one.keys() | other.keys():
            where = f"{path}.{key}".lstrip(".")
            if (key in one) != (key in other):
                yield f"{where} (only one has it)"
            else:
                yield from _differences(one[key], other[key], where)
    elif dataclasses.is_dataclass(one):
        for field in dataclasses.fields(one):
            where = f"{path}.{field.name}".lstrip(".")
            mine, theirs = getattr(one, field.name), getattr(other, field.name)
            if field.metadata.get("pytree_node", True):
                yield from _differences(mine, theirs, where)
            elif mine != theirs:
                yield f"{where} ({mine!r}, {theirs!r})"
