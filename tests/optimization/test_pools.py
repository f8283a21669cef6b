"""Splits of a machine into pools: balance, limits, and what whole instances cost."""

import json

import pytest

from cmxjax.answers.predict import predict
from cmxjax.cli.main import main
from cmxjax.optimization.pools import split_pools
from cmxjax.specs.errors import SpecError
from cmxjax.specs.scenario import load_scenario

SERVE = "deepseek-r1-serve-cloudmatrix384"
SMALL = {
    "pools.1.devices": 64,
    "pools.1.layout": {"devices": 64, "dp": 64, "ep": 64, "overlapped_microbatches": 2},
}
"""Decode on instances of 64, which leaves more splits."""


def split(changes=None, devices=768):
    return split_pools(load_scenario(SERVE, SMALL | (changes or {})), devices,
                       calibration="none")  # fmt: skip


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
        assert served == pytest.approx(pools.relaxed_requests_per_s, rel=1e-9)
    assert sum(pools.share.values()) == pytest.approx(1.0)


def test_the_best_split_is_that_of_a_count_by_hand(pools):
    each, best = rates(pools), 0.0
    for prefill in range(1, 24):
        decode = (768 - 32 * prefill) // 64
        if decode:
            served = min(prefill * each["prefill"], decode * each["decode"])
            best = max(best, served)
    assert pools.best.requests_per_s == pytest.approx(best, rel=1e-6)
    assert max(s.requests_per_s for s in pools.splits) == pools.best.requests_per_s


def test_no_whole_split_beats_the_relaxed_one(pools):
    assert 0.0 <= pools.gap < 0.2
    assert pools.rounded.requests_per_s <= pools.best.requests_per_s
    used = sum(pools.best.devices.values())
    assert used + pools.idle_devices == 768


def test_rounding_next_to_the_relaxed_split_finds_the_best(pools):
    assert pools.rounding_gap == pytest.approx(0.0, abs=1e-9)
    assert pools.evaluations["rounded"] < pools.evaluations["exhaustive"]


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


@pytest.mark.parametrize(
    ("changes", "devices", "message"),
    [
        ({}, 64, "doesn't fit"),
        ({}, 0, "devices = 0"),
        ({"workload.ttft_limit": "1 ms"}, 768, "pool prefill is too slow"),
        ({"workload.tpot_limit": "1 ms"}, 768, "pool decode is too slow"),
        ({"system.chip.memory_usable_bytes": "8 GB"}, 768, "don't fit into memory"),
    ],
)
def test_what_can_not_be_served_is_said(changes, devices, message):
    with pytest.raises(SpecError, match=message):
        split(changes, devices)


def test_other_phases_have_no_pools():
    with pytest.raises(SpecError, match="needs phase 'serve'"):
        split_pools(load_scenario("deepseek-r1-decode-cloudmatrix384"))


def test_the_command_prints_the_split_and_writes_it(capsys, tmp_path):
    out = tmp_path / "best.toml"
    arguments = ["optimize", SERVE, "--calibration", "none", "--out", str(out)]
    assert main([*arguments, "--limit", "ttft=4s", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["certificate"]["gap"] >= 0.0
    written = load_scenario(str(out))
    sizes = {pool.role: pool.devices for pool in written.pools}
    assert sizes == found["splits"][0]["devices"] or sum(sizes.values()) <= 512
    assert written.workload.ttft_limit == 4.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pin", "tp=1"], "--pin"),
        (["--objective", "tpot"], "--objective tpot"),
        (["--limit", "memory=1GB"], "--limit memory"),
        (["--devices", "64", "128"], "--devices"),
    ],
)
def test_options_that_serving_has_not_are_refused(capsys, arguments, message):
    assert main(["optimize", SERVE, *arguments]) == 2
    assert message in capsys.readouterr().err
