"""The rows that are kept are those that a search over all rows finds."""

import numpy as np
import pandas as pd
import pytest
from small_sweeps import GEMM, planned, points_of

import cmxjax as cmx
import cmxjax.sweeps.grid as grid
import cmxjax.sweeps.plan as plan_module
from cmxjax.answers import limits
from cmxjax.quantities import field_of
from cmxjax.specs import sweep_file
from cmxjax.specs.measurement_file import QUANTITIES
from cmxjax.sweeps import finish, keep
from cmxjax.sweeps.evaluate import mesh_of
from cmxjax.sweeps.keep import Keep
from cmxjax.sweeps.part import Evaluator


@pytest.fixture(scope="module")
def every():
    return points_of(planned(GEMM))


def test_every_point_is_there_once(every):
    plan = planned(GEMM)
    assert plan.grid.points == len(every) == 2 * 64 * 3 * 3
    assert {*every} == {*range(plan.grid.points)}


def test_limits_drop_what_exceeds_them(every):
    keep = {"limits": ["time=20us", "flop_rate=1 TFLOP/s"]}
    found = points_of(planned(GEMM, keep=keep))
    good = {
        point
        for point, row in every.items()
        if row["time_s"] <= 20e-6 and row["flop_per_s"] >= 1e12
    }
    assert 0 < len(good) < len(every)
    assert {*found} == good


@pytest.mark.parametrize("largest", [None, True])
def test_the_best_are_the_first_of_all_in_order(every, largest):
    top = {"metric": "time_s", "count": 30} | (
        {} if largest is None else {"largest": True}
    )
    found = points_of(planned(GEMM, keep={"top": top, "sigma": False}))
    sign = -1.0 if largest else 1.0
    order = sorted(every, key=lambda point: (sign * every[point]["time_s"], point))
    assert [*found] == order[:30]


def test_a_front_holds_what_nothing_beats(every):
    keep = {"pareto": ["time", "flop_rate"], "sigma": False}
    found = points_of(planned(GEMM, keep=keep))

    def beats(one, other):
        pairs = (
            (one["time_s"], other["time_s"]),
            (-one["flop_per_s"], -other["flop_per_s"]),
        )
        return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)

    rows = list(every.values())
    front = {p for p, row in every.items() if not any(beats(x, row) for x in rows)}
    assert {*found} <= front
    values = lambda points: {(every[p]["time_s"], every[p]["flop_per_s"]) for p in points}  # noqa: E731
    assert values(found) == values(front)
    assert 1 < len(found) < len(every)


def test_of_equals_the_first_are_kept():
    keep = Keep(("x",), False, (), (("x", False),), 3)
    x = np.array([2.0, 1.0, 1.0, 5.0, 1.0, 1.0, 9.0, 9.0])
    assert keep.best({"x": x}, np.arange(8)).tolist() == [1, 2, 4]


def test_tiles_of_any_size_give_the_same_rows(every, monkeypatch):
    """Blocks that don't divide an axis, one point at a time, several cells at once."""
    for tile, part in ((1, 100), (7, 1000), (300, 400), (5000, 10**6)):
        monkeypatch.setattr(
            plan_module,
            "grid_of",
            lambda axes, fast, part_, t=tile, p=part: grid.grid_of(axes, fast, p, t),
        )
        plan = planned(GEMM)
        found = points_of(plan)
        assert found.keys() == every.keys()
        assert (plan.grid.parts > 1) == (part < 1152)
        for point in list(every)[::37]:
            assert found[point] == pytest.approx(every[point], rel=1e-12)


def test_constraints_leave_out_points_before_and_after_they_are_built():
    """Over keys that are built, over fast ones, and over what follows from others."""
    raw = {
        "scenario": "deepseek-r1-decode-cloudmatrix384",
        "axes": [
            {"zip": {"layout.ep": [320, 288], "routing.shared_replicas": [32, 0]}},
            {"key": "workload.kv_tokens", "values": [1000, 2000, 4000]},
            {"key": "workload.sequences_per_device", "values": [8, 16]},
        ],
        "set": {"layout.devices": 320, "layout.dp": 320},
        "constraints": [
            "layout.ep * layout.tp == layout.devices",
            "workload.kv_tokens * workload.sequences_per_device < 32000",
        ],
    }
    plan = planned(raw)
    rows = Evaluator(plan, mesh_of()).part(0)
    assert rows.counts.points == 12
    assert rows.point.tolist() == [0, 1, 2]  # 1000 x 8 and 16, 2000 x 8
    assert rows.counts.refused == 9


