"""The timeline of a training step, parsed back."""

import json

import jax.numpy as jnp
import pytest
import schedules
from test_train import DENSE, MIXTURE, made, predict

from cmxjax.answers.timeline import timeline
from cmxjax.answers.trace import trace_of
from cmxjax.cli.main import main
from cmxjax.specs.errors import SpecError
from cmxjax.step.line import PassTimes, line_of_stages
from cmxjax.step.pipeline import pipeline_s

TIMES = {"F": [1.0, 1.2, 0.9, 1.4], "B": [1.3, 1.1, 1.2, 1.5], "W": [0.8, 0.7, 0.9, 1.0]}
SIMULATED = {
    "gpipe": schedules.gpipe,
    "1f1b": schedules.one_forward_one_backward,
    "zero_bubble": schedules.zero_bubble,
    "interleaved": schedules.interleaved,
}


def seconds(chunks: int):
    return lambda task: TIMES[task.sort][task.stage] / chunks


@pytest.mark.parametrize("schedule", SIMULATED)
def test_timelines_last_as_long_as_simulated_schedules(schedule):
    chunks = 2 if schedule == "interleaved" else 1
    runs = timeline(schedule, seconds(chunks), 4, 8, chunks)
    extra = (chunks,) if chunks > 1 else ()
    exact = SIMULATED[schedule](*TIMES.values(), 8, *extra)
    # a timeline keeps the gradients of the weights apart, so inputs' go up earlier
    assert max(run.end_s for run in runs) == pytest.approx(exact, rel=0.08)
    assert max(run.end_s for run in runs) <= exact + 1e-9


@pytest.mark.parametrize("schedule", [*SIMULATED, "dualpipe"])
@pytest.mark.parametrize("m", [1, 6, 8])
def test_every_pass_runs_once_and_after_what_it_needs(schedule, m):
    chunks = 2 if schedule == "interleaved" else 1
    runs = timeline(schedule, seconds(chunks), 4, m, chunks)
    assert len({run.task for run in runs}) == len(runs) == 3 * 4 * m * chunks
    ends = {run.task: run.end_s for run in runs}
    for task, device, start, _ in runs:
        if task.sort == "F" and task.stage:
            assert start >= ends[task._replace(stage=task.stage - 1)] - 1e-12
        if task.sort == "B" and task.stage < 3:
            assert start >= ends[task._replace(stage=task.stage + 1)] - 1e-12
        if task.sort == "W":
            assert start >= ends[task._replace(sort="B")] - 1e-12
        others = [run for run in runs if run.device == device and run.task != task]
        assert not any(run.start_s < start < run.end_s - 1e-12 for run in others)


def test_dualpipe_idles_about_as_much_as_published():
    even = {"F": 1.0, "B": 1.0, "W": 1.0}
    runs = timeline("dualpipe", lambda task: even[task.sort], 8, 32)
    line = line_of_stages(PassTimes(*(jnp.ones(8) for _ in range(3))))
    closed = pipeline_s("dualpipe", line, jnp.asarray(32.0), jnp.ones(()), None)
    assert max(run.end_s for run in runs) == pytest.approx(float(closed), rel=0.1)


CASES = [
    ("dense", DENSE, {}),
    ("stages", DENSE, {"layout.stages": [13, 13, 13, 9]}),
    ("virtual", DENSE, {"layout__vpp": 3}),
    ("zero bubble", DENSE, {"workload__schedule": "zero_bubble"}),
    ("one stage", DENSE, {"layout__pp": 1, "layout__tp": 8}),
    ("mixture", MIXTURE, {}),
]


@pytest.mark.parametrize(
    ("raw", "changes"),
    [
        pytest.param(*job, id=name, marks=pytest.mark.slow if name == "mixture" else ())
        for name, *job in CASES
    ],
)
def test_a_trace_is_as_long_as_the_predicted_step(raw, changes):
    trace = json.loads(json.dumps(trace_of(made(raw, **changes))))
    slices = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    ends = max(event["ts"] + event["dur"] for event in slices)
    step_s = float(predict(raw, **changes).step_time_s)
    assert ends * 1e-6 == pytest.approx(step_s, rel=1e-9)
    assert min(event["ts"] for event in slices) == 0.0
    assert trace["otherData"]["stretched_by"] == pytest.approx(1.0, abs=0.2)
    rows = {event["tid"] for event in slices}
    for row in rows:  # compute, communication, bubbles and the rest fill each row
        own = sum(event["dur"] for event in slices if event["tid"] == row)
        assert own == pytest.approx(ends, rel=1e-6)
    categories = {event["cat"] for event in slices}
    assert {"forward", "backward", "weight gradient", "optimizer", "host"} <= categories


def test_predict_writes_a_trace(tmp_path, capsys):
    path = tmp_path / "trace.json"
    scenario = "gpt-3-175b-train-dgx-a100"
    assert main(["predict", scenario, "--trace", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    trace = json.loads(path.read_text())
    assert trace["otherData"]["step_time_s"] == pytest.approx(found["step_time_s"])


def test_only_training_has_a_trace():
    from cmxjax.specs.build import build
    from cmxjax.specs.scenario import load_scenario

    decode = build(load_scenario("deepseek-r1-decode-cloudmatrix384"), "none")
    with pytest.raises(SpecError, match="only for phase train"):
        trace_of(decode)
