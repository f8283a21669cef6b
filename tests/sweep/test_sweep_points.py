"""Each point of a sweep is what `predict` says of it, or is refused as it is there."""

from typing import Any

import jax
import numpy as np
import pytest
from small_sweeps import GEMM, planned, points_of, predicted, some

import cmxjax as cmx
from cmxjax.answers.feasible import feasible
from cmxjax.specs.errors import SpecError
from cmxjax.sweeps.jobs import with_values
from cmxjax.sweeps.sigma import changes_of

DECODE: dict[str, Any] = {
    "scenario": "deepseek-r1-decode-cloudmatrix384",
    "axes": [
        {"key": "routing.balance", "values": ["typical", "random"]},
        {"key": "workload.sequences_per_device", "values": [1, 7, 48, 300]},
        {"zip": {"workload.kv_tokens": [1000, 9000], "routing.skew": [0.1, 0.4]}},
        {"key": "system.chip.memory_bytes_per_s", "values": ["1 TB/s", "1.6 TB/s"]},
        {"key": "system.chip.gemm_efficiency", "low": 0.5, "high": 0.9, "points": 3},
        {"key": "workload.acceptance", "values": [0.5, 0.9]},
        {"key": "system.chip.memory_bytes", "values": ["40 GB", "64 GB"]},
    ],
}
PREFILL: dict[str, Any] = {
    "scenario": "gpt-3-175b-prefill-cloudmatrix384",
    "set": {"model": "llama-3.1-70b", "layout.devices": 8, "layout.tp": 8},
    "axes": [
        {"key": "model.layers", "values": [40, 80]},
        {
            "sample": "sobol",
            "count": 256,
            "keys": {
                "workload.prompt_tokens": {"low": 128, "high": 65536, "spacing": "log"},
                "workload.tokens_per_device": {"low": 1024, "high": 65536},
                "dtypes.activation": {"values": ["int8", "bf16"]},
            },
        },
    ],
}
TRAIN: dict[str, Any] = {
    "scenario": "deepseek-v3-train-hgx-h800",
    "axes": [
        {"key": "workload.schedule", "values": ["1f1b", "dualpipe"]},
        {"key": "layout.pp", "values": [8, 16]},
        {"key": "workload.global_batch", "low": 1024, "high": 16384, "points": 9},
        {"key": "workload.micro_batch", "values": [1, 2, 4]},
        {"key": "workload.recompute", "values": [0.0, 0.5]},
    ],
}
SERVE: dict[str, Any] = {
    "scenario": "deepseek-r1-serve-cloudmatrix384",
    "axes": [
        {"key": "workload.request_rate", "values": [1, 100, 100000]},
        {"key": "workload.output_tokens", "values": [128, 1024]},
        {"key": "workload.prompt_tokens", "values": [512, 4096]},
    ],
}


def check(raw: dict[str, Any], count: int) -> tuple[set[int], set[int]]:
    """Compare some points with `predict`; those that are there, and those refused."""
    plan = planned(raw)
    found = points_of(plan)
    rng = np.random.default_rng(0)
    there, refused = set(), set()
    for point in some(rng, plan, min(count, plan.grid.points)):
        try:
            prediction = predicted(plan, raw, point)
        except SpecError:
            assert point not in found
            refused.add(point)
            continue
        there.add(point)
        row = found[point]
        assert row.pop("feasible") == (not prediction.reasons)
        for field, value in row.items():
            if field in prediction.endless:
                assert np.isnan(value)
            else:
                assert value == pytest.approx(prediction.values[field], rel=1e-12)
    return there, refused


def test_an_operator_is_priced_as_predicted():
    there, refused = check(GEMM, 12)
    assert len(there) == 12
    assert not refused


def test_decode_is_priced_as_predicted():
    plan = planned(DECODE)
    slow = {"system.chip.memory_bytes"}  # the usable memory follows from it
    assert {*plan.slow} == slow
    assert plan.grid.cells == 4
    check(DECODE, 10)


