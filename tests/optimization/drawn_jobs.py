"""Small jobs that are drawn by a seed, each with few enough points to price them all.

Written without a look at what a search finds hard. Each job has a generator of its own,
so that adding one never changes another.
"""

import numpy as np
from points import Job

SEED = 20_260
PHASES = ("decode", "train", "prefill")

SYSTEMS = {
    **{"dgx-h100": 80, "dgx-a100-80g": 80, "hgx-b200": 180, "hgx-h200": 141},
    **{"gb200-nvl72": 186, "cloudmatrix384": 64, "atlas-800-a2": 64},
}
"""With GB of a device: jobs that fit nowhere tell little."""

DENSE = {"llama-3.1-8b": 8.0, "llama-3.2-1b": 1.2, "mpt-7b": 6.7, "megatron-22b": 22.0}
DENSE |= {"qwen3-32b": 32.8}
EXPERTS = {"olmoe-1b-7b": 6.9, "mixtral-8x7b": 46.7, "deepseek-v2-lite": 15.7}
HYBRID = {"nemotron-3-nano-30b": 31.6}
KINDS = (DENSE, DENSE, DENSE, EXPERTS, EXPERTS, HYBRID)
"""Models with billions of parameters. Kinds are drawn alike."""

BYTES = {"decode": 2.0, "prefill": 2.0, "train": 16.0}
"""Of a parameter, at least."""

DEVICES = (1, 2, 3, 4, 6, 8, 8, 8, 12, 16, 32)
BATCHES = (7, 12, 30, 36, 45, 64, 96, 100, 360)


def draw(count: int = 60) -> list[Job]:
    """The first so many jobs."""
    return [drawn(i) for i in range(count)]


def drawn(i: int) -> Job:
    rng = np.random.default_rng((SEED, i))
    phase = PHASES[i % len(PHASES)]
    kind, system = KINDS[int(rng.integers(len(KINDS)))], str(rng.choice(list(SYSTEMS)))
    devices = int(rng.choice([n for n in DEVICES if n <= 16 or kind is DENSE]))
    most = 0.8 * devices * SYSTEMS[system] / BYTES[phase]
    if min(kind.values()) > most:
        kind = DENSE
    model = str(rng.choice([name for name, size in kind.items() if size <= most]))
    make = {"decode": decode, "train": train, "prefill": prefill}[phase]
    workload, objective, limits = make(rng, devices)
    scenario = {
        "system": system,
        "model": model,
        "phase": phase,
        "workload": workload,
        "layout": {"devices": devices},
    }
    name = f"{i:02d}-{phase}-{model}-{system}-{devices}"
    pinned = pins(rng, phase, kind is not DENSE, devices)
    spread = devices <= 2 and bool(rng.random() < 0.5)
    return Job(name, scenario, objective, limits, pinned, spread)


def pins(rng: np.random.Generator, phase: str, sparse: bool, devices: int) -> dict:
    """Axes that stay at 1: the more of them, the more points or programs otherwise."""
    most = {"cp": 8, "pp": 4, "etp": 4} if sparse else {"cp": 16, "pp": 8, "etp": 32}
    if sparse and phase == "train":
        most["pp"] = 2
    return {
        axis: 1
        for axis, n in most.items()
        if devices > n or (n < 32 and rng.random() < 0.3)
    }


def decode(rng: np.random.Generator, devices: int) -> tuple:
    contexts = (64, 512, 4096) if devices < 3 else (1024, 4096, 8192, 32768)
    workload = {"sequences_per_device": 1, "kv_tokens": int(rng.choice(contexts))}
    asked = rng.random()
    if asked < 0.1:
        return workload, "tpot", ()
    if asked < 0.25:
        return workload, "energy_per_token", ()
    limits = (
        (f"tpot={rng.choice((10, 20, 30, 50, 100))}ms",) if rng.random() < 0.6 else ()
    )
    return workload, "tokens_rate_per_package", limits


def prefill(rng: np.random.Generator, devices: int) -> tuple:
    prompts = (500, 1024, 3000) if devices < 3 else (1024, 3000, 10_000, 32_768)
    prompt = int(rng.choice(prompts))
    workload = {"tokens_per_device": prompt, "prompt_tokens": prompt}
    workload["cached_fraction"] = float(rng.choice((0.0, 0.0, 0.5)))
    asked = rng.random()
    if asked < 0.15:
        return workload, "ttft", ()
    if asked < 0.3:
        return workload, "energy_per_token", ()
    limits = (f"ttft={rng.choice((0.5, 1, 2, 5))}s",) if rng.random() < 0.6 else ()
    return workload, "tokens_rate_per_package", limits


def train(rng: np.random.Generator, devices: int) -> tuple:
    workload = {
        "global_batch": int(rng.choice(BATCHES)),
        "sequence_tokens": int(rng.choice((512, 2048, 4096, 8192))),
    }
    asked = rng.random()
    limits = ("memory=40GB",) if rng.random() < 0.2 else ()
    if asked < 0.2:
        return workload, "step_time", limits
    if asked < 0.4:
        return workload, "mfu", limits
    objective = "energy_per_token" if asked < 0.5 else "tokens_rate_per_package"
    return workload, objective, limits
