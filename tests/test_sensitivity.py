"""Elasticities, inverse questions and plans, against differences and by hand."""

import json
import math

import numpy as np
import pytest

from cmxjax.answers.predict import predict
from cmxjax.answers.sensitivity import grid, sensitivity
from cmxjax.answers.solve import solve
from cmxjax.calibrate.plan import load_plan, plan_measurements
from cmxjax.cli.main import main
from cmxjax.specs.errors import SpecError
from cmxjax.specs.files import shipped
from cmxjax.specs.scenario import load_scenario

DECODE = "deepseek-r1-decode-cloudmatrix384"

COPY = """
system = "cloudmatrix384"
phase = "op"
op = { kind = "copy", bytes = 1e9 }
"""


@pytest.fixture(scope="module")
def decode():
    return sensitivity(load_scenario(DECODE), "tpot", "none")


@pytest.fixture
def copy(tmp_path):
    path = tmp_path / "copy.toml"
    path.write_text(COPY)
    return path


def by_path(found):
    return {e.path: e for e in found.leaves}


def test_times_minus_rates_sum_to_one(decode):
    assert decode.time_sum == pytest.approx(1.0, abs=1e-9)


def test_a_rate_gives_minus_one():
    found = sensitivity(load_scenario(DECODE), "tokens_rate_per_package", "none")
    assert found.time_sum == pytest.approx(-1.0, abs=1e-9)


def test_elasticities_are_one_sided_differences_away_from_kinks(decode):
    smooth = [e for e in decode.leaves if not e.kink]
    assert len(smooth) > 50
    for e in smooth:
        assert e.elasticity == pytest.approx(e.right, abs=2e-4), e.path
        assert e.elasticity == pytest.approx(e.left, abs=2e-4), e.path


def test_a_step_of_one_more_tile_is_named_and_not_hidden(decode):
    # 48 sequences of 2 tokens in 2 micro-batches: 48 rows are three granules of 16
    sequences = by_path(decode)["workload.sequences_per_device"]
    assert sequences.kink
    assert "steps by" in sequences.note
    assert "above" in sequences.note


def test_what_if_is_the_exact_prediction(decode):
    path = "system.chip.memory_bytes_per_s"
    more = predict(load_scenario(DECODE, {path: 1.2 * 1.6e12}), "none").values["tpot_s"]
    assert by_path(decode)[path].larger * decode.value == pytest.approx(more, rel=1e-9)


def test_elasticities_have_the_right_sign_and_place(decode):
    e = {path: x.elasticity for path, x in by_path(decode).items()}
    assert e["system.chip.memory_bytes_per_s"] < 0.0 < e["workload.kv_tokens"]
    assert e["system.engines.cloudmatrix-infer.decode_step_s"] > 0.0
    assert e["system.tiers.supernode.bytes_per_s"] < 0.0
    assert e.get("system.engines.xdeepserve.decode_step_s", 0.0) == 0.0


def test_a_copy_follows_bytes_and_bandwidth_as_by_hand(copy):
    # 2 GB of traffic plus the ramp of 1 MB at 1.36 TB/s, and a launch in front
    found = by_path(sensitivity(load_scenario(str(copy)), "time", "none"))
    rate = 1.6e12 * 0.85
    moved, launch = (2e9 + 1e6) / rate, 2e-6
    expected = moved / (moved + launch)
    bandwidth = found["system.chip.memory_bytes_per_s"].elasticity
    assert bandwidth == pytest.approx(-expected, rel=1e-6)
    size = found["workload.payload_bytes"].elasticity
    assert size == pytest.approx(2e9 / rate / (moved + launch), rel=1e-6)


@pytest.mark.parametrize(
    ("leaf", "wanted"),
    [
        ("workload.kv_tokens", "tpot=60ms"),
        ("system.tiers.*.bytes_per_s", "tpot=55ms"),
        ("system.chip.memory_bytes_per_s", "tokens_rate_per_package=1800tokens/s"),
    ],
)
def test_the_solution_predicts_what_was_wanted(leaf, wanted):
    found = solve(load_scenario(DECODE), leaf, wanted, "none")
    assert not found.reason
    changes = {
        path: round(value) if path.startswith("workload") else value
        for path, value in found.values.items()
    }
    tolerance = 1e-3 if leaf.startswith("workload") else 1e-6
    p = predict(load_scenario(DECODE, changes), "none")
    assert p.values[found.target.field] == pytest.approx(
        found.target.value, rel=tolerance
    )


def test_break_even_with_another_scenario():
    # two and a half times slower memory in the other: less of ours is enough
    found = solve(
        load_scenario(DECODE, {"workload.kv_tokens": 2048}),
        "workload.kv_tokens",
        f"tpot=@{DECODE}",
        "none",
    )
    assert found.values["workload.kv_tokens"] == pytest.approx(4224, rel=1e-3)


def test_the_error_bar_of_a_solution_is_that_of_the_metric_over_its_slope():
    """Of a target that is met already, along a leaf that is exact."""
    found = predict(load_scenario(DECODE), "none")
    target = f"tpot={found.values['tpot_s']!r} s"
    solution = solve(load_scenario(DECODE), "workload.kv_tokens", target, "none")
    slope = by_path(sensitivity(load_scenario(DECODE), "tpot", "none"))
    expected = found.sigma["tpot_s"] / abs(slope["workload.kv_tokens"].elasticity)
    assert solution.factor == pytest.approx(1.0)
    assert solution.sigma == pytest.approx(expected, rel=1e-3)