def test_error_bars_are_those_of_a_prediction(tmp_path):
    keep = {"top": {"metric": "time", "count": 4}}
    swept = cmx.sweep(GEMM | {"keep": keep}, tmp_path / "out")
    frame = swept.to_frame()
    assert len(frame) == 4
    for _, row in frame.iterrows():
        changes = {key: row[key] for axis in swept.plan.axes for key in axis.keys}
        prediction = cmx.predict(cmx.load_scenario(GEMM["scenario"], changes))
        for field in ("time_s", "utilization"):
            assert row[f"sigma.{field}"] == pytest.approx(prediction.sigma[field])
        assert row["time_s"] == pytest.approx(prediction.time_s, rel=1e-12)
    assert swept.best[0]["sigma"]["time_s"] == frame["sigma.time_s"][0]


SMALL = GEMM | {
    "axes": [{"key": "op.m", "values": [64, 8192]}, {"key": "op.n", "values": [64, 512]}]
}


def test_few_rows_have_error_bars_without_being_asked_for(tmp_path, monkeypatch):
    """Up to a number of rows, or as the file says; whichever part they are in."""
    small = lambda axes, fast, part: grid.grid_of(axes, fast, 2, 1)  # noqa: E731
    monkeypatch.setattr(plan_module, "grid_of", small)
    swept = cmx.sweep(SMALL | {"keep": {}}, tmp_path / "few")
    frame = swept.to_frame()
    assert len([*(tmp_path / "few").glob("part-*")]) > 1
    for _, row in frame.iterrows():
        changes = {key: row[key] for key in ("op.m", "op.n")}
        expected = cmx.predict(cmx.load_scenario(GEMM["scenario"], changes)).sigma
        assert row["sigma.time_s"] == pytest.approx(expected["time_s"], rel=1e-9)
    monkeypatch.setattr(sweep_file, "MOST_BARRED", 3)
    for name, kept, barred in (
        ("more", {}, False),
        ("asked", {"sigma": True}, True),
        ("not", {"sigma": False, "limits": ["time=1s"]}, False),
    ):
        cmx.sweep(SMALL | {"keep": kept}, tmp_path / name)
        assert ("sigma.time_s" in cmx.read_sweep(tmp_path / name)) == barred


def test_bars_that_a_kill_left_out_are_added_by_going_on(tmp_path, monkeypatch):
    small = lambda axes, fast, part: grid.grid_of(axes, fast, 2, 1)  # noqa: E731
    monkeypatch.setattr(plan_module, "grid_of", small)
    raw, done = SMALL | {"keep": {}}, []

    def killed(plan, table):
        if done:
            raise KeyboardInterrupt
        done.append(table)
        return barred(plan, table)

    barred = finish._barred
    with monkeypatch.context() as patch:
        patch.setattr(finish, "_barred", killed)
        with pytest.raises(KeyboardInterrupt):
            cmx.sweep(raw, tmp_path / "out")
    assert cmx.sweep(raw, tmp_path / "out", resume=True).fresh == 0
    cmx.sweep(raw, tmp_path / "whole")
    one, other = (cmx.read_sweep(tmp_path / name) for name in ("out", "whole"))
    pd.testing.assert_frame_equal(one, other)
    assert one["sigma.time_s"].notna().all()


@pytest.mark.parametrize("phase", ["decode", "prefill", "train", "serve", "op"])
def test_metrics_are_best_in_the_direction_that_their_limits_have(phase):
    """A sweep's best by a metric, and a limit on the quantity that it is."""
    for quantity in QUANTITIES:
        try:
            field = field_of(quantity, None, phase)
        except ValueError:
            continue
        assert keep.more_is_better(field) == limits.more_is_better(quantity), quantity
