"""MoE dispatch and combine, and the load of the busiest rank."""

from functools import partial
from itertools import combinations
from math import comb

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cmxjax as cmx
from cmxjax.job.layout import place
from cmxjax.job.workload import BYTES, balance_of, scale_bytes
from cmxjax.machine.libraries import ExpertMode
from cmxjax.machine.resolve import Choices, resolve, tiers_of
from cmxjax.machine.tiers import Fabric
from cmxjax.model.feed_forwards import ANY_GROUP, GroupLimit
from cmxjax.rates.exchange import copies_of, exchange_costs, exchange_s, ranks_of
from cmxjax.rates.fabric import group_of
from cmxjax.specs.system_load import Reference, load_system
from cmxjax.step.exchanges import copy_bytes, price_split_experts
from cmxjax.switch import switch
from cmxjax.work.routing import ExpertLoad, busiest_rank_load, open_places, visited

CLOUDMATRIX = load_system(Reference("cloudmatrix384")).system
H800 = load_system(Reference("hgx-h800")).system

# Two dies to a package with their own link, packages on UB, and RDMA outside.
FABRIC = Fabric(
    rate=jnp.array([270e9, 196e9, 25e9]),
    latency_s=jnp.array([0.2e-6, 0.9e-6, 5e-6]),
    reduces=jnp.zeros(3),
    network=jnp.zeros(3),
    planes=tuple(jnp.eye(3)),
)
HBM = 1.4e12
TYPICAL = balance_of("typical")


def mode(far=False, deduplicates=False, gathers=False, tiers=3, **costs):
    """A mode that costs nothing beyond what `costs` says.

    Args:
        far: all traffic takes the outermost tier.
    """
    free = {
        "dispatch_start_s": 0.0,
        "combine_start_s": 0.0,
        "jitter_s": 0.0,
        "spread": 0.0,
        "efficiency": 1.0,
        "dispatch_copy_s": 0.0,
        "combine_copy_s": 0.0,
        "dispatch_peer_s": 0.0,
        "combine_peer_s": 0.0,
        "sdma_slowdown": 1.0,
        "core_share": 0.0,
        "scale_slot_bytes": 0.0,
        "scale_share": 4 / 128,
        "dispatch_least_s": 0.0,
        "combine_least_s": 0.0,
        "cores": 20.0,
        "dispatch_core_s": 0.0,
        "combine_core_s": 0.0,
        "core_bytes_per_s": 1e15,
    }
    leaves = {k: jnp.asarray(v, float) for k, v in {**free, **costs}.items()}
    outermost = jnp.zeros(tiers).at[-1].set(1.0)
    return ExpertMode(
        deduplicates=switch(deduplicates),
        gathers=switch(True) if gathers else None,
        only=outermost * far,
        across=outermost,
        **leaves,
    )


def mode_of(system, library, name):
    """A mode of a system as its machine has it."""
    collectives, engine = next(iter(system.collectives)), next(iter(system.engines))
    return resolve(system, Choices(collectives, library, name, engine)).exchange


def placed(ranks, fabric=FABRIC, sizes=(2.0, 8.0, 1000.0)):
    """Contiguous ranks from the innermost tier."""
    order = ("tp", "cp", "dp", "pp")
    degrees = {"tp": ranks, "cp": 1.0, "dp": 1.0, "pp": 1.0}
    return group_of(fabric, jnp.asarray(place(degrees, list(sizes), order)["tp"]))


def seconds(kind, group, m, tokens=128.0, copies=8.0, size=7680.0, **more):
    load, sharpness = more.pop("load", 1.0), more.pop("sharpness", None)
    sent = copies_of(group, m, tokens, copies, load, more.pop("limit", ANY_GROUP))
    return float(timed(kind, sent, m, size, sharpness, **more))


def timed(kind, sent, m, size, sharpness, factor=1.0, **more):
    """Time of an exchange, with the seconds of its parts times a factor."""
    costs = exchange_costs(kind, sent, m, size, HBM, sharpness, **more)
    costs = {part: factor * cost for part, cost in costs.items()}
    return exchange_s(costs, ranks_of(sent.group, m, sharpness), sharpness)


