"""From a validated scenario to the pytrees of one prediction."""

import math
from typing import NamedTuple

import numpy as np
from jax import Array

from ..job.layout import AXES, Layout, Pools, Routing
from ..job.workload import (
    BYTES,
    Collective,
    Decode,
    Dtypes,
    Operator,
    Prefill,
    Software,
    SystemQuery,
    Train,
    Workload,
    balance_of,
    scale_bytes,
    sizes_of,
)
from ..machine.machine import Machine
from ..machine.pad import MOST_TIERS, padded
from ..machine.resolve import Choices, Meets, exchange_library, machine_of
from ..machine.system import System
from ..model.architecture import Architecture
from ..model.feed_forwards import COUNTLESS
from ..parameters import apply
from ..switch import switch
from .calibration_file import UNCALIBRATED, Calibration, calibration_for
from .context import (
    SERVES,
    dtype_of_file,
    engine_of,
    expert_format,
    limited,
    module_bytes,
    multiplied,
    unpacks,
)
from .context import Context as _Context
from .context import check_dtypes as _check_dtypes
from .context import default as _default
from .context import dtypes_of as _dtypes
from .context import leaf as _leaf
from .context import pick as _pick
from .context import sizes as _sizes
from .degrees import (
    Degrees,
    check_division,
    check_experts,
    derive,
    parse_order,
)
from .errors import SpecError, all_of, shown
from .figures import Figure
from .files import version
from .images import pictures_of, prompt_tokens
from .layout_make import assembled, attention_split, placed
from .model_file import ExpertsSpec
from .model_load import load_model, stored_in
from .related import relatives_of, warning_of
from .relatives import relatives
from .scenario_file import (
    CollectiveScenario,
    CollectiveSpec,
    DecodeScenario,
    OpScenario,
    PrefillScenario,
    Scenario,
    ServeScenario,
    SystemScenario,
    TrainScenario,
)
from .serve_build import Builders, Encoding, serve_job
from .system_load import LoadedSystem, load_system
from .train_build import check_stages, train_workload

ASYMPTOTE_BYTES = 2.0**30
"""Payload that stands for an unlimited one where a scenario gives none."""

CACHE_LINKS = {"ub": "cpu-pool", "vpc": "vpc", "none": ""}


class Problem(NamedTuple):
    """Everything that `metrics` takes, and what the specs say about it."""

    system: System
    choices: Meets
    """What the job uses of the system; of phase `serve` by role of the pool."""
    model: Architecture | None
    workload: Workload
    layout: Layout | Pools
    """A Layout; of phase `serve` the Pools."""
    theta: dict[str, Array]
    """Calibrated parameters by leaf path of the system."""
    calibration: str
    fitted: Calibration
    figures: dict[str, Figure]
    scenario: Scenario

    @property
    def machine(self) -> Machine | dict[str, Machine]:
        """The calibrated machine; of phase `serve` by role of the pool."""
        return machine_of(apply(self.system, self.theta), self.choices)

    @property
    def warnings(self) -> list[str]:
        """What to know of the machine, such as that it is announced only."""
        line = warning_of(load_system(self.scenario.system).file)
        return [line] if line else []

    @property
    def architecture(self) -> Architecture | None:
        """The model, by its former name."""
        return self.model

    @property
    def placed(self) -> Layout:
        """The layout of a phase without pools."""
        assert isinstance(self.layout, Layout)
        return self.layout

    @property
    def inputs(
        self,
    ) -> tuple[
        Machine | dict[str, Machine], Architecture | None, Workload, Layout | Pools
    ]:
        """What `metrics` takes."""
        return self.machine, self.model, self.workload, self.layout


Job = tuple[Workload, Layout | Pools, Meets]
"""A workload, its layout, and what it uses of the system."""


def _defaults(system: System) -> Choices:
    """What a job uses unless it says otherwise."""
    expert = _default(system, "expert")
    return Choices(
        collective_library=_default(system, "collective"),
        expert_library=expert,
        expert_mode=next(iter(system.expert_parallel[expert])),
        engine=_default(system, "engine"),
    )


