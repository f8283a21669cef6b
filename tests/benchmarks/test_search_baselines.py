"""The search beside random points and simulated annealing; skipped unless asked for.

    pytest -s tests/benchmarks/test_search_baselines.py --benchmark-only

Jobs with 1.7e7 to 1.6e10 layouts, each way to run one counted, the same number of model
evaluations for all three, and two seeds of each baseline. Prints one row for each job and
writes them to `results/baselines.csv`. Nothing here asserts a time.
"""

import math
from pathlib import Path

import jax
import numpy as np

from cmxjax.optimization.ask import ask
from cmxjax.optimization.baselines import random_search, simulated_annealing
from cmxjax.optimization.search import search
from cmxjax.report.rows import write_rows
from cmxjax.specs.scenario import load_scenario

RESULTS = Path(__file__).parent / "results" / "baselines.csv"
SEEDS = (1, 2)
TIE = 1e-6
DECODE = "deepseek-r1-decode-cloudmatrix384"
PREFILL = "deepseek-r1-prefill-cloudmatrix384"
PANGU = "pangu-ultra-moe-train-cloudmatrix384"


def _on(devices: int, **more):
    return {"layout": {"devices": devices, **more}}


def _training(devices: int, system: str = "cloudmatrix384"):
    layout = {"devices": devices, "vpp": 1, "sequence_parallel": True}
    workload = {"workload.global_batch": devices, "workload.offload": {}}
    return {"system": system, "layout": layout} | workload


JOBS = {
    "decode-320-50ms": (DECODE, {}, ("tpot=50ms",)),
    "decode-320-15ms": (DECODE, {}, ("tpot=15ms",)),
    "decode-768-30ms": (DECODE, _on(768), ("tpot=30ms",)),
    "decode-kimi-384-50ms": (
        DECODE,
        {"model": "kimi-k2", "workload.draft_tokens": 0, **_on(384)},
        ("tpot=50ms",),
    ),
    "prefill-768-2s": (PREFILL, _on(768), ("ttft=2s",)),
    "prefill-3072-2s": (PREFILL, _on(3072), ("ttft=2s",)),
    "train-pangu-1536": (PANGU, _training(1536), ()),
    "train-pangu-6144": (PANGU, _training(6144), ()),
    "train-pangu-12288": (PANGU, _training(12_288), ()),
    "train-pangu-910b-8192": (PANGU, _training(8192, "atlas-800-a2"), ()),
    "train-deepseek-h800-2048": (
        "deepseek-v3-train-hgx-h800",
        {"layout": {"devices": 2048}},
        (),
    ),
}


def _loss(score) -> float:
    """Log of the objective, larger is worse; infinite where nothing feasible is found."""
    return score.objective if score is not None and score.feasible else math.inf


def _excess(ours: float, theirs: float) -> float:
    """By how much a baseline's value is worse than the search's."""
    if ours == theirs:
        return 0.0
    return math.inf if math.isinf(theirs) else math.expm1(theirs - ours)


def rows_of(jobs):
    for name, (scenario, changes, limits) in jobs.items():
        question = ask(load_scenario(scenario, changes), limits=limits)
        found = search(question)
        ours = _loss(found.score)
        row = {
            "job": name,
            "layouts": f"{question.points:.3g}",
            "evaluations": found.evaluations,
        }
        for baseline in (random_search, simulated_annealing):
            losses = [_loss(baseline(question, found.evaluations, s)) for s in SEEDS]
            column = baseline.__name__
            row[column] = round(float(np.mean([_excess(ours, x) for x in losses])), 6)
            row[f"{column}_best"] = round(_excess(ours, min(losses)), 6)
        print(row, flush=True)
        jax.clear_caches()
        yield row


def test_the_search_against_baselines(benchmark):
    rows = benchmark.pedantic(lambda: list(rows_of(JOBS)), rounds=1)
    write_rows(rows, RESULTS)
    for column in ("random_search", "simulated_annealing"):
        worse = [row[column] for row in rows]
        print(f"{column}: median {np.median(worse):.2%} worse than the search")
        assert min(row[f"{column}_best"] for row in rows) >= -TIE