@pytest.mark.parametrize(("kind", "start_s"), [("dispatch", 20e-6), ("combine", 30e-6)])
def test_exchange_among_eight_dies_by_hand(kind, start_s):
    # 4 packages of 2: of 128 x 8 copies an eighth stays, an eighth goes to the sibling
    # and six eighths over UB, which takes longest; the slowest of 8 ranks is ln 8 late,
    # and so is a tenth of its sending; combine reads 8 copies of a token and writes one
    costs = {"dispatch_start_s": 20e-6, "combine_start_s": 30e-6, "jitter_s": 4e-6}
    took = seconds(kind, placed(8.0), mode(efficiency=0.7, spread=0.1, **costs))
    wire = 128 * 8 * 7680 * 6 / 8 / (196e9 * 0.7)
    after = {
        "dispatch": (4e-6 + 0.1 * wire) * np.log(8),
        "combine": 128 * 9 * 7680 / HBM,
    }
    assert took == pytest.approx(start_s + 0.9e-6 + wire + after[kind])


def test_every_other_rank_costs_its_share():
    costs = mode(dispatch_peer_s=20e-6, combine_peer_s=5e-6)
    for kind, peer_s in (("dispatch", 20e-6), ("combine", 5e-6)):
        extra = seconds(kind, placed(8.0), costs) - seconds(kind, placed(8.0), mode())
        assert extra == pytest.approx(7 * peer_s)


def test_posting_the_copies_bounds_the_dispatch_of_many_small_tokens():
    took = seconds("dispatch", placed(8.0), mode(dispatch_copy_s=0.2e-6), size=64.0)
    assert took == pytest.approx(0.9e-6 + 128 * 8 * 0.2e-6)


def test_combine_adds_up_copy_by_copy_after_the_transfer():
    extra = seconds("combine", placed(8.0), mode(combine_copy_s=0.1e-6)) - seconds(
        "combine", placed(8.0), mode()
    )
    assert extra == pytest.approx(128 * 8 * 0.1e-6)


def test_copies_to_the_own_rank_are_read_and_written_in_memory():
    # links so fast that only memory counts
    fabric = FABRIC.replace(rate=jnp.array([1e18, 1e18, 1e18]))
    took = seconds("dispatch", placed(8.0, fabric), mode())
    own = 128 * 8 / 8 * 7680
    assert took == pytest.approx(0.9e-6 + 2 * own / HBM)


def test_all_ranks_post_and_add_up_alike_whatever_the_busiest_one_gets():
    group = placed(8.0)
    posted = mode(dispatch_copy_s=1e-6)
    once, twice = (seconds("dispatch", group, posted, load=x) for x in (1.0, 2.0))
    assert twice == pytest.approx(once)
    added = mode(combine_copy_s=1e-6)
    extra = [
        seconds("combine", group, added, load=x)
        - seconds("combine", group, mode(), load=x)
        for x in (1.0, 2.0)
    ]
    assert extra == pytest.approx([128 * 8 * 1e-6] * 2)


def test_the_busiest_rank_receives_in_proportion_to_its_load():
    once, twice = (seconds("dispatch", placed(8.0), mode(), load=x) for x in (1.0, 2.0))
    assert twice - 0.9e-6 == pytest.approx(2 * (once - 0.9e-6))


@settings(deadline=None)
@given(st.floats(0.01, 4096.0))
def test_transfer_time_is_proportional_to_the_tokens_down_to_parts_of_one(tokens):
    group = placed(8.0)
    wire = tokens * 8 * 7680 * 6 / 8 / 196e9
    took = seconds("dispatch", group, mode(), tokens=tokens)
    assert took == pytest.approx(0.9e-6 + wire)


def test_copy_engines_slow_the_transfer_and_not_the_start():
    costs = mode(dispatch_start_s=20e-6, sdma_slowdown=1.5)
    fixed = 20e-6 + 0.9e-6
    cores = seconds("dispatch", placed(8.0), costs) - fixed
    engines = seconds("dispatch", placed(8.0), costs, driver="sdma") - fixed
    assert engines == pytest.approx(1.5 * cores)


