"""A predicted training step as a trace that Chrome and Perfetto open.

One row for each pipeline stage: its passes, split into compute and exposed
communication, and the bubbles between; then what is left of the gradients, the
optimizer and the host. The trace ends when the predicted step does.
"""

import json
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..job.layout import Layout
from ..job.workload import Train
from ..machine.machine import Machine
from ..specs.build import Problem
from ..specs.errors import SpecError
from ..specs.output import write_text
from ..specs.schedules import schedule_of
from ..step.line import Line, PassTimes
from ..step.train_price import train_job, trainer_of
from ..step.training import TrainTimes, trained
from ..work.held import holding_of
from .timeline import Run, Task, timeline

MICROSECONDS = 1e6
LARGEST = 400_000
"""Passes that a trace may hold; viewers don't open more."""
NAMES = {"F": "forward", "B": "backward", "W": "weight gradient"}
COMPUTED = ("operators", "optimizer")
"""Components of a step that are no communication."""


class Step(NamedTuple):
    """Times of a step as numbers, and of its stages without communication."""

    times: TrainTimes
    stages: list[dict[str, float]]
    """Seconds of each pass of each stage."""
    compute: list[dict[str, float]]


def _works(line: Line, count: int) -> list[dict[str, float]]:
    """Seconds of each stage's passes: one by one, or from the classes of stages."""
    passes = PassTimes(*(np.asarray(x) for x in line.work))
    listed = passes.forward.shape[0]
    last = listed - 1
    at = [0, *[1] * max(count - 2, 0), last][:count] if listed != count else range(count)
    return [
        {
            "F": float(passes.forward[i]),
            "B": float(passes.backward[i]),
            "W": float(passes.weight[i]),
        }
        for i in at
    ]


def _step(problem: Problem) -> Step:
    machine, a, w, layout = problem.inputs
    assert isinstance(machine, Machine)
    assert isinstance(w, Train)
    assert isinstance(layout, Layout)
    assert a is not None
    trainer = trainer_of(machine)

    @jax.jit
    def both():
        holding = holding_of(a, w, layout, trainer.routing_skew, trainer.stages, None)
        step = trained(train_job(machine, a, w, layout, holding), None)
        silent = jax.tree.map(jnp.zeros_like, step.costs)
        computed = {k: step.costs.times["step"][k] for k in COMPUTED}
        times = {"step": silent.times["step"] | computed}
        _, quiet = step.compose(silent._replace(times=times))
        return step.compose(step.costs)[1], quiet.line

    times, quiet = jax.device_get(both())
    count = max(1, round(float(times.line.stages)))
    listed = w.stage_layers is not None
    if listed:
        count = len(times.line.work.forward)
    return Step(times, _works(times.line, count), _works(quiet, count))


def _events(
    run: Run, scale: float, compute: float, chunks: int
) -> list[dict[str, object]]:
    """Slices of one pass: compute, then the communication that it waits for."""
    task, device, start, end = run
    name = f"{task.sort}{task.microbatch}" + (f".{task.chunk}" if chunks > 1 else "")
    split = min(start + compute, end)
    slices = [_slice(name, NAMES[task.sort], device, start * scale, split * scale)]
    if end - split > 1e-3 * (end - start):
        wait = _slice(
            f"{name} waits", "communication", device, split * scale, end * scale
        )
        slices.append(wait)
    for event in slices:
        event["args"] = {"microbatch": task.microbatch, "chunk": task.chunk}
    return slices


def _slice(name: str, category: str, row: int, start: float, end: float) -> dict:
    return {
        "name": name,
        "cat": category,
        "ph": "X",
        "ts": start * MICROSECONDS,
        "dur": (end - start) * MICROSECONDS,
        "pid": 0,
        "tid": row,
    }


def _bubbles(runs: list[Run], scale: float, until: float) -> list[dict[str, object]]:
    """Gaps of each row up to the end of the pipeline."""
    gaps, clock = [], dict.fromkeys((run.device for run in runs), 0.0)
    for run in sorted(runs, key=lambda run: run.start_s):
        idle = clock[run.device]
        if run.start_s * scale - idle > 1e-9 * until:
            gaps.append(_slice("bubble", "bubble", run.device, idle, run.start_s * scale))
        clock[run.device] = run.end_s * scale
    for device, idle in clock.items():
        if until - idle > 1e-9 * until:
            gaps.append(_slice("bubble", "bubble", device, idle, until))
    return gaps


def trace_of(problem: Problem) -> dict[str, object]:
    """The trace of a training problem.

    Passes are placed by simulating the schedule and stretched to the predicted time of
    the pipeline, which `stretched_by` records.

    Raises:
        SpecError: the problem is no training step, or too large for a viewer.
    """
    w = problem.workload
    if not isinstance(w, Train):
        phase = problem.scenario.phase
        raise SpecError([f"--trace: phase = {phase!r}: only for phase train"])
    step = _step(problem)
    m = max(1, round(float(step.times.microbatches)))
    stages, chunks = len(step.stages), max(1, round(float(w.chunks)))
    schedule = schedule_of(w.schedule, chunks)
    parts = chunks if schedule == "interleaved" else 1
    if stages * m * parts * 3 > LARGEST:
        count = stages * m * parts * 3
        raise SpecError([f"--trace: {count} passes; use a smaller global_batch"])

    def seconds(task: Task) -> float:
        return step.stages[task.stage][task.sort] / parts

    runs = timeline(schedule, seconds, stages, m, chunks)
    ends = float(step.times.pipeline_s)
    scale = ends / max(run.end_s for run in runs)
    events: list[dict[str, object]] = [
        {"name": "thread_name", "ph": "M", "pid": 0, "tid": s, "args": {"name": label}}
        for s, label in enumerate(f"stage {s}" for s in range(stages))
    ]
    for run in runs:
        compute = step.compute[run.task.stage][run.task.sort] / parts
        events += _events(run, scale, compute, parts)
    events += _bubbles(runs, scale, ends) + _tail(step.times, ends, stages)
    other = {
        "system": problem.system.name,
        "schedule": schedule,
        "step_time_s": float(step.times.step_s),
        "stretched_by": scale,
    }
    return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": other}


def _tail(times: TrainTimes, start: float, stages: int) -> list[dict[str, object]]:
    """Gradients, optimizer and host, on every stage."""
    slices, rest = [], float(times.rest_s)
    parts = {
        "gradients": (float(times.reduce_s), "communication"),
        "optimizer": (float(times.update_s), "optimizer"),
        "host": (float(times.host_s), "host"),
    }
    scale = rest / sum(seconds for seconds, _ in parts.values())
    for name, (seconds, category) in parts.items():
        end = start + seconds * scale
        slices += [_slice(name, category, s, start, end) for s in range(stages)]
        start = end
    return slices


def write_trace(problem: Problem, path: str) -> None:
    """Write the trace of a training problem. Raises `SpecError` if it can't be."""
    write_text(path, json.dumps(trace_of(problem), allow_nan=False), "--trace")
