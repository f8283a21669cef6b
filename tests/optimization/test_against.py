"""The search of large jobs beside random search and simulated annealing.

All get as many evaluations of the model. Jobs of 256 to 4,096 devices, nothing pinned.
"""

import pytest
from annealing import random_search, simulated_annealing
from points import MEASURED, Job

import cmxjax as cmx

TIE = 1e-6
MOST = 20_000
"""Evaluations of a baseline, also where the search took more."""


def decode(system: str, model: str, devices: int, *limits: str, **more: object) -> Job:
    workload = {"sequences_per_device": 1, "kv_tokens": 4096}
    return _job("decode", system, model, devices, workload, limits, **more)


def prefill(system: str, model: str, devices: int, *limits: str, **more: object) -> Job:
    workload = {"tokens_per_device": 4096, "prompt_tokens": 4096}
    return _job("prefill", system, model, devices, workload, limits, **more)


def train(system: str, model: str, devices: int, batch: int, **more: object) -> Job:
    workload = {"global_batch": batch, "sequence_tokens": 4096}
    return _job("train", system, model, devices, workload, (), **more)


def _job(phase, system, model, devices, workload, limits, **more) -> Job:
    scenario = {"system": system, "model": model, "phase": phase}
    scenario |= {"workload": workload, "layout": {"devices": devices}}
    objective = more.pop("objective", "tokens_rate_per_package")
    name = "-".join([phase, model, system, str(devices), *limits, objective])
    return Job(name, scenario | more, objective, limits)


EIGHT = {"weight": "int8", "activation": "int8", "dispatch": "int8"}
JOBS = [
    decode("cloudmatrix384", "deepseek-r1", 320, "tpot=50ms", dtypes=EIGHT),
    decode("cloudmatrix384", "deepseek-r1", 768, "tpot=15ms", dtypes=EIGHT),
    decode("cloudmatrix384", "kimi-k2", 384, "tpot=30ms", dtypes=EIGHT),
    decode("gb200-nvl72", "qwen3-235b-a22b", 288, "tpot=20ms"),
    decode("dgx-h100", "llama-3.1-405b", 256, objective="energy_per_token"),
    decode("atlas-800-a2", "deepseek-v2", 512, "tpot=100ms"),
    decode("hgx-h200", "deepseek-v2", 1024, "tpot=40ms"),
    prefill("cloudmatrix384", "deepseek-r1", 768, "ttft=2s", dtypes=EIGHT),
    prefill("cloudmatrix384", "deepseek-r1", 3072, "ttft=1s", dtypes=EIGHT),
    prefill("gb200-nvl72", "qwen3-235b-a22b", 576, objective="ttft"),
    prefill("dgx-h100", "llama-3.1-405b", 512, "ttft=5s"),
    prefill("hgx-b200", "kimi-k2", 256),
    train("cloudmatrix384", "pangu-ultra-moe-718b", 1536, 1536),
    train("cloudmatrix384", "deepseek-v3", 4096, 4096),
    train("atlas-800-a2", "pangu-ultra-135b", 4096, 3072),
    train("dgx-a100-80g", "gpt-3-175b", 1024, 1536),
    train("dgx-h100", "llama-3.1-405b", 2048, 2000, objective="mfu"),
    train("hgx-h800", "deepseek-v3", 2048, 15360, objective="step_time"),
    train("gb200-nvl72", "qwen3-235b-a22b", 1152, 1152),
    train("hgx-b200", "mixtral-8x7b", 256, 360, objective="energy_per_token"),
]


@pytest.mark.slow
@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_the_search_loses_to_neither_at_as_many_evaluations(job):
    scenario = cmx.load_scenario(job.scenario)
    answer = cmx.optimize(
        scenario, objective=job.objective, limits=job.limits, calibration="none"
    )
    assert answer.feasible
    spent = dict(answer.certificate.evaluations)
    count = min(MOST, spent.get("search_total", sum(spent.values())))
    sign = MEASURED[job.objective][1]
    for search in (random_search, simulated_annealing):
        found = search(job, count, seed=1)
        if found is not None:
            value, point = found
            ahead = sign * (value / answer.value - 1.0)
            assert ahead <= TIE, f"{search.__name__} finds {ahead:.2%} more at {point}"
