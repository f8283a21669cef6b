"""Rates of whole sweeps, their error bars and memory; skipped unless asked for."""

import json
import subprocess
import sys

import pytest
from timing import record, timed

from cmxjax.specs.sweep_file import load_sweep
from cmxjax.sweeps.plan import plan_of
from cmxjax.sweeps.sigma import sigmas_of

DECODE = "deepseek-r1-decode-instances"
LOADS = {
    "scenario": "deepseek-r1-serve-cloudmatrix384",
    "axes": [
        {"key": "workload.request_rate", "low": 5, "high": 100, "points": 64},
        {"key": "workload.output_tokens", "values": [256, 512, 1024, 2048]},
    ],
    "keep": {"sigma": False},
}
TRAIN = {
    "scenario": "deepseek-v3-train-hgx-h800",
    "axes": [
        {"key": "workload.micro_batch", "values": [1, 2]},
        {"key": "workload.sequence_tokens", "low": 1024, "high": 8192, "points": 100},
        {"key": "system.chip.memory_efficiency", "low": 0.5, "high": 0.9, "points": 100},
        {"key": "system.chip.gemm_efficiency", "low": 0.4, "high": 0.9, "points": 20},
    ],
    "keep": {"pareto": ["step_time", "memory"], "sigma": False},
}
SWEEPS = {"decode": DECODE, "train": TRAIN, "serve": LOADS}

RUN = """
import json, resource, sys, tempfile, time
import cmxjax as cmx
cmx.setup()
from cmxjax.settings import use_all_cores
use_all_cores()
raw = json.loads(sys.argv[1])
found = []
for _ in range(int(sys.argv[2])):
    with tempfile.TemporaryDirectory() as folder:
        start, used = time.perf_counter(), time.process_time()
        swept = cmx.sweep(raw, folder + "/rows")
        spent = time.perf_counter() - start, time.process_time() - used
        found.append((*spent, swept.counts.points))
mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
print(json.dumps({"rounds": found, "mb": mb}))
"""


def swept(raw, rounds: int) -> dict:
    """Seconds, processor's seconds and points of sweeps in a fresh process, and the most
    memory that it ever had."""
    command = [sys.executable, "-c", RUN, json.dumps(raw), str(rounds)]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    return json.loads(done.stdout)


@pytest.mark.benchmark(group="whole sweep: built, compiled, evaluated, written")
@pytest.mark.parametrize("name", SWEEPS)
def test_points_of_sweeps_per_second(benchmark, name):
    rounds = 3
    run = lambda: swept(SWEEPS[name], rounds)  # noqa: E731
    found = benchmark.pedantic(run, rounds=1)
    wall, cpu, points = (min(column) for column in zip(*found["rounds"]))
    record(
        "sweep, points",
        f"{name}, {points:,} points",
        wall_s=wall,
        cpu_s=cpu,
        rounds=rounds,
        per_s=points / wall,
        per_cpu_s=points / cpu,
        mb=found["mb"],
    )


@pytest.mark.benchmark(group="memory")
def test_memory_of_a_million_points(benchmark):
    """Every row is kept."""
    raw = {
        "scenario": "llama-3.1-70b-decode-gb200-nvl72",
        "axes": [
            {"key": "workload.kv_tokens", "low": 1024, "high": 32768, "points": 1000},
            {
                "key": "workload.sequences_per_device",
                "low": 1,
                "high": 100,
                "points": 1000,
            },
        ],
    }
    found = benchmark.pedantic(lambda: swept(raw, 1), rounds=1)
    ((wall, cpu, points),) = found["rounds"]
    rates = {"per_s": points / wall, "per_cpu_s": points / cpu}
    case = "1,000,000 rows of decode kept"
    times = {"wall_s": wall, "cpu_s": cpu, "rounds": 1}
    record("sweep, memory", case, **times, **rates, mb=found["mb"])


@pytest.mark.benchmark(group="error bars of rows")
@pytest.mark.parametrize(("name", "rows"), [("decode", 256), ("train", 64), ("serve", 8)])
def test_error_bars_of_rows_per_second(benchmark, name, rows):
    plan = plan_of(load_sweep(SWEEPS[name]))
    points = list(range(0, plan.grid.points, plan.grid.points // rows))[:rows]
    run = lambda: sigmas_of(plan, points, plan.keep.fields)  # noqa: E731
    timed(benchmark, run, "sweep, error bars of rows", name, rounds=3, count=rows)
