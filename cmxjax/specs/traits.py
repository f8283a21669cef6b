"""What a job is like, in a few words and sizes: how near two jobs are to each other.

Words and sizes are those that a job has whatever its phase, so that jobs of one kind can
be compared: which measured runs are the nearest, and what lies outside of all of them.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

from ..job.workload import BYTES
from ..machine.resolve import exchange_library
from .context import default, dtype_of_file, dtypes_of, engine_of, module_bytes
from .degrees import derive
from .discrepancy import level_of
from .model_load import LoadedModel, load_model
from .scenario_file import (
    CollectiveScenario,
    DecodeScenario,
    LayoutSpec,
    OpSpec,
    PrefillScenario,
    Scenario,
    ServeScenario,
    TrainScenario,
)
from .system_load import load_system

OTHER_WORD = 2.0
"""Doublings of a size that are as far as another word, such as another format."""

OTHER_SYSTEM = 3.0
"""Likewise another machine."""


class Traits(NamedTuple):
    """A job in words and sizes."""

    kind: str
    """Its phase; of an operator or a collective also which."""
    system: str
    words: dict[str, str]
    """Engine, formats, class of model, library; what it doesn't have is left out."""
    sizes: dict[str, float]
    """Devices, batch and context of a device, and the sizes of the model or operator."""


def traits_of(scenario: Scenario) -> Traits:
    """What a valid scenario is like."""
    system = scenario.system.base
    if scenario.phase == "system":
        return Traits("system", system, {}, {})
    if scenario.phase == "op":
        op = scenario.op
        return Traits(f"op {op.kind}", system, {"dtype": op.dtype}, _operator(op))
    if scenario.phase == "collective":
        return _collective(scenario)
    return _step(scenario, load_model(scenario.model))


def _given(**sizes: int | float | None) -> dict[str, float]:
    return {name: float(size) for name, size in sizes.items() if size}


def _operator(op: OpSpec) -> dict[str, float]:
    if op.kind in ("vector", "copy"):
        return _given(bytes=op.bytes or (op.tokens or 0.0) * (op.hidden or 0.0))
    if op.kind.endswith("gemm"):
        return _given(groups=op.groups, m=op.m, n=op.n, k=op.k)
    width = op.latent_dim or op.head_dim
    return _given(
        sequences=op.sequences,
        context=op.kv_tokens,
        query=op.query_tokens,
        heads=op.heads,
        width=width,
    )


def _collective(scenario: CollectiveScenario) -> Traits:
    spec, system = scenario.collective, load_system(scenario.system).system
    exchanges = spec.kind in ("dispatch", "combine")
    usual = default(system, "expert" if exchanges else "collective")
    words = {"library": spec.library or usual}
    if exchanges:
        words |= {"mode": spec.mode, "dtype": spec.dtype}
    sizes = _given(
        devices=spec.ranks,
        bytes=spec.payload_bytes,
        tokens=spec.tokens_per_rank,
        hidden=spec.hidden,
        topk=spec.topk,
    )
    return Traits(f"collective {spec.kind}", scenario.system.base, words, sizes)


def _step(
    scenario: DecodeScenario | PrefillScenario | TrainScenario | ServeScenario,
    model: LoadedModel,
) -> Traits:
    file = model.file
    mixers = sorted({mixer.kind for mixer in file.mixer_specs.values()})
    experts = file.mixture
    words = {
        "engine": level_of(scenario, "tpot").partition("/")[2],
        "model": "+".join([*mixers, "experts" if experts else "dense"]),
        **_formats(scenario, model),
        **_exchange(scenario, model),
    }
    shape = _given(
        layers=file.layers,
        hidden=file.hidden,
        experts=experts and experts.routed,
        topk=experts and experts.topk,
    )
    return Traits(
        scenario.phase, scenario.system.base, words, _load(scenario, model) | shape
    )


def _formats(scenario: Scenario, model: LoadedModel) -> dict[str, str]:
    if isinstance(scenario, TrainScenario):
        return {"dtype": scenario.workload.precision}
    system = load_system(scenario.system).system
    dtypes = dtypes_of(scenario, dtype_of_file(model, system))
    stored = [BYTES[dtypes.weight], *module_bytes(scenario, model).values()]
    return {
        "weights": f"{math.ceil(8.0 * min(stored) - 0.5):g} bits",
        "dtype": dtypes.activation,
        "cache": dtypes.kv,
    }


def _exchange(scenario: Scenario, model: LoadedModel) -> dict[str, str]:
    """The library by which a serving engine exchanges tokens between experts."""
    if isinstance(scenario, TrainScenario) or model.file.mixture is None:
        return {}
    system = load_system(scenario.system).system
    engine = engine_of(scenario, system, "scenario")
    return {"exchange": exchange_library(system, engine, scenario.engine_version or "")}


def _devices(layout: LayoutSpec, model: LoadedModel) -> float:
    """Of a layout that was built already."""
    d = derive(layout, model.file.mixture is not None, "scenario")
    return float(d.tp * d.cp * d.dp * d.pp)


def _load(scenario: Scenario, model: LoadedModel) -> dict[str, float]:
    """Devices, and what each of them is given."""
    if isinstance(scenario, ServeScenario):
        w = scenario.workload
        devices = float(sum(pool.devices for pool in scenario.pools))
        load = {
            "in_flight": w.concurrency and w.concurrency / devices,
            "requests_per_s": w.request_rate and w.request_rate / devices,
        }
        return _given(
            devices=devices, context=w.prompt_tokens, output=w.output_tokens, **load
        )
    devices = _devices(scenario.layout, model)
    if isinstance(scenario, DecodeScenario):
        w = scenario.workload
        sizes = {"batch": w.sequences_per_device, "context": w.kv_tokens}
    elif isinstance(scenario, PrefillScenario):
        w = scenario.workload
        sizes = {"batch": w.tokens_per_device, "context": w.prompt_tokens}
    else:
        assert isinstance(scenario, TrainScenario)
        w = scenario.workload
        each = w.global_batch * w.sequence_tokens / devices
        sizes = {"batch": each, "context": w.sequence_tokens}
    return _given(devices=devices, **sizes)


def distance(one: Traits, other: Traits) -> float:
    """How far two jobs of one kind are apart, in doublings of a size; infinite for two
    kinds. Sizes and words that only one of them has count as another word each."""
    if one.kind != other.kind:
        return math.inf
    square = OTHER_SYSTEM**2 * (one.system != other.system)
    square += sum(
        OTHER_WORD**2 * (one.words.get(name) != other.words.get(name))
        for name in one.words.keys() | other.words.keys()
    )
    for name in one.sizes.keys() | other.sizes.keys():
        square += _apart(one.sizes, other.sizes, name) ** 2
    return math.sqrt(square)


def _apart(one: Mapping[str, float], other: Mapping[str, float], name: str) -> float:
    if name not in one or name not in other:
        return OTHER_WORD
    return math.log2(one[name] / other[name])
