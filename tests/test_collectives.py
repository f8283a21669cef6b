"""Collectives against closed forms, lower bounds and published rates."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmxjax.machine.libraries import CollectiveLibrary
from cmxjax.machine.resolve import Choices, resolve, tiers_of
from cmxjax.machine.tiers import Endpoint, Fabric
from cmxjax.rates.algorithms import chain_costs
from cmxjax.rates.collectives import (
    access_costs,
    bus_bytes,
    collective_costs,
    collective_s,
    plane_loads_s,
    several_of,
)
from cmxjax.rates.fabric import group_of
from cmxjax.specs.files import shipped
from cmxjax.specs.system_load import Reference, load_system
from cmxjax.switch import switch

CLOUDMATRIX = load_system(Reference("cloudmatrix384")).system
KINDS = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast", "p2p")
ALGORITHMS = ("direct", "ring", "striped_ring", "staged", "tree")

M = 64e6  # bytes
ALPHA, BETA = 2e-6, 1 / 100e9  # seconds per message, seconds per byte


def library(*algorithms, **costs):
    """A library that costs nothing beyond what `costs` says."""
    free = {
        "start_s": 0.0,
        "step_s": 0.0,
        "efficiency": 1.0,
        "small_efficiency": 1.0,
        "reduce_efficiency": 1.0,
        "switch_efficiency": 1.0,
        "chunk_s": 0.0,
        "protocol_s": 0.0,
        "protocol_bytes": 1e6,
        "protocol_exposed_fraction": 0.2,
        "network_start_s": 0.0,
        "network_chunk_s": 0.0,
        "sdma_slowdown": 1.0,
    }
    leaves = {k: jnp.asarray(v, float) for k, v in {**free, **costs}.items()}
    return CollectiveLibrary(
        algorithms={name: switch(True) for name in algorithms},
        pipelined=switch(False),
        **leaves,
    )


def linked(rate, latency_s, planes, reducing=(), network=()):
    """A fabric whose tiers are on planes of these names, of which some reduce and some
    are a network."""
    masks = [[float(own == name) for own in planes] for name in dict.fromkeys(planes)]
    return Fabric(
        rate=rate,
        latency_s=latency_s,
        reduces=jnp.array([float(name in reducing) for name in planes]),
        network=jnp.array([float(name in network) for name in planes]),
        planes=tuple(jnp.array(masks)),
    )


def flat(ranks, reducing=()):
    """Ranks on one tier of 100 GB/s and 2 us."""
    fabric = linked(jnp.array([1 / BETA]), jnp.array([ALPHA]), ("link",), reducing)
    return group_of(fabric, jnp.array([ranks], float))


# The sibling's link beside a plane of two tiers, as in a package, a node, a supernode.
RATES, LATENCIES = jnp.array([200e9, 100e9, 50e9]), jnp.array([0.5e-6, 1e-6, 4e-6])


def tiered(*splits, planes=("die", "ub", "ub"), rates=RATES, latencies=LATENCIES, **of):
    return group_of(linked(rates, latencies, planes, **of), jnp.asarray(splits, float))


def timed(kind, group, lib, payload, sharpness, factor=1.0, **more):
    """Time of a collective, with the seconds of its parts times a factor."""
    costs = collective_costs(kind, group, lib, payload, sharpness, **more)
    costs = {part: factor * cost for part, cost in costs.items()}
    several, exposed = several_of(group.ranks, sharpness), lib.protocol_exposed_fraction
    return collective_s(costs, several, exposed, sharpness)


def seconds(kind, group, lib, payload=M, sharpness=None):
    return float(timed(kind, group, lib, payload, sharpness))


@pytest.mark.parametrize("n", [2, 8, 64])
def test_ring_all_reduce_takes_two_passes_of_all_but_one_shard(n):
    expected = 2 * (n - 1) / n * M * BETA + 2 * (n - 1) * ALPHA
    assert seconds("all_reduce", flat(n), library("ring")) == pytest.approx(expected)


@pytest.mark.parametrize("n", [2, 8, 64])
def test_ring_all_gather_takes_n_minus_one_steps(n):
    expected = (n - 1) * (M * BETA + ALPHA)
    assert seconds("all_gather", flat(n), library("ring")) == pytest.approx(expected)


def test_each_step_of_a_ring_is_synchronized():
    lib = library("ring", step_s=3e-6)
    expected = 7 * (M * BETA + ALPHA + 3e-6)
    assert seconds("all_gather", flat(8), lib) == pytest.approx(expected)


@pytest.mark.parametrize("n", [2, 8, 64])
def test_direct_all_gather_takes_one_latency(n):
    expected = (n - 1) * M * BETA + ALPHA
    assert seconds("all_gather", flat(n), library("direct")) == pytest.approx(expected)


def test_reduce_scatter_is_an_all_gather_run_backwards_at_the_rate_of_reduction():
    lib = library("direct", efficiency=0.8, reduce_efficiency=0.5)
    expected = 7 * M * BETA / 0.8 / 0.5 + ALPHA
    assert seconds("reduce_scatter", flat(8), lib) == pytest.approx(expected)


@pytest.mark.parametrize("algorithms", [("ring",), ("direct",), ("direct", "tree")])
def test_all_to_all_sends_all_but_the_own_part_directly(algorithms):
    expected = 7 / 8 * M * BETA + ALPHA
    assert seconds("all_to_all", flat(8), library(*algorithms)) == pytest.approx(expected)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_message_takes_its_latency_and_its_bytes(algorithm):
    expected = M * BETA + ALPHA
    assert seconds("p2p", flat(2), library(algorithm)) == pytest.approx(expected)


@pytest.mark.parametrize("n", [2, 8, 64])
def test_switches_pass_the_buffer_once_where_a_ring_passes_it_twice(n):
    lib = library("ring", "in_switch", step_s=1e-6, switch_efficiency=0.9)
    expected = M * BETA / 0.9 + 2 * (ALPHA + 1e-6)
    ring = seconds("all_reduce", flat(n), library("ring", step_s=1e-6))
    took = seconds("all_reduce", flat(n, reducing=("link",)), lib)
    assert took == pytest.approx(min(expected, ring))


def test_switches_reduce_inside_a_node_before_they_send_between_nodes():
    # a rank sends all of the buffer to its node's switch and its eighth to the outer one
    rates, latencies = jnp.array([100e9, 1e9]), jnp.array([1e-6, 4e-6])
    of = {"planes": ("nvlink", "rdma"), "rates": rates, "latencies": latencies}
    group = tiered(8.0, 4.0, reducing=("nvlink", "rdma"), **of)
    took = seconds("all_reduce", group, library("in_switch"))
    assert took == pytest.approx(M / 8 / 1e9 + 2 * 5e-6)


@pytest.mark.parametrize(("nodes", "passes"), [(2, 1.0), (3, 1.5), (4, 2.0), (64, 2.0)])
def test_a_tree_joins_nodes_whose_network_does_not_reduce(nodes, passes):
    # of two nodes each sends half of what it has summed up and half of the result; of
    # four the busiest passes one half to three others and its own to one
    rates, latencies = jnp.array([100e9, 1e9]), jnp.array([1e-6, 4e-6])
    of = {"planes": ("nvlink", "rdma"), "rates": rates, "latencies": latencies}
    group = tiered(8.0, float(nodes), reducing=("nvlink",), **of)
    took = seconds("all_reduce", group, library("in_switch"))
    latency = 2 * (1e-6 + np.log2(nodes) * 4e-6)
    assert took == pytest.approx(passes * M / 8 / 1e9 + latency)


def test_a_group_that_spans_a_network_pays_its_start_and_its_chunks_once():
    costs = {"start_s": 5e-6, "network_start_s": 1e-4}
    chunks = {"chunk_s": 1e-6, "network_chunk_s": 3e-6}
    lib = library("direct", **costs, **chunks).replace(pipelined=switch(True))
    of = {"planes": ("nvlink", "rdma"), "rates": RATES[:2], "latencies": LATENCIES[:2]}
    inside, across, both = (8.0, 1.0), (1.0, 8.0), (2.0, 4.0)
    for splits, start, chunk in (
        (inside, 5e-6, 1e-6),
        (across, 1.05e-4, 4e-6),
        (both, 2.05e-4, 4e-6),
    ):
        group = tiered(*splits, network=("rdma",), **of)
        slow, latency = (1.0, 0.5e-6) if splits == inside else (2.0, 1e-6)
        # the rank beside sends over the inner link meanwhile
        wire = (splits[1] - 1.0) * splits[0] * M * slow / 200e9 or 7 * M / 200e9
        expected = start + latency + wire + 2 * np.sqrt(chunk * wire)
        assert seconds("all_gather", group, lib) == pytest.approx(expected)


def test_a_message_in_chunks_takes_the_best_number_of_them():
    chunk = 2e-6
    lib = library("direct", chunk_s=chunk).replace(pipelined=switch(True))
    counts = np.arange(1, 1000)
    wire = 7 * M * BETA
    best = (wire + wire / counts + counts * chunk).min()
    assert seconds("all_gather", flat(8), lib) == pytest.approx(best + ALPHA, rel=1e-3)


def test_broadcast_without_trees_is_a_scatter_and_an_all_gather():
    expected = 2 * 7 / 8 * M * BETA + 2 * ALPHA
    assert seconds("broadcast", flat(8), library("direct")) == pytest.approx(expected)


@pytest.mark.parametrize(("n", "levels"), [(2, 1), (8, 3), (1024, 10)])
def test_tree_latency_is_the_binary_logarithm_of_the_ranks(n, levels):
    # up, a step, and down again; the wire time of one byte is 1e-5 of a latency
    lib = library("ring", "tree", step_s=1e-6)
    expected = 2 * levels * (ALPHA + 1e-6) + 1e-6
    took = seconds("all_reduce", flat(n), lib, 1.0)
    assert took == pytest.approx(expected, rel=1e-4)


def test_a_tree_carries_the_whole_buffer_and_not_the_volume_of_a_ring():
    # a latency of 1 ms makes the ring's 126 steps hopeless
    fabric = linked(jnp.array([1 / BETA]), jnp.array([1e-3]), ("link",))
    group = group_of(fabric, jnp.array([64.0]))
    expected = 2 * 6 * 1e-3 + 2 * M * BETA
    assert seconds("all_reduce", group, library("ring", "tree")) == pytest.approx(
        expected
    )


def test_a_library_takes_the_tree_for_small_and_the_ring_for_large_messages():
    lib, n = library("ring", "tree"), 64
    small, large = 1e3, 1e9
    tree = 2 * 6 * ALPHA + 2 * small * BETA
    ring = 2 * 63 * ALPHA + 2 * 63 / 64 * large * BETA
    assert seconds("all_reduce", flat(n), lib, small) == pytest.approx(tree)
    assert seconds("all_reduce", flat(n), lib, large) == pytest.approx(ring)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("payload", [1e2, 1e6, 1e10])
def test_a_library_is_as_fast_as_the_best_of_its_algorithms(kind, payload):
    group = tiered(2.0, 4.0, 3.0)
    several = ("ring", "direct", "staged")
    alone = [seconds(kind, group, library(name), payload) for name in several]
    assert seconds(kind, group, library(*several), payload) == pytest.approx(min(alone))


def test_direct_exchange_runs_each_tier_on_its_own_plane():
    # of 24 ranks, 1 peer is the sibling, 6 in the node, 16 beyond; one plane joins the
    # latter two: 6 M at 100 GB/s and 16 M at 50 GB/s
    expected = 6 * M / 100e9 + 16 * M / 50e9 + 4e-6
    group = tiered(2.0, 4.0, 3.0)
    assert seconds("all_gather", group, library("direct")) == pytest.approx(expected)


def test_an_exchange_is_not_priced_on_its_slowest_tier_alone():
    # 2/3 of an all-to-all over three nodes leaves the node, and the rest doesn't
    fabric = {"planes": ("die", "ub", "rdma")}
    group = tiered(2.0, 4.0, 3.0, **fabric)
    expected = 16 / 24 * M / 50e9 + 4e-6
    assert seconds("all_to_all", group, library("direct")) == pytest.approx(expected)


def test_one_ring_loads_its_slowest_link_with_the_whole_volume():
    expected = 23 * (M / 50e9 + 4e-6)
    group = tiered(2.0, 4.0, 3.0)
    assert seconds("all_gather", group, library("ring")) == pytest.approx(expected)


def test_staged_all_gather_crosses_the_outer_tiers_first():
    # 2 shards between nodes, 3 x 3 between packages, 1 x 12 between siblings: 23 in all
    wire = 2 * M / 50e9 + 9 * M / 100e9 + 12 * M / 200e9
    expected = wire + 4e-6 + 1e-6 + 0.5e-6
    group = tiered(2.0, 4.0, 3.0)
    assert seconds("all_gather", group, library("staged")) == pytest.approx(expected)


def test_a_striped_ring_crosses_each_tier_as_often_as_the_closed_chain():
    # 24 edges: 12 between siblings, 9 between packages of a node, 3 between nodes
    group = tiered(2.0, 4.0, 3.0)
    wire = 23 * M * (9 / 24 / 100e9 + 3 / 24 / 50e9)
    expected = wire + 23 * 4e-6
    took = seconds("all_gather", group, library("striped_ring"))
    assert took == pytest.approx(expected)


EVERY = (*ALGORITHMS, "in_switch")
PAYLOADS = jnp.array([1e2, 1e4, 1e6, 1e8, 1e10])


def without(*names, **costs):
    """A library of all algorithms, of which some are switched off."""
    lib = library(*EVERY, **costs)
    return lib.replace(algorithms=lib.algorithms | {k: switch(False) for k in names})


@pytest.mark.parametrize("off", [*((name,) for name in EVERY[1:]), EVERY[1:]])
@pytest.mark.parametrize("sharpness", [None, 8.0])
@pytest.mark.parametrize("kind", KINDS)
def test_an_algorithm_that_is_switched_off_is_as_if_it_were_not_there(
    kind, sharpness, off
):
    others = [name for name in EVERY if name not in off]
    group = tiered(2.0, 4.0, 3.0)

    def times(lib):
        def time(payload):
            return timed(kind, group, lib, payload, sharpness)

        return jax.vmap(time)(PAYLOADS)

    switched, lacking = (
        times(lib) for lib in (without(*off, **COSTLY), library(*others, **COSTLY))
    )
    np.testing.assert_array_equal(switched, lacking)


@pytest.mark.parametrize("splits", [(1.0, 1.0, 1.0), (2.0, 4.0, 3.0)])
@pytest.mark.parametrize(
    ("kind", "sharpness"),
    [
        *((kind, None) for kind in KINDS),
        *((kind, 8.0) for kind in ("all_reduce", "p2p")),
        *(pytest.param(kind, 8.0, marks=pytest.mark.slow) for kind in KINDS[1:-1]),
    ],
)
def test_gradients_are_finite_where_algorithms_are_switched_off(kind, sharpness, splits):
    def time(fabric, splits, lib, payload):
        return timed(kind, group_of(fabric, splits), lib, payload, sharpness)

    fabric = linked(RATES, LATENCIES, ("die", "ub", "ub"))
    slope = jax.jit(jax.grad(time, range(4)))
    for off in [*((name,) for name in EVERY[1:]), EVERY[1:]]:
        job = (fabric, jnp.array(splits), without(*off, **COSTLY), jnp.asarray(M))
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slope(*job)))


HUGE = 1e12  # bytes, beside which no latency counts

STRIPED = "striped_ring"


@pytest.mark.parametrize("n", [2, 3, 8, 72])
@pytest.mark.parametrize("algorithm", ["direct", "ring", "staged", STRIPED])
def test_no_all_gather_beats_the_bytes_that_a_rank_must_receive(algorithm, n):
    received = (n - 1) * HUGE * BETA
    took = seconds("all_gather", flat(n), library(algorithm), HUGE)
    assert took >= received


@pytest.mark.parametrize("algorithm", ["direct", "ring", "staged", STRIPED])
def test_no_all_gather_beats_the_bytes_that_a_node_must_receive(algorithm):
    # a node of 8 must receive two thirds of 24 shards over its 8 ports at 50 GB/s
    received = 16 * HUGE / 8 / 50e9
    rates = jnp.array([1e18, 1e18, 50e9])
    group = tiered(2.0, 4.0, 3.0, planes=("a", "b", "c"), rates=rates)
    assert seconds("all_gather", group, library(algorithm), HUGE) >= received


@pytest.mark.parametrize("n", [2, 3, 8, 72])
@pytest.mark.parametrize("algorithm", ["direct", "ring", "staged", STRIPED])
def test_no_all_reduce_beats_two_passes_of_all_but_one_shard(algorithm, n):
    least = 2 * (n - 1) / n * HUGE * BETA
    took = seconds("all_reduce", flat(n), library(algorithm, "tree"), HUGE)
    assert took >= least


@pytest.mark.parametrize("sharpness", [None, 1.0, 50.0])
@pytest.mark.parametrize("kind", KINDS)
def test_one_rank_takes_no_time(kind, sharpness):
    alone = tiered(1.0, 1.0, 1.0)
    costly = library(*ALGORITHMS, start_s=5e-6, step_s=2e-6, protocol_s=1e-4)
    assert seconds(kind, alone, costly, M, sharpness) == 0.0


@cache
def compiled(kind, sharpness):
    """`time_of`, compiled for many examples of one shape."""
    return jax.jit(time_of(kind, sharpness))


def time_of(kind, sharpness):
    """Time as a function of the machine."""

    def time(machine):
        fabric = linked(machine["rates"], machine["latencies"], ("die", "ub", "rdma"))
        group = group_of(fabric, machine["splits"])
        lib = library(*ALGORITHMS).replace(**machine["library"])
        return timed(kind, group, lib, machine["payload"], sharpness)

    return time


def machine(splits=(2.0, 4.0, 3.0), payload=M, **library_leaves):
    return {
        "rates": RATES,
        "latencies": LATENCIES,
        "splits": jnp.asarray(splits, float),
        "payload": jnp.asarray(payload, float),
        "library": {k: jnp.asarray(v, float) for k, v in library_leaves.items()},
    }


COSTLY = {"start_s": 5e-6, "step_s": 2e-6, "protocol_s": 1e-4, "efficiency": 0.9}


@pytest.mark.parametrize("sharpness", [None, 8.0])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_one_rank_are_finite(kind, sharpness):
    alone = machine((1.0, 1.0, 1.0), **COSTLY)
    slopes = jax.grad(time_of(kind, sharpness))(alone)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))


several_splits = st.tuples(
    st.sampled_from([1.0, 2.0]),
    st.sampled_from([1.0, 1.5, 2.0, 8.0]),
    st.sampled_from([1.0, 2.0, 20.0]),
)
payloads = st.floats(1.0, 1e10)
gains = st.lists(st.floats(1.0, 100.0), min_size=3, max_size=3).map(jnp.array)


@pytest.mark.parametrize("sharpness", [None, 8.0])
@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=40)
@given(splits=several_splits, payload=payloads, gain=gains)
def test_more_bandwidth_is_never_slower(kind, sharpness, splits, payload, gain):
    before = machine(splits, payload, **COSTLY)
    after = {**before, "rates": RATES * gain}
    time = compiled(kind, sharpness)
    assert float(time(after)) <= float(time(before)) * (1 + 1e-9)


@pytest.mark.parametrize("sharpness", [None, 8.0])
@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=40)
@given(splits=several_splits, payload=payloads, gain=gains)
def test_less_latency_is_never_slower(kind, sharpness, splits, payload, gain):
    before = machine(splits, payload, **COSTLY)
    after = {**before, "latencies": LATENCIES / gain}
    time = compiled(kind, sharpness)
    assert float(time(after)) <= float(time(before)) * (1 + 1e-9)


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=40)
@given(splits=several_splits, payload=payloads, more=st.floats(1.0, 100.0))
def test_a_larger_payload_is_never_faster(kind, splits, payload, more):
    small = machine(splits, payload, **COSTLY)
    large = {**small, "payload": small["payload"] * more}
    time = compiled(kind, None)
    assert float(time(large)) >= float(time(small)) * (1 - 1e-9)


def shipped_libraries():
    """Every library of every shipped system, with its fabric."""
    found = {}
    for name in shipped("systems"):
        system = load_system(Reference(name)).system
        experts = next(iter(system.expert_parallel))
        mode = next(iter(system.expert_parallel[experts]))
        for lib in system.collectives:
            choices = Choices(lib, experts, mode, next(iter(system.engines)), alike=True)
            found[name, lib] = resolve(system, choices)
    return found


@cache
def over_payloads(kind):
    def times(fabric, lib, splits, payloads):
        group = group_of(fabric, splits)
        return jax.vmap(lambda m: timed(kind, group, lib, m, None))(payloads)

    return jax.jit(times)


@pytest.mark.parametrize(
    "kind",
    ["all_reduce", "all_gather", "all_to_all"]
    + [pytest.param(kind, marks=pytest.mark.slow) for kind in ("broadcast", "p2p")],
)
def test_no_shipped_library_is_faster_with_more_bytes(kind):
    every = shipped_libraries()

    @settings(deadline=None, max_examples=30)
    @given(st.data())
    def never_falls(data):
        chosen = every[data.draw(st.sampled_from(list(every)))]
        sizes = chosen.tiers.size.tolist()
        splits = [data.draw(st.sampled_from([1.0, 2.0, size])) for size in sizes]
        shares = {
            leaf: jnp.asarray(data.draw(st.floats(0.1, 1.0)))
            for leaf in ("small_efficiency", "efficiency", "protocol_exposed_fraction")
        }
        lib = chosen.library.replace(**shares)
        # from a hundredth of the threshold to a hundred times it, in steps of 2 %
        sizes = lib.protocol_bytes * jnp.geomspace(1e-2, 1e2, 460)
        took = over_payloads(kind)(chosen.fabric, lib, jnp.array(splits), sizes)
        assert (np.diff(took) >= -1e-9 * took[:-1]).all()

    never_falls()


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=40)
@given(splits=several_splits, payload=payloads)
def test_relaxed_time_converges_to_the_exact_one(kind, splits, payload):
    job = machine(splits, payload, **COSTLY)
    exact, relaxed = compiled(kind, None)(job), compiled(kind, 1e6)(job)
    # a handful of maxima, minima and gates (of splits from 1.5 up), each within 2e-6
    np.testing.assert_allclose(relaxed, exact, rtol=5e-5, atol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=20)
@given(splits=several_splits, payload=payloads, unit=st.floats(1e-3, 1e3))
def test_time_scales_with_the_unit_of_time(kind, splits, payload, unit):
    job = machine(splits, payload, **COSTLY)
    finer = {
        **job,
        "rates": job["rates"] / unit,
        "latencies": job["latencies"] * unit,
        "library": {
            k: v * unit if k.endswith("_s") else v for k, v in job["library"].items()
        },
    }
    time = compiled(kind, None)
    np.testing.assert_allclose(time(finer), unit * time(job), rtol=1e-12)


@pytest.mark.parametrize("sharpness", [None, 8.0])
@pytest.mark.parametrize("kind", KINDS)
def test_time_is_homogeneous_of_degree_one_in_its_parts(kind, sharpness):
    # start, transfer and protocol floor: no part of the time is left out of a breakdown
    group, lib = tiered(2.0, 4.0, 3.0), library(*ALGORITHMS, **COSTLY)
    once, thrice = (float(timed(kind, group, lib, M, sharpness, f)) for f in (1.0, 3.0))
    assert thrice == pytest.approx(3 * once, rel=1e-9)


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        ("all_to_all", 1 / 24),  # a part of the payload for each rank
        ("all_reduce", 2 / 24),  # scattered and gathered
        pytest.param("all_gather", 1.0),  # the whole shard for each rank
        pytest.param("reduce_scatter", 1.0),
    ],
)
def test_a_direct_exchange_loads_each_plane_with_the_parts_for_its_peers(kind, parts):
    # of 24 ranks, 1 peer is the sibling, 6 sit in the node and 16 beyond, on one plane
    group = tiered(2.0, 4.0, 3.0)
    loads = plane_loads_s(kind, group, library("direct", efficiency=0.5), M)
    expected = [M / 200e9, 6 * M / 100e9 + 16 * M / 50e9]
    np.testing.assert_allclose(loads, np.array(expected) * parts / 0.5, rtol=1e-12)


def test_the_start_of_a_library_is_paid_once():
    slow, quick = library("ring", start_s=9e-6), library("ring")
    extra = seconds("all_reduce", flat(8), slow) - seconds("all_reduce", flat(8), quick)
    assert extra == pytest.approx(9e-6)


def test_messages_below_the_threshold_go_at_their_own_rate():
    lib = library("direct", efficiency=0.8, small_efficiency=0.5, protocol_bytes=4 * M)
    small, large = seconds("all_gather", flat(8), lib), 7 * 16 * M * BETA / 0.8 + ALPHA
    assert small == pytest.approx(7 * M * BETA / 0.5 + ALPHA)
    assert seconds("all_gather", flat(8), lib, 16 * M) == pytest.approx(large)


def test_copy_engines_slow_the_transfer_and_not_the_start():
    lib = library("direct", start_s=9e-6, sdma_slowdown=1.5)
    moved = 7 * M * BETA + ALPHA
    time = timed("all_gather", flat(8), lib, M, None, driver="sdma")
    assert float(time) == pytest.approx(9e-6 + 1.5 * moved)


def test_a_protocol_floor_hides_behind_the_transfer_but_for_its_exposed_share():
    # at twice the threshold the gate is open but for 2**-32; the transfer is longer
    lib = library("direct", protocol_s=1e-4, protocol_bytes=M / 2)
    moved = 7 * M * BETA + ALPHA
    expected = moved + 0.2 * 1e-4 / (1 + 2.0**-32)
    assert seconds("all_gather", flat(8), lib) == pytest.approx(expected)


def test_small_messages_know_no_protocol_floor():
    # a tenth of the threshold leaves 1e-8 of the floor
    lib = library("direct", protocol_s=1e-4, protocol_bytes=10 * M)
    moved = 7 * M * BETA + ALPHA
    assert seconds("all_gather", flat(8), lib) == pytest.approx(moved, abs=2e-12)


def test_a_chain_hands_over_once_between_neighbors():
    # 6 stages on 2 x 3: three hand-overs between siblings and two between packages
    group = tiered(2.0, 3.0, 1.0)
    lib = library("ring", start_s=7e-6)
    wire = 3 * (0.5e-6 + M / 200e9) + 2 * (1e-6 + M / 100e9)
    assert sum(chain_costs(group, lib, M).values()) == pytest.approx(wire + 5 * 7e-6)


def test_a_chain_of_one_stage_hands_nothing_over():
    costs = chain_costs(tiered(1.0, 1.0, 1.0), library("ring", start_s=7e-6), M)
    assert sum(costs.values()) == 0.0


ENDPOINT = Endpoint(
    read_efficiency=jnp.asarray(0.8),
    write_efficiency=jnp.asarray(0.5),
    latency_s=jnp.asarray(0.3e-6),
    write_latency_s=jnp.asarray(0.2e-6),
)


def accessed_s(*access):
    return sum(access_costs(*access).values())


def test_a_remote_read_takes_the_latencies_of_the_way_and_its_end():
    group = tiered(1.0, 1.0, 2.0)
    time = accessed_s("read", group, ENDPOINT, M, None)
    assert float(time) == pytest.approx(4e-6 + 0.3e-6 + M / 50e9 / 0.8)


def test_a_remote_write_waits_for_its_completion_too():
    group = tiered(1.0, 2.0, 1.0)
    time = accessed_s("write", group, ENDPOINT, M, None)
    assert float(time) == pytest.approx(1e-6 + 0.5e-6 + M / 100e9 / 0.5)


@pytest.mark.parametrize(("splits", "published_us"), [((8,), 1.2), ((1, 2), 1.9)])
def test_a_small_read_takes_the_published_latency(splits, published_us):
    # Table 1 of arXiv 2506.12708v2: 512 bytes, inside a node and between nodes
    ways = [1.0, 1.0, 1.0, 1.0]
    ways[len(splits)] = 2.0
    group = group_of(tiers_of(CLOUDMATRIX).fabric, jnp.array(ways))
    time = accessed_s("read", group, CLOUDMATRIX.endpoints["npu"], 512.0, None)
    # the table prints two digits
    assert float(time) == pytest.approx(published_us * 1e-6, rel=0.05)


@pytest.mark.parametrize(
    ("kind", "factor"),
    [
        ("all_reduce", 2 * 7 / 8),
        ("all_gather", 7.0),
        ("reduce_scatter", 7.0),
        ("all_to_all", 7 / 8),
        ("broadcast", 1.0),
        ("p2p", 1.0),
    ],
)
def test_bus_bytes_follow_nccl_tests(kind, factor):
    # nccl-tests count the gathered buffer, n shards, and multiply by (n - 1) / n
    assert float(bus_bytes(kind, flat(8), M)) == pytest.approx(factor * M)


@pytest.mark.parametrize("kind", ["all_reduce", "all_gather", "reduce_scatter"])
def test_bus_rate_of_a_ring_is_the_link_rate(kind):
    group = flat(8)
    time = seconds(kind, group, library("ring"), 1e12)
    # 14 latencies of 2 us against seconds
    assert float(bus_bytes(kind, group, 1e12)) / time == pytest.approx(1 / BETA, rel=1e-4)


def bus_rate_of_a_node(system, efficiency):
    """Bus rate of an all-gather of 40 MiB on the 16 dies of a node."""
    group = group_of(tiers_of(system).fabric, jnp.array([2.0, 8.0, 1.0, 1.0]))
    hccl = system.collectives["hccl"].replace(efficiency=jnp.asarray(efficiency))
    payload = 40.0 * 2**20
    time = timed("all_gather", group, hccl, payload, None)
    return float(bus_bytes("all_gather", group, payload) / time)


def test_a_node_gathers_faster_than_its_plane_because_siblings_have_their_own_link():
    # 204 GB/s is published on a plane of 196 GB/s; 14 of 15 shards pass that plane, so
    # the bound is 210 GB/s
    assert 204e9 < bus_rate_of_a_node(CLOUDMATRIX, 1.0) < 196e9 * 15 / 14


def test_a_node_without_sibling_links_can_not_reach_the_published_rate():
    ub = CLOUDMATRIX.tiers["node"]
    sibling = CLOUDMATRIX.tiers["package"].replace(plane="ub", bytes_per_s=ub.bytes_per_s)
    alone = CLOUDMATRIX.replace(tiers={**CLOUDMATRIX.tiers, "package": sibling})
    assert bus_rate_of_a_node(alone, 1.0) < 196e9
