"""Machines of one shape, so that one program serves the plans of most of them."""

import numpy as np

from ..job.layout import Layout, Pools
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
    layouts = {
        role: pool.replace(layout=_split(role, pool.layout, count))
        for role, pool in pools.pools.items()
    }
    return every, Pools(pools=layouts)


def _split(role: str, layout: Layout, count: int) -> Layout:
    """A layout over so many tiers. Attention that is whole on each of several ranks is
    split one way, so that one program serves both; towers of images tell them apart."""
    factor = np.asarray(layout.factor)
    whole = layout.attention == "dp" and role != "encode"
    if whole and factor.prod() > 1.0:
        layout = layout.replace(attention="tp")
    return layout.replace(factor=padded(layout.factor, count, 1.0))
