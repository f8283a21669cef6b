"""Splits of a machine into pools: balance, limits, and what whole instances cost."""

import itertools
import json
import math

import pytest

from cmxjax.answers.predict import predict
from cmxjax.cli.main import main
from cmxjax.optimization import pools as search
from cmxjax.optimization.pools import split_pools
from cmxjax.specs.errors import SpecError
from cmxjax.specs.scenario import load_scenario

SERVE = "deepseek-r1-serve-cloudmatrix384"
SMALL = {
    "pools.1.devices": 64,
    "pools.1.layout": {"devices": 64, "dp": 64, "ep": 64, "overlapped_microbatches": 2},
}
"""Decode on instances of 64, which leaves more splits."""


def split(changes=None, devices=768, **options):
    scenario = load_scenario(SERVE, SMALL | (changes or {}))
    return split_pools(scenario, devices, calibration="none", **options)


@pytest.fixture(scope="module")
def pools():
    return split()


def rates(found):
    """Requests per second of one instance of each role."""
    own = found.metrics.pools
    return {r: float(own[r].requests_per_s / own[r].instances) for r in found.share}


def test_the_relaxed_split_balances_both_pools(pools):
    each = rates(pools)
    sizes = {"prefill": 32, "decode": 64}
    for role, share in pools.share.items():
        served = share * 768 / sizes[role] * each[role]
        # an instance of a few served in turn takes a little less than one of many
        assert served == pytest.approx(pools.relaxed_requests_per_s, rel=0.01)
    assert sum(pools.share.values()) == pytest.approx(1.0)


def test_the_best_split_is_that_of_a_count_by_hand(pools):
    each, best = rates(pools), 0.0
    for prefill in range(1, 24):
        decode = (768 - 32 * prefill) // 64
        if decode:
            served = min(prefill * each["prefill"], decode * each["decode"])
            best = max(best, served)
    assert pools.best.requests_per_s == pytest.approx(best, rel=0.01)
    assert max(s.requests_per_s for s in pools.splits) == pools.best.requests_per_s


def test_no_whole_split_beats_the_relaxed_one(pools):
    assert 0.0 <= pools.gap < 0.2
    assert pools.rounded.requests_per_s <= pools.best.requests_per_s
    used = sum(pools.best.devices.values())
    assert used + pools.idle_devices == 768


def test_rounding_next_to_the_relaxed_split_finds_the_best(pools):
    assert pools.rounding_gap == pytest.approx(0.0, abs=1e-9)
    assert pools.evaluations["rounded"] < pools.evaluations["exhaustive"]


@pytest.mark.slow
def test_the_best_split_predicts_what_was_promised(pools):
    found = predict(pools.scenario, "none").values
    promised = pools.best.requests_per_s
    assert found["capacity_requests_per_s"] == pytest.approx(promised, rel=1e-6)
    changed = predict(load_scenario(SERVE, SMALL | pools.changes), "none").values
    assert changed["capacity_requests_per_s"] == pytest.approx(promised, rel=1e-6)


def test_longer_outputs_need_more_decode(pools):
    longer = split({"workload.output_tokens": 2048})
    assert longer.share["decode"] > pools.share["decode"]
    assert longer.best.instances["decode"] > pools.best.instances["decode"]


def test_around_the_relaxed_split_lies_the_best_of_spaces_too_large_to_try(
    pools, monkeypatch
):
    monkeypatch.setattr(search, "LARGEST", 2)
    near = split()
    assert (pools.complete, near.complete) == (True, False)
    assert near.best == pools.best
    assert len(near.splits) < len(pools.splits)
    assert near.bound >= pools.best.requests_per_s  # of these pools, the closed form
    assert "not all" in near.covers
    assert near.as_json()["certificate"]["gap"] is None


@pytest.mark.parametrize("largest", [20_000, 2])
@pytest.mark.parametrize("asked", [30.0, 150.0])
def test_the_fewest_devices_are_those_of_a_count_by_hand(
    pools, monkeypatch, asked, largest
):
    monkeypatch.setattr(search, "LARGEST", largest)
    found = split({"workload.request_rate": asked}, fewest=True)
    each, sizes = rates(pools), {"prefill": 32, "decode": 64}
    needed = {role: math.ceil(asked / each[role]) for role in sizes}
    assert found.feasible
    assert found.rate_met
    assert found.best.instances == needed
    assert found.as_json()["value"] == sum(n * sizes[r] for r, n in needed.items())


@pytest.mark.slow
def test_the_fewest_devices_may_be_more_than_the_scenario_has(pools):
    found = split({"workload.request_rate": 600.0}, devices=None, fewest=True)
    assert found.feasible
    assert sum(found.best.devices.values()) > 768 / 2
    for counts in itertools.product(*(range(n - 1, n + 1) for n in
                                      found.best.instances.values())):  # fmt: skip
        served = min(n * rates(pools)[r] for n, r in zip(counts, found.share))
        assert served < 600.0 or counts == tuple(found.best.instances.values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"workload.ttft_limit": "1 ms"}, "pool prefill is too slow"),
        ({"workload.tpot_limit": "1 ms"}, "pool decode is too slow"),
        ({"system.chip.memory_usable_bytes": "8 GB"}, "don't fit into memory"),
        ({"workload.request_rate": 5000}, "5000 requests/s arrive, of which at most"),
    ],
)
def test_what_can_not_be_served_is_said(changes, message):
    found = split(changes)
    assert not found.feasible
    assert message in "; ".join(found.reasons)
    json.dumps(found.as_json(), allow_nan=False)


@pytest.mark.parametrize("devices", [0, 64])
def test_too_few_devices_are_refused(devices):
    with pytest.raises(SpecError, match=f"devices = {devices}.*doesn't fit"):
        split(devices=devices)


def test_other_phases_have_no_pools():
    with pytest.raises(SpecError, match="needs phase 'serve'"):
        split_pools(load_scenario("deepseek-r1-decode-cloudmatrix384"))


@pytest.mark.slow
def test_the_command_prints_the_split_and_writes_it(capsys, tmp_path):
    out = tmp_path / "best.toml"
    arguments = ["optimize", SERVE, "--calibration", "none", "--out", str(out)]
    assert main([*arguments, "--limit", "ttft=4s", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["certificate"]["gap"] >= 0.0
    assert found["certificate"]["optimum"] == found["certificate"]["bound"]
    assert found["request_rate_met"] is True
    written = load_scenario(str(out))
    sizes = {pool.role: pool.devices for pool in written.pools}
    assert sizes == found["splits"][0]["devices"] or sum(sizes.values()) <= 512
    assert written.workload.ttft_limit == 4.0


def test_a_rate_that_no_split_serves_is_an_answer_with_the_nearest_one(capsys):
    arguments = ["optimize", SERVE, "--calibration", "none"]
    assert main([*arguments, "--set", "workload.request_rate=5000"]) == 1
    table = capsys.readouterr().out
    assert "nearest pools" in table
    assert "not feasible: 5000 requests/s arrive" in table


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pin", "tp=1"], "--pin"),
        (["--objective", "devices", "--set", "workload.concurrency=9"], "request_rate"),
        (["--objective", "tpot"], "--objective tpot"),
        (["--limit", "memory=1GB"], "--limit memory"),
        (["--devices", "64", "128"], "--devices"),
    ],
)
def test_options_that_serving_has_not_are_refused(capsys, arguments, message):
    assert main(["optimize", SERVE, *arguments]) == 2
    assert message in capsys.readouterr().err
