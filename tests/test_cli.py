"""The command line is a contract: keys, exit statuses, what goes to which stream."""

import json
import math
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from cmxjax.answers.limits import largest, parse_limit
from cmxjax.answers.predict import predict
from cmxjax.cli.main import main
from cmxjax.specs.errors import SpecError
from cmxjax.specs.scenario import load_scenario
from cmxjax.specs.sweep_file import load_sweep
from cmxjax.sweeps.plan import plan_of

DECODE = "deepseek-r1-decode-cloudmatrix384"


def run(capsys, *arguments):
    status = main(list(arguments))
    streams = capsys.readouterr()
    return status, streams.out, streams.err


def run_json(capsys, *arguments):
    status, out, _ = run(capsys, *arguments, "--json")
    assert status == 0
    return json.loads(out)


def test_predict_prints_every_metric_in_si_with_its_breakdown(capsys):
    found = run_json(capsys, "predict", DECODE, "--calibration", "none")
    assert found["calibration"] == "none"
    assert found["feasible"] is True
    assert found["reason"] == ""
    assert found["tpot_s"] == pytest.approx(
        found["step_time_s"] / found["tokens_per_step"], rel=1e-12
    )
    total = sum(found["breakdown"].values())
    assert total == pytest.approx(found["step_time_s"], rel=1e-9)
    for component, share in found["breakdown"].items():
        assert share <= found["busy"][component] * (1 + 1e-6) + 1e-12, component


def test_set_may_be_given_several_times_and_with_several_pairs(capsys):
    found = run_json(
        capsys,
        *("predict", DECODE, "--set", "workload.kv_tokens=8192", "layout.ep=320"),
        *("--set", "workload.sequences_per_device=8", "--calibration", "none"),
    )
    changes = {"workload.kv_tokens": 8192, "workload.sequences_per_device": 8}
    expected = predict(load_scenario(DECODE, changes), "none").values
    assert found["tpot_s"] == pytest.approx(expected["tpot_s"], rel=1e-12)


def test_a_hardware_leaf_can_be_set_with_a_unit(capsys):
    base = run_json(capsys, "predict", DECODE, "--calibration", "none")
    slow = run_json(
        capsys,
        *("predict", DECODE, "--calibration", "none"),
        *("--set", "system.tiers.supernode.bytes_per_s=98 GB/s"),
    )
    assert slow["combine_time_s"] > 1.2 * base["combine_time_s"]