@pytest.mark.slow
@pytest.mark.parametrize("raw", [PREFILL, TRAIN, SERVE])
def test_other_phases_are_priced_as_predicted(raw):
    there, refused = check(raw, 60)
    assert there
    assert refused or raw is SERVE


@pytest.mark.parametrize("raw", [DECODE, GEMM, TRAIN])
def test_values_set_directly_are_those_that_are_built(raw):
    """Leaf by leaf, at points drawn: nothing follows from a fast key but its own."""
    plan = planned(raw)
    checked = 0
    for point in some(np.random.default_rng(1), plan, 12):
        changes = changes_of(plan, point)
        try:
            problem = plan.jobs.problem(changes, exact=True)
        except SpecError:
            continue
        job = plan.jobs.job(("point", point), changes)
        assert not isinstance(job, str)
        at = plan.grid.split(np.array([point]))
        numbers = {
            key: axis.numbers(key, codes)[0].item()
            for axis, index in at
            for key, codes in axis.codes(index).items()
            if key in plan.fast
        }
        direct = with_values(job, numbers)
        leaves, structure, _ = plan.jobs.flat(problem)
        assert structure == job.group.structure
        for one, other in zip(leaves, direct, strict=True):
            np.testing.assert_array_equal(one, other)
        checked += 1
    assert checked


def test_keys_that_the_builder_derives_from_are_built_one_by_one():
    raw = {
        "scenario": "deepseek-r1-serve-cloudmatrix384",
        "axes": [{"key": "workload.prompt_tokens", "low": 512, "high": 2e6, "points": 9}],
    }
    # a prefill batch holds one prompt at least, so it grows with the longest ones
    assert planned(raw).slow == ("workload.prompt_tokens",)
    raw["axes"] = [{"key": "workload.output_tokens", "low": 64, "high": 512, "points": 9}]
    assert planned(raw).slow == ()
    # of a machine without rows of its own shifts follow from its figures
    of_relatives = {
        "scenario": "llama-3.1-70b-decode-gb200-nvl72",
        "set": {"system": "dgx-a100", "layout.devices": 8, "dtypes": {}},
        "axes": [{"key": "system.chip.memory_bytes_per_s", "values": [1.5e12, 2e12]}],
    }
    assert planned(of_relatives).slow == ("system.chip.memory_bytes_per_s",)
    sized = [{"key": "system.tiers.node.size", "values": [8, 16]}]
    assert planned(DECODE, axes=sized).slow == ("system.tiers.node.size",)


def test_a_key_can_be_built_one_by_one_on_demand():
    axes = GEMM["axes"][:2]
    fast, slow = planned(GEMM, axes=axes), planned(GEMM, axes=axes, one_by_one=["op.m"])
    assert (fast.slow, slow.slow) == ((), ("op.m",))
    one, other = points_of(fast), points_of(slow)
    assert one.keys() == other.keys()
    for point, row in one.items():
        assert row == pytest.approx(other[point], rel=1e-12)


@pytest.mark.slow
def test_feasible_is_that_of_a_prediction():
    for name, changes in (
        ("deepseek-r1-serve-cloudmatrix384", {"workload.request_rate": 1}),
        ("deepseek-r1-serve-cloudmatrix384", {"workload.request_rate": 1e6}),
        ("deepseek-r1-serve-cloudmatrix384", {"workload.tpot_limit": "1 ms"}),
        ("deepseek-r1-decode-cloudmatrix384", {}),
        ("deepseek-r1-decode-cloudmatrix384", {"workload.sequences_per_device": 5000}),
    ):
        prediction = cmx.predict(cmx.load_scenario(name, changes))
        m = jax.device_get(cmx.metrics(*prediction.problem.inputs))
        assert bool(feasible(m)) == (not prediction.reasons)


def test_float32_agrees_to_its_precision():
    one, other = (points_of(planned(GEMM, precision=p)) for p in ("float64", "float32"))
    for point, row in one.items():
        assert row == pytest.approx(other[point], rel=3e-5)
    assert any(row != other[point] for point, row in one.items())