@pytest.mark.parametrize("sharpness", [None, 1.0, 50.0])
@pytest.mark.parametrize("how", [{}, {"far": True}, {"deduplicates": True}])
def test_one_rank_takes_no_time_and_has_finite_gradients(how, sharpness):
    def time(splits, rates, tokens, size):
        group = group_of(FABRIC.replace(rate=rates), splits)
        costs = mode(**how, dispatch_start_s=2e-5, jitter_s=4e-6, dispatch_copy_s=1e-7)
        load = busiest_rank_load(TYPICAL, 0.2, 8.0 * tokens, group.ranks, 0.0)
        copies = copies_of(group, costs, tokens, 8.0, load)
        return timed("dispatch", copies, costs, size, sharpness)

    alone = (jnp.ones(3), FABRIC.rate, jnp.asarray(128.0), jnp.asarray(7680.0))
    value, slopes = jax.value_and_grad(time, argnums=(0, 1, 2, 3))(*alone)
    assert float(value) == 0.0
    assert all(np.isfinite(slope).all() for slope in slopes)


@pytest.mark.parametrize("kind", ["dispatch", "combine"])
@pytest.mark.parametrize("library_mode", ["low_latency", "normal"])
def test_time_grows_with_the_ranks(kind, library_mode):
    fabric = tiers_of(CLOUDMATRIX).fabric
    costs = mode_of(CLOUDMATRIX, "cann-ep", library_mode)
    ranks = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 320.0, 768.0, 1536.0]
    sizes = (2.0, 8.0, 48.0, 429.0)
    times = [seconds(kind, placed(n, fabric, sizes), costs) for n in ranks]
    assert (np.diff(times) > 0.0).all()


def test_combine_among_eight_dies_responds_to_the_link_inside_the_package():
    # at 270 GB/s the sibling's part hides behind UB's six; at a tenth it does not
    slow = FABRIC.replace(rate=FABRIC.rate.at[0].set(27e9))
    part = 128 * 8 / 8 * 7680
    before = seconds("combine", placed(8.0), mode())
    after = seconds("combine", placed(8.0, slow), mode())
    summed = 128 * 9 * 7680 / HBM
    assert before == pytest.approx(0.9e-6 + 6 * part / 196e9 + summed)
    assert after == pytest.approx(0.9e-6 + part / 27e9 + summed)


def test_relaxed_combine_responds_to_every_plane_it_uses():
    def time(rates):
        group = group_of(FABRIC.replace(rate=rates), jnp.array([2.0, 4.0, 1.0]))
        copies = copies_of(group, mode(), 128.0, 8.0, 1.0)
        return timed("combine", copies, mode(), 7680.0, 4.0)

    slopes = jax.grad(time)(FABRIC.rate)
    assert slopes[0] < 0.0
    assert slopes[1] < 0.0
    assert float(slopes[2]) == pytest.approx(0.0, abs=1e-30)


@pytest.mark.parametrize("sharpness", [None, 8.0])
@pytest.mark.parametrize("kind", ["dispatch", "combine"])
def test_time_is_homogeneous_of_degree_one_in_its_parts(kind, sharpness):
    # start, wait, transfer and copies: no part is left out of a breakdown
    costs = mode(dispatch_start_s=2e-5, jitter_s=4e-6, dispatch_copy_s=3e-8)
    job = {"sharpness": sharpness, "driver": "sdma"}
    once, thrice = (
        seconds(kind, placed(24.0), costs, factor=f, **job) for f in (1.0, 3.0)
    )
    assert thrice == pytest.approx(3 * once, rel=1e-9)


gains = st.lists(st.floats(1.0, 100.0), min_size=3, max_size=3).map(jnp.array)
ways = st.sampled_from([{}, {"far": True}, {"deduplicates": True}])


