"""Expert placement against greedy balancing and the exact optimum."""

import numpy as np
import pytest

from cmxjax.optimization.experts.cost import cost_of, device_loads, staying
from cmxjax.optimization.experts.exact import exact
from cmxjax.optimization.experts.greedy import greedy, replica_counts, round_robin
from cmxjax.optimization.experts.loads import trace, zipf
from cmxjax.optimization.experts.place import place_experts

CASES = [
    (64, 5, "zipf"),
    (72, 4, "trace"),
    (144, 2, "zipf"),
    (160, 2, "trace"),
    (288, 1, "trace"),
    (320, 1, "zipf"),
]


def loads_of(kind, seed, experts=256):
    rng = np.random.default_rng(seed)
    if kind == "zipf":
        return zipf(experts, rng.uniform(0.3, 1.2), rng)
    return trace(experts, 6, 0.8, rng)


@pytest.mark.parametrize(("devices", "per_device", "kind"), CASES)
def test_no_device_is_slower_than_under_greedy_balancing(devices, per_device, kind):
    loads = np.stack([loads_of(kind, devices)])
    plan = place_experts(loads, devices, per_device, nodes=8)
    assert plan.slots.shape == (1, devices, per_device)
    assert set(plan.slots.ravel()) == set(range(256))
    for own, baseline, plain in zip(plan.costs, plan.greedy, plan.round_robin):
        assert 1.0 - 1e-9 <= own.slowest <= baseline.slowest * (1 + 1e-9)
        assert baseline.slowest <= plain.slowest * (1 + 1e-9)
    assert cost_of(plan.slots[0], loads[0], 8) == plan.costs[0]


@pytest.mark.parametrize(
    "seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 6))]
)
def test_small_cases_come_within_two_percent_of_the_optimum(seed):
    rng = np.random.default_rng(seed)
    loads = zipf(8, rng.uniform(0.3, 1.2), rng)
    best, table = exact(loads[:, 0], 4, 3)
    assert cost_of(table, loads).slowest == pytest.approx(best, rel=1e-5)
    found = place_experts(loads[None], 4, 3).costs[0].slowest
    assert best * (1 - 1e-5) <= found <= best * 1.02


def test_replicas_go_to_the_busiest():
    counts = replica_counts(np.array([8.0, 4.0, 1.0]), 6)
    np.testing.assert_array_equal(counts, [3, 2, 1])


def test_greedy_packs_evenly_what_can_be_even():
    loads = np.ones(8)
    table = greedy(loads, 4, 2)
    np.testing.assert_allclose(device_loads(table, loads[:, None]), 2.0)


def test_loads_are_kept_whatever_the_placement():
    loads = loads_of("trace", 1)
    table = round_robin(256, 64, 5)
    busy = device_loads(table, loads)
    np.testing.assert_allclose(busy.sum(axis=0), loads.sum(axis=0))


def test_a_replica_in_every_node_keeps_all_tokens_there():
    table = np.array([[0, 1], [0, 2]])  # two devices, one in each node
    np.testing.assert_allclose(staying(table, 3, 2), [1.0, 0.5, 0.5])


def test_equal_seeds_place_equally():
    loads = np.stack([loads_of("zipf", 3, 64)])
    first, second = (place_experts(loads, 16, 5, seed=4) for _ in range(2))
    np.testing.assert_array_equal(first.slots, second.slots)


@pytest.mark.parametrize(
    ("loads", "devices", "per_device", "nodes", "message"),
    [
        (np.ones((1, 8, 1)), 2, 3, 1, "don't fit"),
        (np.ones((1, 8, 1)), 4, 2, 3, "must divide"),
        (-np.ones((1, 8, 1)), 4, 2, 1, "not negative"),
        (np.ones((1, 1, 8, 1)), 4, 2, 1, "layer, expert, time"),
    ],
)
def test_wrong_input_is_named(loads, devices, per_device, nodes, message):
    with pytest.raises(ValueError, match=message):
        place_experts(loads, devices, per_device, nodes=nodes)


def test_a_missing_expert_is_an_error():
    with pytest.raises(ValueError, match="without a replica"):
        cost_of(np.array([[0], [1]]), np.ones((3, 1)))