def _software(context: _Context, mode: str) -> tuple[Software, Choices]:
    scenario, system, where = context.scenario, context.system, context.where
    dtypes = _dtypes(scenario, dtype_of_file(context.model, system))
    used = {
        f"dtypes.{k}": getattr(dtypes, k) for k in ("activation", "attention", "head")
    }
    if context.mixture:
        used["dtype of the router"] = "bf16"
    choices = _defaults(system)._replace(
        dtypes=multiplied(dtypes),
        experts=context.mixture,
        expert_format=expert_format(context, dtypes),
        collective_library=_default(system, "serving_collective"),
        graphs=scenario.graphs or "",
    )
    _, engine = all_of(
        lambda: _check_dtypes(used, system, where),
        lambda: engine_of(scenario, system, where),
    )
    library = scenario.exchange
    if library is None:
        library = exchange_library(system, engine, scenario.engine_version or "")
    _pick(system.expert_parallel, library, "exchange", where)
    modes = system.expert_parallel[library]
    mode = mode if mode in modes else next(iter(modes))
    costs = modes[mode]
    return Software(
        sizes=sizes_of(dtypes),
        balance=balance_of(scenario.routing.balance or "typical", scenario.routing.skew),
        low_latency=switch(mode == "low_latency"),
        scale_slot_bytes=costs.scale_slot_bytes,
        scale_share=costs.scale_share,
        unpacks=unpacks(context, dtypes),
    ), choices._replace(engine=engine, expert_library=library, expert_mode=mode)


def _attention_split(context: _Context, degrees: Degrees) -> str:
    scenario, where = context.scenario, context.where
    attention = attention_split(scenario.layout, degrees)
    if attention == "dp" and degrees.tp > 1:
        raise SpecError(
            [
                f"{where}: layout.attention = 'dp': needs tp = 1, not {degrees.tp}; use"
                " 'tp' or, for prefill, 'sp_tp_sp'"
            ]
        )
    if attention == "sp_tp_sp" and scenario.phase != "prefill":  # pyright: ignore
        raise SpecError(
            [f"{where}: layout.attention = 'sp_tp_sp': only for phase prefill; use 'tp'"]
        )
    head = scenario.layout.head
    if head and (attention != "dp" or not isinstance(scenario, DecodeScenario)):
        said = "for decode with whole heads (tp = 1); others have it whole or split by tp"
        raise SpecError([f"{where}: layout.head = {head}: only {said}; leave it out"])
    return attention


def _check_served(context: _Context, degrees: Degrees) -> None:
    """Layout keys that only training uses must say what serving does anyway."""
    if isinstance(context.scenario, TrainScenario):
        return
    layout, where = context.scenario.layout, context.where
    layers = 0 if context.model is None else int(context.model.file.layers)
    mistakes, stages = [], layout.stages
    if layout.vpp not in (None, 1):
        mistakes.append(
            f"{where}: layout.vpp = {layout.vpp}: only for phase train; use 1"
        )
    if stages is not None and (
        (len(stages), sum(stages)) != (degrees.pp, layers)
        or max(stages) != math.ceil(layers / degrees.pp)
    ):
        mistakes.append(
            f"{where}: layout.stages{shown(str(stages))}: serving splits {layers} layers"
            f" evenly over pp = {degrees.pp}; leave it out"
        )
    if mistakes:
        raise SpecError(mistakes)


def _check_dense(context: _Context) -> None:
    """A model without experts can't spread, split or copy them."""
    layout, routing = context.scenario.layout, context.scenario.routing
    name = "the model" if context.model is None else context.model.file.name
    given = {
        "layout.ep": layout.ep if layout.ep != 1 else None,
        "layout.etp": layout.etp if layout.etp != 1 else None,
        "routing.redundant_experts": routing.redundant_experts or None,
        "routing.experts_per_device": routing.experts_per_device,
    }
    mistakes = [
        f"{context.where}: {key} = {value:g}: {name} has no experts; leave it out"
        for key, value in given.items()
        if value is not None
    ]
    if mistakes:
        raise SpecError(mistakes)


