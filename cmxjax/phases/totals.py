"""Phase `system`: totals of the scale-up system from its parts."""

from flax import struct

from .._types import Leaf
from ..job.workload import SystemQuery
from ..machine.system import (
    System,
    devices_per_package,
    scale_up_bytes_per_s,
    scale_up_devices,
)


class SystemMetrics(struct.PyTreeNode, kw_only=True, frozen=True):
    """Totals of the scale-up system; divide by `devices` or `packages` for the rest."""

    devices: Leaf
    packages: Leaf
    peak_flop_per_s: Leaf
    """Dense peak for the activation dtype."""
    memory_bytes: Leaf
    memory_usable_bytes: Leaf
    memory_bandwidth_bytes_per_s: Leaf
    fabric_bandwidth_bytes_per_s: Leaf
    """Scale-up fabric, both directions, as vendors quote it."""
    power_w: Leaf
    cpus: Leaf
    switches: Leaf
    optical_modules: Leaf
    power_per_flop_rate: Leaf
    power_per_memory: Leaf
    power_per_memory_bandwidth: Leaf
    kind: str = struct.field(pytree_node=False, default="system_metrics")


def system_metrics(system: System, query: SystemQuery) -> SystemMetrics:
    """Totals: a count of devices times what each has."""
    chip, count = system.chip, scale_up_devices(system)
    peak = count * chip.matrix_flop_per_s[query.dtypes.activation]
    memory, rate = count * chip.memory_bytes, count * chip.memory_bytes_per_s
    power = system.power.all_in_w
    return SystemMetrics(
        devices=count,
        packages=count / devices_per_package(system),
        peak_flop_per_s=peak,
        memory_bytes=memory,
        memory_usable_bytes=count * chip.memory_usable_bytes,
        memory_bandwidth_bytes_per_s=rate,
        fabric_bandwidth_bytes_per_s=2.0 * count * scale_up_bytes_per_s(system),
        power_w=power,
        cpus=system.parts.cpus,
        switches=system.parts.switches,
        optical_modules=system.parts.optical_modules,
        power_per_flop_rate=power / peak,
        power_per_memory=power / memory,
        power_per_memory_bandwidth=power / rate,
    )
