"""Tiers that are a torus or an oversubscribed tree, against closed forms and counts of
what each link carries."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jobs import all_finite
from test_collectives import library, seconds, timed

import cmxjax as cmx
from cmxjax.machine.resolve import tiers_of
from cmxjax.machine.tiers import Fabric, Torus
from cmxjax.rates.algorithms import chain_costs
from cmxjax.rates.fabric import group_of, scattered
from cmxjax.rates.torus import LONGEST, block_of, extents
from cmxjax.specs.build import build
from cmxjax.specs.errors import SpecError
from cmxjax.specs.scenario import validate_scenario
from cmxjax.specs.system_load import Reference, load_system, read_system_file

M = 64e6  # bytes
LINK, ALPHA = 50e9, 1e-6  # bytes per second one way, seconds of a hop
OPEN = 2 * LONGEST


def torus(*shapes, closes=None):
    """Tiers that are tori of links of 50 GB/s, innermost first, all on one plane."""
    count = max(map(len, shapes))
    rows = [[*shape, *[1] * (count - len(shape))] for shape in shapes]
    links = [2.0 * sum(side > 1 for side in shape) for shape in shapes]
    return Fabric(
        rate=LINK * jnp.array(links).clip(1.0),
        latency_s=jnp.full(len(shapes), ALPHA),
        reduces=jnp.zeros(len(shapes)),
        network=jnp.zeros(len(shapes)),
        planes=(jnp.ones(len(shapes)),),
        torus=Torus(
            shape=jnp.array(rows, float),
            closes=jnp.array(rows if closes is None else closes, float),
        ),
    )


def tree(*splits, oversubscription, rate=100e9):
    """A group on two tiers of planes of their own, the outer one oversubscribed."""
    fabric = Fabric(
        rate=jnp.array([rate, rate / oversubscription]),
        latency_s=jnp.zeros(2),
        reduces=jnp.zeros(2),
        network=jnp.zeros(2),
        planes=(jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])),
        oversubscription=jnp.array([1.0, oversubscription]),
    )
    return group_of(fabric, jnp.array(splits, float))


def busiest_link(shape, rings):
    """Messages over the busiest link where each device sends one to each, along one
    dimension after the other, half of them each way round where both are as far."""
    most = 0.0
    for axis, (side, ring) in enumerate(zip(shape, rings, strict=True)):
        lines = math.prod(shape) // side
        load = dict.fromkeys(itertools.product(range(side), (1, -1)), 0.0)
        for start, end in itertools.product(range(side), repeat=2):
            ahead = (end - start) % side
            ways = [(1, ahead), (-1, side - ahead)]
            if not ring:
                ways = [(1, end - start) if end > start else (-1, start - end)]
            least = min(hops for _, hops in ways)
            best = [way for way in ways if way[1] == least and start != end]
            for sign, hops in best:
                for hop in range(hops):
                    link = (start + sign * hop) % side, sign
                    # dimensions before are at their end, those behind at their start
                    load[link] += lines / len(best)
        most = max(most, *load.values()) if axis or side > 1 else most
    return most


@pytest.mark.parametrize(
    ("shape", "rings"),
    [
        ((8,), (True,)),
        ((7,), (True,)),
        ((6,), (False,)),
        ((5,), (False,)),
        ((4, 4), (True, True)),
        ((4, 4), (False, False)),
        ((8, 4), (True, False)),
        ((4, 4, 4), (True, True, True)),
        ((2, 2, 2), (False, False, False)),
        ((16, 16), (True, True)),
    ],
)
def test_an_all_to_all_takes_as_long_as_the_busiest_link(shape, rings):
    closes = [[n if ring else OPEN for n, ring in zip(shape, rings, strict=True)]]
    n = math.prod(shape)
    group = group_of(torus(shape, closes=closes), jnp.array([n], float))
    steps = sum(s // 2 if ring else s - 1 for s, ring in zip(shape, rings, strict=True))
    expected = busiest_link(shape, rings) * (M / n) / LINK + steps * ALPHA
    assert seconds("all_to_all", group, library("direct")) == pytest.approx(expected)


@pytest.mark.parametrize("side", [4, 8, 16])
def test_an_all_to_all_on_a_cube_is_bound_by_its_bisection(side):
    n = side**3
    group = group_of(torus((side,) * 3), jnp.array([n], float))
    through = n * M / 4  # half of the devices, half of their bytes, each way
    bisection = 2 * side**2 * LINK  # two cuts of a ring
    expected = through / bisection + 3 * side / 2 * ALPHA
    assert seconds("all_to_all", group, library("direct")) == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["all_gather", "all_reduce"])
@pytest.mark.parametrize(
    ("shape", "ranks", "links", "steps"),
    [
        ((16,), 16, 2, 8),
        ((16,), 4, 1, 3),  # a line of four
        ((4, 4, 4), 64, 6, 6),
        ((4, 4, 4), 8, 3, 3),  # 2 x 2 x 2, none of it a ring
        ((4, 4, 4), 2, 1, 1),
        ((16, 16), 128, 3, 8 + 7),  # 16 x 8
    ],
)
def test_rings_run_along_all_dimensions_at_once(kind, shape, ranks, links, steps):
    group = group_of(torus(shape), jnp.array([ranks], float))
    expected = (ranks - 1) * M / (links * LINK) + steps * ALPHA
    if kind == "all_reduce":
        expected = 2 * ((ranks - 1) / ranks * M / (links * LINK) + steps * ALPHA)
    for algorithm in ("ring", "striped_ring"):
        found = seconds(kind, group, library(algorithm))
        assert found == pytest.approx(expected)


def test_a_line_closes_where_switches_join_its_ends():
    def time(closes):
        fabric = torus((16, 16, 16), closes=[[closes] * 3])
        group = group_of(fabric, jnp.array([64.0]))
        return seconds("all_gather", group, library("ring"))

    assert time(4) == pytest.approx(63 * M / (6 * LINK) + 6 * ALPHA)
    assert time(16) == pytest.approx(63 * M / (3 * LINK) + 9 * ALPHA)


@pytest.mark.parametrize(
    ("ranks", "block"),
    [
        (1, (1, 1, 1)),
        (2, (2, 1, 1)),
        (4, (2, 2, 1)),
        (8, (2, 2, 2)),
        (32, (4, 4, 2)),
        (64, (4, 4, 4)),
        (1024, (16, 8, 8)),  # dimensions double in turn
        (16 * 20 * 28, (16, 20, 28)),
    ],
)
def test_a_group_is_a_block_as_near_to_a_cube_as_doublings_make_it(ranks, block):
    along = extents(torus((16, 20, 28)).torus, jnp.array([ranks], float))[0]
    np.testing.assert_allclose(along, block)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=3), st.floats(0.0, 1.0))
@settings(max_examples=60, deadline=None)
def test_a_block_holds_its_group(shape, part):
    ranks = math.prod(shape) ** part
    along = np.asarray(extents(torus(tuple(shape)).torus, jnp.array([ranks])))[0]
    assert np.prod(along) == pytest.approx(ranks)
    assert (along <= np.array(shape) + 1e-9).all()


def test_sides_of_one_are_nothing():
    one, same = torus((16, 16)), torus((16, 1, 16))
    for kind, lib in (("all_reduce", library("ring")), ("all_to_all", library("direct"))):
        times = [
            seconds(kind, group_of(fabric, jnp.array([256.0])), lib)
            for fabric in (one, same)
        ]
        assert times[0] == pytest.approx(times[1])
    # neither is a tier of one unit, nor a torus beside switches
    outer = torus((16, 16), (1, 1))
    group = group_of(outer, jnp.array([256.0, 1.0]))
    assert seconds("all_reduce", group, library("ring")) == pytest.approx(
        seconds("all_reduce", group_of(one, jnp.array([256.0])), library("ring"))
    )


def test_tiers_of_switches_are_the_same_beside_tori():
    switches = Fabric(
        rate=jnp.array([200e9, 50e9]),
        latency_s=jnp.array([1e-6, 4e-6]),
        reduces=jnp.array([1.0, 0.0]),
        network=jnp.array([0.0, 1.0]),
        planes=(jnp.array([1.0, 1.0]),),
    )
    beside = switches.replace(
        torus=Torus(shape=jnp.ones((2, 3)), closes=jnp.ones((2, 3)))
    )
    for algorithm in ("direct", "ring", "striped_ring", "staged", "tree", "in_switch"):
        lib, splits = library(algorithm, step_s=1e-6), jnp.array([8.0, 4.0])
        a, b = (
            seconds("all_reduce", group_of(f, splits), lib) for f in (switches, beside)
        )
        assert a == b


def test_a_neighbor_is_reached_over_one_link():
    group = group_of(torus((4, 4)), jnp.array([4.0]))
    costs = chain_costs(group, library("ring"), M)
    assert float(sum(costs.values())) == pytest.approx(3 * (ALPHA + M / LINK))
    pair = group_of(torus((4, 4)), jnp.array([2.0]))
    assert seconds("p2p", pair, library("direct")) == pytest.approx(ALPHA + M / LINK)


@pytest.mark.parametrize("sharpness", [None, 4.0])
@pytest.mark.parametrize("closes", [1, OPEN])
def test_more_ranks_never_take_less_in_an_all_to_all(sharpness, closes):
    """But where the last of them close a ring, which doubles what crosses it."""
    lib, fabric = library("direct"), torus((16, 20, 28), closes=[[closes] * 3])
    ranks = jnp.geomspace(1.0, 8960.0, 400)

    def time(n):  # each sends so much to each
        group = group_of(fabric, n[None])
        return timed("all_to_all", group, lib, 1e6 * n, sharpness)

    assert (np.diff(jax.vmap(time)(ranks)) > -1e-12).all()


def test_slopes_are_finite_at_every_size():
    lib = library("direct", "ring", "striped_ring", "tree")
    sizes = [[1.0, 1.0], [2.0, 1.0], [16.0, 1.0], [16.0, 3.0], [3.5, 1.0]]

    @jax.jit
    def slopes(n, fabric):
        def time(n, fabric):
            group = group_of(fabric, n)
            kinds = ("all_reduce", "all_to_all")
            return sum(timed(kind, group, lib, M, None) for kind in kinds)

        return jax.grad(time, argnums=(0, 1))(n, fabric)

    for ranks in sizes:
        assert all_finite(slopes(jnp.array(ranks), torus((4, 4), (1, 3, 2))))


def test_the_relaxed_torus_tends_to_the_exact_one():
    group = group_of(torus((4, 4, 4)), jnp.array([64.0]))
    for kind in ("all_reduce", "all_to_all"):
        lib = library("direct", "striped_ring")
        exact, relaxed = (seconds(kind, group, lib, sharpness=s) for s in (None, 1e5))
        assert relaxed == pytest.approx(exact, rel=1e-4)


def test_cubes_joined_to_a_torus_are_about_that_torus():
    """Through a face of a cube of 4 x 4 x 4 leave 16 links for 64 chips."""
    cubes = torus((4, 4, 4), (4, 4, 4), closes=[[4] * 3, [2] * 3])
    cubes = cubes.replace(rate=cubes.rate / jnp.array([1.0, 4.0]))
    whole = torus((16, 16, 16))
    for kind, lib in (("all_gather", library("striped_ring")), ("all_to_all", library())):
        apart = seconds(kind, group_of(cubes, jnp.array([64.0, 64.0])), lib)
        once = seconds(kind, group_of(whole, jnp.array([4096.0])), lib)
        assert apart == pytest.approx(once, rel=0.07)


# Oversubscribed trees: a unit's devices send so many times what its uplinks carry.


@pytest.mark.parametrize("kind", ["all_to_all", "p2p", "all_gather"])
def test_what_all_send_at_once_shares_the_uplinks(kind):
    one, four = (
        seconds(kind, tree(1, 8, oversubscription=o), library("direct")) for o in (1, 4)
    )
    assert four == pytest.approx(4.0 * one)


def test_an_oversubscribed_all_to_all_by_hand():
    n = 64  # eight units of eight: 56 parts of 64 leave the unit, at a quarter
    expected = max(7 / n * M / 100e9, 56 / n * M / 25e9)
    found = seconds("all_to_all", tree(8, 8, oversubscription=4), library("direct"))
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("oversubscription", "slower"), [(1, 1), (4, 1), (8, 1), (16, 2)]
)
def test_a_single_ring_crosses_by_one_device_of_eight(oversubscription, slower):
    group = tree(8, 8, oversubscription=oversubscription)
    expected = slower * 63 * M / 100e9
    assert seconds("all_gather", group, library("ring")) == pytest.approx(expected)


@pytest.mark.parametrize("oversubscription", [1, 4, 7, 14])
def test_a_striped_ring_sends_its_volume_once_over_a_units_uplinks(oversubscription):
    group = tree(8, 8, oversubscription=oversubscription)
    volume = 63 * M
    inside = volume * 7 / 8 / 100e9
    across = volume / (8 * 100e9 / oversubscription)
    found = seconds("all_gather", group, library("striped_ring"))
    assert found == pytest.approx(max(inside, across))


@pytest.mark.parametrize(
    "algorithm", ["direct", "ring", "striped_ring", "tree", "staged"]
)
def test_more_oversubscription_never_helps_and_one_changes_nothing(algorithm):
    lib = library(algorithm)
    times = [
        seconds("all_reduce", tree(4, 8, oversubscription=o), lib)
        for o in (1.0, 1.5, 2.0, 4.0, 32.0)
    ]
    assert times == sorted(times)
    plain = tree(4, 8, oversubscription=1.0)
    fabric = plain.fabric.replace(oversubscription=1.0)
    same = group_of(fabric, plain.splits)
    assert times[0] == seconds("all_reduce", same, lib)


# Files


def test_a_pod_of_v6e_has_its_published_bisection():
    fabric = tiers_of(load_system(Reference("tpu-v6e")).system).fabric
    fabric = fabric.replace(rate=fabric.rate.at[0].set(400e9))  # efficiency apart
    rate = float(scattered(group_of(fabric, jnp.array([256.0, 1.0]))).rate[0])
    # a device sends 255 parts, of which 128 to the other half
    across = 128 * rate * 128 / 255
    assert across == pytest.approx(3.2e12)


@pytest.mark.parametrize(
    ("name", "chips"), [("tpu-v5p", 8960), ("tpu-v6e", 256), ("tpu-v7x", 9216)]
)
def test_shipped_tori_are_as_large_as_their_pods(name, chips):
    file = read_system_file(name)
    sizes = [tier.size.si for tier in file.tiers if tier.topology == "torus"]
    assert math.prod(sizes) == chips


OWN = """
base = "hgx-h200"
name = "ours"
title = "Sixteen boxes on a torus"
tiers = [ { name = "node" }, %s ]
"""
GRID = (
    '{ name = "grid", plane = "ib", topology = "torus", shape = [4, 4],'
    ' bytes_per_s = "100 GB/s" }'
)


@pytest.fixture
def own(tmp_path):
    def write(tier):
        path = tmp_path / "ours.toml"
        path.write_text(OWN % tier)
        return str(path)

    return write


def test_a_torus_of_ones_own_needs_little(own):
    tier = read_system_file(own(GRID)).tiers[1]
    assert tier.size.si == 16
    assert tier.closes == (4, 4)
    assert tier.bytes_per_s.si == 100e9
    grid = read_system_file(own(GRID.replace(", bytes", ", wrap = false, bytes"))).tiers[
        1
    ]
    assert min(grid.closes) > 4


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[4, 4]", "[4, 4.5]", "tiers.1.shape.1 = 4.5: must be a whole number"),
        ("[4, 4]", "[4, 0]", "tiers.1.shape.1 = 0"),
        (", shape = [4, 4]", "", "tiers.1.shape: missing; write the sides"),
        ("torus", "tours", "did you mean torus"),
        ('topology = "torus", ', "", 'write topology = "torus" too'),
        ("[4, 4]", "[4, 4], size = 12", "shape = [4, 4] has 16"),
        ("[4, 4]", "[4, 4], mesh = true", "leave one of them out"),
        ("[4, 4]", "[4, 4], wrap = 0", "tiers.1.wrap"),
        ('"100 GB/s"', "100", "has no unit; write 100GB/s or 100TB/s"),
        ('"100 GB/s"', '"100 GB"', "unit of byte rate"),
        ("[4, 4]", "[4, 4], oversubscription = 0", "use no less"),
    ],
)
def test_what_is_wrong_with_a_torus_is_said(own, old, new, said):
    path = own(GRID.replace(old, new))
    with pytest.raises(SpecError) as caught:
        read_system_file(path)
    assert said in str(caught.value)
    assert path in str(caught.value)


def test_the_size_of_a_torus_is_changed_in_its_file_alone(own):
    with pytest.raises(SpecError, match="change the shape in a file of your own"):
        load_system(Reference(own(GRID), (("tiers.grid.size", 8),)))


def decode(system, **more):
    raw = {
        "system": system,
        "model": "llama-3.1-8b",
        "phase": "decode",
        "engine": "vllm",
        "workload": {"sequences_per_device": 16, "kv_tokens": 4096},
        "layout": {"devices": 16, "tp": 16},
    }
    return build(validate_scenario(raw | more, "test"), "none")


@pytest.mark.slow
def test_tori_and_switches_are_one_program(own):
    jobs = [decode(name) for name in ("tpu-v6e", "hgx-h200", own(GRID), "tpu-v5p")]
    machines = cmx.stack([job.machine for job in jobs])
    layouts = cmx.stack([job.layout for job in jobs], tiers=machines.tiers.size.shape[-1])
    args = jobs[0].model, jobs[0].workload
    found = jax.jit(jax.vmap(lambda m, lay: cmx.metrics(m, *args, lay).tpot_s))(
        machines, layouts
    )
    for job, tpot in zip(jobs, found, strict=True):
        alone = cmx.metrics(job.machine, *args, job.layout).tpot_s
        np.testing.assert_allclose(tpot, alone, rtol=1e-9)


def test_a_padded_torus_is_the_same(own):
    from cmxjax.machine.pad import with_tiers, with_torus

    job = decode(own(GRID))
    fabric = job.machine.fabric
    padded = with_torus(with_tiers(job.machine, 4), 3).fabric
    few, many = jnp.array([8.0, 4.0]), jnp.array([8.0, 4.0, 1.0, 1.0])
    a, b = group_of(fabric, few), group_of(padded, many)
    np.testing.assert_allclose(a.fabric.rate, b.fabric.rate[:2])
    np.testing.assert_allclose(scattered(a).rate, scattered(b).rate[:2])
    assert not np.asarray(block_of(padded.torus, many).there)[2:].any()