def _check_shapes(context: _Context, degrees: Degrees) -> None:
    """The model's heads, layers and widths must divide over the axes that split them."""
    if context.model is None:
        return
    file, where = context.model.file, context.where
    sizes = {
        f"{path}.heads": (mixer.heads, "tp", degrees.tp)
        for path, mixer in file.mixer_specs.items()
    }
    used = {path for layer in file.depth for path in layer.feed_forwards}
    for path, half in file.half_specs.items():
        name = f"{path}.intermediate".lstrip(".")
        if isinstance(half, ExpertsSpec):
            sizes[name] = (half.intermediate, "etp", degrees.etp)
        elif path in used and context.scenario.layout.attention != "sp_tp_sp":
            sizes[name] = (half.intermediate, "tp", degrees.tp)
    check_division(sizes, where)
    if degrees.pp > file.layers:
        raise SpecError(
            [
                f"{where}: layout.pp = {degrees.pp}: {file.name} has {file.layers:g}"
                " layers; use at most one stage for each"
            ]
        )
    shared = 0.0 if file.mixture is None else file.mixture.shared
    replicas = context.scenario.routing.shared_replicas
    if replicas and shared != 1.0:
        raise SpecError(
            [
                f"{where}: routing.shared_replicas = {replicas:g}: needs a model with one"
                f" shared expert, not {shared:g}; use 0"
            ]
        )


def _layout(context: _Context) -> Layout:
    scenario, where = context.scenario, context.where
    spec, routing = scenario.layout, scenario.routing
    experts = context.model.file.mixture if context.model else None
    degrees, order, _ = all_of(
        lambda: derive(spec, experts is not None, where),
        lambda: parse_order(spec.order, where),
        lambda: experts is None and _check_dense(context),
    )
    routed = None if experts is None else experts.routed
    *_, attention, factor = all_of(
        lambda: _check_served(context, degrees),
        lambda: _check_shapes(context, degrees),
        lambda: routed and check_experts(routed, routing, degrees, where),
        lambda: _attention_split(context, degrees),
        lambda: placed(spec, degrees, order, _sizes(context.system), where),
    )
    ways = 1.0
    if isinstance(scenario, DecodeScenario):
        engine = engine_of(scenario, context.system, where)
        ways = float(context.system.engines[engine].head_ways)
    return assembled(spec, routing, factor, attention, ways)


def _single(system: System) -> Layout:
    """A layout of one device, for phases that have none."""
    factor = np.ones((len(AXES), len(system.tier_order)))
    return _group_layout(factor)


def _group_layout(factor: np.ndarray) -> Layout:
    zero = _leaf(0.0)
    return Layout(
        factor=padded(_leaf(factor), MOST_TIERS, 1.0),
        routing=Routing(redundant_experts=zero, shared_replicas=zero),
    )


def _decode(
    context: _Context, scenario: DecodeScenario
) -> tuple[Decode, Layout, Choices]:
    w = scenario.workload
    acceptance = w.acceptance
    if len(acceptance) == 1:
        acceptance = acceptance * max(1, w.draft_tokens)
    (software, choices), layout, _ = all_of(
        lambda: _software(context, "low_latency"),
        lambda: _layout(context),
        lambda: _check_drafts(context, w.draft_tokens),
    )
    work = Decode(
        sequences_per_device=_leaf(w.sequences_per_device),
        kv_tokens=_leaf(w.kv_tokens),
        draft_tokens=_leaf(w.draft_tokens),
        acceptance=_leaf(acceptance),
        software=software,
    )
    return work, layout, choices


def _check_drafts(context: _Context, drafts: int) -> None:
    """Drafts come from the model's own multi-token-prediction module."""
    if drafts and context.model is not None and not context.model.file.draft_layers:
        raise SpecError(
            [
                f"{context.where}: workload.draft_tokens = {drafts}:"
                f" {context.model.file.name} has no draft module; use 0, or set"
                " model.draft_layers = 1"
            ]
        )


def _check_prompt(context: _Context, scenario: PrefillScenario, tokens: float) -> None:
    """A group of devices must admit at least one prompt of some tokens."""
    w, spec = scenario.workload, scenario.layout
    admitted = w.tokens_per_device * (spec.tp or 1) * (spec.cp or 1)
    more = tokens - w.prompt_tokens
    images = f" and {more:g} of images" if more else ""
    if tokens > admitted:
        raise SpecError(
            [
                f"{context.where}: workload.prompt_tokens = {w.prompt_tokens:g}{images}:"
                f" a tp x cp group admits only {admitted:g} tokens; raise"
                " workload.tokens_per_device"
            ]
        )