def test_validate_json_holds_the_contract_and_nothing_else(capsys):
    found = run_json(capsys, "validate", "press", "--calibration", "none")
    assert set(found) == {
        "calibration",
        "rows",
        "median_abs_relative_error",
        "max_abs_relative_error",
    }
    assert found["calibration"] == "none"
    for row in found["rows"]:
        assert set(row) == {
            "id",
            "quantity",
            "unit",
            "observed",
            "predicted",
            "relative_error",
            "log_error",
            "predicted_relative_sigma",
            "bound",
        }
        assert row["bound"] is None
        ratio = row["predicted"] / row["observed"]
        assert row["relative_error"] == pytest.approx(ratio - 1.0, abs=1e-12)
        assert row["log_error"] == pytest.approx(math.log(ratio), abs=1e-12)
        assert row["predicted_relative_sigma"] >= 0.0
    errors = sorted(abs(row["relative_error"]) for row in found["rows"])
    assert found["max_abs_relative_error"] == errors[-1]
    assert len(errors) % 2 == 1
    assert found["median_abs_relative_error"] == errors[len(errors) // 2]


@pytest.mark.slow
def test_published_cloudmatrix_rows_are_met_within_the_stated_median(capsys):
    found = run_json(capsys, "validate", "cloudmatrix384", "--calibration", "none")
    assert found["median_abs_relative_error"] < 0.35
    assert len(found["rows"]) > 100


def test_the_largest_batch_under_limits_is_the_largest(capsys):
    changes = {"workload.kv_tokens": 2048}
    scenario = load_scenario(DECODE, changes)
    best = largest(
        scenario,
        "workload.sequences_per_device",
        [parse_limit("tpot=40ms")],
        calibration="none",
    )

    def tpot(batch):
        at = {**changes, "workload.sequences_per_device": batch}
        return predict(load_scenario(DECODE, at), "none").values["tpot_s"]

    assert best == int(best)
    assert tpot(best) <= 0.040 < tpot(best + 1)


def test_memory_limits_the_largest_batch_too():
    scenario = load_scenario(DECODE, {"workload.kv_tokens": 65536})
    best = largest(
        scenario,
        "workload.sequences_per_device",
        [parse_limit("tpot=10s")],
        calibration="none",
    )

    def excess(batch):
        at = {"workload.kv_tokens": 65536, "workload.sequences_per_device": batch}
        return predict(load_scenario(DECODE, at), "none").values["memory_excess_bytes"]

    assert excess(best) == 0.0
    assert excess(best + 1) > 0.0


def test_an_infeasible_job_says_so_and_why(capsys):
    found = run_json(
        capsys,
        *("predict", DECODE, "--calibration", "none"),
        *("--set", "workload.kv_tokens=100000"),
    )
    assert found["feasible"] is False
    assert "usable" in found["reason"] or "a device" in found["reason"]
    assert found["memory_excess_bytes"] > 0.0


def test_compare_sets_two_systems_side_by_side(capsys):
    found = run_json(capsys, "compare", "cloudmatrix384", "gb200-nvl72")
    ours, theirs = found["cloudmatrix384"], found["gb200-nvl72"]
    assert ours["memory_bytes"] / theirs["memory_bytes"] == pytest.approx(49.152 / 13.824)
    assert ours["packages"] == 384
    assert theirs["packages"] == 72


@pytest.mark.parametrize("every", [6, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("what", ["systems", "models", "measurements", "scenarios"])
def test_everything_listed_can_be_shown(capsys, what, every):
    names = run_json(capsys, "list", what)
    assert len(names) >= 3
    for name in names[::every]:
        assert run_json(capsys, "show", name)


def test_show_lists_the_paths_that_can_be_set(capsys):
    leaves = run_json(capsys, "show", "cloudmatrix384")["leaves"]
    figure = leaves["system.chip.memory_bytes_per_s"]
    assert figure["si"] == 1.6e12
    assert figure["source"]
    assert figure["locator"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["predict", "no-such-job"], "not shipped"),
        (["predict", DECODE, "--set", "workload.kv_token=1"], "workload.kv_token"),
        (["predict", DECODE, "--set", "=5"], "KEY=VALUE"),
        (["predict", DECODE, "--limit", "tpot=50ms"], "--max"),
        (
            [
                "predict",
                DECODE,
                "--max",
                "workload.sequences_per_device",
                "--limit",
                "tpot=50GB",
            ],
            "unit of time",
        ),
        (["predict", DECODE, "--calibration", "best"], "calibration"),
        (["validate", "no-such-file"], "not shipped"),
        (["compare", "cloudmatrix384"], "at least two"),
        (["compare", "cloudmatrix384", DECODE], "is a system"),
        (["show", "no-such-name"], "not shipped"),
    ],
)
def test_bad_input_exits_with_2_and_one_message(capsys, arguments, said):
    status, out, err = run(capsys, *arguments, *(["--json"]))
    assert status == 2
    assert out == ""
    assert said in err
    assert "Traceback" not in err


def test_a_size_that_nothing_meets_exits_with_1_and_its_reason(capsys):
    wanted = "--max", "workload.sequences_per_device", "--limit", "tpot=1us"
    status, out, err = run(capsys, "predict", DECODE, *wanted, "--json")
    assert status == 1
    assert json.loads(out)["feasible"] is False
    assert "no value meets" in json.loads(out)["reason"]
    assert "no value meets" in err


def test_all_mistakes_of_a_command_are_told_at_once():
    with pytest.raises(SpecError) as caught:
        load_scenario(DECODE, {"workload.kv_tokens": -1, "layout.depth": 3})
    assert "workload.kv_tokens" in str(caught.value)
    assert "layout.depth" in str(caught.value)


def test_the_module_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "cmxjax", "list", "systems", "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "cloudmatrix384" in json.loads(done.stdout)
    assert done.stderr == ""


def readme_examples() -> list[str]:
    text = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
    return re.findall(r"```toml\n(.*?)```", text, re.DOTALL)


def test_the_files_of_the_readme_work_as_printed(tmp_path):
    scenario, system, sweep, rows = readme_examples()
    for name, text in (("job", scenario), ("mine", system), ("rows", rows)):
        (tmp_path / f"{name}.toml").write_text(text)
    path = str(tmp_path)
    assert main(["predict", f"{path}/job.toml"]) == 0
    assert main(["compare", "cloudmatrix384", f"{path}/mine.toml"]) == 0
    assert main(["validate", f"{path}/rows.toml"]) == 0
    plan = plan_of(load_sweep(tomllib.loads(sweep)))
    assert plan.grid.points == 3 * 2 * 11 * 65536
    assert len(plan.fast) == 3
