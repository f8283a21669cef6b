"""The one function that everything calls: metrics of a scenario."""

from typing import Any

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
from ..machine.system import System
from ..model.architecture import Architecture
from ..parameters import apply
from ..serve.metrics import ServeMetrics, serve_metrics
from .collective import CollectiveMetrics, collective_metrics
from .operator import OperatorMetrics, operator_metrics
from .resolve import machine_of, machines_of
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
    system: System,
    architecture: Architecture | None,
    workload: Workload,
    layout: Layout | Pools,
    theta: dict[str, Any],
    sharpness: Sharpness = None,
) -> Any:
    """Predict a scenario: pure, compiled, and differentiable in every float leaf.

    Args:
        system: the machine.
        architecture: the model; None for phases system, op and collective.
        workload: what runs; its class is the phase.
        layout: parallel degrees and placement; of phase `serve` the pools.
        theta: unconstrained parameters by leaf path of `system`; {} is the spec.
        sharpness: None for the exact model, a number of at least 1 for its relaxation.

    Returns:
        The phase's metrics, a pytree of scalars; its breakdown and busy times are None.

    Raises:
        KeyError: `theta` names no leaf of `system`.
        TypeError: the workload belongs to no phase, or the phase needs a model.
    """
    args = system, architecture, workload, layout, theta, sharpness
    return _predicted(*args, explains=False)


@jax.jit
def explain(
    system: System,
    architecture: Architecture | None,
    workload: Workload,
    layout: Layout | Pools,
    theta: dict[str, Any],
    sharpness: Sharpness = None,
) -> Any:
    """`metrics` with the breakdown and busy times, which cost one reverse pass through
    the composition of the step."""
    args = system, architecture, workload, layout, theta, sharpness
    return _predicted(*args, explains=True)


def _predicted(
    system: System,
    a: Architecture | None,
    w: Workload,
    layout: Layout | Pools,
    theta: dict[str, Any],
    sharpness: Sharpness,
    explains: bool,
) -> Metrics:
    system = apply(system, theta)
    if isinstance(w, SystemQuery):
        return system_metrics(system, w)
    if isinstance(w, Operator):
        return operator_metrics(system.chip, w, sharpness, explains)
    if isinstance(w, Serve):
        if a is None or not isinstance(layout, Pools):
            raise TypeError("phase serve needs an architecture and pools")
        machines = machines_of(system, w)
        return serve_metrics(machines, a, w, layout, sharpness, explains)
    if isinstance(layout, Pools):
        raise TypeError(f"only phase serve has pools, not {w.kind}")
    layout = counted(layout)
    if isinstance(w, Collective):
        return collective_metrics(system, w, layout, sharpness, explains)
    if a is None:
        raise TypeError("phases decode, prefill and train need an architecture")
    if isinstance(w, Decode):
        return decode_metrics(machine_of(system, w), a, w, layout, sharpness, explains)
    if isinstance(w, Prefill):
        return prefill_metrics(machine_of(system, w), a, w, layout, sharpness, explains)
    if isinstance(w, Train):
        return train_metrics(machine_of(system, w), a, w, layout, sharpness, explains)
    raise TypeError(f"no phase has workloads of type {type(w).__name__}")
