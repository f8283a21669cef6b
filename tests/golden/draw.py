"""Scenarios of the golden table: a Sobol sequence over the keys of the schema.

Each point of the sequence is one scenario: a coordinate chooses a key's value. Points
that the loader refuses are passed over, so what remains are jobs that a user could ask
for. Names (systems, engines, models, formats) and numbers are drawn alike.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

from scipy.stats import qmc

import cmxjax as cmx
from cmxjax.specs.files import shipped
from cmxjax.specs.model_load import load_model
from cmxjax.specs.scenario import validate_scenario
from cmxjax.specs.system_load import Reference, load_system

COUNTS = {
    "decode": 60,
    "prefill": 32,
    "train": 32,
    "serve": 16,
    "collective": 72,
    "op": 48,
}
"""Scenarios of each phase: so many that a change of the physics draws the table anew in
a quarter of an hour."""

AXES = 64
"""Coordinates of a point, more than any phase uses; half are for names."""

ALIKE = {"serve": 6}
"""How many scenarios in a row share their names; they are compiled, so that they share
a program too."""

Scenario = dict[str, Any]


class Point:
    """One point of the sequence, whose coordinates are used up one by one."""

    def __init__(self, names: Any, numbers: Any):
        self.names, self.numbers = iter(names), iter(numbers)

    def of(self, *choices: Any) -> Any:
        """One of some names; a list or tuple alone is unpacked."""
        options = choices[0] if len(choices) == 1 else choices
        return options[int(next(self.names) * len(options))]

    def pick(self, *choices: Any) -> Any:
        """One of some numbers."""
        return choices[int(next(self.numbers) * len(choices))]

    def between(self, low: float, high: float) -> float:
        """A number, evenly in its logarithm, with four digits."""
        x = next(self.numbers)
        return float(f"{math.exp(math.log(low) + x * math.log(high / low)):.4g}")

    def whole(self, low: int, high: int) -> int:
        """A whole number, evenly in its logarithm."""
        return round(self.between(low, high))

    def share(self, *certain: float) -> float:
        """A fraction from 0 to 1, or one of those named, half of the time."""
        x = next(self.numbers)
        if certain and x < 0.5:
            return certain[int(2.0 * x * len(certain))]
        return float(f"{(2.0 * x) % 1.0:.3f}")


def points(seed: int, alike: int) -> Iterator[Point]:
    sequence = qmc.Sobol(AXES, seed=seed)
    while True:
        names = None
        for _ in range(alike):
            first, second = sequence.random(1).reshape(2, -1)
            names = first if names is None else names
            yield Point(names, second)


def _system(p: Point) -> Any:
    return load_system(Reference(p.of(shipped("systems")))).system


def _formats(p: Point, system: Any) -> Scenario:
    """Formats that the chip has, or what each phase does by default."""
    known = list(system.chip.matrix_flop_per_s)
    narrow = [name for name in ("int8", "fp8", "fp4") if name in known] or ["bf16"]
    linear = p.of("bf16", *narrow)
    sent = p.of("bf16", *(n for n in narrow if n != "fp4"))
    return {
        "weight": linear,
        "activation": linear,
        "attention": p.of("bf16", "bf16", "fp16"),
        "kv": p.of("bf16", *narrow),
        "dispatch": sent,
        "combine": p.of("bf16", sent),
        "head": p.of("bf16", "bf16", "fp32"),
    }


def _routing(p: Point, routed: float, ep: int) -> Scenario:
    found: Scenario = {"balance": p.of("uniform", "random", "typical", "typical")}
    skew, spare = p.of(None, None, 0.25, 0.6), p.pick(0, 0, ep, 2 * ep)
    replicas = p.of(0, 0, 0, 1) * max(1, ep // 8)
    if skew is not None:
        found["skew"] = skew
    if routed:
        found["shared_replicas"] = replicas
        found["redundant_experts"] = (-int(routed) - replicas) % ep + spare
    return found


def _layout(p: Point, model: Any, most: int = 512) -> Scenario:
    """Degrees of a serving job; ranks hold whole experts."""
    tp, cp, pp = p.pick(1, 1, 2, 4, 8), p.pick(1, 1, 1, 2), p.pick(1, 1, 1, 2, 3, 4)
    dp, etp = p.pick(1, 2, 4, 8, 16, 40, 64), p.pick(1, 1, 1, 2)
    found: Scenario = {
        "tp": tp,
        "cp": cp,
        "pp": pp,
        "dp": max(1, min(dp, most // (tp * cp * pp))),
        "overlapped_microbatches": p.of(1, 2, "auto"),
        "sequence_parallel": p.of(False, True),
        "order": p.pick("tp-cp-dp-pp", "tp-cp-dp-pp", "pp-tp-cp-dp", "dp-tp-cp-pp"),
    }
    ranks, share = tp * cp * found["dp"], p.pick(1, 1, 2)
    if model.experts is not None:
        found |= {"etp": etp, "ep": max(1, ranks // etp // share)}
    return found


def _split(p: Point, tp: int, prefill: bool) -> str:
    options = ["tp", *(["sp_tp_sp"] if prefill else [])]
    return p.of(options) if tp > 1 else "dp"


def _served(p: Point, prefill: bool) -> tuple[Scenario, Any, Any]:
    system = _system(p)
    name = p.of(shipped("models"))
    model = load_model(Reference(name)).file
    layout = _layout(p, model)
    layout["attention"] = _split(p, layout["tp"], prefill)
    routed = 0.0 if model.experts is None else model.experts.routed
    scenario = {
        "system": system.name,
        "model": name,
        "engine": p.of(list(system.engines)),
        "dtypes": _formats(p, system),
        "layout": layout,
        "routing": _routing(p, routed, layout.get("ep", 1)),
    }
    return scenario, system, model


def decode(p: Point) -> Scenario:
    scenario, _, model = _served(p, False)
    drafts = p.of(0, 1, 2, 3) if model.draft_layers else 0
    workload = {
        "sequences_per_device": p.between(0.5, 256.0),
        "kv_tokens": p.whole(128, 131072),
        "draft_tokens": drafts,
        "acceptance": [p.share(), p.share(), p.share()][: max(1, drafts)],
    }
    return scenario | {"phase": "decode", "workload": workload}


def prefill(p: Point) -> Scenario:
    scenario, _, _ = _served(p, True)
    prompt = p.whole(128, 32768)
    group = scenario["layout"]["tp"] * scenario["layout"]["cp"]
    workload = {
        "prompt_tokens": prompt,
        "tokens_per_device": max(prompt / group, p.whole(1024, 65536)),
        "cached_fraction": p.share(0.0),
        "cache_plane": p.of("none", "ub", "vpc"),
    }
    return scenario | {"phase": "prefill", "workload": workload}


def train(p: Point) -> Scenario:
    system = _system(p)
    name = p.of(shipped("models"))
    model = load_model(Reference(name)).file
    layout = _layout(p, model, most=2048)
    layout["attention"] = "tp" if layout["tp"] > 1 else "dp"
    pp, ep = p.pick(1, 2, 4, 8, 16), layout.get("ep", 1)
    schedule = p.of("gpipe", "1f1b", "interleaved", "zero_bubble", "dualpipe")
    layout |= {"pp": pp, "vpp": p.pick(2, 4) if schedule == "interleaved" else 1}
    if schedule == "zero_bubble":
        layout["vpp"] = p.pick(1, 2)
    if p.of(False, False, True):
        layout["stages"] = _uneven(int(model.layers), pp)
    offloaded = p.of(False, False, True)
    workload: Scenario = {
        "global_batch": layout["dp"] * p.pick(2, 4, 8, 32) * pp,
        "micro_batch": p.pick(1, 2),
        "sequence_tokens": p.pick(2048, 4096, 8192, 32768),
        "schedule": schedule,
        "recompute": p.of("none", "selective", "full", 0.4),
        "zero": p.of(0, 1, 2, 3),
        "fused_attention": p.of(True, True, False),
        "context_parallel": p.of("ring", "all_to_all"),
        "precision": p.of("bf16", "bf16", "fp8", "int8"),
        "flop_convention": p.of("megatron", "causal", "bloom", "mosaic", "parameters"),
    }
    if offloaded:
        workload["offload"] = {
            "activations": p.share(0.0),
            "weights": p.share(0.0),
            "optimizer": p.share(1.0),
        }
    if system.fabrics and p.of(False, True):
        workload["fabric"] = p.of(list(system.fabrics))
    routed = 0.0 if model.experts is None else model.experts.routed
    routing = _routing(p, routed, ep) | ({"shared_replicas": 0} if routed else {})
    if routed:
        routing["redundant_experts"] = -int(routed) % ep
    return {
        "system": system.name,
        "model": name,
        "phase": "train",
        "engine": p.of(list(system.trainers)),
        "layout": layout,
        "routing": routing,
        "dtypes": {"gradient": p.of("fp32", "bf16")},
        "workload": workload,
    }


def _uneven(layers: int, pp: int) -> list[int]:
    """Stages of which the first has a layer less and the others share the rest."""
    if pp == 1:
        return [layers]
    first = max(1, layers // pp - 1)
    rest = layers - first
    return [first, *(rest // (pp - 1) + (i < rest % (pp - 1)) for i in range(pp - 1))]


def serve(p: Point) -> Scenario:
    system = _system(p)
    name = p.of(shipped("models"))
    model = load_model(Reference(name)).file
    kinds = [("prefill", "decode"), ("decode",)]
    if model.experts is not None:
        kinds += [("attention", "expert"), ("prefill", "attention", "expert")]
    roles = p.of(kinds)
    cached = p.of(False, False, True)
    pools = []
    for role in roles:
        dp, tp = p.pick(4, 8, 16, 32), p.of(1, 1, 2, 4, 8)
        layout: Scenario = {"devices": dp * tp, "tp": tp, "dp": dp}
        layout["overlapped_microbatches"] = p.of(1, 2, "auto")
        if role == "expert":
            layout = {"devices": dp * tp, "ep": dp * tp}
        elif model.experts is not None and role != "attention":
            layout["ep"] = dp * tp
        pools.append(
            {"role": role, "devices": dp * tp * p.pick(1, 2, 6), "layout": layout}
        )
    if cached:
        pools.append({"role": "cache", "devices": p.pick(16, 64)})
    workload: Scenario = {
        "request_rate": p.between(0.05, 60.0),
        "prompt_tokens": p.whole(256, 8192),
        "output_tokens": p.whole(64, 2048),
        "cached_fraction": p.share(0.0) if cached else p.of(0.0, 0.0, 0.5),
    }
    if "prefill" in roles or roles == ("decode",):
        limit = p.of(None, "2 s", "8 s")
        workload |= {} if limit is None else {"ttft_limit": limit}
    limit = p.of(None, "50 ms", "120 ms")
    workload |= {} if limit is None else {"tpot_limit": limit}
    return {
        "system": system.name,
        "model": name,
        "phase": "serve",
        "engine": p.of(list(system.engines)),
        "dtypes": _formats(p, system),
        "routing": {"balance": p.of("random", "typical")},
        "workload": workload,
        "pools": pools,
    }


def collective(p: Point) -> Scenario:
    system = _system(p)
    kind = p.of(
        *("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast"),
        *("p2p", "read", "write"),
        *("dispatch", "combine", "dispatch", "combine"),
    )
    exchange, pair = kind in ("dispatch", "combine"), kind in ("p2p", "read", "write")
    asked: Scenario = {"kind": kind, "engine": p.of("vector_cores", "sdma")}
    if not pair:
        asked["ranks"] = p.pick(2, 4, 8, 16, 24, 32, 64, 128, 320)
    libraries = system.expert_parallel if exchange else system.collectives
    asked["library"] = p.of(list(libraries))
    if exchange:
        asked |= {
            "tokens_per_rank": p.whole(1, 4096),
            "hidden": p.pick(4096, 7168),
            "topk": p.pick(2, 8, 9),
            "dtype": p.of("bf16", "int8", "fp8"),
            "mode": p.of("low_latency", "normal"),
        }
    else:
        asked["payload_bytes"] = f"{p.whole(1024, 2**30)} B"
    if pair and p.of(False, True):
        asked["path"] = "npu-cpu"
    if p.of(False, False, True):
        asked["scope"] = p.of(system.tier_order)
    routing: Scenario = {"balance": p.of("uniform", "random", "typical")}
    found = {"system": system.name, "phase": "collective", "collective": asked}
    return found | {"engine": p.of(list(system.engines)), "routing": routing}


def op(p: Point) -> Scenario:
    system = _system(p)
    kind = p.of(
        *("gemm", "grouped_gemm", "attention_prefill", "attention_decode"),
        *("vector", "copy"),
    )
    peaks = list(system.chip.matrix_flop_per_s)
    asked: Scenario = {"kind": kind, "dtype": p.of(peaks)}
    m, n, k = p.whole(1, 16384), p.whole(64, 16384), p.whole(64, 16384)
    if kind.endswith("gemm"):
        asked |= {"m": m, "n": n, "k": k}
        asked |= {"groups": p.whole(2, 64)} if kind == "grouped_gemm" else {}
    elif kind.startswith("attention"):
        heads, context = p.pick(16, 32, 128), p.whole(128, 65536)
        asked |= {"heads": heads, "sequences": p.whole(1, 128), "kv_tokens": context}
        asked["causal"] = p.of(True, False)
        if kind == "attention_decode":
            asked["query_tokens"] = p.pick(1, 2)
        if p.of(False, True):
            asked |= {"latent_dim": 512, "rope_dim": 64}
        else:
            asked |= {"kv_heads": p.pick(1, 8, heads), "head_dim": p.pick(64, 128)}
    else:
        asked |= {"tokens": m, "hidden": n}
    return {"system": system.name, "phase": "op", "op": asked}


DRAWN: dict[str, Callable[[Point], Scenario]] = {
    "decode": decode,
    "prefill": prefill,
    "train": train,
    "serve": serve,
    "collective": collective,
    "op": op,
}


def drawn(phase: str, seed: int = 16) -> Iterator[Scenario]:
    """Scenarios of a phase that the loader accepts."""
    found = 0
    for p in points(seed, ALIKE.get(phase, 1)):
        if found == COUNTS[phase]:
            return
        scenario = DRAWN[phase](p)
        try:
            cmx.build(validate_scenario(scenario, phase), "none")
        except cmx.SpecError:
            continue
        found += 1
        yield scenario
