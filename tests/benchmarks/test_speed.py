"""Rates of evaluation and times of compilation; skipped unless asked for.

    pytest tests/benchmarks --benchmark-only

Each row of a batch has a workload and a layout of its own. Compilation is timed in a
fresh process without runtime type checks. Nothing here asserts a time.
"""

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jobs import JOBS, TRAIN, evaluated, job, time_field
from test_batching import rows_of

CHUNK = 4096
ROWS = 49 * CHUNK

over_jobs = pytest.mark.parametrize("name", [*JOBS, *TRAIN])


def swept(inputs, row):
    """What a sweep asks of a row."""
    m = evaluated((*inputs[:2], *row, inputs[4]))
    time_s = getattr(m, time_field(inputs))
    return time_s, m.tokens_per_s_per_package, m.memory_bytes, m.placement_excess


@jax.jit
def values(inputs, rows):
    return jax.lax.map(lambda row: swept(inputs, row), rows, batch_size=CHUNK)


@jax.jit
def values_and_gradients(inputs, rows):
    def one(row):
        return jax.value_and_grad(lambda r: swept(inputs, r)[0])(row)

    return jax.lax.map(one, rows, batch_size=CHUNK)


def measure(benchmark, function, name, dtype):
    inputs = job(name)
    rows = rows_of(inputs, ROWS)
    with jax.enable_x64(dtype == "float64"):
        cast = lambda tree: jax.tree.map(lambda x: jnp.asarray(x, dtype), tree)  # noqa: E731
        inputs, rows = cast(inputs), cast(rows)
        run = lambda: jax.block_until_ready(function(inputs, rows))  # noqa: E731
        leaves = jax.tree.leaves(run())
        assert all(np.isfinite(leaf).all() for leaf in leaves)
        assert {leaf.dtype for leaf in leaves} == {np.dtype(dtype)}
        benchmark.pedantic(run, rounds=5, warmup_rounds=1)
    rate = ROWS / benchmark.stats.stats.min
    benchmark.extra_info["evaluations_per_s"] = round(rate)
    print(f"\n{name} {function.__name__} {dtype}: {rate:,.0f} evaluations/s")


@pytest.mark.benchmark(group="value")
@over_jobs
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_values_per_second(benchmark, name, dtype):
    measure(benchmark, values, name, dtype)


@pytest.mark.benchmark(group="value and gradient for workload and layout")
@over_jobs
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_values_and_gradients_per_second(benchmark, name, dtype):
    measure(benchmark, values_and_gradients, name, dtype)


COLD = """
import json, sys, time
import jax
from cmxjax.settings import setup
setup(cache=False)
from jobs import evaluated, job, time_field

name, wrt = sys.argv[1:]
inputs = job(name)
value = lambda *x: getattr(evaluated(x), time_field(x))
places = {"nothing": (), "workload and layout": (2, 3), "everything": (0, 1, 2, 3, 4)}
places = places[wrt]
function = jax.value_and_grad(value, places) if places else value
jax.jit(lambda x: x * 2.0)(1.0)
start = time.perf_counter()
traced = jax.jit(function).lower(*inputs)
between = time.perf_counter()
traced.compile()
end = time.perf_counter()
print(json.dumps({"trace_s": between - start, "compile_s": end - between}))
"""


@pytest.mark.benchmark(group="cold compile, process included")
@over_jobs
@pytest.mark.parametrize("wrt", ["nothing", "workload and layout", "everything"])
def test_cold_compile(benchmark, name, wrt):
    tests = Path(__file__).parents[1]

    def compiled():
        command = [sys.executable, "-c", COLD, name, wrt]
        done = subprocess.run(command, cwd=tests, capture_output=True, check=True)
        return json.loads(done.stdout)

    runs = []
    benchmark.pedantic(lambda: runs.append(compiled()), rounds=3)
    best = min(runs, key=lambda run: sum(run.values()))
    benchmark.extra_info |= {key: round(value, 2) for key, value in best.items()}
    total = sum(best.values())
    print(f"\n{name}, gradient for {wrt}: {total:.2f} s ({best})")
