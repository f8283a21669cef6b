"""Layouts of a plan: none is better by brute force, what is written gives the same."""

import itertools
import json
import math

import numpy as np
import pytest

import cmxjax as cmx
from cmxjax.cli.main import main
from cmxjax.job.layout import AXES, DEFAULT_ORDER, placement
from cmxjax.optimization.space import in_rank_order
from cmxjax.planning.bound import most_of
from cmxjax.planning.load import classes_on
from cmxjax.planning.plan import plan
from cmxjax.planning.space import layouts_of, sizes_of, spec_of

RATE = 30.0
SMALL = """
system = "hgx-h20"
model = "qwen3-30b-a3b-fp8"
phase = "serve"
engine = "sglang"

[workload]
request_rate = 30
prompt_tokens = 3000
output_tokens = 500
ttft_limit = "2 s"
tpot_limit = "25 ms"

[[pools]]
role = "prefill"
devices = 8
layout = { devices = 8, dp = 8, ep = 8 }

[[pools]]
role = "decode"
devices = 8
layout = { devices = 8, dp = 8, ep = 8 }
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("plan") / "small.toml"
    path.write_text(SMALL)
    return str(path)


@pytest.fixture(scope="module")
def searched(small):
    return plan([small], per_s=RATE)


def test_the_search_never_needs_more_and_says_what_it_changed(small, searched):
    (fleet,) = searched.fleets
    (given,) = plan([small], per_s=RATE, layouts="given").fleets
    assert given.laid.changed == []
    for role, devices in fleet.sized.pools.items():
        assert devices <= given.sized.pools[role]
    # instances of 8 are coarse for a load that a few devices take
    assert fleet.packages < given.packages
    for role in fleet.laid.changed:
        assert fleet.sized.pools[role] < given.sized.pools[role]
        assert fleet.laid.chosen[role].devices == fleet.sized.devices[role]


def test_a_written_fleet_predicts_what_was_planned(tmp_path, capsys, small, searched):
    path = tmp_path / "fleet.toml"
    assert main(["plan", small, "--rate", "30/s", "--out", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["fleets"][0]
    said = found["classes"]["requests"]["values"]
    again = cmx.predict(cmx.load_scenario(str(path)))
    for name in ("ttft_s", "tpot_s", "requests_per_s", "energy_per_token_j"):
        assert getattr(again, name) == pytest.approx(said[name], rel=1e-9)
    assert again.ttft_s <= 2.0
    assert again.tpot_s <= 0.025
    assert found["layouts_changed"] == searched.fleets[0].laid.changed
    assert "cp" in found["covers"]


def test_layouts_serve_where_those_of_the_scenario_can_not(small):
    tight = {"workload.tpot_limit": "4 ms"}
    (given,) = plan([small], per_s=5.0, layouts="given", changes=tight).fleets
    (found,) = plan([small], per_s=5.0, changes=tight).fleets
    assert not given.feasible
    assert found.feasible
    assert found.classes["requests"].values["tpot_s"] <= 0.004


def test_equal_classes_are_laid_out_as_one(tmp_path, small, searched):
    path = tmp_path / "mix.toml"
    parts = [
        f"[classes.{name}]\nrequest_rate = 15\nprompt_tokens = 3000\noutput_tokens = 500"
        for name in "ab"
    ]
    path.write_text("title = 'twins'\n" + "\n".join(parts))
    one, two = searched.fleets[0], plan([small], mix=str(path)).fleets[0]
    assert two.sized.instances == one.sized.instances
    assert two.laid.chosen == one.laid.chosen


def test_a_degree_that_is_given_stays(small):
    (fleet,) = plan([small], per_s=RATE, pinned={"dp": 2, "tp": 1}).fleets
    for role in fleet.laid.changed:
        assert fleet.laid.chosen[role].dp == 2


def test_layouts_are_built_as_they_were_bounded(small):
    """What is said of an instance of many is at least what a built one does."""
    (c,) = classes_on(small, per_s=RATE)
    for place, role in enumerate(("prefill", "decode")):
        layouts = layouts_of(c, role, 8, {"tp": 1})
        most = most_of(c, role, "tp", layouts).per_s
        assert (most > 0.0).any()
        for row in range(0, len(most), 7):
            spec = spec_of(c, role, layouts, row, "tp").model_dump(exclude_none=True)
            changes = {f"pools.{place}.layout.{k}": v for k, v in spec.items()}
            changes[f"pools.{place}.devices"] = spec["devices"]
            made = cmx.predict(cmx.load_scenario(small, changes)).pools[role]
            if made["memory_excess_bytes"] <= 0.0:
                assert made["requests_per_s"] <= most[row] * (1.0 + 1e-9)
            else:
                assert most[row] == 0.0


def test_placements_are_those_of_the_usual_order():
    rng = np.random.default_rng(1)
    tiers = [2.0, 8.0, 48.0]
    rows = []
    for _ in range(40):
        tp, dp, pp, etp = (2 ** rng.integers(0, 4, 4)).tolist()
        ep = math.gcd(tp * dp, 8)
        rest = tp * dp // ep
        etp = math.gcd(etp, rest)
        rows.append([tp, 1, dp, pp, etp, ep, rest // etp])
    found = in_rank_order(np.array(rows), np.tile(tiers, (len(rows), 1)))
    for row, factor in zip(rows, found):
        degrees = dict(zip(AXES, map(float, row)))
        np.testing.assert_allclose(factor, placement(degrees, tiers, DEFAULT_ORDER))


def test_instances_tile_the_machine():
    for tiers, package in (([8.0, 1000.0], 1), ([72.0, 900.0], 1), ([2.0, 8.0, 48.0], 2)):
        units = np.cumprod(tiers).tolist()
        sizes = sizes_of(tiers, package, 500)
        assert set(tiers) & set(sizes) or package > 1
        assert sizes == sorted(set(sizes))
        for n in sizes:
            assert n % package == 0
            assert n <= 500
            assert all(n % unit == 0 or unit % n == 0 for unit in units[:-1])


def every_layout(most: int):
    """Degrees of instances on one node, in whole powers of two."""
    powers = [2**i for i in range(most.bit_length()) if 2**i <= most]
    for tp, dp, pp, etp, ep, edp in itertools.product(powers, repeat=6):
        devices = tp * dp * pp
        if devices <= most and etp * ep * edp * pp == devices:
            yield {"devices": devices, "tp": tp, "dp": dp, "pp": pp, "etp": etp, "ep": ep}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("role", "place", "rate"),
    [("prefill", 0, 30.0), ("decode", 1, 30.0), ("prefill", 0, 80.0)],
)
def test_no_layout_needs_fewer_devices_by_brute_force(small, role, place, rate):
    (fleet,) = plan([small], per_s=rate).fleets
    (given,) = plan([small], per_s=rate, layouts="given").fleets
    fewest = given.sized.pools[role]
    for layout in every_layout(8):
        changes = {f"pools.{place}.layout.{k}": v for k, v in layout.items()}
        for devices in range(layout["devices"], fewest, layout["devices"]):
            changes[f"pools.{place}.devices"] = devices
            try:
                found = cmx.predict(cmx.load_scenario(small, changes)).pools[role]
            except ValueError:  # a degree doesn't divide the model
                break
            fits = found["memory_excess_bytes"] <= 0.0
            if fits and found["requests_per_s"] >= rate * (1.0 - 1e-9):
                fewest = devices
                break
    assert fleet.sized.pools[role] == fewest < given.sized.pools[role]


@pytest.mark.slow
def test_a_supernode_is_laid_out_with_shared_experts_apart():
    """One published decode instance of 320 dies is far more than this load needs."""
    name = "deepseek-r1-serve-cloudmatrix384"
    (fleet,) = plan([name], per_s=100.0).fleets
    (given,) = plan([name], per_s=100.0, layouts="given").fleets
    assert fleet.packages < 0.7 * given.packages
    assert fleet.classes["requests"].values["tpot_s"] <= 0.05
