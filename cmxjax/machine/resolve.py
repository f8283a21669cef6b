"""From a system and the names that a job chooses to the machine that the job meets.

Names end here: programs take a `Machine`, whose leaves are leaves of the system.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from .._types import Leaf
from ..parameters import leaf_paths, path_of
from .chip import FORMATS
from .machine import Machine, Tiers
from .system import System, ordered_tiers
from .tiers import FabricRate, SideLink

STORAGE = "vpc"
"""The link that checkpoints are written over; without one, the outermost tier."""


class Choices(NamedTuple):
    """Names of what a job uses of a system; empty where it uses none."""

    collective_library: str
    expert_library: str
    expert_mode: str
    engine: str = ""
    trainer: str = ""
    """The framework that trains, instead of an engine."""
    cache_link: str = ""
    offload_link: str = ""
    cluster: str = ""
    """The published cluster whose network it is."""
    endpoint: str = ""


def resolve(system: System, choices: Choices) -> Machine:
    """The machine that a job meets: a choice of the system's leaves, none computed.

    Raises:
        KeyError: the system has nothing of a name.
    """
    packages, links, planes = system.package_tier, system.links, _numbers(system)
    exchange = system.expert_parallel[choices.expert_library][choices.expert_mode]
    return Machine(
        chip=system.chip.replace(matrix_flop_per_s=_peaks(system)),
        tiers=tiers_of(system),
        runtime=(
            system.trainers[choices.trainer]
            if choices.trainer
            else system.engines[choices.engine]
        ),
        library=system.collectives[choices.collective_library],
        exchange=exchange.replace(plane=planes.get(exchange.plane, "")),
        cluster=_cluster(system, choices.cluster),
        cache=links[choices.cache_link] if choices.cache_link else None,
        offload=links[choices.offload_link] if choices.offload_link else None,
        storage=_storage(system),
        endpoint=system.endpoints[choices.endpoint] if choices.endpoint else None,
        power=system.power,
        parts=system.parts,
        operations=system.operations,
        package_devices=system.tiers[packages].size if packages else jnp.ones(()),
        scale_up_tiers=system.tier_order.index(system.scale_up_tier) + 1,
    )


def tiers_of(system: System) -> Tiers:
    """The tiers, innermost first."""

    def stacked(name: str) -> Leaf:
        leaves = [getattr(tier, name) for tier in ordered_tiers(system)]
        if any(isinstance(leaf, Tracer) for leaf in leaves):
            return jnp.stack(leaves)
        found = np.stack(leaves)
        return found if found.dtype == object else jnp.asarray(found)

    names = ("size", "bytes_per_s", "latency_s", "efficiency", "oversubscription")
    planes = _numbers(system)
    numbers = tuple(planes[tier.plane] for tier in ordered_tiers(system))
    return Tiers(planes=numbers, **{name: stacked(name) for name in names})


def _peaks(system: System) -> dict[str, Leaf]:
    """Peaks of all formats. One that the device doesn't have stands there as 1 FLOP/s:
    jobs that ask for it are refused before."""
    peaks = system.chip.matrix_flop_per_s
    return {name: peaks.get(name, jnp.ones(())) for name in FORMATS}


def _numbers(system: System) -> dict[str, str]:
    """A number for each plane, from the innermost tier on: what it is called in the
    system's file is nothing to a program."""
    planes = dict.fromkeys(tier.plane for tier in ordered_tiers(system))
    return {plane: str(i) for i, plane in enumerate(planes)}


def _cluster(system: System, name: str) -> FabricRate:
    """The published cluster, or the system's own network."""
    own = FabricRate(rate_factor=jnp.ones(()), node_exponent=jnp.zeros(()))
    return system.fabrics[name] if name else own


def _storage(system: System) -> SideLink:
    if STORAGE in system.links:
        return system.links[STORAGE]
    tier = ordered_tiers(system)[-1]
    return SideLink(
        bytes_per_s=tier.bytes_per_s, latency_s=tier.latency_s, efficiency=tier.efficiency
    )


Meets = Choices | Mapping[str, Choices]
"""What a job chooses; of phase `serve` what each pool does, by role."""


def machine_of(system: System, choices: Meets) -> Any:
    """The machine of a job, or the machines of pools by role."""
    if isinstance(choices, Choices):
        return resolve(system, choices)
    return {role: resolve(system, own) for role, own in choices.items()}


def origins(system: System, choices: Meets) -> list[str]:
    """Path in the system of each number of `machine_of`, in the order of its leaves and
    of their entries; empty for one that is in no file."""
    named = jax.tree_util.tree_map_with_path(
        lambda path, _: np.asarray(path_of(path), object), system
    )
    entries = (
        entry
        for leaf in leaf_paths(machine_of(named, choices)).values()
        for entry in np.ravel(leaf)
    )
    return [entry if isinstance(entry, str) else "" for entry in entries]
