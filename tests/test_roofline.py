"""Time of operators on one device, by hand and in its limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cmxjax as cmx
from cmxjax.machine.chip import Chip
from cmxjax.rates.roofline import RESOURCES, resources_s, roofline_s
from cmxjax.specs.build import build
from cmxjax.specs.scenario import load_scenario
from cmxjax.specs.system_load import Reference, load_system
from cmxjax.work.table import SCAN, SOFTMAX_FLOP, Op, choice, gather, tabulate
from cmxjax.work.training import tabulate_passes

CLOUDMATRIX = load_system(Reference("cloudmatrix384")).system.chip

# Activations are multiplied in 8 bits, at twice the rate.
ELEMENT_BYTES = {"activation": 1.0, "attention": 2.0, "head": 2.0, "bf16": 2.0}


def chip(**changes):
    """A chip of round numbers: no ramps, no launches, perfect overlap."""
    leaves = {
        "vector_flop_per_s": 10e12,
        "exponential_flop_per_s": 0.0,
        "memory_bytes": 64e9,
        "memory_usable_bytes": 64e9,
        "memory_reported_ratio": 1.0,
        "memory_bytes_per_s": 1e12,
        "matrix_cores": 10.0,
        "tile_rows": 128.0,
        "tile_columns": 256.0,
        "gemm_efficiency": 0.8,
        "eight_bit_efficiency": 1.0,
        "four_bit_efficiency": 1.0,
        "attention_efficiency": 0.5,
        "attention_fill_s": 0.0,
        "choice_s": 0.0,
        "gather_passes": 0.0,
        "memory_efficiency": 0.9,
        "vector_efficiency": 0.4,
        "half_rows": 0.0,
        "half_columns": 0.0,
        "half_depth": 0.0,
        "half_memory_bytes": 0.0,
        "roofline_exposed_fraction": 0.0,
        "matrix_launch_s": 0.0,
        "vector_launch_s": 0.0,
        "four_bit_launch_s": 0.0,
        "expert_start_s": 0.0,
        "expert_passes": 0.0,
        "depth_latency_s": 0.0,
        "core_exponent": 0.8,
    }
    peaks = dict.fromkeys(ELEMENT_BYTES, 100e12) | {"activation": 200e12}
    return Chip(
        matrix_flop_per_s={k: jnp.asarray(v) for k, v in peaks.items()},
        **{k: jnp.asarray(v, float) for k, v in {**leaves, **changes}.items()},
    )


def table(*ops, **features):
    values = {"one": 1.0, **features}
    leaves = {k: jnp.asarray(v, float) for k, v in values.items()}
    return tabulate(list(ops), leaves, ELEMENT_BYTES)


def gemm(m, n, k, groups=1.0, dtype="bf16", size=2.0, launches=1.0):
    op = Op(
        "gemm",
        "block",
        "gemm",
        "m",
        n,
        k,
        "groups",
        dtype=dtype,
        weight_bytes=size,
        in_bytes=size,
        out_bytes=2.0,
        launches=launches,
    )
    return table(op, m=m, groups=groups)


def vector(elements, flop=1.0, size=4.0):
    op = Op("v", "block", "vector", "m", 1.0, out_bytes=size, vector_flop=flop)
    return table(op, m=elements)


def resource_s(hardware, work, name, sharpness=None):
    return float(resources_s(hardware, work, sharpness)[name][0])


def times_of(hardware, work, slowdown=1.0, sharpness=None):
    used = resources_s(hardware, work, sharpness)
    exposed = hardware.roofline_exposed_fraction
    return roofline_s(used, exposed, slowdown, sharpness)


def total_s(*args, **settings):
    return float(times_of(*args, **settings)[0])


def test_time_of_a_gemm_by_hand():
    # 10 x 4 tiles are four whole waves on 10 cores, 1280 rows are whole granules
    hardware = chip(half_rows=32.0, half_columns=64.0, half_depth=128.0)
    flop = 2 * (1280 + 32) * (1024 + 64) * (4096 + 128)
    took = resource_s(hardware, gemm(1280.0, 1024.0, 4096.0), "matrix")
    assert took == pytest.approx(flop / (100e12 * 0.8))


def test_a_gemm_runs_at_the_peak_of_its_dtype():
    times = [
        resource_s(chip(), gemm(1280.0, 1024.0, 4096.0, dtype=dtype), "matrix")
        for dtype in ("bf16", "activation")
    ]
    assert times[0] / times[1] == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("size", "change"),
    [
        ((1280.0, 1024.0, 4096.0), {"half_rows": 1280.0}),
        ((1280.0, 1024.0, 4096.0), {"half_columns": 1024.0}),
        ((1280.0, 1024.0, 4096.0), {"half_depth": 4096.0}),
    ],
)
def test_a_gemm_reaches_half_its_efficiency_at_the_half_size(size, change):
    without = resource_s(chip(), gemm(*size), "matrix")
    assert resource_s(chip(**change), gemm(*size), "matrix") == pytest.approx(2 * without)


def test_a_huge_square_gemm_reaches_the_efficiency_of_the_chip():
    # ramps of 48, 96 and 256 against 65536 and a memory time of 1 % cost under 2 %
    n = 65536.0
    took = total_s(CLOUDMATRIX, gemm(n, n, n))
    reached = 2 * n**3 / took / float(CLOUDMATRIX.matrix_flop_per_s["bf16"])
    assert reached == pytest.approx(float(CLOUDMATRIX.gemm_efficiency), rel=0.02)


def test_a_small_batch_takes_the_time_to_read_its_weights():
    # one row of 8192 x 8192 weights, with one input and one output row
    took = total_s(chip(), gemm(1.0, 8192.0, 8192.0))
    assert took == pytest.approx((8192 * 8192 + 2 * 8192) * 2 / (1e12 * 0.9))


def test_memory_reaches_half_its_rate_at_the_half_size():
    work = vector(1e6)  # of 4 bytes each
    took = resource_s(chip(half_memory_bytes=4e6), work, "memory")
    assert took == pytest.approx(2 * 4e6 / (1e12 * 0.9))


def test_work_without_a_launch_of_its_own_has_no_memory_ramp():
    op = Op("fused", "block", "vector", "m", 1.0, out_bytes=4.0, launches=0.0)
    took = resource_s(chip(half_memory_bytes=4e6), table(op, m=1e6), "memory")
    assert took == pytest.approx(4e6 / (1e12 * 0.9))


def test_a_tiny_operator_takes_its_launch():
    hardware = chip(matrix_launch_s=5e-6, vector_launch_s=2e-6)
    # 2 kB of traffic are two nanoseconds, hidden behind the launch
    assert total_s(hardware, gemm(1.0, 16.0, 16.0)) == pytest.approx(5e-6)
    assert total_s(hardware, vector(16.0)) == pytest.approx(2e-6)


def test_a_long_operator_hides_its_launch():
    work = gemm(1280.0, 1024.0, 4096.0)
    hidden = chip(matrix_launch_s=5e-6)
    assert total_s(hidden, work) == pytest.approx(total_s(chip(), work))


def test_every_launch_is_paid_where_kernels_are_short():
    hardware = chip(matrix_launch_s=5e-6)
    assert total_s(hardware, gemm(1.0, 16.0, 16.0, launches=3.0)) == pytest.approx(15e-6)


def test_the_exposed_share_of_the_shorter_resource_adds_to_the_longer_one():
    hardware = chip(roofline_exposed_fraction=0.25)
    work = gemm(1280.0, 1024.0, 4096.0)
    matrix, memory = (resource_s(hardware, work, name) for name in ("matrix", "memory"))
    assert matrix > memory
    assert total_s(hardware, work) == pytest.approx(matrix + 0.25 * memory)


def test_time_of_a_vector_operator_by_hand():
    took = resource_s(chip(), vector(1e6, flop=12.0), "vector")
    assert took == pytest.approx(12e6 / (10e12 * 0.4))


def test_attention_runs_at_an_efficiency_of_its_own():
    op = Op("a", "block", "attention", "pairs", 256.0, dtype="bf16")
    took = resource_s(chip(half_rows=100.0), table(op, pairs=1e9), "matrix")
    assert took == pytest.approx(2 * 1e9 * 256 / (100e12 * 0.5))


def test_attention_takes_its_fill_once_a_launch():
    work = table(Op("a", "block", "attention", "pairs", 8.0, launches=3.0), pairs=1e6)
    plain = resource_s(chip(), work, "matrix")
    filled = resource_s(chip(attention_fill_s=5e-6), work, "matrix")
    assert filled == pytest.approx(plain + 3 * 5e-6)


def kernel_s(**op):
    job = {"system": "atlas-800-a2", "phase": "op", "op": op}
    return cmx.predict(load_scenario(job), "none").time_s


def test_a_launch_that_was_measured_adds_up_with_the_kernel():
    gemm = {"kind": "gemm", "m": 256, "n": 4096, "k": 4096}
    more = kernel_s(**gemm, launched=True) - kernel_s(**gemm)
    assert more == pytest.approx(0.9 * 5e-6, rel=0.01)  # a tenth of it was exposed


def test_an_indexer_alone_scores_and_then_chooses():
    """Twice the queries: twice the choice at 0.14 ns and 8 B for each, and the scores."""
    shape = {"heads": 64, "head_dim": 128, "kv_tokens": 4096, "causal": False}
    few, many = (
        kernel_s(kind="index", sequences=1, query_tokens=n, dtype="fp16", **shape)
        for n in (256, 512)
    )
    pairs = 256 * 4096
    scores = pairs * 64 * 128 * 2 / (376e12 * 0.65)
    choices = pairs * (0.14e-9 + 8 / (1.6e12 * 0.85))
    assert many - few == pytest.approx(scores + choices, rel=0.05)


def test_chosen_entries_are_moved_once_more_for_each_further_pass():
    work = table(gather(576.0)._replace(rows="pairs"), pairs=1e6)
    assert resource_s(chip(half_memory_bytes=1e6), work, "memory") == 0.0
    took = resource_s(chip(gather_passes=2.0), work, "memory")
    assert took == pytest.approx(2 * 576e6 / 0.9e12)


def test_softmax_takes_as_long_as_its_exponentials_where_a_unit_computes_them():
    pairs, heads, width = 1e9, 4.0, 256.0
    each = {"columns": heads * width, "vector_flop": SOFTMAX_FLOP / width}
    work = table(
        Op("a", "block", "attention", "pairs", dtype="bf16", **each),
        Op(SCAN, "block", "attention", "pairs", dtype="bf16", **each),
        Op("norm", "block", "vector", "pairs", 8.0, vector_flop=1.0),
        pairs=pairs,
    )
    lanes = resources_s(chip(), work, None)["vector"]
    by_hand = SOFTMAX_FLOP * pairs * heads / (10e12 * 0.4)
    assert lanes[0] == pytest.approx(by_hand)
    unit = resources_s(chip(exponential_flop_per_s=2e12), work, None)["vector"]
    assert unit[0] == pytest.approx(pairs * heads / 2e12)
    # an indexer's scores have no softmax, and other vector work stays on the lanes
    assert unit[1:] == pytest.approx(lanes[1:])


def test_an_indexer_takes_a_while_for_each_entry_that_it_chooses_among():
    work = table(choice(0.25)._replace(rows="pairs"), pairs=1e6)
    assert resource_s(chip(), work, "vector") == 0.0
    took = resource_s(chip(choice_s=0.14e-9), work, "vector")
    assert took == pytest.approx(0.25e6 * 0.14e-9)
    assert resource_s(chip(), work, "matrix") == 0.0
    assert float(work.memory_bytes[0]) == 8.0 * 0.25e6  # written and read in fp32


def test_what_an_indexer_chose_has_no_gradient():
    ops = [Op("product", "half", "gemm", "pairs", 8.0, 8.0), choice()]
    features = {"one": 1.0, "pairs": 64.0, "scanned": 100.0}
    there = {name: jnp.asarray(value) for name, value in features.items()}
    both = tabulate_passes(ops, there, ELEMENT_BYTES | {"gradient": 4.0}).inputs
    for name in ("rows", "memory_bytes"):
        forward, backward = getattr(both, name)[:, 1]
        assert float(forward) > 0.0
        assert float(backward) == 0.0


@pytest.mark.parametrize(("dtype", "factor"), [("activation", 1 / 0.8), ("bf16", 1.0)])
def test_the_8_bit_efficiency_slows_8_bit_gemms_alone(dtype, factor):
    work = gemm(1280, 1024, 4096, dtype=dtype)
    plain = resource_s(chip(), work, "matrix")
    slower = resource_s(chip(eight_bit_efficiency=0.8), work, "matrix")
    assert slower == pytest.approx(plain * factor)


def test_4_bit_gemms_have_an_efficiency_and_a_launch_of_their_own():
    hardware = chip(four_bit_efficiency=0.5, four_bit_launch_s=2e-6)
    work = gemm(1280, 1024, 4096, dtype="activation", launches=3.0)
    narrow = work.replace(element_bytes=0.5625 * jnp.ones(1))
    for name, slower, later in (("matrix", 2.0, 0.0), ("launch", 1.0, 3 * 2e-6)):
        wide, four = (resource_s(hardware, x, name) for x in (work, narrow))
        assert four == pytest.approx(slower * wide + later)


@pytest.mark.parametrize("groups", [1.0, 8.0])
def test_a_gemm_takes_no_less_than_its_depth_one_block_after_another(groups):
    hardware = chip(depth_latency_s=1e-9, matrix_launch_s=2e-6)
    took = resource_s(hardware, gemm(1, 128, 8192, groups=groups), "launch")
    assert took == pytest.approx(2e-6 + 8192e-9)
    op = Op("a", "block", "attention", "pairs", 8.0, 64.0)
    assert resource_s(hardware, table(op, pairs=1e3), "launch") == pytest.approx(2e-6)


@pytest.mark.parametrize(
    ("resource", "factor"),
    [("matrix", 1.7), ("vector", 1.7), ("memory", 1.0), ("launch", 1.0)],
)
def test_a_share_of_the_cores_slows_matrix_and_vector_work_alone(resource, factor):
    hardware = chip(matrix_launch_s=5e-6)
    op = Op("a", "b", "attention", "m", 64.0, out_bytes=2.0, vector_flop=12.0)
    used = resources_s(hardware, table(op, m=1e6), None)
    alone = {name: used[name] * (name == resource) for name in RESOURCES}
    exposed = hardware.roofline_exposed_fraction
    whole, part = (float(roofline_s(alone, exposed, s, None)[0]) for s in (1.0, 1.7))
    assert whole > 0.0
    assert part == pytest.approx(factor * whole)


@pytest.mark.parametrize(("rows", "whole"), [(1, 16), (16, 16), (17, 32), (100, 112)])
def test_rows_are_processed_in_whole_granules_of_sixteen(rows, whole):
    took = resource_s(chip(), gemm(float(rows), 256.0, 4096.0), "matrix")
    assert took == pytest.approx(2 * whole * 256 * 4096 / (100e12 * 0.8))


@pytest.mark.parametrize(
    ("columns", "groups", "filled"),
    [
        (256.0 * 10, 1.0, 1.0),  # 10 tiles on 10 cores
        (256.0 * 15, 1.0, 2 / 1.5),  # 15 tiles take two waves
        (256.0 * 5, 3.0, 2 / 1.5),  # the tiles of all groups share the waves
        (256.0 * 20, 1.0, 1.0),
        (256.0 * 4, 1.0, 1.0),  # fewer tiles than cores split their depth
    ],
)
def test_the_last_wave_of_tiles_leaves_cores_idle(columns, groups, filled):
    work = gemm(128.0, columns, 4096.0, groups=groups)
    flop = 2 * groups * 128 * columns * 4096
    took = resource_s(chip(), work, "matrix")
    assert took == pytest.approx(flop * filled / (100e12 * 0.8))


def test_a_last_tile_that_is_not_full_takes_a_core_of_its_own():
    # one column beyond 10 tiles needs an eleventh: two waves of 10 whole tiles
    work = gemm(128.0, 256.0 * 10 + 1.0, 4096.0)
    flop = 2 * 128 * (256 * 10 * 2) * 4096
    assert resource_s(chip(), work, "matrix") == pytest.approx(flop / (100e12 * 0.8))


GEMM_SIZES = {
    "m": st.integers(1, 4096).map(float),
    "n": st.integers(1, 16384).map(float),
    "k": st.integers(1, 16384).map(float),
}


@settings(deadline=None, max_examples=60)
@given(**GEMM_SIZES)
def test_relaxed_time_converges_to_the_exact_one(m, n, k):
    work = gemm(m, n, k)
    exact, relaxed = total_s(CLOUDMATRIX, work), total_s(CLOUDMATRIX, work, 1.0, 1e8)
    # a ceiling is within 1 / (s f) of the exact one, and f is 1 / 152 at least
    assert relaxed == pytest.approx(exact, rel=1e-5)


@settings(deadline=None, max_examples=60)
@given(**GEMM_SIZES, sharpness=st.sampled_from([None, 1.0, 6.0]))
def test_no_gemm_beats_its_peak_or_its_bytes(m, n, k, sharpness):
    took = total_s(CLOUDMATRIX, gemm(m, n, k), 1.0, sharpness)
    peak = float(CLOUDMATRIX.matrix_flop_per_s["bf16"])
    assert took >= 2 * m * n * k / peak
    assert took >= 2 * (m * k + k * n + m * n) / float(CLOUDMATRIX.memory_bytes_per_s)


@settings(deadline=None, max_examples=60)
@given(**GEMM_SIZES)
def test_without_overlap_and_quantization_the_relaxed_time_is_the_sum(m, n, k):
    work, hardware = gemm(m, n, k), chip(matrix_launch_s=5e-6)
    flop_s = 2 * m * n * k / (100e12 * 0.8)
    memory_s = 2 * (m * k + k * n + m * n) / (1e12 * 0.9)
    took = total_s(hardware, work, 1.0, 1.0)
    assert took == pytest.approx(flop_s + memory_s + 5e-6, rel=1e-8)


@settings(deadline=None, max_examples=40)
@given(
    **GEMM_SIZES,
    leaf=st.sampled_from(["memory_bytes_per_s", "gemm_efficiency", "memory_efficiency"]),
    gain=st.floats(1.0, 1.2),
    sharpness=st.sampled_from([None, 6.0]),
)
def test_a_faster_chip_is_never_slower(m, n, k, leaf, gain, sharpness):
    work, hardware = gemm(m, n, k), chip(matrix_launch_s=5e-6)
    faster = hardware.replace(**{leaf: getattr(hardware, leaf) * gain})
    before, after = (total_s(c, work, 1.0, sharpness) for c in (hardware, faster))
    assert after <= before * (1 + 1e-12)


@pytest.mark.parametrize("columns", [2048.0, 4608.0])
def test_a_larger_batch_never_takes_less_time(columns):
    batches = [64.0, 127.0, 128.0, 129.0, 256.0, 257.0, 384.0, 385.0, 512.0, 513.0]
    times = [resource_s(CLOUDMATRIX, gemm(m, columns, 7168.0), "matrix") for m in batches]
    assert (np.diff(times) >= 0.0).all()


@pytest.mark.parametrize("sharpness", [None, 4.0])
def test_time_is_homogeneous_of_degree_one_in_the_resource_times(sharpness):
    work = gemm(100.0, 2000.0, 4096.0)

    used = resources_s(CLOUDMATRIX, work, sharpness)

    def total(used):
        return roofline_s(used, CLOUDMATRIX.roofline_exposed_fraction, 1.0, sharpness)[0]

    # Euler: the derivatives along the resource times, times those, sum to the time
    slopes = jax.grad(total)(used)
    shares = sum((used[name] * slopes[name]).sum() for name in RESOURCES)
    np.testing.assert_allclose(shares, total(used), rtol=1e-9)
    thrice = {name: 3.0 * seconds for name, seconds in used.items()}
    np.testing.assert_allclose(total(thrice), 3.0 * total(used), rtol=1e-9)


@pytest.mark.parametrize("sharpness", [None, 4.0])
def test_gradients_over_the_chip_are_finite(sharpness):
    work = gemm(128.0, 152.0 * 24, 4096.0)  # whole tiles and waves

    def time(hardware):
        return times_of(hardware, work, 1.0, sharpness)[0]

    slopes = jax.grad(time)(CLOUDMATRIX)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))


def test_operators_are_timed_one_by_one():
    apart = [gemm(100.0, 2000.0, 4096.0), vector(1e6, flop=12.0)]
    first = Op(
        "gemm",
        "block",
        "gemm",
        "m",
        2000.0,
        4096.0,
        "groups",
        weight_bytes=2.0,
        in_bytes=2.0,
        out_bytes=2.0,
    )
    second = Op("v", "block", "vector", "e", 1.0, out_bytes=4.0, vector_flop=12.0)
    together = table(first, second, m=100.0, groups=1.0, e=1e6)
    times = times_of(CLOUDMATRIX, together)
    np.testing.assert_allclose(times, [total_s(CLOUDMATRIX, work) for work in apart])


def test_a_lone_copy_takes_its_launch_and_its_transfer():
    raw = {"system": "dgx-h100", "phase": "op", "op": {"kind": "copy", "bytes": "1 MB"}}
    job = build(load_scenario(raw), "none")
    chip = job.machine.chip
    rate = chip.memory_bytes_per_s * chip.memory_efficiency
    transfer = (2e6 + chip.half_memory_bytes) / rate
    took = cmx.metrics(*job.inputs).time_s
    assert float(took) == pytest.approx(float(chip.vector_launch_s + transfer))