@settings(deadline=None, max_examples=60)
@given(
    how=ways,
    ranks=st.sampled_from([2.0, 8.0, 16.0, 24.0, 64.0, 320.0]),
    tokens=st.floats(0.5, 4096.0),
    gain=gains,
    sharpness=st.sampled_from([None, 6.0]),
)
def test_more_bandwidth_and_less_latency_are_never_slower(
    how, ranks, tokens, gain, sharpness
):
    costs = mode(**how, dispatch_start_s=2e-5, jitter_s=4e-6, dispatch_copy_s=3e-8)
    faster = FABRIC.replace(rate=FABRIC.rate * gain)
    closer = FABRIC.replace(latency_s=FABRIC.latency_s / gain)
    job = {"tokens": tokens, "sharpness": sharpness}
    before = seconds("dispatch", placed(ranks), costs, **job)
    for better in (faster, closer):
        after = seconds("dispatch", placed(ranks, better), costs, **job)
        assert after <= before * (1 + 1e-9)


@settings(deadline=None, max_examples=40)
@given(
    how=ways,
    ranks=st.sampled_from([2.0, 8.0, 16.0, 24.0, 64.0, 320.0]),
    tokens=st.floats(0.5, 4096.0),
)
def test_relaxed_time_converges_to_the_exact_one(how, ranks, tokens):
    costs = mode(**how, dispatch_start_s=2e-5, jitter_s=4e-6, dispatch_copy_s=3e-8)
    exact = seconds("dispatch", placed(ranks), costs, tokens=tokens)
    relaxed = seconds("dispatch", placed(ranks), costs, tokens=tokens, sharpness=1e6)
    # gates of splits from 1.5 up and a handful of maxima, each within 2e-6
    assert relaxed == pytest.approx(exact, rel=2e-5)


# A node of 8 on NVLink, nodes on RDMA: DeepEP's machine.
NODE_SIZES = (8.0, 8192.0)
node_mode = partial(mode, tiers=2)


def on_h800(ranks, node_gain=1.0, rdma_gain=1.0):
    fabric = tiers_of(H800).fabric
    rate = fabric.rate * jnp.array([node_gain, rdma_gain])
    latency = fabric.latency_s / jnp.array([node_gain, rdma_gain])
    return placed(ranks, fabric.replace(rate=rate, latency_s=latency), NODE_SIZES)


@pytest.mark.parametrize("ranks", [8.0, 16.0, 144.0])
def test_a_mode_on_rdma_ignores_nvlink(ranks):
    low_latency = mode_of(H800, "deepep", "low_latency")
    times = [
        seconds("dispatch", on_h800(ranks, node_gain=g), low_latency)
        for g in (0.1, 1, 10)
    ]
    assert times == pytest.approx([times[0]] * 3, rel=1e-15)


@pytest.mark.parametrize("ranks", [8.0, 16.0, 144.0])
def test_a_mode_on_rdma_sends_all_but_its_own_part_over_rdma(ranks):
    group = on_h800(ranks)
    rate, latency = float(group.fabric.rate[1]), float(group.fabric.latency_s[1])
    expected = latency + 128 * 8 * 7680 * (ranks - 1) / ranks / rate
    assert seconds("dispatch", group, node_mode(far=True)) == pytest.approx(expected)


def test_a_mode_over_both_planes_responds_to_nvlink():
    normal = mode_of(H800, "deepep", "normal")
    times = [
        seconds("dispatch", on_h800(16.0, node_gain=g), normal, tokens=4096.0)
        for g in (0.5, 1.0)
    ]
    assert times[0] > times[1] * 1.3


def test_a_deduplicated_token_crosses_to_a_node_once():
    # of 2 nodes a token with 8 copies visits 2 (1 - 2^-8), half of them the other one;
    # with NVLink out of the way that is all
    group = on_h800(16.0, node_gain=1e6)
    rate, latency = float(group.fabric.rate[1]), float(group.fabric.latency_s[1])
    crossings = 128 * (1 - 0.5**8)
    took = seconds("dispatch", group, node_mode(deduplicates=True))
    assert took == pytest.approx(latency + crossings * 7680 / rate)


