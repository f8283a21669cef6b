"""Seeded problems whose spaces can be enumerated, to try searches on.

Decode, prefill and training jobs on 64 to 12,288 devices of three machines, dense and
mixtures of experts. Each problem has a generator of its own, so adding one never changes
another. Written before the searches that are judged by it.
"""

from typing import NamedTuple

import numpy as np

SEED = 384
PHASES = ("decode", "prefill", "train")

DEVICES = {
    "cloudmatrix384": (
        *(64, 96, 128, 144, 192, 256, 288, 320, 384, 512, 640, 768),
        *(1536, 3072, 6144, 12288),
    ),
    "gb200-nvl72": (64, 72, 144, 288, 576, 1152, 2304, 4608, 9216),
    "dgx-h100": (64, 96, 128, 192, 256, 384, 512, 1024, 2048, 4096, 8192),
}
EIGHT_BIT = {"cloudmatrix384": "int8", "gb200-nvl72": "fp8", "dgx-h100": "fp8"}
MIXTURES = (
    "deepseek-r1",
    "deepseek-v2",
    "kimi-k2",
    "pangu-pro-moe-72b",
    "pangu-ultra-moe-718b",
    "qwen3-235b-a22b",
)
DENSE = (
    "gpt-3-175b",
    "llama-3.1-8b",
    "llama-3.1-70b",
    "llama-3.1-405b",
    "pangu-ultra-135b",
)
DRAFTING = ("deepseek-r1", "pangu-ultra-moe-718b")


class Case(NamedTuple):
    """One problem: a scenario, what is free in it, and what is asked."""

    name: str
    scenario: dict[str, object]
    pinned: dict[str, int]
    """Degrees that are not free, by axis."""
    settings: dict[str, tuple[float, ...]]
    """Values of the settings that are free."""
    objective: str
    limits: tuple[str, ...]


def draw(count: int = 200, seed: int = SEED) -> list[Case]:
    """The first `count` problems: a third each of decode, prefill and training."""
    return [_case(seed, i) for i in range(count)]


def _case(seed: int, i: int) -> Case:
    phase = PHASES[i % len(PHASES)]
    rng = np.random.default_rng((seed, i))
    system = str(rng.choice(list(DEVICES)))
    model = str(rng.choice(MIXTURES if rng.random() < 0.7 else DENSE))
    # few of the large jobs: their spaces are the slow ones to enumerate
    counts = DEVICES[system]
    devices = counts[int(len(counts) * rng.random() ** 1.5)]
    scenario: dict[str, object] = {
        "system": system,
        "model": model,
        "phase": phase,
        "layout": {"devices": devices, "ep": 1},
    }
    if phase != "train" and rng.random() < 0.8:
        short = EIGHT_BIT[system]
        scenario["dtypes"] = {"weight": short, "activation": short, "dispatch": short}
    make = {"decode": _decode, "prefill": _prefill, "train": _train}[phase]
    workload, settings, objective, limits = make(rng, model)
    scenario["workload"] = workload
    pinned = _pinned(rng, model in MIXTURES, devices)
    name = f"{i:03d}-{phase}-{model}-{system}-{devices}"
    return Case(name, scenario, pinned, settings, objective, limits)


def _pinned(rng: np.random.Generator, mixture: bool, devices: int) -> dict[str, int]:
    """Axes that stay at 1: fewer are free the more devices there are."""
    free = {"cp": 0.3, "etp": 0.3, "pp": 0.6}
    scale = 1.5 if devices <= 128 else 1.0 if devices <= 384 else 0.2
    pinned = {axis: 1 for axis, share in free.items() if rng.random() > scale * share}
    if not mixture:
        pinned["etp"] = 1
    return pinned


def _some(rng: np.random.Generator, values: tuple, low: int, high: int) -> tuple:
    """Between `low` and `high` of the values, ascending."""
    picked = rng.choice(len(values), int(rng.integers(low, high + 1)), replace=False)
    return tuple(float(values[k]) for k in sorted(picked))


def _decode(rng: np.random.Generator, model: str) -> tuple:
    drafts = int(model in DRAFTING and rng.random() < 0.7)
    workload = {
        "sequences_per_device": 1,
        "kv_tokens": int(rng.choice((1024, 2048, 4224, 8192, 32768, 131072))),
        "draft_tokens": drafts,
    }
    batches = (1, 2, 3, 4, 6, 8, 12, 16, 20, 24, 32, 40, 48, 56, 64, 80, 96, 128, 192)
    asked = rng.random()
    if asked < 0.15:
        fixed = {"sequences_per_device": (float(rng.choice((1, 4, 16, 32))),)}
        return workload, fixed, "tpot", ()
    settings = {"sequences_per_device": _some(rng, batches, 6, 16)}
    limits = () if rng.random() < 0.15 else (f"tpot={rng.choice((15, 30, 50, 100))}ms",)
    objective = "energy_per_token" if asked > 0.85 else "tokens_rate_per_package"
    return workload, settings, objective, limits


def _prefill(rng: np.random.Generator, model: str) -> tuple:
    workload = {
        "tokens_per_device": 4096,
        "prompt_tokens": int(rng.choice((1024, 4096, 8192, 32768))),
        "cached_fraction": float(rng.choice((0.0, 0.0, 0.25, 0.5))),
    }
    sizes = (256, 512, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384, 32768)
    asked = rng.random()
    settings = {"tokens_per_device": _some(rng, sizes, 4, 10)}
    if asked < 0.15:
        return workload, settings, "ttft", ()
    limits = () if rng.random() < 0.25 else (f"ttft={rng.choice((0.5, 1, 2, 4))}s",)
    objective = "energy_per_token" if asked > 0.85 else "tokens_rate_per_package"
    return workload, settings, objective, limits


def _train(rng: np.random.Generator, model: str) -> tuple:
    workload = {
        "global_batch": int(rng.choice((1536, 3072, 6144, 12288, 18432))),
        "sequence_tokens": int(rng.choice((2048, 4096, 8192))),
        "micro_batch": 1,
        "schedule": str(rng.choice(("1f1b", "zero_bubble"))),
        "recompute": str(rng.choice(("none", "selective", "full"))),
        "zero": int(rng.choice((0, 1))),
    }
    settings = {"micro_batch": _some(rng, (1, 2, 4, 8), 1, 4)}
    return workload, settings, "step_time", ()
