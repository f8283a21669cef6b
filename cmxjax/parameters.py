"""Calibrated parameters: a flat dict of unconstrained scalars keyed by leaf path."""

import functools
from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from ._types import Leaf, PyTree, Real

T = TypeVar("T")

FRACTIONS = ("efficiency", "fraction", "share")
"""Leaves whose names end so lie in (0, 1) and move by a shift of their logit."""


@functools.lru_cache(maxsize=2**16)
def path_of(key_path: tuple) -> str:
    """A leaf's dotted path, e.g. `chip.memory_efficiency`."""
    return jax.tree_util.keystr(key_path, simple=True, separator=".")


@functools.lru_cache(maxsize=1024)
def paths_of(structure: Any) -> tuple[str, ...]:
    """Dotted path of each leaf of a tree of this structure."""
    tree = jax.tree.unflatten(structure, range(structure.num_leaves))
    return tuple(path_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree))


def is_switch(path: str) -> bool:
    """Whether the leaf at `path` says that something is there; see `Switch`."""
    return path == "on" or path.endswith(".on")


def leaf_paths(tree: PyTree) -> dict[str, Leaf]:
    """All numbers of a tree by dotted path, in tree order; switches are none."""
    return {path: x for path, x in every_leaf(tree).items() if not is_switch(path)}


def every_leaf(tree: PyTree) -> dict[str, Leaf]:
    """All leaves of a tree by dotted path, in tree order, switches too."""
    leaves, structure = jax.tree.flatten(tree)
    return dict(zip(paths_of(structure), leaves, strict=True))


def is_fraction(path: str) -> bool:
    """Whether the leaf at `path` is confined to (0, 1)."""
    return path.rsplit(".", 1)[-1].endswith(FRACTIONS)


def shifted(path: str, leaf: Real, theta: Real) -> Array:
    r"""A leaf moved by its unconstrained parameter.

    Positive leaves become $x e^\theta$. Fractions become
    $x e^\theta / (1 - x + x e^\theta)$, a shift of the logit by theta that leaves 0
    and 1 where they are.
    """
    scaled = jnp.multiply(leaf, jnp.exp(theta))
    return scaled / (1.0 - leaf + scaled) if is_fraction(path) else scaled


def apply(tree: T, theta: Mapping[str, Real]) -> T:
    """Move the leaves named in `theta`; an empty theta is the spec as printed.

    Raises:
        KeyError: a name in `theta` is not a leaf of `tree`.
    """
    if not theta:
        return tree
    leaves, structure = jax.tree.flatten(tree)
    place = {path: i for i, path in enumerate(paths_of(structure))}
    if unknown := sorted(p for p in theta if p not in place or is_switch(p)):
        raise KeyError(f"no such parameter: {unknown}; known: {sorted(leaf_paths(tree))}")
    for path, by in theta.items():
        leaves[place[path]] = shifted(path, leaves[place[path]], by)
    return jax.tree.unflatten(structure, leaves)


def shift_all(tree: T, shifts: Float[Array, " number"]) -> T:
    """Every number of a tree moved by a parameter of its own.

    Args:
        shifts: as `theta`, in the order of the leaves and their entries.
    """
    row, restored = ravel_pytree(tree)
    inside = np.concatenate(
        [np.full(np.size(x), is_fraction(path)) for path, x in every_leaf(tree).items()]
    )
    scaled, bounded = row * jnp.exp(shifts), row * inside
    return restored(scaled / (1.0 - bounded + scaled * inside))
