"""Placement of parallel axes on the tiers of a machine."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cmxjax.job.layout import (
    ATTENTION_AXES,
    AXES,
    EXPERT_AXES,
    Layout,
    Routing,
    degree,
    devices,
    excess,
    place,
    placement,
    splits,
)

CLOUDMATRIX = [2.0, 8.0, 48.0, 429.0]
ORDER = ("tp", "cp", "dp", "pp")
ONES = dict.fromkeys(AXES, 1.0)

degrees = st.fixed_dictionaries(
    {axis: st.integers(1, 12).map(float) for axis in ATTENTION_AXES}
)
orders = st.permutations(ATTENTION_AXES).map(tuple)


def laid_out(**given_degrees):
    factor = placement({**ONES, **given_degrees}, CLOUDMATRIX, ORDER)
    routing = Routing(redundant_experts=jnp.zeros(()), shared_replicas=jnp.zeros(()))
    return Layout(factor=jnp.asarray(factor), routing=routing)


def test_the_first_axis_takes_the_innermost_devices():
    # tp 4 = both dies of a package and 2 of its node's 8 packages; dp 80 = the other
    # 4 pairs of the node and 20 nodes
    placed = place({**ONES, "tp": 4.0, "dp": 80.0}, CLOUDMATRIX, ORDER)
    assert placed["tp"] == [2.0, 2.0, 1.0, 1.0]
    assert placed["dp"] == [1.0, 4.0, 20.0, 1.0]


def test_another_order_gives_the_innermost_devices_to_another_axis():
    order = ("dp", "tp", "cp", "pp")
    placed = place({**ONES, "tp": 4.0, "dp": 80.0}, CLOUDMATRIX, order)
    assert placed["dp"] == [2.0, 8.0, 5.0, 1.0]
    assert placed["tp"] == [1.0, 1.0, 4.0, 1.0]


def test_a_pipeline_placed_last_spans_the_outermost_devices():
    placed = place({**ONES, "tp": 16.0, "pp": 4.0, "dp": 24.0}, CLOUDMATRIX, ORDER)
    assert placed["tp"] == [2.0, 8.0, 1.0, 1.0]
    assert placed["dp"] == [1.0, 1.0, 24.0, 1.0]
    # 2 nodes of the supernode are left, so the pipeline spans two supernodes
    assert placed["pp"] == [1.0, 1.0, 2.0, 2.0]


def test_a_group_of_24_devices_spans_one_and_a_half_nodes_of_16():
    placed = place({**ONES, "tp": 24.0}, [16.0, 8.0], ORDER)
    assert placed["tp"] == [16.0, 1.5]


def test_what_a_fractional_group_leaves_goes_to_the_next_axis():
    # 8 nodes / 1.5 leave 5.33, which the next axis fills
    placed = place({**ONES, "tp": 24.0, "dp": 5.0}, [16.0, 8.0], ORDER)
    assert placed["dp"] == [1.0, 5.0]


@settings(deadline=None)
@given(degrees, orders)
def test_the_product_over_tiers_is_the_degree(given_degrees, order):
    placed = place(given_degrees, CLOUDMATRIX, order)
    for axis, wanted in given_degrees.items():
        assert np.prod(placed[axis]) == pytest.approx(wanted, rel=1e-12)


@settings(deadline=None)
@given(degrees, orders)
def test_no_tier_holds_more_than_its_size(given_degrees, order):
    placed = place(given_degrees, CLOUDMATRIX, order)
    used = np.prod([placed[axis] for axis in ATTENTION_AXES], axis=0)
    assert (used <= np.array(CLOUDMATRIX) * (1 + 1e-12)).all()


@settings(deadline=None)
@given(degrees, orders)
def test_every_axis_splits_at_least_once_within_each_tier(given_degrees, order):
    placed = place(given_degrees, CLOUDMATRIX, order)
    assert min(min(row) for row in placed.values()) >= 1.0 - 1e-12


@settings(deadline=None)
@given(degrees, orders)
def test_an_outer_tier_is_used_only_when_the_inner_ones_are_full(given_degrees, order):
    placed = place(given_degrees, CLOUDMATRIX, order)
    used = np.prod([placed[axis] for axis in ATTENTION_AXES], axis=0)
    for t in range(1, len(CLOUDMATRIX)):
        if used[t] > 1.0 + 1e-9:
            np.testing.assert_allclose(used[:t], CLOUDMATRIX[:t], rtol=1e-12)


@settings(deadline=None)
@given(degrees, orders)
def test_a_job_that_fits_into_the_supernode_leaves_the_cluster_alone(
    given_degrees, order
):
    # not even by a rounding error: a tier counts as used where its split exceeds 1
    assume(np.prod(list(given_degrees.values())) <= 768)
    placed = place(given_degrees, CLOUDMATRIX, order)
    assert all(row[3] <= 1.0 for row in placed.values())


@pytest.mark.parametrize(
    "too_many", [{"tp": 1000.0, "dp": 1000.0}, {"pp": 329473.0}, {"dp": 1e9}]
)
def test_more_devices_than_the_machine_has_are_refused(too_many):
    with pytest.raises(ValueError, match=r"does not fit.*329472 devices|3\.29472e\+05"):
        place({**ONES, **too_many}, CLOUDMATRIX, ORDER)


def test_the_whole_machine_can_be_filled():
    placed = place({**ONES, "dp": 329472.0}, CLOUDMATRIX, ORDER)
    assert placed["dp"] == CLOUDMATRIX


@settings(deadline=None)
@given(st.sampled_from([1.0, 2.0, 4.0, 8.0]), st.sampled_from([1.0, 2.0, 3.0]), orders)
def test_expert_axes_fold_over_the_same_devices(etp, edp, order):
    total = {"tp": 4.0, "cp": 2.0, "dp": 12.0, "pp": 4.0}
    folded = {**total, "etp": etp, "edp": edp, "ep": 96.0 / etp / edp}
    matrix = placement(folded, CLOUDMATRIX, order)
    rows = dict(zip(AXES, matrix))
    attention = np.prod([rows[axis] for axis in ATTENTION_AXES], axis=0)
    expert = np.prod([rows[axis] for axis in EXPERT_AXES], axis=0)
    assert attention.prod() == pytest.approx(384.0)
    assert expert.prod() == pytest.approx(384.0)
    if order[-1] == "pp" or order[0] == "pp":
        np.testing.assert_allclose(attention, expert, rtol=1e-12)


def test_expert_parallel_ranks_are_contiguous():
    # EP 320 of tp 4 x dp 80: all dies of 20 nodes
    layout = laid_out(tp=4.0, dp=80.0, ep=320.0)
    np.testing.assert_allclose(splits(layout, "ep"), [2.0, 8.0, 20.0, 1.0])


def test_tensor_parallel_experts_sit_inside_the_expert_ranks():
    layout = laid_out(dp=64.0, etp=2.0, ep=32.0)
    np.testing.assert_allclose(splits(layout, "etp"), [2.0, 1.0, 1.0, 1.0])
    np.testing.assert_allclose(splits(layout, "ep"), [1.0, 8.0, 4.0, 1.0])


def test_degrees_and_devices_are_read_back_from_the_matrix():
    layout = laid_out(tp=4.0, cp=2.0, dp=10.0, pp=3.0, ep=80.0)
    read = {axis: float(degree(layout, axis)) for axis in AXES}
    assert read == {**ONES, "tp": 4.0, "cp": 2.0, "dp": 10.0, "pp": 3.0, "ep": 80.0}
    assert float(devices(layout)) == 240.0


def test_a_layout_that_fits_has_no_excess():
    sizes = jnp.asarray(CLOUDMATRIX, float)
    assert float(excess(laid_out(tp=4.0, dp=80.0, ep=320.0), sizes)) == 0.0


def test_excess_is_that_of_the_worst_tier():
    layout = laid_out()
    factor = layout.factor.at[AXES.index("tp"), 1].set(12.0)  # of 8 in a node
    factor = factor.at[AXES.index("ep"), 2].set(60.0)  # of 48 in a supernode
    sizes = jnp.asarray(CLOUDMATRIX, float)
    assert float(excess(layout.replace(factor=factor), sizes)) == pytest.approx(0.5)
