"""Machines of one shape, so that one program serves the plans of most of them."""

from ..job.layout import Pools
from ..machine.machine import Machine
from ..machine.pad import padded, with_algorithms, with_tiers, with_ways

WAYS = ("deduplicates", "gathers")
"""Of exchanges, which machines that lack them get switched off."""

LEAST_TIERS = 2
"""Tiers of most machines."""


def shaped(
    machines: dict[str, Machine], pools: Pools
) -> tuple[dict[str, Machine], Pools]:
    """Machines and pools with parts more that are switched off or hold nothing, which
    changes no number."""
    count = max(LEAST_TIERS, *(m.tiers.size.shape[-1] for m in machines.values()))
    every = {
        role: with_ways(with_algorithms(with_tiers(machine, count)), WAYS)
        for role, machine in machines.items()
    }
    layouts = {}
    for role, pool in pools.pools.items():
        factor = padded(pool.layout.factor, count, 1.0)
        layouts[role] = pool.replace(layout=pool.layout.replace(factor=factor))
    return every, Pools(pools=layouts)
