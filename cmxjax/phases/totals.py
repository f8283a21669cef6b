"""Phase `system`: totals of the scale-up system from its parts."""

from flax import struct

from .._types import Leaf
from ..machine.machine import Machine


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


def system_metrics(machine: Machine) -> SystemMetrics:
    """Totals: a count of devices times what each has."""
    chip, count = machine.chip, machine.scale_up_devices
    port = (machine.tiers.bytes_per_s * machine.tiers.edge).sum()
    peak = count * chip.matrix_flop_per_s["activation"]
    memory, rate = count * chip.memory_bytes, count * chip.memory_bytes_per_s
    power = machine.power.all_in_w
    return SystemMetrics(
        devices=count,
        packages=count / machine.package_devices,
        peak_flop_per_s=peak,
        memory_bytes=memory,
        memory_usable_bytes=count * chip.memory_usable_bytes,
        memory_bandwidth_bytes_per_s=rate,
        fabric_bandwidth_bytes_per_s=2.0 * count * port,
        power_w=power,
        cpus=machine.parts.cpus,
        switches=machine.parts.switches,
        optical_modules=machine.parts.optical_modules,
        power_per_flop_rate=power / peak,
        power_per_memory=power / memory,
        power_per_memory_bandwidth=power / rate,
    )
