"""Layouts made in Python, from degrees and a machine."""

import numpy as np
from pydantic import ValidationError

from ..job.layout import Layout, Routing
from ..machine.machine import Machine
from ..machine.runtimes import Engine
from ..switch import switch
from .context import leaf
from .degrees import Degrees, derive, given_placement, parse_order, place
from .errors import SpecError, explain
from .scenario_file import LayoutSpec, RoutingSpec


def placed(
    spec: LayoutSpec,
    degrees: Degrees,
    order: tuple[str, ...],
    sizes: list[float],
    where: str,
) -> np.ndarray:
    """The placement matrix, spelled out or from the rank order. Raises `SpecError`."""
    if spec.placement is None:
        return place(degrees, sizes, order, where)
    if spec.order is not None:
        problem = "layout.order: says nothing beside layout.placement; leave one out"
        raise SpecError([f"{where}: {problem}"])
    return given_placement(spec.placement, degrees, sizes, where)


def assembled(
    spec: LayoutSpec,
    routing: RoutingSpec,
    factor: np.ndarray,
    attention: str,
    head_ways: float = 1.0,
) -> Layout:
    """The pytree of a checked and placed layout.

    Args:
        head_ways: ranks that share the output head where `spec` doesn't say it.
    """
    head = spec.head or head_ways
    return Layout(
        factor=leaf(factor),
        routing=Routing(
            redundant_experts=leaf(routing.redundant_experts),
            shared_replicas=leaf(routing.shared_replicas),
            dispatches_shared=routing.shared_replicas > 0,
        ),
        attention=attention,
        sequence_parallel=switch(spec.sequence_parallel),
        microbatches=str(spec.overlapped_microbatches),
        head=leaf(head) if head > 1.0 and attention == "dp" else None,
    )


def attention_split(spec: LayoutSpec, degrees: Degrees) -> str:
    """How attention is split: as said, or over the ranks of tp where there are such."""
    return spec.attention or ("tp" if degrees.tp > 1 else "dp")


def layout(
    machine: Machine,
    *,
    redundant_experts: float = 0.0,
    shared_replicas: float = 0.0,
    **keys: object,
) -> Layout:
    """Parallel degrees placed on a machine's tiers, as a scenario's `layout` would be.

    Args:
        machine: whose tiers hold the ranks, such as `build(scenario).machine`.
        redundant_experts: slots that hold further copies of experts.
        shared_replicas: ranks that hold the shared expert and are sent tokens.
        keys: those of a scenario's `layout`: `tp`, `cp`, `dp`, `pp`, `etp`, `ep`, `edp`,
            `devices`, `order`, `placement`, `attention`, `sequence_parallel`,
            `overlapped_microbatches`, `head`. Degrees left out follow from the others;
            without `ep` experts are not spread, and without `head` the output head is
            shared as the machine's engine does in decode (give 1 for prefill).

    Returns:
        A pytree that `metrics` takes; layouts of one machine can be stacked for `vmap`.

    Raises:
        SpecError: (a `ValueError`) an unknown key, or degrees that don't multiply to the
            devices or don't fit into the tiers. What only a model decides, such as
            whether heads divide, is not checked.
    """
    experts = {"redundant_experts": redundant_experts, "shared_replicas": shared_replicas}
    try:
        spec = LayoutSpec.model_validate(keys)
        routing = RoutingSpec.model_validate(experts)
    except ValidationError as error:
        raise SpecError(explain(error, "layout", LayoutSpec)) from None
    if told := [key for key in ("vpp", "stages", "vision") if key in keys]:
        said = "belongs to the workload of a scenario; leave it out"
        raise SpecError([f"layout: {key} = {keys[key]}: {said}" for key in told])
    degrees, order = derive(spec, False, "layout"), parse_order(spec.order, "layout")
    sizes = np.asarray(machine.tiers.size).tolist()
    factor = placed(spec, degrees, order, sizes, "layout")
    attention = attention_split(spec, degrees)
    if spec.head and attention != "dp":
        said = "only for whole heads (tp = 1), else it is split over tp; leave it out"
        raise SpecError([f"layout: head = {spec.head}: {said}"])
    runtime = machine.runtime
    ways = float(runtime.head_ways) if isinstance(runtime, Engine) else 1.0
    return assembled(spec, routing, factor, attention, ways)
