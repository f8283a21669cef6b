"""A job as it was understood: complete, loadable, and the same job."""

import json

import jax
import numpy as np
import pytest

from cmxjax.answers.capacity import capacity, remedies
from cmxjax.answers.predict import predict
from cmxjax.specs.build import build
from cmxjax.specs.files import shipped
from cmxjax.specs.resolved import assumed, resolved, unstated
from cmxjax.specs.scenario import load_scenario

DECODE = "deepseek-r1-decode-cloudmatrix384"


@pytest.mark.parametrize("name", shipped("scenarios"))
def test_a_resolved_job_loads_to_the_very_same_inputs(name):
    problem = build(load_scenario(name))
    again = build(load_scenario(json.loads(json.dumps(resolved(problem)))))
    assert jax.tree.structure(problem.inputs) == jax.tree.structure(again.inputs)
    for ours, theirs in zip(
        jax.tree.leaves(problem.inputs), jax.tree.leaves(again.inputs)
    ):
        np.testing.assert_array_equal(ours, theirs)
    assert resolved(again) == resolved(problem)
    assert unstated(again) == []


def test_what_is_left_out_is_listed_with_its_key_and_setting_it_takes_it_off():
    degrees = {"devices": 64, "dp": None, "ep": None, "overlapped_microbatches": 2}
    spare = {"redundant_experts": 0, "shared_replicas": 0, "experts_per_device": None}
    formats = {name: None for name in ("weight", "activation", "kv")}
    bare = {"layout": degrees, "dtypes": formats, "routing": spare}
    problem = build(load_scenario(DECODE, bare | {"assumed": ["workload.kv_tokens"]}))
    job, found = resolved(problem), assumed(problem)
    expected = ["workload.kv_tokens", "dtypes.kv", "limits.memory_fraction"]
    expected += ["routing.balance", "layout.placement", "graphs"]
    for key in expected:
        assert key in found
    assert "layout.dp" not in found  # follows from the devices
    assert job["layout"]["placement"]["dp"] == [2, 8, 4, 1]
    told = load_scenario(DECODE, bare | {"routing.balance": "random"})
    assert "routing.balance" not in assumed(build(told))


def test_capacity_is_the_largest_size_that_fits_whatever_its_speed():
    changes = {"workload.kv_tokens": 65536}
    scenario = load_scenario(DECODE, changes)
    problem = build(scenario, "none")
    room = capacity(problem)
    assert room is not None
    assert room.key == "workload.sequences_per_device"
    assert room.fits == (room.largest >= scenario.workload.sequences_per_device)
    at = {more: {**changes, room.key: room.largest + more} for more in (0, 1)}
    excess = {
        more: predict(load_scenario(DECODE, keys), "none").memory_excess_bytes
        for more, keys in at.items()
    }
    assert excess[0] == 0.0
    assert excess[1] > 0.0


def test_a_job_that_does_not_fit_is_told_what_would():
    spare = {"redundant_experts": 0, "shared_replicas": 0, "experts_per_device": None}
    degrees = {"devices": 16, "dp": None, "ep": None}
    changes = {"layout": degrees, "dtypes.weight": "bf16", "routing": spare}
    changes |= {"workload.sequences_per_device": 1}
    problem = build(load_scenario(DECODE, changes), "none")
    room = capacity(problem)
    assert room is not None
    assert not room.fits
    found = [said.split(" = ") for said in remedies(problem, "none")]
    assert [key for key, _ in found] == ["dtypes.weight", "layout.devices"]
    for key, value in found:
        setting = int(value) if value.isdigit() else value
        after = capacity(build(load_scenario(DECODE, changes | {key: setting}), "none"))
        assert after is not None
        assert after.fits
