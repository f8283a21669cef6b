"""From a system and the names that a job chooses to the machine that the job meets."""

from ..job.workload import BYTES, Decode, Prefill, Serve, Software, Train
from ..machine.chip import Chip
from ..machine.machine import Machine
from ..machine.runtimes import Engine, Trainer
from ..machine.system import (
    System,
    devices_per_package,
    fabric_of,
    ordered_tiers,
    scale_up_devices,
)
from ..machine.tiers import SideLink

STORAGE = "vpc"
"""The link that checkpoints are written over; without one, the outermost tier."""


def machine_of(system: System, w: Decode | Prefill | Train) -> Machine:
    """The machine that a job meets."""
    if isinstance(w, Train):
        trainer = system.trainers[w.software.runtime]
        return _machine(system, w.software, trainer).replace(
            kernels=_driven(system.chip, trainer),
            cluster=system.fabrics[w.fabric] if w.fabric else None,
            offload=system.links[w.offload_link] if w.offload_link else None,
        )
    link = w.cache_link if isinstance(w, Prefill) else ""
    return _serving(system, w.software, link)


def machines_of(system: System, w: Serve) -> dict[str, Machine]:
    """The machine that each pool meets, by role."""
    return {
        role: _serving(system, software, w.cache_link)
        for role, software in w.software.items()
    }


def _serving(system: System, software: Software, link: str) -> Machine:
    found = _machine(system, software, system.engines[software.runtime])
    return found.replace(cache=system.links[link] if link else None)


def _machine(system: System, software: Software, runtime: Engine | Trainer) -> Machine:
    return Machine(
        chip=system.chip,
        kernels=system.chip,
        fabric=fabric_of(system),
        sizes=[tier.size for tier in ordered_tiers(system)],
        runtime=runtime,
        library=system.collectives[software.collective_library],
        exchange=system.expert_parallel[software.expert_library][software.expert_mode],
        cluster=None,
        cache=None,
        offload=None,
        storage=_storage(system),
        power=system.power,
        operations=system.operations,
        package_devices=devices_per_package(system),
        scale_up_devices=scale_up_devices(system),
        scale_up_tiers=system.tier_order.index(system.scale_up_tier) + 1,
    )


def _storage(system: System) -> SideLink:
    if STORAGE in system.links:
        return system.links[STORAGE]
    tier = system.tiers[system.tier_order[-1]]
    return SideLink(
        bytes_per_s=tier.bytes_per_s, latency_s=tier.latency_s, efficiency=tier.efficiency
    )


def _driven(chip: Chip, trainer: Trainer) -> Chip:
    """The device as a training framework drives it: its kernels and eager launches."""
    peaks = {
        dtype: peak * (trainer.narrow_efficiency if BYTES[dtype] == 1.0 else 1.0)
        for dtype, peak in chip.matrix_flop_per_s.items()
    }
    return chip.replace(
        matrix_flop_per_s=peaks,
        gemm_efficiency=chip.gemm_efficiency * trainer.matrix_rate_factor,
        attention_efficiency=chip.attention_efficiency * trainer.attention_rate_factor,
        memory_efficiency=chip.memory_efficiency * trainer.vector_rate_factor,
        matrix_launch_s=trainer.launch_s,
        vector_launch_s=trainer.launch_s,
    )
