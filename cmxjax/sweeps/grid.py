"""How the points of a sweep are numbered, and cut into tiles and parts.

Axes with a key that jobs are built for are the outer ones; each combination of their
points is a cell. The others are the inner ones. Point n is number n of all in row-major
order, cells first.

A tile is what one nested `vmap` evaluates: a block of each inner axis, about as many
points of one as of another; or several cells, where all inner axes fit. So what depends
on one axis alone is computed once for each of its values: up to five times the rate of
points one by one.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .axes import Axis

TILE = 4096
"""Points of a tile: larger ones leave the cache, smaller ones pay for each call."""

PART = 2**19
"""Points of a part: what is written at once, and lost where a sweep is killed."""

SLOW_PART = 2**13
"""The same of phase `serve`, whose points take a thousand times as long; and cells of a
part where each has a job of its own to build."""


class Grid(NamedTuple):
    """Points of a sweep and their tiles."""

    outer: tuple[Axis, ...]
    inner: tuple[Axis, ...]
    together: int
    """Cells of a tile."""
    blocks: tuple[int, ...]
    """Points of each inner axis in a tile."""
    part: int
    """Units of a part; a unit is what a tile has of one cell."""

    @property
    def cells(self) -> int:
        return math.prod(axis.size for axis in self.outer)

    @property
    def inside(self) -> int:
        """Points of a cell."""
        return math.prod(axis.size for axis in self.inner)

    @property
    def points(self) -> int:
        return self.cells * self.inside

    @property
    def counts(self) -> tuple[int, ...]:
        """Blocks of each inner axis."""
        return tuple(-(-a.size // b) for a, b in zip(self.inner, self.blocks))

    @property
    def units(self) -> int:
        """Of a cell."""
        return math.prod(self.counts)

    @property
    def parts(self) -> int:
        return -(-self.cells * self.units // self.part)

    def range_of(self, part: int) -> tuple[int, int]:
        """First unit of a part, and the first behind it."""
        last = self.cells * self.units
        return part * self.part, min((part + 1) * self.part, last)

    def inner_index(self, unit: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Points of each inner axis in units of a cell, (unit, block), and which of them
        are there."""
        places = np.unravel_index(unit, self.counts) if self.inner else ()
        found = []
        for axis, block, place in zip(self.inner, self.blocks, places):
            index = place[:, None] * block + np.arange(block)
            found.append((np.minimum(index, axis.size - 1), index < axis.size))
        return found

    def outer_index(self, cell: np.ndarray) -> list[np.ndarray]:
        """Points of each outer axis."""
        if not self.outer:
            return []
        return list(np.unravel_index(cell, [axis.size for axis in self.outer]))

    def split(self, point: np.ndarray) -> list[tuple[Axis, np.ndarray]]:
        """Each axis with its points, of points of the sweep."""
        sizes = [axis.size for axis in (*self.outer, *self.inner)]
        index = np.unravel_index(point, sizes)
        return list(zip((*self.outer, *self.inner), index))


def grid_of(
    axes: Sequence[Axis], fast: set[str], part: int = PART, tile: int = TILE
) -> Grid:
    """The grid of some axes.

    Args:
        fast: keys that no jobs are built for.
        part: points of a part, about.
        tile: points of a tile, at most.
    """
    inner = tuple(axis for axis in axes if set(axis.keys) <= fast)
    outer = tuple(axis for axis in axes if axis not in inner)
    blocks = balanced([axis.size for axis in inner], tile)
    together = 1
    if all(block == axis.size for block, axis in zip(blocks, inner)):
        cells = math.prod(axis.size for axis in outer)
        together = max(1, min(tile // math.prod(blocks), cells))
    grid = Grid(outer, inner, together, blocks, 1)
    units = max(1, part // math.prod(blocks))
    if any(axis.sample is None or set(axis.spans) - fast for axis in outer):
        units = min(units, SLOW_PART * grid.units)
    return grid._replace(part=together * max(1, units // together))


def balanced(sizes: Sequence[int], tile: int) -> tuple[int, ...]:
    """Points of each axis in a tile, about as many of one as of another."""
    blocks = [1] * len(sizes)
    left, room = sorted(range(len(sizes)), key=lambda i: sizes[i]), tile
    while left:  # what a short axis leaves goes to the longer ones
        i = left.pop(0)
        most = max(1, round(room ** (1.0 / (len(left) + 1)) - 0.5))
        count = -(-sizes[i] // most)
        blocks[i] = -(-sizes[i] // count)  # as even as can be
        room //= blocks[i]
    return tuple(blocks)
