r"""Time of operators on one device.

$$ t = o(o(o(t_\mathrm{matrix}, t_\mathrm{vector}), t_\mathrm{memory}),
t_\mathrm{launch}), \qquad o = \mathrm{overlap\_s} $$

A launch hides behind the kernel before it, so it counts in full only where kernels are
shorter than their launches (small batches). So does the latency of a GEMM's depth, which
a core adds up one block after another however few tiles there are.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Array, Float

from .. import smooth
from .._types import Real, Sharpness
from ..job.workload import BYTES
from ..machine.chip import EIGHT, PLAIN, Chip
from ..switch import either
from ..work.table import (
    CHOICE,
    GATHER,
    SCAN,
    SOFTMAX_FLOP,
    VECTOR,
    OpTable,
    matrix_flop,
    select,
)

GRANULE = 16.0
"""Rows and columns that matrix units process at least: 16 on Ascend's cube (Liao et al.,
HPCA 2021); assumed for others, whose instructions take 8 or 16."""

RESOURCES = ("matrix", "vector", "memory", "launch")


def matrix_s(
    chip: Chip, table: OpTable, sharpness: Sharpness
) -> Float[Array, "*pass op"]:
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
    an efficiency of their own and a fill, and neither ramps nor waves.
    """
    rows, row_tiles = _whole(table.rows, chip.tile_rows, sharpness)
    columns, column_tiles = _whole(table.columns, chip.tile_columns, sharpness)
    waves = table.groups * row_tiles * column_tiles / chip.matrix_cores
    several = smooth.larger(waves, 1.0)
    filled = smooth.ceil(several, sharpness) / several
    half_rows, half_columns = chip.half_rows, chip.half_columns
    area = rows * columns * filled
    area = area + half_rows * columns + half_columns * rows + half_rows * half_columns
    gemm, attention = table.of_kind("gemm"), table.of_kind("attention")
    ramped = 2.0 * table.groups * (table.depth + chip.half_depth) * area
    peaks = _peaks(chip, table)
    multiplied = gemm * ramped / _gemm_rate(chip, table, peaks)
    rate = peaks * chip.attention_efficiency
    attended = matrix_flop(table) / rate + table.launches * chip.attention_fill_s
    return multiplied + attention * attended


def _gemm_rate(chip: Chip, table: OpTable, peaks: Real) -> Real:
    """Rate of an unlimited GEMM of each operator's dtype."""
    kept = either(table.element_bytes == 1.0, chip.eight_bit_efficiency, 1.0)
    kept = either(table.element_bytes < 1.0, chip.four_bit_efficiency, kept)
    return peaks * chip.gemm_efficiency * kept


def _peaks(chip: Chip, table: OpTable) -> Real:
    """Matrix peak of each operator's dtype."""
    peaks = select(chip.matrix_flop_per_s, table.dtypes)
    if table.widened is None:
        return peaks
    plain, eight = (chip.matrix_flop_per_s[name] for name in (PLAIN, EIGHT))
    wider = either(table.element_bytes == BYTES[PLAIN], plain, eight)
    return either(table.widened > 0.5, wider, peaks)


def _whole(size: Real, tile: Real, sharpness: Sharpness) -> tuple[Real, Real]:
    """A size in whole tiles (below one tile: granules), and the number of tiles."""
    tiles = smooth.ceil(size / tile, sharpness)
    small = smooth.smaller(GRANULE * smooth.ceil(size / GRANULE, sharpness), tile)
    return either(size > tile, tiles * tile, small), tiles


def resources_s(
    chip: Chip, table: OpTable, sharpness: Sharpness
) -> dict[str, Float[Array, "*pass op"]]:
    """Time that each operator uses each resource, on all cores and before overlap.

    Returns:
        Seconds of each operator by the names in `RESOURCES`.
    """
    ramp = chip.half_memory_bytes * (table.launches > 0)
    memory_rate = chip.memory_bytes_per_s * chip.memory_efficiency
    is_vector, gemm = table.of_kind(*VECTOR), table.of_kind("gemm")
    cost = chip.vector_launch_s * is_vector + chip.matrix_launch_s * (1.0 - is_vector)
    cost = cost + gemm * either(table.element_bytes < 1.0, chip.four_bit_launch_s, 0.0)
    used = [
        matrix_s(chip, table, sharpness),
        table.vector_flop / _vector_rate(chip, table) + _chosen_s(chip, table),
        (table.memory_bytes * _passes(chip, table) + ramp) / memory_rate,
        table.launches * cost + gemm * table.depth * chip.depth_latency_s,
    ]
    return dict(zip(RESOURCES, used, strict=True))


def _vector_rate(chip: Chip, table: OpTable) -> Real:
    """Vector FLOP per second of each operator.

    Softmax on vector lanes is vector work as any other. Where a unit of its own computes
    exponentials, a score takes as long as one there: the rest of softmax runs on the
    lanes beside it, in less time.

    Reference: FlashAttention-3, arXiv 2407.08608, section 3.1 (3.9 T exponentials/s
    beside 989 TFLOP/s of products on H100).
    """
    lanes = chip.vector_flop_per_s * chip.vector_efficiency
    attends = zip(table.kinds, table.names, strict=True)
    scores = np.array([kind == "attention" and name != SCAN for kind, name in attends])
    unit = scores & (chip.exponential_flop_per_s > 0.0)
    return either(unit, SOFTMAX_FLOP * chip.exponential_flop_per_s, lanes)


def _passes(chip: Chip, table: OpTable) -> Real:
    """How often the bytes of each operator are moved."""
    if GATHER not in table.kinds:
        return 1.0
    return 1.0 + table.of_kind(GATHER) * (chip.gather_passes - 1.0)


def _chosen_s(chip: Chip, table: OpTable) -> Real:
    """Time of finding the largest of an indexer's scores, which grows with their number:
    no work of a vector unit is known whose rate would set it (`CHOICE`)."""
    if CHOICE not in table.kinds:
        return 0.0
    return table.of_kind(CHOICE) * table.rows * table.columns * chip.choice_s


def roofline_s(
    used: Mapping[str, Real], exposed: Real, slowdown: Real, sharpness: Sharpness
) -> Array:
    """Time of operators whose resources work side by side.

    Args:
        used: seconds by resource, from `resources_s`.
        exposed: share of the shorter of two activities that a kernel does not hide.
        slowdown: factor on matrix and vector time of a stream that has only part of
            the cores; memory time is not slowed.
    """
    matrix, vector = slowdown * used["matrix"], slowdown * used["vector"]
    compute = smooth.overlap_s(matrix, vector, exposed, sharpness)
    busy = smooth.overlap_s(compute, used["memory"], exposed, sharpness)
    return smooth.overlap_s(busy, used["launch"], exposed, sharpness)


def filled_s(chip: Chip, table: OpTable) -> Float[Array, "*pass op"]:
    """Matrix work at the rate of an unlimited GEMM, which fills the matrix units."""
    return matrix_flop(table) / _gemm_rate(chip, table, _peaks(chip, table))