def test_break_even_with_oneself_is_sure():
    """Everything uncertain cancels, but for the leaf that is moved."""
    leaf = "system.tiers.supernode.bytes_per_s"
    solution = solve(load_scenario(DECODE), leaf, f"tpot=@{DECODE}", "none")
    assert solution.factor == pytest.approx(1.0)
    assert solution.sigma < 1e-6


def test_a_target_out_of_reach_says_how_near_one_can_come(capsys):
    arguments = ["sensitivity", DECODE, "--calibration", "none"]
    wanted = ["--solve", "system.chip.memory_bytes_per_s", "--for", "tpot=1ms"]
    assert main([*arguments, *wanted, "--json"]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert printed["solved"] is False
    assert "no value" in printed["reason"]
    assert printed["values"] == {}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--quantity", "ttft"], ["ttft", "phase decode does not predict it"]),
        (["--solve", "system.chip.nothing", "--for", "tpot=1ms"], ["no such leaf"]),
        (["--solve", "workload.kv_tokens"], ["go together"]),
        (["--solve", "workload.kv_tokens", "--for", "tpot"], ["QUANTITY=VALUE"]),
        (["--solve", "workload.kv_tokens", "--for", "tpot=3kg"], ["3kg"]),
        (
            ["--solve", "workload.kv_tokens", "--for", "tpot=@none"],
            ["none", "not shipped"],
        ),
        (["--over", "workload.kv_tokens=1:8"], ["--picture"]),
        (["--over", "kv=8:1", "--picture", "x.png"], ["KEY=FIRST:LAST"]),
    ],
)
def test_bad_arguments_get_one_message(capsys, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert main(["sensitivity", DECODE, *arguments]) == 2
    message = capsys.readouterr().err
    assert all(word in message for word in words), message
    assert not list(tmp_path.iterdir())


def test_grids_are_whole_where_their_ends_are():
    key, values = grid("workload.sequences_per_device=1:64")
    assert key == "workload.sequences_per_device"
    assert values[0] == 1.0
    assert values[-1] == 64.0
    assert all(v.is_integer() for v in values)
    assert len(set(values)) == len(values)


def test_pictures_are_drawn(tmp_path, copy, capsys):
    bars = tmp_path / "bars.png"
    arguments = ["sensitivity", str(copy), "--calibration", "none", "--picture"]
    assert main([*arguments, str(bars)]) == 0
    shares = tmp_path / "shares.png"
    assert main([*arguments, str(shares), "--over", "op.bytes=1000:1000000000"]) == 0
    assert bars.stat().st_size > 5_000
    assert shares.stat().st_size > 5_000
    assert "written" in capsys.readouterr().out


PLAN = """
[scenarios.copy]
system = "cloudmatrix384"
phase = "op"
op = { kind = "copy", bytes = 1e9 }

[[candidates]]
id = "same"
scenario = "copy"
quantity = "time"
relative_sigma = 0.01

[[candidates]]
id = "launch"
scenario = "copy"
set = { "op.bytes" = 10 }
quantity = "time"
"""


def test_measuring_what_matters_narrows_it_as_by_hand(tmp_path, copy):
    path = tmp_path / "plan.toml"
    path.write_text(PLAN)
    plan = plan_measurements(load_scenario(str(copy)), str(path), "time", "none")
    assert [c.id for c in plan.choices] == ["same", "launch"]
    # a direct measurement of a prediction with sigma p by one with sigma m leaves
    # p m / sqrt(p^2 + m^2); the launch of a tiny copy says nothing about a large one
    m, p = 0.01, plan.sigma
    assert plan.choices[0].sigma == pytest.approx(p * m / math.hypot(p, m), rel=1e-3)
    assert plan.choices[1].sigma == pytest.approx(p, rel=0.02)
    assert plan.choices[1].sigma <= p


@pytest.mark.parametrize("name", shipped("plans"))
def test_shipped_plans_load(name):
    assert len(load_plan(name)) >= 10


@pytest.mark.slow
def test_no_measurement_widens_a_prediction():
    plan = plan_measurements(load_scenario(DECODE), "cloudmatrix384")
    sigmas = np.array([c.sigma for c in plan.choices])
    assert np.all(sigmas <= plan.sigma * (1 + 1e-12))
    assert np.all(sigmas >= plan.floor)
    assert np.all(np.diff(sigmas) >= 0.0)
    assert sigmas[0] < plan.sigma


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('scenario = "copy"\nquantity', 'scenario = "cpy"\nquantity', "use one of copy"),
        ('quantity = "time"', 'quantity = "tpot"', "does not predict it"),
        ("relative_sigma = 0.01", "relative_sigma = 0", "relative_sigma"),
        ('"op.bytes" = 10', '"op.bites" = 10', "bites"),
        ('system = "cloudmatrix384"', 'system = "dgx-h100"', "measures dgx-h100"),
    ],
)
def test_a_wrong_plan_gets_one_message(tmp_path, copy, old, new, words):
    path = tmp_path / "plan.toml"
    path.write_text(PLAN.replace(old, new, 1))
    with pytest.raises(SpecError, match=words):
        plan_measurements(load_scenario(str(copy)), str(path), "time", "none")
