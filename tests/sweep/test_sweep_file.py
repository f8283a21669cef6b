"""What a file of a sweep may say, and what is said of mistakes; the command line."""

import json

import pytest
from small_sweeps import GEMM, planned

import cmxjax as cmx
from cmxjax.cli.main import main
from cmxjax.cli.progress import line_of
from cmxjax.specs.errors import SpecError
from cmxjax.specs.files import shipped
from cmxjax.specs.sweep_file import load_sweep
from cmxjax.sweeps.grid import balanced
from cmxjax.sweeps.plan import plan_of
from cmxjax.sweeps.run import Progress


def with_axes(*axes, **more):
    return GEMM | {"axes": list(axes)} | more


M = {"key": "op.m", "values": [1, 2]}

WRONG = [
    ({"scenario": "x"}, "axes: required key is missing"),
    (GEMM | {"axis": 1}, "axis = 1: unknown key; did you mean axes"),
    (with_axes(M, M), "axes.1: op.m varies on another axis too"),
    (with_axes(M | {"points": 3}), "values and low, high and points are given"),
    (with_axes({"key": "op.m"}), "says no values; give key with values"),
    (with_axes({"key": "op.m", "points": 3, "low": 1}), "give low, high and points"),
    (with_axes({"zip": {"op.m": [1, 2], "op.n": [1]}}), "op.m has 2, op.n has 1"),
    (with_axes({"sample": "sobol", "count": 3}), "give sample, count and keys"),
    (with_axes(M | {"values": [{"a": 1}]}), "must be a number, a text"),
    (with_axes({"key": "op.m", "low": 2, "high": 1, "points": 3}), "low must be below"),
    (
        with_axes({"key": "op.m", "low": 0, "high": 1, "points": 3, "spacing": "log"}),
        "needs low above 0",
    ),
    (
        with_axes({"key": "op.m", "low": "1 GB", "high": "1 s", "points": 3}),
        "must have one kind of unit",
    ),
    (with_axes({"key": "op.mm", "values": [1]}), "op.mm: no key of a scenario; did you"),
    (with_axes({"key": "phase", "values": ["op"]}), "sweep one phase at a time"),
    (with_axes({"key": "op.m", "values": [-1]}), "op.m = -1: must be greater than 0"),
    (
        with_axes({"key": "system.chip.memory", "values": [1]}),
        "dgx-h100 has no such leaf; did you mean chip.memory_bytes",
    ),
    (
        with_axes({"key": "system.chip.memory_bytes_per_s", "values": ["1 GB"]}),
        "must be a number and a unit of byte rate",
    ),
    (GEMM | {"constraints": ["op.m >"]}, "constraints: 'op.m >': not an expression"),
    (GEMM | {"constraints": ["op.mn > 1"]}, "op.mn: no key of a scenario; did you mean"),
    (GEMM | {"metrics": ["tpot"]}, "phase op does not predict it"),
    (GEMM | {"metrics": ["tim_s"]}, "no such metric; did you mean time_s"),
    (GEMM | {"keep": {"limits": ["time=5"]}}, "keep.limits: time=5: has no unit"),
    (
        GEMM | {"keep": {"top": {"metric": "time"}, "pareto": ["time", "flop_rate"]}},
        "give one of them",
    ),
    (GEMM | {"one_by_one": ["op.k"]}, "one_by_one: op.k: varies on no axis"),
    (GEMM | {"scenario": "deepseek-r1"}, "not shipped; did you mean deepseek-r1"),
    (GEMM | {"calibration": "x"}, "calibration = 'x': not there"),
    (GEMM | {"seed": -1}, "seed = -1"),
    (
        with_axes(
            *({"key": f"op.{k}", "low": 1, "high": 9, "points": 20000} for k in "mnk")
        ),
        "8e.12 points, of at most 1e.12",
    ),
]


@pytest.mark.parametrize(("raw", "said"), WRONG)
def test_mistakes_are_named(raw, said):
    with pytest.raises(SpecError, match=said.replace("+", r"\+")) as caught:
        plan_of(load_sweep(raw))
    assert len(str(caught.value).splitlines()) <= 20


def test_all_mistakes_are_named_at_once():
    raw = GEMM | {"constraints": ["op.m >"], "metrics": ["tpot"], "seed": "a"}
    with pytest.raises(SpecError, match="seed"):
        load_sweep(raw)
    raw = GEMM | {"constraints": ["x >", "y <"], "axes": [{"key": "op.m", "low": 2}]}
    with pytest.raises(SpecError, match="axes.0"):
        load_sweep(raw)


