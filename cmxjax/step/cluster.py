"""The network of a published cluster, and how many systems a job fills."""

import jax.numpy as jnp
import numpy as np

from .. import smooth
from .._types import Scalar
from ..job.layout import Layout, devices
from ..job.workload import Train
from ..machine.system import System, ordered_tiers
from ..rates.fabric import Fabric


def _scale_up(system: System) -> int:
    return system.tier_order.index(system.scale_up_tier) + 1


def nodes_of(system: System, layout: Layout) -> Scalar:
    """Scale-up systems that a job fills, at least one."""
    size = 1.0
    for tier in ordered_tiers(system)[: _scale_up(system)]:
        size = size * tier.size
    return smooth.larger(devices(layout) / size, 1.0)


def fabric_for(system: System, w: Train, layout: Layout, fabric: Fabric) -> Fabric:
    """The tiers beyond the scale-up system at the rate of a published cluster."""
    if not w.fabric:
        return fabric
    published = system.fabrics[w.fabric]
    factor = published.rate_factor
    factor = factor * nodes_of(system, layout) ** -published.node_exponent
    outside = np.arange(len(system.tier_order)) >= _scale_up(system)
    return fabric._replace(rate=fabric.rate * jnp.where(outside, factor, 1.0))
