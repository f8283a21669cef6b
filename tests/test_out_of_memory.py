"""Training runs that ran out of memory are told from those that ran.

`nanotron.csv` has one laboratory's grid of Llama-like models on 8 to 512 H100: all runs
that ended for memory or went well and whose source says how wide the model is (Hugging
Face, nanotron ultra-scale benchmark, bench_final2_mod_add.csv in gkarfakis19/Rapid-LLM at
317a2cb). Key-value heads of runs that failed aren't printed; they are taken to be as many
as heads. The calibration fits the memory of 15 of those that went well, of no other.
"""

import csv
from pathlib import Path

import numpy as np
import pytest

from cmxjax.answers.batch import evaluate
from cmxjax.specs.build import Problem, build
from cmxjax.specs.scenario import validate_scenario

FOUND, WRONGLY_REFUSED = 0.95, 0.02
"""Of runs that failed, the least share to be told so; of others, the largest."""


def built(run: dict[str, str]) -> Problem:
    number = {k: int(v) for k, v in run.items() if k not in ("job", "end", "engine")}
    model = {
        "base": "llama-3.1-8b",
        "dense_layers": number["layers"],
        **{k: number[k] for k in ("layers", "hidden", "intermediate", "vocabulary")},
        "attention.heads": number["heads"],
        "attention.kv_heads": number["kv_heads"],
        "attention.head_dim": number["hidden"] // number["heads"],
    }
    workload = {k: number[k] for k in ("global_batch", "micro_batch", "zero")}
    layout = {k: number[k] for k in ("devices", "tp", "pp")}
    scenario = {
        "system": "dgx-h100",
        "model": model,
        "phase": "train",
        "engine": run["engine"],
        "workload": {**workload, "sequence_tokens": 4096, "fabric": "hf-h100"},
        "dtypes": {"gradient": "fp32"},
        "layout": {**layout, "sequence_parallel": bool(number["sequence_parallel"])},
    }
    return build(validate_scenario(scenario, f"job {run['job']}"), None)


@pytest.mark.slow
def test_runs_that_fail_for_memory_are_predicted_to():
    with Path(__file__).with_name("nanotron.csv").open() as file:
        runs = list(csv.DictReader(file))
    outcomes = evaluate([built(run) for run in runs])
    full = np.array([o.metrics.memory_excess_bytes > 0.0 for o in outcomes])
    failed = np.array([run["end"] == "memory" for run in runs])
    assert failed.sum() > 600
    assert (~failed).sum() > 580
    assert full[failed].mean() >= FOUND
    assert full[~failed].mean() <= WRONGLY_REFUSED
