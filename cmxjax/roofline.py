r"""Time of operators on one device.

$$ t = o(o(o(t_\mathrm{matrix}, t_\mathrm{vector}), t_\mathrm{memory}),
t_\mathrm{launch}), \qquad o = \mathrm{overlap\_s} $$

A launch hides behind the kernel before it, so it counts in full only where kernels are
shorter than their launches (small batches).
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from . import smooth
from ._types import Real, Sharpness
from .hardware import Chip
from .ops.table import OpTable, matrix_flop, select

GRANULE = 16.0
"""Rows and columns that matrix units process at least: 16 on Ascend's cube (Liao et al.,
HPCA 2021); assumed for others, whose instructions take 8 or 16."""

RESOURCES = ("matrix", "vector", "memory", "launch")


class OpTimes(NamedTuple):
    """Seconds of each operator: in all, and its use of each resource."""

    total_s: Float[Array, " op"]
    compute_s: Float[Array, " op"]
    """Matrix work at the rate of an unlimited GEMM, which fills the matrix units."""
    resource_s: dict[str, Float[Array, " op"]]
    """Before overlap, by the names in `RESOURCES`."""

    @property
    def memory_s(self) -> Float[Array, " op"]:
        return self.resource_s["memory"]


def matrix_s(chip: Chip, table: OpTable, sharpness: Sharpness) -> Float[Array, " op"]:
    r"""Time of the matrix units, whole tiles and waves included.

    $$ t = \frac{2 g}{P\,e} (K + K_h) \Bigl(M' N' \frac{\lceil w \rceil}{w}
    + M_h N' + N_h M' + M_h N_h\Bigr), \quad
    w = \frac{g}{C} \Bigl\lceil\frac{M}{T_M}\Bigr\rceil
    \Bigl\lceil\frac{N}{T_N}\Bigr\rceil $$

    M' and N' are whole tiles, or whole granules of 16 below one tile. Without
    quantization the bracket is (M + M_h)(N + N_h): an operator of size M reaches
    M / (M + M_h) of the efficiency e, likewise in N and K. With more tiles than the C
    cores the last wave is partly idle; with fewer, kernels split K instead. Every term
    grows with M, N and g, so more work never takes less time. Attention kernels have
    an efficiency of their own and neither ramps nor waves.
    """
    rows, row_tiles = _whole(table.rows, chip.tile_rows, sharpness)
    columns, column_tiles = _whole(table.columns, chip.tile_columns, sharpness)
    waves = table.groups * row_tiles * column_tiles / chip.matrix_cores
    several = jnp.maximum(waves, 1.0)
    filled = smooth.ceil(several, sharpness) / several
    half_rows, half_columns = chip.half_rows, chip.half_columns
    area = rows * columns * filled
    area = area + half_rows * columns + half_columns * rows + half_rows * half_columns
    gemm = np.array([float(kind == "gemm") for kind in table.kinds])
    attention = np.array([float(kind == "attention") for kind in table.kinds])
    ramped = 2.0 * table.groups * (table.depth + chip.half_depth) * area
    work = gemm * ramped / chip.gemm_efficiency
    work = work + attention * matrix_flop(table) / chip.attention_efficiency
    return work / _peaks(chip, table)


def _peaks(chip: Chip, table: OpTable) -> Real:
    """Matrix peak of each operator's dtype."""
    peaks = chip.matrix_flop_per_s
    some = next(iter(peaks))  # what has no matrix work needs no peak for its dtype
    named = [
        dtype if kind != "vector" or dtype in peaks else some
        for dtype, kind in zip(table.dtypes, table.kinds, strict=True)
    ]
    return select(peaks, named)


def _whole(size: Real, tile: Real, sharpness: Sharpness) -> tuple[Real, Real]:
    """A size in whole tiles (below one tile: granules), and the number of tiles."""
    tiles = smooth.ceil(size / tile, sharpness)
    small = jnp.minimum(GRANULE * smooth.ceil(size / GRANULE, sharpness), tile)
    return jnp.where(size > tile, tiles * tile, small), tiles


def op_times(
    chip: Chip,
    table: OpTable,
    slowdown: Real,
    scale,
    sharpness: Sharpness,
) -> OpTimes:
    """Time of each operator of a table.

    Args:
        slowdown: factor on matrix and vector time of a stream that has only part of
            the cores; memory time is not slowed.
        scale: factors on each resource time, (op, resource), or None for 1; the
            breakdown is the derivative with respect to them.
    """
    factor = [1.0] * 4 if scale is None else [scale[:, i] for i in range(4)]
    matrix = matrix_s(chip, table, sharpness) * slowdown * factor[0]
    vector_rate = chip.vector_flop_per_s * chip.vector_efficiency
    vector = table.vector_flop / vector_rate * slowdown * factor[1]
    ramp = chip.half_memory_bytes * (table.launches > 0)
    memory_rate = chip.memory_bytes_per_s * chip.memory_efficiency
    memory = (table.memory_bytes + ramp) / memory_rate * factor[2]
    is_vector = np.array([float(kind == "vector") for kind in table.kinds])
    cost = chip.vector_launch_s * is_vector + chip.matrix_launch_s * (1.0 - is_vector)
    launch = table.launches * cost * factor[3]
    exposed = chip.roofline_exposed_fraction
    compute = smooth.overlap_s(matrix, vector, exposed, sharpness)
    busy = smooth.overlap_s(compute, memory, exposed, sharpness)
    total = smooth.overlap_s(busy, launch, exposed, sharpness)
    used = (matrix, vector, memory, launch)
    filled = matrix_flop(table) / (_peaks(chip, table) * chip.gemm_efficiency)
    return OpTimes(total, filled, dict(zip(RESOURCES, used, strict=True)))
