"""The search and the descent on large jobs; skipped unless asked for.

    pytest -s tests/benchmarks/test_large_searches.py --benchmark-only

Prints one row for each job and writes them to `results/search.csv`: layouts of the space,
value and gap, exact evaluations and seconds of the proof; how far the descent ends behind
it after refinement, with the placements that it looks at, its evaluations and seconds.
Seconds are on the wall and of the processor, with what is compiled for the job, so fewer
where JAX_COMPILATION_CACHE_DIR has it already. Nothing here asserts a time.
"""

import time
from pathlib import Path

import jax

from cmxjax.optimization.answer import optimize
from cmxjax.report.rows import write_rows
from cmxjax.specs.scenario import load_scenario

RESULTS = Path(__file__).parent / "results" / "search.csv"
DECODE = "deepseek-r1-decode-cloudmatrix384"
PREFILL = "deepseek-r1-prefill-cloudmatrix384"
PANGU = "pangu-ultra-moe-train-cloudmatrix384"


def _on(devices: int, **more):
    return {"layout": {"devices": devices, **more}}


def _training(devices: int, system: str = "cloudmatrix384"):
    workload = {"workload.global_batch": devices, "workload.offload": {}}
    return {"system": system, **_on(devices)} | workload


JOBS = {
    "decode-320-50ms": (DECODE, {}, ("tpot=50ms",)),
    "decode-320-15ms": (DECODE, {}, ("tpot=15ms",)),
    "decode-768-30ms": (DECODE, _on(768), ("tpot=30ms",)),
    "prefill-768-2s": (PREFILL, _on(768), ("ttft=2s",)),
    "train-pangu-1536": (PANGU, _training(1536), ()),
    "train-pangu-6144": (PANGU, _training(6144), ()),
    "train-pangu-910b-8192": (PANGU, _training(8192, "atlas-800-a2"), ()),
    "train-deepseek-h800-2048": ("deepseek-v3-train-hgx-h800", _on(2048), ()),
}


def row_of(name: str) -> dict[str, object]:
    scenario, changes, limits = JOBS[name]
    job = load_scenario(scenario, changes)
    start = time.process_time()
    proven = optimize(job, limits=limits)
    cpu = time.process_time() - start
    proof = proven.certificate
    row: dict[str, object] = {
        "job": name,
        "layouts": f"{proof.points:.3g}",
        "value": f"{proven.value:.6g}",
        "gap": f"{proof.gap:.2g}",
        "evaluations": proof.evaluations["exhaustive"],
        "seconds": round(proven.seconds, 1),
        "cpu_s": round(cpu, 1),
    }
    start = time.process_time()
    descended = optimize(job, limits=limits, method="gradient", certify=False)
    cpu, spent = time.process_time() - start, descended.certificate.evaluations
    refined, best = descended.certificate.refined, proven.value
    behind = None if refined is None or best is None else 1.0 - refined / best
    row["descent_behind"] = "" if behind is None else f"{behind:.2g}"
    row["descent_placements"] = spent["search_placements"]
    row["placements"] = f"{descended.search.layouts.ways.sum():.3g}"
    row["descent_evaluations"] = spent["search_total"]
    row["descent_seconds"] = round(descended.seconds, 1)
    row["descent_cpu_s"] = round(cpu, 1)
    print(row, flush=True)
    jax.clear_caches()
    return row


def test_the_search_on_large_jobs(benchmark):
    rows = benchmark.pedantic(lambda: [row_of(name) for name in JOBS], rounds=1)
    write_rows(rows, RESULTS)
    assert all(float(str(row["gap"])) < 0.01 for row in rows)
    assert all(float(str(row["descent_behind"])) < 0.01 for row in rows)
