"""The program that evaluates tiles of a group of jobs, on all devices at once."""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ..answers.feasible import feasible, value
from ..phases.metrics import metrics
from .fast import Target
from .jobs import Group

AXIS = "tiles"
MOST_TILES = 4
"""Of one call on one device: then the call itself costs nothing."""

SPREAD, WHOLE = PartitionSpec(AXIS), PartitionSpec()


class Kind(NamedTuple):
    """What a program is made for."""

    varying: tuple[int, ...]
    """Leaves that each cell has its own of."""
    levels: tuple[tuple[tuple[int, ...], int], ...]
    """What is nested, from the outside in, cells first: the targets that a level sets,
    and how many points of it a tile has."""
    fields: tuple[str, ...]
    tiles: int
    """Of a call on one device."""
    dtype: str


def mesh_of() -> Mesh:
    """All local devices, in a row."""
    return Mesh(np.array(jax.local_devices()), (AXIS,))


class Program:
    """Evaluates tiles of a group.

    Args:
        group: what is fixed of its jobs.
        kind: what varies.
    """

    def __init__(self, group: Group, kind: Kind, mesh: Mesh):
        self.kind = kind
        self.wide = kind.dtype == "float64"
        held = [
            np.zeros(0) if i in kind.varying else leaf
            for i, leaf in enumerate(group.template)
        ]
        with jax.enable_x64(self.wide):
            everywhere = NamedSharding(mesh, WHOLE)
            self.held = [jax.device_put(self._cast(x), everywhere) for x in held]
        self.run = _compiled(group.structure, group.targets, kind, mesh)

    def _cast(self, leaf: np.ndarray) -> np.ndarray:
        return np.asarray(leaf, self.kind.dtype)

    def __call__(
        self, leaves: Sequence[np.ndarray], values: Sequence[Sequence[np.ndarray]]
    ) -> tuple[Array, ...]:
        """Start to evaluate.

        Args:
            leaves: that vary, (tile, cell, ...) or (tile, ...) where a tile has one.
            values: of the targets of each level, (tile, point) or (tile,).

        Returns:
            Each field and whether it is feasible, (tile, ...points of the levels).
        """
        with jax.enable_x64(self.wide):
            rows = [self._cast(x) for x in leaves]
            columns = [[self._cast(x) for x in level] for level in values]
            return self.run(self.held, (rows, columns))


@lru_cache(maxsize=64)
def _compiled(
    structure: Any, targets: tuple[Target, ...], kind: Kind, mesh: Mesh
) -> Callable[..., tuple[Array, ...]]:
    """The compiled program, which later sweeps of the same structure find again."""
    point = partial(_point, structure, targets, kind)

    def tiles(held: list[Array], rows: tuple) -> tuple[Array, ...]:
        if kind.tiles == 1:
            one = _tile(point, kind, held, jax.tree.map(lambda x: x[0], rows))
            return jax.tree.map(lambda x: x[None], one)
        return jax.lax.map(partial(_tile, point, kind, held), rows)

    return jax.jit(
        jax.shard_map(
            tiles,
            mesh=mesh,
            in_specs=(WHOLE, SPREAD),
            out_specs=SPREAD,
            check_vma=False,  # loops of the model begin with constants
        )
    )


def _tile(
    point: Callable[..., tuple[Array, ...]], kind: Kind, held: list[Array], tile: tuple
) -> tuple[Array, ...]:
    """One tile: points of all levels, nested."""
    leaves, values = tile
    nested = partial(point, held)
    for level in reversed(range(len(kind.levels))):
        if (size := kind.levels[level][1]) > 1:
            over = [0 if level == 0 else None]
            over += [0 if i == level else None for i in range(len(values))]
            nested = jax.vmap(nested, tuple(over), axis_size=size)
    return nested(leaves, *values)


def _point(
    structure: Any,
    targets: tuple[Target, ...],
    kind: Kind,
    held: list[Array],
    own: list[Array],
    *values: list[Array],
) -> tuple[Array, ...]:
    """One point.

    Args:
        held: leaves that are the same for all.
        own: those that vary.
        values: of the targets of each level.
    """
    leaves = list(held)
    for i, leaf in zip(kind.varying, own, strict=True):
        leaves[i] = leaf
    for (numbers, _), column in zip(kind.levels, values, strict=True):
        for number, number_of in zip(numbers, column, strict=True):
            for leaf, entry in targets[number].leaves:
                leaves[leaf] = _placed(leaves[leaf], entry, number_of)
    machine, rest = structure
    size = machine.num_leaves
    m = metrics(
        jax.tree.unflatten(machine, leaves[:size]),
        *jax.tree.unflatten(rest, leaves[size:]),
    )
    found = [jnp.asarray(value(m, field)) for field in kind.fields]
    return (*found, feasible(m))


def _placed(leaf: Array, entry: int, number: Array) -> Array:
    if entry < 0:
        return jnp.broadcast_to(number, leaf.shape)
    return leaf.ravel().at[entry].set(number).reshape(leaf.shape)
