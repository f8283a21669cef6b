"""From a system and the names that a job chooses to the machine that the job meets.

Names end here: programs take a `Machine`, whose leaves are leaves of the system.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from .._numbers import array, scalar
from .._types import Leaf
from ..parameters import every_leaf, is_switch, paths_of
from .chip import EIGHT, PLAIN
from .libraries import CollectiveLibrary
from .machine import Machine, Tiers
from .pad import WAYS, alike
from .runtimes import EXPERT_FORMATS, Engine, Trainer
from .system import System, ordered_tiers
from .tiers import FabricRate, SideLink, Torus

MULTIPLIED = ("activation", "attention", "head", "indexer")
"""Tensor classes that matrix units multiply in a format of their own."""

EIGHT_BITS = ("fp8", "int8")
"""Formats of `EIGHT`; the first that a device has."""

UNITS = {"nvfp4": "fp4", "mxfp4": "fp4"}
"""Formats that a device multiplies in the units of another name, where it has those."""

UNRELEASED = ("nightly", "main", "dev", "latest")
"""What the names of builds begin with that are newer than all releases."""

NUMBERS = re.compile(r"v?(\d+(?:\.\d+)*)")
"""How a version begins."""

STORAGE = "vpc"
"""The link that checkpoints are written over; without one, the outermost tier."""


class Choices(NamedTuple):
    """Names of what a job uses of a system; empty where it uses none."""

    collective_library: str
    expert_library: str
    expert_mode: str
    engine: str = ""
    graphs: str = ""
    """How decode launches its kernels, instead of as the engine does by default."""
    trainer: str = ""
    """The framework that trains, instead of an engine."""
    cache_link: str = ""
    offload_link: str = ""
    cluster: str = ""
    """The published cluster whose network it is."""
    endpoint: str = ""
    dtypes: tuple[str, ...] = (PLAIN,) * len(MULTIPLIED)
    """Formats of what matrix units multiply, by tensor class, see `MULTIPLIED`."""
    experts: bool = True
    """There are some, so that it matters how tokens are exchanged."""
    expert_format: str = EXPERT_FORMATS[0]
    """What kernels for them multiply."""
    algorithm: str = ""
    """The only one that the library may run; empty for all that it has."""
    network_reduces: bool = False
    """Switches add up on every tier, also where the system's by themselves don't."""
    alike: bool = False
    """In the shape that all machines share, see `pad`."""


def resolve(system: System, choices: Choices) -> Machine:
    """The machine that a job meets: a choice of the system's leaves, none computed.

    Raises:
        KeyError: the system has nothing of a name.
    """
    packages, links = system.package_tier, system.links
    exchange = system.expert_parallel[choices.expert_library][choices.expert_mode]
    if not choices.experts:
        exchange = exchange.replace(**dict.fromkeys(WAYS))
    machine = Machine(
        chip=system.chip.replace(matrix_flop_per_s=_peaks(system, choices)),
        tiers=_tiers(system, choices),
        runtime=_runtime(system, choices),
        library=_library(system, choices),
        exchange=exchange.replace(
            only=_only(system, exchange.plane), across=_outermost(system), plane=""
        ),
        cluster=_cluster(system, choices.cluster),
        cache=links[choices.cache_link] if choices.cache_link else None,
        offload=links[choices.offload_link] if choices.offload_link else None,
        storage=_storage(system),
        endpoint=system.endpoints[choices.endpoint] if choices.endpoint else None,
        power=system.power,
        parts=system.parts,
        operations=system.operations,
        package_devices=system.tiers[packages].size if packages else scalar(1.0),
    )
    return alike(machine) if choices.alike else machine


def _tiers(system: System, choices: Choices) -> Tiers:
    tiers = tiers_of(system)
    if choices.network_reduces:
        return tiers.replace(reduces=_mask([True] * len(system.tier_order)))
    return tiers


def _library(system: System, choices: Choices) -> CollectiveLibrary:
    library = system.collectives[choices.collective_library]
    if choices.algorithm:
        only = {choices.algorithm: library.algorithms[choices.algorithm]}
        return library.replace(algorithms=only)
    return library


def tiers_of(system: System) -> Tiers:
    """The tiers, innermost first."""

    def stacked(name: str) -> Leaf:
        leaves = [getattr(tier, name) for tier in ordered_tiers(system)]
        if any(isinstance(leaf, Tracer) for leaf in leaves):
            return jnp.stack(leaves)
        joined = np.stack(leaves)
        return joined if joined.dtype == object else array(joined)

    names = ("size", "bytes_per_s", "latency_s", "efficiency", "oversubscription")
    tiers, edge = ordered_tiers(system), system.tier_order.index(system.scale_up_tier)
    planes = dict.fromkeys(tier.plane for tier in tiers)
    return Tiers(
        planes=tuple(_mask([tier.plane == plane for tier in tiers]) for plane in planes),
        mesh=_mask([t.mesh for t in tiers]) if any(t.mesh for t in tiers) else None,
        torus=_torus([tier.shape for tier in tiers], [tier.closes for tier in tiers]),
        reduces=_mask([tier.reduces for tier in tiers]),
        scale_up=_mask([i <= edge for i in range(len(tiers))]),
        **{name: stacked(name) for name in names},
    )


def _torus(
    shapes: Sequence[tuple[int, ...]], closes: Sequence[tuple[int, ...]]
) -> Torus | None:
    """Shapes of tori with ones where a tier has fewer dimensions, or none."""
    count = max(map(len, shapes))
    if not count:
        return None

    def whole(rows: Sequence[tuple[int, ...]]) -> Leaf:
        filled = [[*row, *[1] * (count - len(row))] for row in rows]
        return array(filled)

    return Torus(shape=whole(shapes), closes=whole(closes))


def _mask(rows: Sequence[bool]) -> Leaf:
    return array(rows)


def _only(system: System, plane: str) -> Leaf:
    """Mask of the outermost tier on a plane; zeros for no plane."""
    on = [i for i, tier in enumerate(ordered_tiers(system)) if tier.plane == plane]
    return _mask([on[-1:] == [i] for i in range(len(system.tier_order))])


def _outermost(system: System) -> Leaf:
    """Mask of the outermost tier."""
    return _mask([name == system.tier_order[-1] for name in system.tier_order])


def _runtime(system: System, choices: Choices) -> Engine | Trainer:
    """What serves or trains. How contexts and tokens are exchanged, what gradients are
    kept in and how kernels are launched is the job's to say by now."""
    if choices.trainer:
        return system.trainers[choices.trainer].replace(
            context="", gradient="", gathers="", exchange="", release_of="", since=""
        )
    engine = system.engines[choices.engine]
    launch = engine.launch_s
    return engine.replace(
        launch_s={
            "decode": launch[choices.graphs or engine.graphs],
            "prefill": launch[engine.prefill_graphs],
        },
        expert_format_factor={
            "experts": engine.expert_format_factor[choices.expert_format]
        },
        graphs="",
        prefill_graphs="",
        exchange=(),
        release_of="",
        since="",
    )


