"""Rates of evaluation and times of compilation; skipped unless asked for.

    pytest tests/benchmarks --benchmark-only

Each row of a batch has a workload and a layout of its own. Compilation is timed in a
fresh process without runtime type checks. Results go into `results/speed.csv`. Nothing
here asserts a time.
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
from timing import record, timed

import cmxjax as cmx

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


SERVE = {"pools-serve": "deepseek-r1-serve-cloudmatrix384"}
LOADS = 256


@pytest.mark.benchmark(group="value")
@pytest.mark.parametrize("name", SERVE)
def test_loads_of_pools_per_second(benchmark, name):
    """Each row has a request rate of its own."""
    p = cmx.build(cmx.load_scenario(SERVE[name]))
    machines, model, workload, pools = p.inputs

    @jax.jit
    def run(rates):
        def one(rate):
            m = cmx.metrics(machines, model, workload.replace(requests_per_s=rate), pools)
            return m.request_time_s, m.cost_per_token_usd

        return jax.lax.map(one, rates, batch_size=64)

    rates = jnp.linspace(1.0, 100.0, LOADS)
    assert np.isfinite(run(rates)[0]).all()
    wait = lambda: jax.block_until_ready(run(rates))  # noqa: E731
    timed(benchmark, wait, "values", f"{name} float64", count=LOADS)


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
        what = function.__name__.replace("_", " ")
        timed(benchmark, run, what, f"{name} {dtype}", count=ROWS)


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
SERVE = json.loads(sys.argv.pop())
import jax
from cmxjax.settings import setup
setup(cache=False)
from jobs import evaluated, job, time_field

name, wrt = sys.argv[1:]
if name in SERVE:
    import cmxjax as cmx
    inputs = cmx.build(cmx.load_scenario(SERVE[name])).inputs
    value = lambda *x: cmx.metrics(*x).request_time_s
    places = {"nothing": (), "workload and layout": (2, 3), "everything": (0, 1, 2, 3)}
else:
    inputs = job(name)
    value = lambda *x: getattr(evaluated(x), time_field(x))
    places = {"nothing": (), "workload and layout": (2, 3), "everything": (0, 1, 2, 3, 4)}
places = places[wrt]
function = jax.value_and_grad(value, places) if places else value
jax.jit(lambda x: x * 2.0)(1.0)
start, used = time.perf_counter(), time.process_time()
jax.jit(function).lower(*inputs).compile()
wall, cpu = time.perf_counter() - start, time.process_time() - used
print(json.dumps({"wall_s": wall, "cpu_s": cpu}))
"""


@pytest.mark.benchmark(group="cold compile, process included")
@pytest.mark.parametrize("name", [*JOBS, *TRAIN, *SERVE])
@pytest.mark.parametrize("wrt", ["nothing", "workload and layout", "everything"])
def test_cold_compile(benchmark, name, wrt):
    tests = Path(__file__).parents[1]

    def compiled():
        command = [sys.executable, "-c", COLD, name, wrt, json.dumps(SERVE)]
        done = subprocess.run(command, cwd=tests, capture_output=True, check=True)
        return json.loads(done.stdout)

    runs = []
    rounds = 3
    benchmark.pedantic(lambda: runs.append(compiled()), rounds=rounds)
    least = {key: min(run[key] for run in runs) for key in runs[0]}
    benchmark.extra_info |= least
    what = "compile, value" if wrt == "nothing" else f"compile, gradient for {wrt}"
    record(what, name, **least, rounds=rounds)