def test_nothing_is_written_after_a_mistake(tmp_path):
    with pytest.raises(SpecError, match="no such metric"):
        cmx.sweep(GEMM | {"metrics": ["x"]}, tmp_path / "out")
    with pytest.raises(SpecError, match="constraints leave out 1152 of 1152 points"):
        cmx.sweep(GEMM | {"constraints": ["op.m > 10000"]}, tmp_path / "none")
    assert not list(tmp_path.iterdir())


def test_units_are_as_in_scenarios():
    path = "system.chip.memory_bytes_per_s"
    raw = with_axes(
        {"key": path, "values": ["1 TB/s", "500 GB/s"]},
        {
            "key": "op.m",
            "low": 2,
            "high": 8,
            "points": 3,
            "spacing": "log",
            "whole": True,
        },
    )
    plan = planned(raw)
    assert plan.axes[0].options[path].numbers.tolist() == [1e12, 5e11]
    assert plan.axes[1].options["op.m"].written == (2, 4, 8)
    drawn = {"low": "1 TB/s", "high": "2 TB/s"}
    (axis,) = planned(
        with_axes({"sample": "random", "count": 5, "keys": {path: drawn}})
    ).axes
    assert axis.spans[path].written(1.5e12) == "1500000000000.0 B/s"
    serve = {
        "scenario": "deepseek-r1-serve-cloudmatrix384",
        "axes": [{"key": "workload.tpot_limit", "values": ["20 ms", "50 ms"]}],
    }
    plan = planned(serve)
    assert plan.fast == ("workload.tpot_limit",)
    assert plan.axes[0].options["workload.tpot_limit"].numbers.tolist() == [0.02, 0.05]
    serve["axes"] = [{"key": "workload.tpot_limit", "values": [20, 50]}]
    with pytest.raises(SpecError, match="has no unit; write 20ms or 20s"):
        planned(serve)


def test_blocks_of_a_tile_are_alike():
    assert balanced([100, 100], 4096) == (50, 50)
    assert balanced([3, 10_000], 4096) == (3, 1250)
    assert balanced([10], 4096) == (10,)
    assert balanced([10**6], 4096) == (4082,)
    assert balanced([], 4096) == ()


@pytest.mark.parametrize("name", shipped("sweeps"))
def test_shipped_sweeps_can_be_planned(name):
    plan = plan_of(load_sweep(name))
    assert plan.grid.points > 100_000
    assert plan.sweep.spec.title
    assert main(["show", name]) == 0


def test_the_command_prints_the_best_and_json(tmp_path, capsys):
    file = tmp_path / "mine.toml"
    file.write_text(
        "metrics = ['time', 'utilization']\n"
        "scenario = { system = 'dgx-h100', phase = 'op',"
        " op = { kind = 'gemm', m = 8, n = 4096, k = 4096 } }\n"
        "[[axes]]\nkey = 'op.m'\nvalues = [16, 8192]\n"
        "[[axes]]\nkey = 'op.dtype'\nvalues = ['bf16', 'fp4']\n"
        "[keep]\ntop = { metric = 'utilization', count = 2 }\n"
    )
    out = tmp_path / "out"
    assert main(["sweep", str(file), "--out", str(out)]) == 0
    told = capsys.readouterr()
    assert "4 points, 2 rows" in told.out
    assert "2 points are none" in told.out
    assert "no matrix peak" in told.out
    assert "±" in told.out
    assert "100%: 4 of 4 points" in told.err
    assert main(["sweep", str(file), "--out", str(out), "--resume", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["points"], found["refused"], found["kept"]) == (4, 2, 2)
    assert found["best"][0]["op.m"] == 8192
    assert 0.0 < found["best"][0]["sigma"]["utilization"] < 1.0
    assert main(["sweep", str(file), "--out", str(out)]) == 2
    assert "add --resume" in capsys.readouterr().err
    assert main(["keys", "sweep"]) == 0
    assert "keep.top.metric" in capsys.readouterr().out


def test_progress_says_rate_and_time_left():
    far = Progress(done=3_000_000, total=9_000_000, fresh=2_000_000, seconds=2.0)
    said = "33%: 3,000,000 of 9,000,000 points, 1,000,000 points/s, 6 s left"
    assert line_of(far) == said
    assert Progress(0, 10, 0, 0.0).left_s is None
