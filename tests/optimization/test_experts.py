"""Expert placement against greedy balancing, a bound and the exact optimum."""

import numpy as np
import pytest
from scipy.optimize import Bounds, LinearConstraint, milp

from cmxjax.optimization.experts.bound import slowest_bound
from cmxjax.optimization.experts.cost import cost_of, device_loads, held_by_node, stays
from cmxjax.optimization.experts.exchange import gather
from cmxjax.optimization.experts.greedy import greedy, replica_counts, round_robin
from cmxjax.optimization.experts.place import place_experts

CASES = [
    (64, 5, "zipf"),
    (72, 4, "trace"),
    (144, 2, "zipf"),
    (160, 2, "trace"),
    (288, 1, "trace"),
    (320, 1, "zipf"),
]


def zipf(experts, exponent, rng):
    """One time: the k-th most popular expert has a share proportional to k^-exponent."""
    shares = np.arange(1, experts + 1, dtype=float) ** -exponent
    return rng.permutation(shares / shares.sum())[:, None]


def trace(experts, times, spread, rng):
    """Log-normal popularity that drifts from time to time, with bursts of few experts.

    Like published traces, in which a fifth of the experts lie above the mean and the
    hottest far above (xDeepServe, arXiv 2508.02520).
    """
    base = rng.normal(0.0, spread, (experts, 1))
    drift = rng.normal(0.0, 0.15 * spread, (experts, times)).cumsum(axis=1)
    bursts = rng.random((experts, times)) < 0.01
    loads = np.exp(base + drift) * np.where(bursts, rng.uniform(2.0, 4.0), 1.0)
    return loads / loads.sum(axis=0)


def loads_of(kind, seed, experts=256):
    rng = np.random.default_rng(seed)
    if kind == "zipf":
        return zipf(experts, rng.uniform(0.3, 1.2), rng)
    return trace(experts, 6, 0.8, rng)


def exact(load, devices, per_device):
    r"""The optimum over all replicas and places, as a mixed-integer linear program.

    With z[e, k] = 1 where expert e has k replicas and x[e, k, d] of them on device d:
    minimize m with $\sum_{e,k} (l_e / k)\, x_{ekd} \le m$, $\sum_d x_{ekd} = k z_{ek}$,
    $\sum_k z_{ek} = 1$ and full devices.
    """
    experts = len(load)
    most = devices * per_device - experts + 1
    nx, nz = experts * most * devices, experts * most
    x = np.arange(nx).reshape(experts, most, devices)
    z = nx + np.arange(nz).reshape(experts, most)
    rows, low, high = [], [], []

    def add(columns, values, at_least, at_most):
        row = np.zeros(nx + nz + 1)
        row[np.ravel(columns)] = np.ravel(values)
        rows.append(row)
        low.append(at_least)
        high.append(at_most)

    share = load[:, None] / np.arange(1, most + 1)
    for d in range(devices):
        add([*x[:, :, d].ravel(), nx + nz], [*share.ravel(), -1.0], -np.inf, 0.0)
        add(x[:, :, d], 1.0, per_device, per_device)
    for e in range(experts):
        add(z[e], 1.0, 1.0, 1.0)
        for k in range(most):
            add([*x[e, k], z[e, k]], [1.0] * devices + [-(k + 1.0)], 0.0, 0.0)
    objective, upper = np.zeros(nx + nz + 1), np.full(nx + nz + 1, float(per_device))
    objective[-1], upper[nx:-1], upper[-1] = 1.0, 1.0, np.inf
    found = milp(
        objective,
        constraints=LinearConstraint(np.array(rows), low, high),
        integrality=1.0 - objective,
        bounds=Bounds(0.0, upper),
        options={"mip_rel_gap": 1e-6},
    )
    assert found.status == 0
    held = np.round(found.x[:nx]).astype(int).reshape(x.shape).sum(axis=1)
    table = np.stack([np.repeat(np.arange(experts), held[:, d]) for d in range(devices)])
    return found.fun * devices / load.sum(), table


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
    assert plan.bounds[0] <= plan.costs[0].slowest * (1 + 1e-9)


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
    assert slowest_bound(loads, 4, 3) <= best * (1 + 1e-5)


@pytest.mark.parametrize(
    ("loads", "devices", "per_device", "slowest"),
    [
        # three of 256 equal experts somewhere on 144 devices: no, two on some of them
        (np.ones(256), 144, 2, 2.0 * 144 / 256),
        # one that three slots share beside three small ones on six devices
        (np.array([9.0, 1.0, 1.0, 1.0]), 6, 1, 3.0 * 6 / 12),
        # two of four busy experts on one of three devices
        (np.array([4.0, 4.0, 4.0, 4.0, 0.1, 0.1]), 3, 2, 8.0 * 3 / 16.2),
    ],
)
def test_the_bound_is_reached_where_halves_are_counted_by_hand(
    loads, devices, per_device, slowest
):
    assert slowest_bound(loads[:, None], devices, per_device) == pytest.approx(slowest)
    found = place_experts(loads, devices, per_device)
    assert found.costs[0].slowest == pytest.approx(slowest)


def test_gathering_sends_less_and_slows_no_slowest_device():
    loads = loads_of("trace", 5)
    table = greedy(loads.mean(axis=1), 160, 2)
    before = cost_of(table, loads, 10)
    held = np.sort(table, axis=None)
    gather(table, loads, 10)
    after = cost_of(table, loads, 10)
    assert after.traffic < before.traffic - 0.02
    assert after.slowest <= before.slowest * (1 + 1e-9)
    np.testing.assert_array_equal(np.sort(table, axis=None), held)


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
    kept = stays(held_by_node(table, 3, 2), np.array([2, 1, 1])).sum(axis=0)
    np.testing.assert_allclose(kept, [1.0, 0.5, 0.5])


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