def _cache_link(context: _Context, scenario: PrefillScenario) -> str:
    plane = scenario.workload.cache_plane
    link = CACHE_LINKS[plane]
    if link and link not in context.system.links:
        raise SpecError(
            [
                f"{context.where}: workload.cache_plane = {plane!r}:"
                f" {context.system.name} has no link {link!r}; use 'none'"
            ]
        )
    return link


def _prefill(
    context: _Context, scenario: PrefillScenario
) -> tuple[Prefill, Layout, Choices]:
    w = scenario.workload
    pictures = pictures_of(context, w)
    tokens = prompt_tokens(w, pictures)
    (software, choices), layout, link, *_ = all_of(
        lambda: _software(context, "normal"),
        lambda: _layout(context),
        lambda: _cache_link(context, scenario),
        lambda: _check_prompt(context, scenario, tokens),
        lambda: pictures and _check_tower_split(context),
    )
    work = Prefill(
        tokens_per_device=_leaf(w.tokens_per_device),
        prompt_tokens=_leaf(tokens),
        cached_fraction=_leaf(w.cached_fraction),
        software=software,
        images=None if pictures is None else pictures.images,
    )
    return work, layout, choices._replace(cache_link=link)


def _check_tower_split(context: _Context) -> None:
    """The tower's heads must divide over the ranks that split them."""
    layout, model = context.scenario.layout, context.model
    if layout.vision == "tp" and model is not None and model.file.vision is not None:
        sizes = {"vision.heads": (model.file.vision.heads, "tp", layout.tp or 1)}
        check_division(sizes, context.where)


def _encode(
    context: _Context, scenario: DecodeScenario
) -> tuple[Encoding, Layout, Choices]:
    """A pool that encodes images; of the layout only tp and dp mean something."""
    tower = context._replace(model=None)
    (software, choices), layout, _ = all_of(
        lambda: _software(tower, "normal"),
        lambda: _layout(tower),
        lambda: _check_tower_split(context),
    )
    return Encoding(software), layout, choices


def _operator(context: _Context, scenario: OpScenario) -> Job:
    op = scenario.op
    if op.kind not in ("vector", "copy"):
        _check_dtypes({"op.dtype": op.dtype}, context.system, context.where)
    decode, prefill = (op.kind == f"attention_{phase}" for phase in ("decode", "prefill"))
    kv_tokens = op.kv_tokens or 1.0
    head_dim = op.head_dim or 1.0
    elements = (op.tokens or 1.0, op.hidden or 1.0)
    if op.kind == "vector" and op.bytes is not None:
        elements = (op.bytes / (BYTES[op.dtype] + BYTES[op.out_dtype or op.dtype]), 1.0)
    size = elements[0] * elements[1] * BYTES[op.dtype]
    workload = Operator(
        groups=_leaf(op.groups),
        m=_leaf(op.m or 1.0),
        n=_leaf(op.n or 1.0),
        k=_leaf(op.k or 1.0),
        heads=_leaf(op.heads or 1.0),
        kv_heads=_leaf(op.kv_heads or op.heads or 1.0),
        head_dim=_leaf(head_dim),
        value_dim=_leaf(op.value_dim or head_dim),
        latent_dim=_leaf(op.latent_dim or 1.0),
        rope_dim=_leaf(op.rope_dim or 0.0),
        sequences=_leaf(op.sequences or 1.0),
        query_tokens=_leaf(op.query_tokens or (1.0 if decode else kv_tokens)),
        kv_tokens=_leaf(kv_tokens),
        tokens=_leaf(elements[0]),
        hidden=_leaf(elements[1]),
        payload_bytes=_leaf(op.bytes or size),
        operator=op.kind,
        latent=op.latent_dim is not None and not (prefill and op.head_dim),
        causal=op.causal,
        element_bytes=_leaf(BYTES[op.dtype]),
        out_bytes=_leaf(
            BYTES[op.out_dtype or ("bf16" if "gemm" in op.kind else op.dtype)]
        ),
    )
    choices = _defaults(context.system)
    formats = multiplied(Dtypes(activation=op.dtype))
    return workload, _single(context.system), choices._replace(dtypes=formats, alike=True)