def test_a_deduplicated_token_spreads_over_nvlink():
    # a token reaches its ranks over NVLink, each once, but for the eighth that arrive
    # at it; 8 copies visit 16 (1 - (15/16)^8) of 16 ranks
    group = on_h800(16.0, rdma_gain=1e6)
    rate, latency = float(group.fabric.rate[0]), float(group.fabric.latency_s[0])
    visits = 16 * (1 - (15 / 16) ** 8)
    took = seconds("dispatch", group, node_mode(deduplicates=True))
    assert took == pytest.approx(latency + 128 * visits * 7 / 8 * 7680 / rate)


@settings(deadline=None, max_examples=60)
@given(
    copies=st.floats(1.0, 64.0),
    ranks=st.sampled_from([2.0, 8.0, 16.0, 24.0, 32.0, 144.0, 1024.0]),
    tokens=st.floats(0.5, 4096.0),
)
def test_deduplication_never_sends_more_between_nodes(copies, ranks, tokens):
    # NVLink so fast that only what crosses between nodes counts
    group = on_h800(ranks, node_gain=1e9)
    plain = seconds("dispatch", group, node_mode(), tokens, copies)
    saved = seconds("dispatch", group, node_mode(deduplicates=True), tokens, copies)
    assert saved <= plain * (1 + 1e-12)


def test_a_single_copy_has_nothing_to_deduplicate():
    group = on_h800(32.0, node_gain=1e9)
    plain = seconds("dispatch", group, node_mode(), copies=1.0)
    saved = seconds("dispatch", group, node_mode(deduplicates=True), copies=1.0)
    assert saved == pytest.approx(plain)