def release(runtimes: Mapping[str, Engine | Trainer], name: str, version: str) -> str:
    """The entry of an engine or a framework that describes a version: that of the last
    release up to it; without a version, or for a build of the day, the newest.

    Raises:
        ValueError: the version isn't numbers with dots between.
    """
    entries = [("", name)]
    for entry, other in runtimes.items():
        if other.release_of == name:
            entries.append((other.since, entry))
    return _latest(entries, version)


def exchange_library(system: System, engine: str, version: str) -> str:
    """The library that an engine of some version exchanges tokens by; the system's own
    where the engine has none or an older one has it.

    Raises:
        ValueError: the version isn't numbers with dots between.
    """
    entries = [("", dict(system.defaults)["expert"])]
    return _latest([*entries, *system.engines[engine].exchange], version)


def _latest(entries: Iterable[tuple[str, str]], version: str) -> str:
    """Of versions and what came with each, the last up to a version; without one, or for
    a build of the day, the newest. One without a version was always there."""
    came = {_numbers(at) if at else (): name for at, name in entries}
    newest = not version or version.startswith(UNRELEASED)
    most = max(came) if newest else _numbers(version)
    return came[max(at for at in came if at <= most)]


def _numbers(version: str) -> tuple[int, ...]:
    """`0.15.1` or `1.0.0rc3` as numbers that compare; a suffix behind them counts as
    nothing."""
    found = NUMBERS.match(version)
    if not found:
        raise ValueError("must begin with numbers such as 0.15.1")
    return tuple(int(part) for part in found[1].split("."))


def _peaks(system: System, choices: Choices) -> dict[str, Leaf]:
    """Peaks by tensor class. One that the device doesn't have stands there as 1 FLOP/s:
    jobs that ask for it are refused before."""
    peaks = system.chip.matrix_flop_per_s
    named = {**dict(zip(MULTIPLIED, choices.dtypes, strict=True)), PLAIN: PLAIN}
    named[EIGHT] = next((of for of in EIGHT_BITS if of in peaks), PLAIN)
    units = {of: of if of in peaks else UNITS.get(of, of) for of in named.values()}
    return {name: peaks.get(units[of], scalar(1.0)) for name, of in named.items()}


def _cluster(system: System, name: str) -> FabricRate:
    """The published cluster, or the system's network."""
    full_rate = FabricRate(rate_factor=scalar(1.0), node_exponent=scalar(0.0))
    return system.fabrics[name] if name else full_rate


def _storage(system: System) -> SideLink:
    if STORAGE in system.links:
        return system.links[STORAGE]
    tier = ordered_tiers(system)[-1]
    return SideLink(
        bytes_per_s=tier.bytes_per_s,
        memory_bytes_per_s=tier.bytes_per_s,
        latency_s=tier.latency_s,
        efficiency=tier.efficiency,
    )


Meets = Choices | Mapping[str, Choices]
"""What a job chooses; of phase `serve` what each pool does, by role."""


@overload
def machine_of(system: System, choices: Choices) -> Machine: ...


@overload
def machine_of(system: System, choices: Meets) -> Machine | dict[str, Machine]: ...


def machine_of(system: System, choices: Meets) -> Machine | dict[str, Machine]:
    """The machine of a job, or the machines of pools by role."""
    if isinstance(choices, Choices):
        return resolve(system, choices)
    return {role: resolve(system, chosen) for role, chosen in choices.items()}


def origins(system: System, choices: Meets) -> tuple[str, ...]:
    """Path in the system of each number of `machine_of`, in the order of its leaves and
    of their entries; empty for one that is in no file."""
    chosen = choices if isinstance(choices, Choices) else tuple(choices.items())
    return _origins(jax.tree.structure(system), chosen)


@lru_cache(maxsize=256)
def _origins(
    structure: Any, choices: Choices | tuple[tuple[str, Choices], ...]
) -> tuple[str, ...]:
    paths = [np.asarray(path, object) for path in paths_of(structure)]
    chosen = choices if isinstance(choices, Choices) else dict(choices)
    named = machine_of(jax.tree.unflatten(structure, paths), chosen)
    entries = (entry for leaf in every_leaf(named).values() for entry in np.ravel(leaf))
    known = (entry if isinstance(entry, str) else "" for entry in entries)
    return tuple("" if is_switch(entry) else entry for entry in known)
