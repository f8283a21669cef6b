"""Splits of a machine into pools: balance, limits, and what whole instances cost."""

import math

import pytest

from cmxjax.optimization.pools import split_pools, transfer_s
from cmxjax.specs.errors import SpecError
from cmxjax.specs.scenario import load_scenario

PREFILL = "deepseek-r1-prefill-cloudmatrix384"
DECODE = "deepseek-r1-decode-cloudmatrix384"
SMALL = {
    "layout.devices": 64,
    "layout.dp": 64,
    "layout.ep": 64,
    "routing.experts_per_device": 5,
    "routing.redundant_experts": 32,
}


@pytest.fixture(scope="module")
def pools():
    return split_pools(
        load_scenario(PREFILL),
        load_scenario(DECODE, SMALL),
        768,
        output_tokens=1024,
        ttft_limit_s=4.0,
        tpot_limit_s=0.05,
        calibration="none",
    )


def test_the_relaxed_split_balances_both_pools(pools):
    p, d = pools.prefill, pools.decode
    served = pools.share * 768 / p.devices * p.requests_per_s
    assert served == pytest.approx(pools.relaxed_requests_per_s)
    other = (1.0 - pools.share) * 768 / d.devices * d.requests_per_s
    assert other == pytest.approx(served)


def test_no_whole_split_beats_the_relaxed_one(pools):
    rates = [split.requests_per_s for split in pools.splits]
    assert max(rates) == pools.best.requests_per_s
    assert 0.0 < pools.gap < 0.2
    best = pools.best
    used = best.prefill * pools.prefill.devices + best.decode * pools.decode.devices
    assert used + best.idle_devices == 768


def test_limits_hold(pools):
    assert pools.decode.latency_s <= 0.05
    assert 0.5 < pools.prefill.utilization < 1.0


def test_longer_outputs_need_more_decode(pools):
    longer = split_pools(
        load_scenario(PREFILL),
        load_scenario(DECODE, SMALL),
        768,
        output_tokens=2048,
        ttft_limit_s=4.0,
        tpot_limit_s=0.05,
        calibration="none",
    )
    assert longer.share < pools.share
    assert longer.best.decode > pools.best.decode


def test_transfer_is_bytes_over_the_rate_of_rdma():
    # 4096 tokens x 61 layers x 576 elements x 2 bytes over 32 dies with 25 GB/s each
    expected = 4096 * 61 * 576 * 2 / (32 * 25e9)
    assert transfer_s(load_scenario(PREFILL), "none") == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"devices": 64}, "don't fit"),
        ({"ttft_limit_s": 1e-3}, "over the limit"),
        ({"tpot_limit_s": 1e-3}, "no value meets"),
        ({"output_tokens": 0.0}, "above 0"),
    ],
)
def test_what_can_not_be_served_is_said(change, message):
    options = {"devices": 768, "output_tokens": 64.0, "tpot_limit_s": math.inf} | change
    devices = options.pop("devices")
    args = load_scenario(PREFILL), load_scenario(DECODE, SMALL), devices
    with pytest.raises(SpecError, match=message):
        split_pools(*args, calibration="none", **options)


def test_pools_have_their_phases():
    with pytest.raises(SpecError, match="phases 'decode' and 'decode'"):
        split_pools(load_scenario(DECODE), load_scenario(DECODE), 768, output_tokens=8)
