"""Which field of a phase's metrics a measured quantity is."""

from ._types import Leaf
from .phases.collective import CollectiveMetrics
from .phases.metrics import DecodeMetrics, Metrics, PrefillMetrics
from .phases.operator import OperatorMetrics
from .phases.totals import SystemMetrics
from .phases.training import TrainMetrics
from .serve.metrics import ServeMetrics
from .words import choose

PHASE_METRICS: dict[str, type] = {
    "system": SystemMetrics,
    "op": OperatorMetrics,
    "collective": CollectiveMetrics,
    "decode": DecodeMetrics,
    "prefill": PrefillMetrics,
    "train": TrainMetrics,
    "serve": ServeMetrics,
}

_FIELDS: dict[str, str] = {
    "time": "time_s",
    "flop_rate": "flop_per_s",
    "byte_rate": "bytes_per_s",
    "bus_rate": "bus_bytes_per_s",
    "utilization": "utilization",
    "tpot": "tpot_s",
    "ttft": "ttft_s",
    "step_time": "step_time_s",
    "layer_time": "layer_time_s",
    "dispatch_time": "dispatch_time_s",
    "combine_time": "combine_time_s",
    "host_time": "host_time_s",
    "iteration_rest": "iteration_rest_s",
    "tokens_per_step": "tokens_per_step",
    "tokens_rate_per_device": "tokens_per_s_per_device",
    "tokens_rate_per_package": "tokens_per_s_per_package",
    "tokens_rate": "tokens_per_s",
    "samples_rate": "samples_per_s",
    "requests_rate": "requests_per_s",
    "request_capacity_rate": "capacity_requests_per_s",
    "request_time": "request_time_s",
    "flop_rate_per_device": "flop_per_s_per_device",
    "mfu": "mfu",
    "hfu": "hfu",
    "forward_time": "forward_time_s",
    "backward_time": "backward_time_s",
    "bubble": "bubble",
    "memory": "memory_bytes",
    "memory_weights": "memory_weights_bytes",
    "memory_gradients": "memory_gradients_bytes",
    "memory_optimizer": "memory_optimizer_bytes",
    "memory_activations": "memory_activations_bytes",
    "memory_usable": "memory_usable_bytes",
    "memory_bandwidth": "memory_bandwidth_bytes_per_s",
    "fabric_bandwidth": "fabric_bandwidth_bytes_per_s",
    "peak_flop_rate": "peak_flop_per_s",
    "power": "power_w",
    "energy_per_token": "energy_per_token_j",
    "cost_per_token": "cost_per_token_usd",
    "tokens_rate_per_kw": "tokens_per_s_per_kw",
    "goodput": "goodput",
    "mtbf": "mtbf_s",
    "run_time": "run_time_s",
    "run_energy": "run_energy_j",
    "run_cost": "run_cost_usd",
    "packages": "packages",
    "cpus": "cpus",
    "parameters": "parameters",
    "optical_modules": "optical_modules",
    "power_per_flop_rate": "power_per_flop_rate",
    "power_per_memory": "power_per_memory",
    "power_per_memory_bandwidth": "power_per_memory_bandwidth",
}

_STREAMS = {"attention": "attention_stream_time_s", "moe": "moe_stream_time_s"}


def field_of(quantity: str, part: str | None, phase: str) -> str:
    """Name of the metrics field that holds a quantity.

    Raises:
        ValueError: the phase does not predict the quantity.
    """
    if quantity == "stream_time":
        field = _STREAMS[part or "attention"]
    else:
        field = _FIELDS.get(quantity, "")
    fields = PHASE_METRICS[phase].__dataclass_fields__
    if field not in fields:
        known = [q for q, name in _FIELDS.items() if name in fields]
        raise ValueError(
            f"quantity = {quantity!r}: phase {phase} does not predict it;"
            f" {choose(quantity, known)}"
        )
    return field


_JOB_TOTALS = ("tokens_rate", "power")
_OF_A_DEVICE = (
    "memory",
    "memory_weights",
    "memory_gradients",
    "memory_optimizer",
    "memory_activations",
)


def check_per(quantity: str, per: str | None, phase: str) -> None:
    """Raises `ValueError` if `per` makes no sense for the quantity."""
    runs = phase in ("decode", "prefill", "train", "serve")
    fitting = runs and quantity in _JOB_TOTALS + _OF_A_DEVICE
    if per is not None and phase != "system" and not fitting:
        raise ValueError(
            f"per = {per!r}: {quantity} of phase {phase} is what its name says; remove it"
        )


def scaled_to(value: Leaf, quantity: str, per: str | None, metrics: Metrics) -> Leaf:
    """A value per device, per package or in total, as `per` asks; None leaves it."""
    if per is None:
        return value
    if isinstance(metrics, SystemMetrics):
        devices, package = metrics.devices, metrics.devices / metrics.packages
    else:
        assert not isinstance(metrics, OperatorMetrics | CollectiveMetrics)  # `check_per`
        devices = metrics.tokens_per_s / metrics.tokens_per_s_per_device
        package = metrics.tokens_per_s_per_package / metrics.tokens_per_s_per_device
    worst_device = quantity in _OF_A_DEVICE and not isinstance(metrics, SystemMetrics)
    of_device = value if worst_device else value / devices
    return of_device * {"device": 1.0, "package": package, "total": devices}[per]