def _collective(context: _Context, scenario: CollectiveScenario) -> Job:
    c, system, where = scenario.collective, context.system, context.where
    exchange = c.kind in ("dispatch", "combine")
    options = system.expert_parallel if exchange else system.collectives
    library = c.library or _default(system, "expert" if exchange else "collective")
    _, engine, factor = all_of(
        lambda: _pick(options, library, "collective.library", where),
        lambda: engine_of(scenario, system, where),
        lambda: _group_factor(context, scenario),
    )
    if exchange:
        _pick(system.expert_parallel[library], c.mode, "collective.mode", where)
    scale = c.scale_bytes or 0.0
    if c.scale_bytes is None and c.kind == "dispatch" and BYTES[c.dtype] <= 1.0:
        mode = system.expert_parallel[library][c.mode]
        scales = float(mode.scale_slot_bytes), float(mode.scale_share)
        scale = float(scale_bytes(c.hidden or 1.0, BYTES[c.dtype], *scales))
    payload = c.payload_bytes or ASYMPTOTE_BYTES
    if c.tokens_per_rank is not None and not exchange:
        copies = (c.topk or 1.0) if c.kind == "all_to_all" else 1.0
        token = (c.hidden or 1.0) * BYTES[c.dtype] + scale
        payload = c.tokens_per_rank * copies * token
    routing = scenario.routing
    workload = Collective(
        payload_bytes=_leaf(payload),
        tokens_per_rank=_leaf(c.tokens_per_rank or 1.0),
        hidden=_leaf(c.hidden or 1.0),
        topk=_leaf(c.topk or 1.0),
        experts=_leaf(c.experts or COUNTLESS),
        cores=_leaf(c.cores or (_cores(system, library, c.mode) if exchange else 1.0)),
        scale_bytes=_leaf(scale),
        element_bytes=_leaf(BYTES[c.dtype]),
        balance=balance_of(routing.balance or "uniform", routing.skew),
        collective=c.kind,
        driver=c.engine,
    )
    choices = _defaults(system)._replace(engine=engine, alike=True)
    if exchange:
        choices = choices._replace(expert_library=library, expert_mode=c.mode)
    else:
        choices = choices._replace(
            collective_library=library,
            algorithm=_algorithm(context, c, library),
            network_reduces=c.network_reduces,
        )
    if c.path == "npu-cpu":
        choices = choices._replace(endpoint="cpu")
    elif c.kind in ("read", "write"):
        choices = choices._replace(endpoint="npu")
    return workload, _group_layout(factor), choices


def _cores(system: System, library: str, mode: str) -> float:
    """Cores that an exchange takes by itself."""
    return float(system.expert_parallel[library][mode].cores)


def _algorithm(context: _Context, c: CollectiveSpec, library: str) -> str:
    """What the library calls the algorithm that is asked for; empty where none is."""
    if c.algorithm is None:
        return ""
    has = context.system.collectives[library].algorithms
    called = {name.removeprefix("striped_"): name for name in has}
    return called[_pick(called, c.algorithm, "collective.algorithm", context.where)]


def _group_factor(context: _Context, scenario: CollectiveScenario) -> np.ndarray:
    """Where the ranks of a collective sit.

    They are contiguous from the innermost tier. A `scope` that they would not reach is
    filled first instead, so that the collective crosses it.
    """
    c, system, where = scenario.collective, context.system, context.where
    ranks, sizes = float(c.ranks or 2), _sizes(system)
    pair = c.kind in ("read", "write", "p2p")
    if pair and ranks != 2.0:
        problem = f"{c.kind} takes 2; leave ranks out"
        raise SpecError([f"{where}: collective.ranks = {ranks:g}: {problem}"])
    scope = c.scope or (system.scale_up_tier if pair else system.tier_order[-1])
    if scope not in system.tier_order:
        raise SpecError(
            [
                f"{where}: collective.scope = {scope!r}: {system.name} has no such tier;"
                f" use one of {', '.join(system.tier_order)}"
            ]
        )
    top = system.tier_order.index(scope)
    if ranks > np.prod(sizes[: top + 1]):
        raise SpecError(
            [
                f"{where}: collective.ranks = {ranks:g}: {scope} of {system.name} holds"
                f" {np.prod(sizes[: top + 1]):g} devices in all; use fewer"
            ]
        )
    inside = ranks <= np.prod(sizes[:top])
    inwards = (pair or c.scope is not None) and inside
    tiers = range(top, -1, -1) if inwards else range(top + 1)
    factor, left = np.ones((len(AXES), len(sizes))), ranks
    for t in tiers:
        factor[AXES.index("ep"), t] = min(left, sizes[t])
        left /= factor[AXES.index("ep"), t]
    return factor


