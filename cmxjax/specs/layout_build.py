"""From a scenario to its layout: degrees, placement, and what they must divide."""

import math

from ..job.layout import Layout
from .context import Context, engine_of, tier_sizes
from .degrees import Degrees, check_division, check_experts, derive, parse_order
from .errors import SpecError, all_of, shown
from .layout_make import assembled, attention_split, placed
from .model_file import ExpertsSpec
from .scenario_file import DecodeScenario, TrainScenario


def layout_of(context: Context) -> Layout:
    """The layout of a scenario.

    Raises:
        SpecError: with every mistake: degrees that don't multiply or divide, a placement
            that the machine can't hold, keys of another phase.
    """
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
        lambda: placed(spec, degrees, order, tier_sizes(context.system), where),
    )
    ways = 1.0
    if isinstance(scenario, DecodeScenario):
        engine = engine_of(scenario, context.system, where)
        ways = float(context.system.engines[engine].head_ways)
    return assembled(spec, routing, factor, attention, ways)


def _attention_split(context: Context, degrees: Degrees) -> str:
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


def _check_served(context: Context, degrees: Degrees) -> None:
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


def _check_dense(context: Context) -> None:
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


def _check_shapes(context: Context, degrees: Degrees) -> None:
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
