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
"""Rows that matrix units process at least: 16 on Ascend's cube and on tensor cores."""

RESOURCES = ("matrix", "vector", "memory", "launch")


class OpTimes(NamedTuple):
    """Seconds of each operator: in all, and its use of each resource."""

    total_s: Float[Array, " op"]
    resource_s: dict[str, Float[Array, " op"]]
    """Before overlap, by the names in `RESOURCES`."""

    @property
    def memory_s(self) -> Float[Array, " op"]:
        return self.resource_s["memory"]


def matrix_s(chip: Chip, table: OpTable, sharpness: Sharpness):
    r"""Time of the matrix units, whole tiles and waves included.

    $$ t = \frac{2 g\,(M' + M_h)(N + N_h)(K + K_h)}{P\,e}\;
    \frac{\lceil w \rceil}{w}, \quad
    w = \frac{g\lceil M/T_M\rceil\lceil N/T_N\rceil}{C} $$

    M' is M in whole granules of 16 rows. An operator of size M reaches M / (M + M_h) of
    the efficiency e, likewise in N and K. With more tiles than the C cores the last
    wave is partly idle; with fewer, kernels split K instead. Attention kernels have an
    efficiency of their own and neither ramps nor waves.
    """
    rows = GRANULE * smooth.ceil(table.rows / GRANULE, sharpness)
    ramped = (
        2.0
        * table.groups
        * (rows + chip.half_rows)
        * (table.columns + chip.half_columns)
        * (table.depth + chip.half_depth)
    )
    tiles = (
        table.groups
        * smooth.ceil(table.rows / chip.tile_rows, sharpness)
        * smooth.ceil(table.columns / chip.tile_columns, sharpness)
    )
    waves = tiles / chip.matrix_cores
    several = jnp.maximum(waves, 1.0)
    filled = smooth.ceil(several, sharpness) / several
    gemm = np.array([float(kind == "gemm") for kind in table.kinds])
    attention = np.array([float(kind == "attention") for kind in table.kinds])
    work = gemm * ramped * filled / chip.gemm_efficiency
    work = work + attention * matrix_flop(table) / chip.attention_efficiency
    peak = select(chip.matrix_flop_per_s, list(table.dtypes))
    return work / peak


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
    return OpTimes(total, dict(zip(RESOURCES, used)))