def _query(context: _Context, scenario: SystemScenario) -> Job:
    dtypes = _dtypes(scenario)
    used = {"dtypes.activation": dtypes.activation}
    _check_dtypes(used, context.system, context.where)
    system = context.system
    choices = _defaults(system)._replace(dtypes=multiplied(dtypes), alike=True)
    return SystemQuery(), _single(system), choices


def _train(context: _Context, scenario: TrainScenario) -> Job:
    def workload() -> tuple[Train, Choices]:
        degrees = derive(
            scenario.layout,
            context.mixture,
            context.where,
        )
        return all_of(
            lambda: check_stages(context, scenario, degrees),
            lambda: train_workload(context, scenario, degrees, _defaults(system)),
        )[1]

    system = context.system
    layout, (made, choices) = all_of(lambda: _layout(context), workload)
    return made, layout, choices


def _serve(context: _Context, scenario: ServeScenario) -> Job:
    _software(context, "low_latency")
    return serve_job(context, scenario, Builders(_prefill, _decode, _encode))


_BUILDERS = {
    "system": _query,
    "op": _operator,
    "collective": _collective,
    "decode": _decode,
    "prefill": _prefill,
    "train": _train,
    "serve": _serve,
}


class _Fitted(NamedTuple):
    """A calibration with its shifts as arrays, and the system that it is for."""

    calibration: Calibration
    theta: dict[str, Array]
    loaded: LoadedSystem


_FITTED: dict[tuple, _Fitted] = {}


def _fitted(loaded: LoadedSystem, name: str | None, phase: str) -> _Fitted:
    """What `_calibration` finds, kept: it is the same for all jobs on a system."""
    key = id(loaded), None if name is None else version(name), phase
    if key not in _FITTED:
        if len(_FITTED) >= 64:
            _FITTED.clear()
        chosen = _calibration(loaded, name, phase)
        theta = {path: _leaf(value) for path, value in chosen.theta.items()}
        _FITTED[key] = _Fitted(chosen, theta, loaded)
    return _FITTED[key]


def _calibration(loaded: LoadedSystem, name: str | None, phase: str) -> Calibration:
    """The calibration of a system; without one, what its calibrated relatives say."""
    system = loaded.system.name
    chosen = calibration_for(system, name, phase)
    chosen.check(loaded.figures)
    if name == UNCALIBRATED or chosen.name != UNCALIBRATED:
        return chosen
    others, groups = relatives_of(loaded, phase)
    return relatives(system, loaded.figures, others, groups) if others else chosen


def build(
    scenario: Scenario, calibration: str | None = None, where: str | None = None
) -> Problem:
    """Turn a scenario into the pytrees that `metrics` takes.

    Args:
        scenario: validated, from `load_scenario` or a measurement.
        calibration: a shipped calibration's name; "none" for the spec as printed; None
            for the one that ships for the system.
        where: how messages name the scenario; its file if left out.

    Raises:
        SpecError: (a `ValueError`) naming every mistake found.
    """
    reference, where = getattr(scenario, "model", None), where or scenario.where
    loaded, model = all_of(
        lambda: load_system(scenario.system, where),
        lambda: None if reference is None else load_model(reference, where),
    )
    system = limited(scenario, loaded.system, where)
    context = _Context(scenario, system, model, where)
    workload, layout, choices = _BUILDERS[scenario.phase](context, scenario)
    chosen, theta, _ = _fitted(loaded, calibration, scenario.phase)
    architecture = None
    if model is not None:
        architecture = model.architecture
        if getattr(workload, "images", None) is None:  # the tower isn't loaded
            architecture = architecture.replace(vision=None)
        if scenario.phase in SERVES:
            computed = dtype_of_file(model, loaded.system)
            size = BYTES[_dtypes(scenario, computed).weight]
            stored = module_bytes(scenario, model)
            architecture = stored_in(architecture, stored, size)
    return Problem(
        system=system,
        choices=choices,
        model=architecture,
        workload=workload,
        layout=layout,
        theta=theta,
        calibration=chosen.name,
        fitted=chosen,
        figures=loaded.figures,
        scenario=scenario,
    )