@pytest.mark.parametrize("places", [1, 2, 4, 8, 16, 64])
@pytest.mark.parametrize("used", [1, 3, 4, 7, 8])
def test_places_open_to_a_token_as_counted_over_all_choices(places, used):
    # a place of 64 experts has whole groups of 8, or some experts of one
    each = 64 // places
    held = [{e // 8 for e in range(p * each, (p + 1) * each)} for p in range(places)]
    choices = [set(c) for c in combinations(range(8), used)]
    counts = [sum(bool(groups & chosen) for groups in held) for chosen in choices]
    found = float(open_places(jnp.asarray(float(places)), GroupLimit(8, used)))
    assert found == pytest.approx(np.mean(counts))


def test_a_token_of_deepseek_crosses_to_few_nodes():
    # 8 nodes hold a group each, of which a token uses 4: its 8 copies visit 4 (1 - .75^8)
    # of them, seven eighths of those not its own
    group = on_h800(64.0, node_gain=1e6)
    rate, latency = float(group.fabric.rate[1]), float(group.fabric.latency_s[1])
    crossings = 128 * 4 * (1 - 0.75**8) * 7 / 8
    costs, limit = node_mode(deduplicates=True), GroupLimit(8, 4)
    took = seconds("dispatch", group, costs, limit=limit)
    assert took == pytest.approx(latency + crossings * 7680 / rate)


def test_limiting_nodes_only_matters_where_copies_travel_once():
    group = on_h800(64.0)
    free = seconds("dispatch", group, node_mode())
    assert seconds("dispatch", group, node_mode(), limit=GroupLimit(8, 4)) == free


def load(balance, copies, ranks=64.0, skew=0.3, spare=0.0):
    return float(busiest_rank_load(balance_of(balance), skew, copies, ranks, spare))


def test_a_uniform_load_is_the_mean():
    assert load("uniform", 10.0) == 1.0


def test_one_rank_carries_the_mean():
    assert load("random", 10.0, ranks=1.0) == 1.0


def test_skew_counts_in_a_typical_load_only():
    many = 1e12  # copies, beside which sampling is nothing
    assert load("random", many) == pytest.approx(1.0, abs=1e-6)
    busiest = 1.0 + 0.3 * (1.0 - 1.0 / 64.0)
    assert load("typical", many) == pytest.approx(busiest, abs=1e-6)


def test_sampling_part_shrinks_with_tokens():
    copies = [10.0, 100.0, 1000.0, 1e4, 1e6]
    excess = np.array([load("random", c) for c in copies]) - 1.0
    assert (np.diff(excess) < 0.0).all()
    # like one over the root, but for a floor of 1e-4 under a spread of 8e-3
    assert excess[2] / excess[1] == pytest.approx(np.sqrt(0.1), rel=0.01)


def test_sampling_part_grows_with_the_ranks():
    excess = [load("random", 100.0, ranks=n) for n in (2.0, 8.0, 64.0, 320.0)]
    assert (np.diff(excess) > 0.0).all()


@pytest.mark.parametrize(("ranks", "mean"), [(16, 200), (64, 100), (320, 400)])
def test_sampling_part_matches_balls_in_bins(ranks, mean):
    # the closed form is the leading term for many bins; for these it lies up to a third
    # above the mean of the largest of Poisson counts
    counts = np.random.default_rng(0).poisson(mean, (4000, ranks))
    simulated = counts.max(axis=1).mean() / mean - 1.0
    modeled = load("random", float(mean), ranks=float(ranks)) - 1.0
    assert simulated < modeled < 1.35 * simulated


def test_one_redundant_slot_for_each_rank_halves_the_skew():
    many = 1e12
    without, halved = (load("typical", many, spare=r) - 1.0 for r in (0.0, 1.0))
    assert halved == pytest.approx(without / 2, abs=1e-6)


def test_a_skew_of_zero_is_perfect_balance():
    assert load("typical", 100.0, skew=0.0) == load("random", 100.0)


@pytest.mark.parametrize(
    ("name", "dispatched", "combined"),
    [
        # 7168 bytes of int8 with a slot of 512 for scales, of fp8 with 4 for each 128;
        # 7168 x 2 of bf16 without
        ("deepseek-r1-decode-cloudmatrix384", 7168 + 512, 2 * 7168),
        ("deepseek-r1-decode-hgx-h800", 7168 + 224, 2 * 7168),
    ],
)
def test_dispatch_sends_eight_bit_tokens_and_their_scales(
    problem, name, dispatched, combined
):
    p = problem(name)
    software = p.workload.software
    mode = p.machine.exchange
    sizes = [
        float(copy_bytes(p.model, software, mode)[kind])
        for kind in ("dispatch", "combine")
    ]
    assert sizes == [dispatched, combined]


@pytest.mark.parametrize(("experts", "places"), [(8, 2), (8, 4), (12, 3), (6, 6)])
@pytest.mark.parametrize("copies", [1, 2, 3, 5])
def test_places_that_a_token_visits_as_counted_over_all_choices(experts, places, copies):
    each = experts // places
    chosen = combinations(range(experts), copies)
    counts = [len({e // each for e in choice}) for choice in chosen]
    found = float(visited(jnp.asarray(float(places)), float(copies), experts))
    assert found == pytest.approx(np.mean(counts), rel=1e-5)


def test_eight_of_256_experts_visit_nearly_as_many_ranks_as_drawn_one_by_one():
    # of 64 ranks with 4 experts each, by binomial coefficients
    exact = 64 * (1 - comb(252, 8) / comb(256, 8))
    found = partial(visited, jnp.asarray(64.0))
    assert float(found(8.0, 256.0)) == pytest.approx(exact)
    assert float(found(8.0)) == pytest.approx(64 * (1 - (63 / 64) ** 8))
    assert float(found(20.0, 1024.0)) == pytest.approx(
        64 * (1 - comb(1008, 20) / comb(1024, 20)), rel=1e-3
    )
    # every expert of every rank; and smooth in both
    assert float(visited(jnp.asarray(4.0), 8.0, 8.0)) == pytest.approx(4.0, rel=1e-5)
    slopes = jax.grad(lambda k, e: found(k, e), (0, 1))(8.0, 256.0)
    steps = found(8.5, 256.0) - found(7.5, 256.0), found(8.0, 256.5) - found(8.0, 255.5)
    np.testing.assert_allclose(slopes, steps, rtol=1e-3)


def test_gathering_sends_each_token_to_each_rank_once_by_hand():
    # 32 dies: 2 to a package, 8 packages to a node, 2 nodes. Over RDMA a rank gets the
    # tokens of one other, over UB 7 packages of 2 nodes, from its sibling the other 16
    group = placed(32.0)
    sent = copies_of(group, mode(gathers=True), 128.0, 8.0, 1.7)
    np.testing.assert_allclose(sent.tiers, [128.0 * 16, 128.0 * 14, 128.0])
    assert float(sent.load) == 1.0
    wires = np.array([16 / 270e9, 14 / 196e9, 1 / 25e9]) * 128 * 7680
    took = seconds("dispatch", group, mode(gathers=True), copies=8.0)
    assert took == pytest.approx(5e-6 + wires.max())
    assert took == seconds("dispatch", group, mode(gathers=True), copies=2.0, load=1.7)


def test_half_of_the_cores_take_twice_as_long_until_the_link_is_full():
    costs = mode(dispatch_core_s=0.3e-6, core_bytes_per_s=40e9)
    each = 0.3e-6 + 7680 / 40e9
    latency, wire = 0.9e-6, 128 * 6 * 7680 / 196e9
    for cores in (8.0, 16.0):
        took = seconds("dispatch", placed(8.0), costs, cores=cores)
        assert took == pytest.approx(latency + 128 * 8 * each / cores)
    full = seconds("dispatch", placed(8.0), costs, cores=1000.0)
    assert full == pytest.approx(latency + wire)
    own = seconds("dispatch", placed(8.0), costs)
    assert own == seconds("dispatch", placed(8.0), costs, cores=20.0)


@pytest.mark.parametrize("kind", ["dispatch", "combine"])
def test_few_tokens_take_the_least_time_and_many_their_share(kind):
    group, flat = placed(8.0), mode(**{f"{kind}_least_s": 20e-6})
    assert seconds(kind, group, flat, 1e-6) == pytest.approx(0.9e-6 + 20e-6)
    assert seconds(kind, group, flat, 4096.0) == seconds(kind, group, mode(), 4096.0)


def test_between_nodes_others_hand_on_and_add_up_what_a_token_sends():
    group = on_h800(16.0)
    sent = copies_of(group, node_mode(deduplicates=True), 128.0, 8.0, 1.0)
    held, nodes = 16 * (1 - (15 / 16) ** 8), 2 * (1 - 0.5**8)
    assert float(sent.per_token) == pytest.approx(held)
    assert float(sent.spread) == pytest.approx(nodes / 2)
    assert float(sent.joined) == pytest.approx(held / 2)


def test_scales_are_those_of_the_library():
    # DeepEP has 4 bytes for each 128 values, the fused kernel of CloudMatrix384 a slot of
    # 512; 16 bits need none, and NVFP4 counts its own
    deepep, fused = (
        mode_of(H800, "deepep", "normal"),
        mode_of(CLOUDMATRIX, "cann-ep", "normal"),
    )
    for m, width, expected in (
        (deepep, 4096, 128),
        (deepep, 7168, 224),
        (fused, 4096, 512),
    ):
        sizes = jnp.array([1.0, 0.5, 2.0, BYTES["nvfp4"]])
        found = scale_bytes(width, sizes, m.scale_slot_bytes, m.scale_share)
        np.testing.assert_allclose(found, [expected, expected, 0.0, 0.0])


def test_ranks_that_split_experts_share_each_token_once_whatever_its_experts(problem):
    # a rank adds up its experts' outputs for a token before the group adds up those sums
    p = problem("deepseek-r1-decode-hgx-h800")
    layout = cmx.layout(p.machine, devices=8, tp=8, ep=1, etp=8)
    sizes = {"dispatch": jnp.asarray(7392.0), "combine": jnp.asarray(14336.0)}
    one, eight = (
        price_split_experts(
            p.machine,
            p.model,
            layout,
            ExpertLoad(jnp.asarray(copies), *[jnp.ones(())] * 3),
            jnp.asarray(128.0),
            sizes,
            None,
        )
        for copies in (1.0, 8.0)
    )
    for kind in sizes:
        assert sum(one[kind].values()) == pytest.approx(
            float(sum(eight[kind].values())), rel=1e-5
        )
