"""The one function that everything calls: metrics of a scenario."""

import jax

from .._types import Sharpness
from ..job.layout import Layout, Pools, counted
from ..job.workload import (
    Collective,
    Decode,
    Operator,
    Prefill,
    Serve,
    SystemQuery,
    Train,
    Workload,
)
from ..machine.machine import Machine
from ..model.architecture import Architecture, weighed
from ..serve.metrics import ServeMetrics, serve_metrics
from .collective import CollectiveMetrics, collective_metrics
from .operator import OperatorMetrics, operator_metrics
from .serving import DecodeMetrics, PrefillMetrics, decode_metrics, prefill_metrics
from .totals import SystemMetrics, system_metrics
from .training import TrainMetrics, train_metrics

Metrics = (
    SystemMetrics
    | OperatorMetrics
    | CollectiveMetrics
    | DecodeMetrics
    | PrefillMetrics
    | TrainMetrics
    | ServeMetrics
)


@jax.jit
def metrics(
    machine: Machine | dict[str, Machine],
    model: Architecture | None,
    workload: Workload,
    layout: Layout | Pools,
    sharpness: Sharpness = None,
) -> Metrics:
    """Predict a scenario: pure, compiled, and differentiable in every float leaf.

    Args:
        machine: what the job meets of a system; of phase `serve` by role of the pool.
        model: None for phases system, op and collective.
        workload: what runs; its class is the phase.
        layout: parallel degrees and placement; of phase `serve` the pools.
        sharpness: None for the exact model, a number s of at least 1 for its relaxation.
            Times of a step, a batch or a request come within 3 / s of the exact ones, in
            relative terms, from s = 4 on; just above a whole number of tiles or slots
            the relaxed ceiling takes a larger s.

    Returns:
        The phase's metrics, a pytree of scalars; its breakdown and busy times are None.

    Raises:
        TypeError: the workload belongs to no phase, or its phase needs a model, pools,
            or a machine that serves or trains.
    """
    args = machine, model, workload, layout, sharpness
    return _predicted(*args, explains=False)


@jax.jit
def explain(
    machine: Machine | dict[str, Machine],
    model: Architecture | None,
    workload: Workload,
    layout: Layout | Pools,
    sharpness: Sharpness = None,
) -> Metrics:
    """`metrics` with the breakdown and busy times, which cost one reverse pass through
    the composition of the step."""
    args = machine, model, workload, layout, sharpness
    return _predicted(*args, explains=True)


def _predicted(
    machine: Machine | dict[str, Machine],
    a: Architecture | None,
    w: Workload,
    layout: Layout | Pools,
    sharpness: Sharpness,
    explains: bool,
) -> Metrics:
    model, workload = ("second", a, Architecture | None), ("third", w, Workload)
    for place, given, kind in (model, workload):
        if not isinstance(given, kind):
            has = f"{type(given).__name__} came {place}"
            raise TypeError(f"metrics takes machine, model, workload, layout: {has}")
    a = a if a is None else weighed(a)
    if isinstance(w, Serve):
        if a is None or not isinstance(layout, Pools) or not isinstance(machine, dict):
            raise TypeError("phase serve needs a model, and machines and pools by role")
        machine = {role: each.ready for role, each in machine.items()}
        return serve_metrics(machine, a, w, layout, sharpness, explains)
    if isinstance(layout, Pools) or not isinstance(machine, Machine):
        raise TypeError(f"only phase serve has pools, not {w.kind}")
    if isinstance(w, SystemQuery):
        return system_metrics(machine)
    if isinstance(w, Operator):
        return operator_metrics(machine.chip, w, sharpness, explains)
    machine, layout = machine.ready, counted(layout)
    if isinstance(w, Collective):
        return collective_metrics(machine, w, layout, sharpness, explains)
    if a is None:
        raise TypeError("phases decode, prefill and train need a model")
    if isinstance(w, Decode):
        return decode_metrics(machine, a, w, layout, sharpness, explains)
    if isinstance(w, Prefill):
        return prefill_metrics(machine, a, w, layout, sharpness, explains)
    if isinstance(w, Train):
        return train_metrics(machine, a, w, layout, sharpness, explains)
    raise TypeError(f"no phase has workloads of type {type(w).__name__}")
