"""Calibrated parameters move the leaves of a spec by name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmxjax.parameters import apply, is_fraction, leaf_paths, shifted
from cmxjax.specs.system_load import Reference, load_system

LOADED = load_system(Reference("cloudmatrix384"))
SYSTEM = LOADED.system
PATHS = sorted(leaf_paths(SYSTEM))


def values(tree):
    return {path: float(leaf) for path, leaf in leaf_paths(tree).items()}


def test_an_empty_theta_is_the_spec_as_printed():
    assert values(apply(SYSTEM, {})) == values(SYSTEM)


def test_a_theta_of_zeros_is_the_spec_as_printed():
    moved = values(apply(SYSTEM, dict.fromkeys(PATHS, 0.0)))
    assert moved == pytest.approx(values(SYSTEM), rel=1e-15)


def test_every_figure_of_a_system_file_is_a_leaf():
    assert set(LOADED.figures) <= set(PATHS)


@pytest.mark.slow
def test_every_leaf_of_a_system_can_be_set_by_its_path():
    for path, value in values(SYSTEM).items():
        # what fractions and counts allow without a change of meaning
        load_system(Reference("cloudmatrix384", ((path, value),)))


@pytest.mark.parametrize(
    ("path", "printed"),
    [
        ("chip.matrix_flop_per_s.int8", 752e12),
        ("chip.memory_bytes", 64e9),
        ("tiers.package.bytes_per_s", 270e9),
        ("tiers.supernode.size", 48.0),
        ("parts.switches", 448.0),
    ],
)
def test_a_path_leads_to_the_leaf_that_the_spec_prints(path, printed):
    assert values(SYSTEM)[path] == printed


@pytest.mark.parametrize("path", PATHS)
def test_every_leaf_can_be_moved_by_its_path_and_moves_alone(path):
    before, after = values(SYSTEM), values(apply(SYSTEM, {path: 0.1}))
    changed = {name for name in before if after[name] != before[name]}
    # zero stays zero, and a fraction of 1 has no logit that a shift could move
    fixed = before[path] == 0.0 or (is_fraction(path) and before[path] == 1.0)
    assert changed == (set() if fixed else {path})


def test_a_positive_leaf_is_multiplied_by_the_exponential():
    moved = apply(SYSTEM, {"chip.memory_bytes_per_s": np.log(1.5)})
    assert float(moved.chip.memory_bytes_per_s) == pytest.approx(1.5 * 1600e9, rel=1e-14)


def test_a_fraction_of_a_half_moves_by_its_odds():
    # odds of 1 times 3 are odds of 3 to 1
    theta = float(np.log(3.0))
    assert float(shifted("chip.gemm_efficiency", 0.5, theta)) == pytest.approx(0.75)
    assert float(shifted("chip.gemm_efficiency", 0.5, -theta)) == pytest.approx(0.25)


@settings(deadline=None)
@given(st.floats(0.01, 0.99), st.floats(-20.0, 20.0))
def test_a_fraction_stays_between_zero_and_one(fraction, theta):
    # odds within [1e-2, 1e2] times e^20 still differ from 0 and 1 in doubles
    assert 0.0 < float(shifted("expert_parallel.a.b.core_share", fraction, theta)) < 1.0


@settings(deadline=None)
@given(st.floats(0.01, 0.99), st.floats(-20.0, 20.0))
def test_a_fraction_shifts_its_logit_by_theta(fraction, theta):
    moved = float(shifted("tiers.node.efficiency", fraction, theta))
    logit = np.log(moved) - np.log1p(-moved)
    # 1 - moved keeps eight digits down to 1e-9
    assert logit - theta == pytest.approx(np.log(fraction / (1 - fraction)), abs=1e-5)


@settings(deadline=None)
@given(
    st.sampled_from(["chip.gemm_efficiency", "chip.matrix_launch_s"]),
    st.floats(0.01, 0.99),
    st.floats(-5.0, 5.0),
)
def test_a_shift_and_its_opposite_cancel(path, leaf, theta):
    there = shifted(path, leaf, theta)
    assert float(shifted(path, there, -theta)) == pytest.approx(leaf, rel=1e-10)


@pytest.mark.parametrize(
    ("path", "fraction"),
    [
        ("chip.gemm_efficiency", True),
        ("chip.roofline_exposed_fraction", True),
        ("expert_parallel.hccl.normal.core_share", True),
        ("chip.memory_bytes_per_s", False),
        ("tiers.node.oversubscription", False),
        ("engines.sglang.wait_excess", False),
        ("efficiency.start_s", False),
    ],
)
def test_the_end_of_a_name_tells_whether_a_leaf_is_a_fraction(path, fraction):
    assert is_fraction(path) is fraction


def test_every_fraction_of_the_spec_lies_between_zero_and_one():
    fractions = {p: v for p, v in values(SYSTEM).items() if is_fraction(p)}
    assert fractions
    assert all(0.0 <= value <= 1.0 for value in fractions.values())


def test_an_unknown_parameter_is_refused_by_name():
    with pytest.raises(KeyError, match="chip.no_such_leaf"):
        apply(SYSTEM, {"chip.no_such_leaf": 0.1})


def test_several_leaves_move_at_once():
    theta = {"tiers.node.latency_s": 1.0, "chip.memory_efficiency": -1.0}
    before, after = values(SYSTEM), values(apply(SYSTEM, theta))
    assert {name for name in before if after[name] != before[name]} == set(theta)


def test_slope_over_theta_is_the_leaf_itself_or_the_variance_of_its_fraction():
    def leaf(path):
        return lambda theta: leaf_paths(apply(SYSTEM, {path: theta}))[path]

    rate, efficiency = "chip.memory_bytes_per_s", "chip.gemm_efficiency"
    slope = jax.grad(leaf(rate))(jnp.zeros(()))
    assert float(slope) == pytest.approx(values(SYSTEM)[rate], rel=1e-12)
    x = values(SYSTEM)[efficiency]
    slope = jax.grad(leaf(efficiency))(jnp.zeros(()))
    assert float(slope) == pytest.approx(x * (1 - x), rel=1e-12)


def test_static_names_survive_a_move():
    moved = apply(SYSTEM, {"tiers.node.latency_s": 1.0})
    assert jax.tree.structure(moved) == jax.tree.structure(SYSTEM)
