"""Groups of ranks on the tiers: peers, ports and latencies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmxjax.machine.resolve import tiers_of
from cmxjax.machine.tiers import Fabric
from cmxjax.rates.fabric import (
    contended_s,
    group_of,
    peers,
    plane_s,
    port_s,
    reach_s,
)
from cmxjax.specs.system_load import Reference, load_system

SYSTEM = load_system(Reference("cloudmatrix384")).system

# A link inside a package, two tiers of one plane, and a plane of its own outside.
PLANES = jnp.array([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
FABRIC = Fabric(
    rate=jnp.array([300e9, 200e9, 100e9, 25e9]),
    latency_s=jnp.array([0.2e-6, 1e-6, 2e-6, 5e-6]),
    reduces=jnp.zeros(4),
    network=jnp.zeros(4),
    planes=tuple(PLANES),
)


def group(*splits):
    return group_of(FABRIC, jnp.array(splits, float))


def test_rates_of_a_machine_are_bandwidth_times_efficiency():
    # the supernode tier reaches 164 / 167 = 0.98 of the 196 GB/s, RDMA 200 Gb/s
    fabric = tiers_of(SYSTEM).fabric
    node, supernode = fabric.rate[1], fabric.rate[2]
    assert float(node) == pytest.approx(196e9)
    assert float(supernode) == pytest.approx(196e9 * 0.98)
    np.testing.assert_array_equal(fabric.planes, PLANES)


def test_an_oversubscribed_tier_is_slower_by_that_factor():
    tier = SYSTEM.tiers["cluster"].replace(oversubscription=jnp.asarray(4.0))
    system = SYSTEM.replace(tiers={**SYSTEM.tiers, "cluster": tier})
    before, after = tiers_of(SYSTEM).fabric.rate, tiers_of(system).fabric.rate
    np.testing.assert_allclose(after / before, [1.0, 1.0, 1.0, 0.25])


def test_units_of_a_group_are_the_ranks_inside_each_tier():
    placed = group(2.0, 8.0, 20.0, 1.0)
    np.testing.assert_allclose(placed.units, [1.0, 2.0, 16.0, 320.0])
    assert float(placed.ranks) == 320.0


def test_peers_are_counted_on_the_lowest_tier_that_joins_two_ranks():
    # of 320 ranks: 1 sibling die, 14 more in the node, 304 in the 19 other nodes
    np.testing.assert_allclose(peers(group(2.0, 8.0, 20.0, 1.0)), [1.0, 14.0, 304.0, 0.0])


@settings(deadline=None)
@given(st.lists(st.floats(1.0, 100.0), min_size=4, max_size=4))
def test_peers_add_up_to_all_other_ranks(splits):
    others = np.prod(splits) - 1.0
    np.testing.assert_allclose(peers(group(*splits)).sum(), others, rtol=1e-9, atol=1e-9)


def test_times_of_two_tiers_on_one_plane_add():
    sent = jnp.array([0.0, 2e9, 3e9, 0.0])
    # 10 ms inside the node and 30 ms between nodes pass the same port
    np.testing.assert_allclose(port_s(FABRIC, sent, 1.0, None), 40e-3, rtol=1e-12)


def test_planes_run_side_by_side():
    sent = jnp.array([3e9, 2e9, 3e9, 5e8])
    # 10 ms on the package link, 40 ms on UB, 20 ms on RDMA
    np.testing.assert_allclose(port_s(FABRIC, sent, 1.0, None), 40e-3, rtol=1e-12)
    sent = jnp.array([3e9, 2e9, 0.0, 5e8])
    np.testing.assert_allclose(port_s(FABRIC, sent, 1.0, None), 20e-3, rtol=1e-12)


def test_each_plane_is_busy_for_its_own_tiers():
    sent = jnp.array([3e9, 2e9, 3e9, 5e8])
    busy = plane_s(FABRIC, sent, 0.5)
    np.testing.assert_allclose(busy, [20e-3, 80e-3, 40e-3], rtol=1e-12)


def test_transfers_at_once_add_on_a_shared_plane_and_run_beside_each_other_elsewhere():
    first = plane_s(FABRIC, jnp.array([3e9, 2e9, 0.0, 0.0]), 1.0)
    second = plane_s(FABRIC, jnp.array([0.0, 0.0, 3e9, 5e8]), 1.0)
    # 10 and 30 ms on UB, while the package link takes 10 ms and RDMA 20 ms
    np.testing.assert_allclose(contended_s(first, second, None), 40e-3, rtol=1e-12)
    third = plane_s(FABRIC, jnp.array([0.0, 0.0, 0.0, 5e8]), 1.0)
    np.testing.assert_allclose(contended_s(first, third, None), 20e-3, rtol=1e-12)


def test_planes_take_turns_where_nothing_overlaps():
    sent = jnp.array([3e9, 2e9, 3e9, 5e8])
    np.testing.assert_allclose(port_s(FABRIC, sent, 1.0, 1.0), 70e-3, rtol=1e-9)


def test_an_efficiency_of_a_half_takes_twice_the_time():
    sent = jnp.array([3e9, 2e9, 3e9, 5e8])
    np.testing.assert_allclose(port_s(FABRIC, sent, 0.5, None), 80e-3, rtol=1e-12)


def test_relaxed_port_time_converges_to_the_exact_one():
    sent = jnp.array([3e9, 2e9, 3e9, 5e8])
    exact = port_s(FABRIC, sent, 1.0, None)
    # two folds, each at most one part in 1e5 too long
    np.testing.assert_allclose(port_s(FABRIC, sent, 1.0, 1e5), exact, rtol=2.1e-5)


@pytest.mark.parametrize(
    ("splits", "latency_us"),
    [
        ((2.0, 1.0, 1.0, 1.0), 0.2),
        ((2.0, 4.0, 1.0, 1.0), 1.0),
        ((1.0, 8.0, 1.0, 1.0), 1.0),
        ((2.0, 8.0, 1.5, 1.0), 2.0),
        ((1.0, 1.0, 1.0, 2.0), 5.0),
    ],
)
def test_latency_is_that_of_the_outermost_tier_in_use(splits, latency_us):
    assert float(reach_s(group(*splits), None)) == pytest.approx(latency_us * 1e-6)
    # the relaxed gate of a tier with half a further unit is s/2 / (1 + s/2)
    relaxed = float(reach_s(group(*splits), 1e4))
    assert relaxed == pytest.approx(latency_us * 1e-6, rel=1e-3)


@pytest.mark.parametrize("sharpness", [None, 1.0, 100.0])
def test_a_single_rank_reaches_nobody(sharpness):
    alone = group(1.0, 1.0, 1.0, 1.0)
    # the root of a sum of zeros is floored at 1e-15 s for each of three folds
    assert float(reach_s(alone, sharpness)) == pytest.approx(0.0, abs=2e-15)
    assert float(peers(alone).sum()) == 0.0


@pytest.mark.parametrize("sharpness", [None, 1.0, 100.0])
def test_gradients_of_a_single_rank_are_finite(sharpness):
    def seconds(splits):
        placed = group_of(FABRIC, splits)
        sent = 1e6 * peers(placed)
        return reach_s(placed, sharpness) + port_s(FABRIC, sent, 1.0, sharpness)

    assert np.isfinite(jax.grad(seconds)(jnp.ones(4))).all()
