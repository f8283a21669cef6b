"""From a system's name, file or changed base to the System pytree."""

import math
from collections.abc import Container
from functools import lru_cache
from typing import NamedTuple

from pydantic import ValidationError

from .._numbers import scalar
from .._types import Leaf
from ..machine.chip import Chip
from ..machine.libraries import CollectiveLibrary, ExpertMode
from ..machine.power import Operations, Parts, Power
from ..machine.runtimes import Engine, Spread, Trainer
from ..machine.system import System
from ..machine.tiers import Endpoint, FabricRate, SideLink, Tier
from ..switch import switch
from ..units import dimension_of
from ..words import hint
from .errors import SpecError, explain, shown
from .figures import (
    SI_UNITS,
    Figure,
    check_figure,
    listing,
    number,
    parse_quantity,
    unsourced,
)
from .files import DATA, load, parse_toml
from .renamed import NOW, in_place, latest
from .system_base import cited, versions, with_base
from .system_file import EngineSpec, SystemFile, TrainerSpec, figures_of, names_in

_NAMED = {
    "endpoints": "endpoint",
    "links": "link",
    "collectives": "collective",
    "trainers": "trainer",
    "fabrics": "fabric",
}
_FALLBACKS = {
    "collectives": ("default_collective", {"default": {}}),
    "expert_parallel": (
        "default_expert",
        {"default": {"low_latency": {}, "normal": {}}},
    ),
    "engines": ("default_engine", {"default": {}}),
    "trainers": ("default_trainer", {"default": {}}),
    "fabrics": ("", {}),
    "operations": ("", {}),
    "endpoints": ("", {"npu": {}, "cpu": {}}),
    "links": ("", {}),
    "power": ("", {}),
    "parts": ("", {}),
}

OVERRIDE = "override"
"""The source of what a user sets."""


class Reference(NamedTuple):
    """A system or model as a scenario names it: a base and changed leaves."""

    base: str
    changes: tuple[tuple[str, object], ...] = ()


class LoadedSystem(NamedTuple):
    """A System with what its file says about each leaf."""

    system: System
    figures: dict[str, Figure]
    title: str
    file: SystemFile


def _tables(name: str) -> dict[str, dict[str, object]]:
    """The tables of one of the package's own files."""
    tables = parse_toml((DATA / name).read_text("utf-8"), name)
    return {name: table for name, table in tables.items() if isinstance(table, dict)}


def _engines(
    listed: dict[str, object], common: dict[str, object], libraries: Container[str]
) -> tuple[dict[str, object], dict[str, object]]:
    """The engines that a file lists and their releases, with all that is known of them,
    and the sources of that.

    Args:
        libraries: of expert exchanges, that the file has.
    """
    known = _tables("engines.toml")
    sources = known.pop("sources")
    for table in known.values():
        if isinstance(ways := table.get("exchange"), dict):
            has = {since: name for since, name in ways.items() if name in libraries}
            table["exchange"] = has
    of = {name: str(table.get("release_of", "")) for name, table in known.items()}
    names = [*listed, *(x for x in of if of[x] in listed and x not in listed)]

    def under(*tables: object) -> object:
        merged = dict(common)
        for table in tables:
            if not isinstance(table, dict):
                return table  # validation says what is wrong with it
            for name, value in table.items():
                before = merged.get(name)
                named = name in ("launch_s", "expert_format_factor")
                if named and isinstance(value, dict) and isinstance(before, dict):
                    value = {**before, **value}
                merged[name] = value
        return merged

    def chain(name: str) -> list[object]:
        base = of.get(name)
        before = chain(base) if base else []
        return [*before, known.get(name, {}), listed.get(name, {})]

    return {name: under(*chain(name)) for name in names}, sources


def _modes(modes: object, alike: object, common: dict[str, object]) -> object:
    """The modes of an exchange library; what they leave out is that of libraries of the
    name on all machines, then that of all libraries."""
    if not isinstance(modes, dict) or not isinstance(alike, dict):
        return modes  # validation says what is wrong with it
    return {
        mode: {**common, **alike.get(mode, {}), **leaves}
        if isinstance(leaves, dict)
        else leaves
        for mode, leaves in modes.items()
    }


def _sized(tier: object) -> object:
    """A tier whose size, where it is left out, follows from the shape of its torus."""
    if not isinstance(tier, dict) or "size" in tier:
        return tier
    if "shape" not in tier and tier.get("topology") != "torus":
        return tier
    shape, size = tier.get("shape"), 1.0  # validation says what is wrong with it
    if isinstance(shape, list) and all(type(side) is int for side in shape):
        size = float(math.prod(shape))
    return {**tier, "size": unsourced(size, "number", "product of the shape")}


def _filled(raw: dict[str, object]) -> dict[str, object]:
    """The file with every leaf that it leaves out taken from the defaults."""
    defaults = _tables("defaults.toml")
    filled = dict(raw)
    if "operations" in raw:
        filled["operations"] = latest(raw["operations"], raw["operations"])
    for section, (key, fallback) in _FALLBACKS.items():
        table = filled.setdefault(section, fallback)
        if key and isinstance(table, dict) and table:
            filled.setdefault(key, next(iter(table)))

    def under(group: str, node: object) -> object:
        return {**defaults[group], **node} if isinstance(node, dict) else node

    for section in ("chip", "operations", "power", "parts"):
        if section in filled:
            filled[section] = under(section, filled[section])
    if isinstance(tiers := filled.get("tiers"), list):
        filled["tiers"] = [_sized(under("tier", tier)) for tier in tiers]
    if isinstance(endpoints := filled["endpoints"], dict):
        filled["endpoints"] = {"npu": {}, "cpu": {}} | endpoints
    for section, group in _NAMED.items():
        if isinstance(table := filled[section], dict):
            filled[section] = {k: under(group, v) for k, v in table.items()}
    sources = defaults["sources"]
    if isinstance(engines := raw.get("engines", {"default": {}}), dict):
        libraries = filled["expert_parallel"]
        has = libraries if isinstance(libraries, dict) else {}
        filled["engines"], known = _engines(engines, defaults["engine"], has)
        used = cited(filled["engines"])
        sources = sources | {k: s for k, s in known.items() if k in used}
    if isinstance(libraries := filled["expert_parallel"], dict):
        alike, common = defaults["expert_parallel"], defaults["expert_mode"]
        filled["expert_parallel"] = {
            name: _modes(modes, alike.get(name, {}), common)
            for name, modes in libraries.items()
        }
    if isinstance(listed := filled.get("sources", {}), dict):
        filled["sources"] = {**sources, **listed}
    return filled


def read_system_file(name: str) -> SystemFile:
    """Read and validate a system file. Raises `SpecError` with every mistake."""
    return _read_system_file(versions(name))


@lru_cache(maxsize=64)
def _read_system_file(key: tuple[tuple[str, float], ...]) -> SystemFile:
    raw, where = load("systems", key[0][0])
    try:
        filled = _filled(with_base(raw, where))
        context = listing(filled) | names_in(filled)
        return SystemFile.model_validate(filled, context=context)
    except ValidationError as error:
        raise SpecError(explain(error, where, SystemFile)) from None


def _changed(
    figures: dict[str, Figure], file: SystemFile, reference: Reference, where: str
) -> dict[str, Figure]:
    """Figures with an alternative set and single leaves put in place of the default."""
    mistakes, changed = [], dict(figures)
    changes = dict(reference.changes)
    chosen = changes.pop("alternatives", None)
    if isinstance(chosen, str) and chosen in file.alternatives:
        changed |= file.alternatives[chosen].set
    elif chosen is not None:
        options = ", ".join(file.alternatives)
        remedy = f"use one of {options}" if options else "leave it out"
        mistakes.append(
            f"{where}: system.alternatives{shown(chosen)}: {reference.base} has no such"
            f" set; {remedy}"
        )
    for path, value in changes.items():
        key = f"{where}: system.{path}{shown(value)}"
        if path not in figures and path not in NOW:
            mistakes.append(
                f"{key}: {reference.base} has no such leaf; {hint(path, figures)}"
                "`cmxjax show` lists them"
            )
            continue
        try:
            changed[path] = override(path, value)
        except ValueError as error:
            mistakes.append(f"{key}: {error}")
    for tier in file.tiers:
        path = f"tiers.{tier.name}.size"
        if tier.shape and changed[path].si != math.prod(tier.shape):
            mistakes.append(
                f"{where}: system.{path}{shown(changes.get(path, changed[path].value))}:"
                f" {reference.base} has a torus of {tier.shape} there; change the shape"
                " in a file of your own instead"
            )
    if mistakes:
        raise SpecError(mistakes)
    changed = in_place(changed, file.package_tier, changes)
    usable, whole = "chip.memory_usable_bytes", "chip.memory_bytes"
    if file.chip.memory_usable_bytes is None and changed[usable] is figures[usable]:
        changed[usable] = changed[whole]
    return changed


def override(path: str, value: object) -> Figure:
    """A user's value for a leaf: SI, or a string with a unit.

    Raises:
        ValueError: not a finite, non-negative number of the leaf's dimension.
    """
    dimension = dimension_of(path)
    si = parse_quantity(value, dimension) if isinstance(value, str) else number(value)
    if si < 0:
        raise ValueError("must not be negative")
    figure = Figure(
        value=si,
        unit=SI_UNITS.get(dimension, "1"),
        source=OVERRIDE,
        locator="set by the user",
        kind="assumed",
        sigma=0.0,
    )
    if problem := check_figure(path, figure):
        raise ValueError(problem.split(": ", 1)[1])
    return figure


def _nest(figures: dict[str, Figure]) -> dict[str, Leaf]:
    tree: dict[str, Leaf] = {}
    for path, figure in figures.items():
        *parents, last = path.split(".")
        node = tree
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = scalar(figure.si)
    return tree


def _ways(spec: EngineSpec) -> dict[str, object]:
    """What a serving engine does, beside its numbers."""
    names = ("partitions_cores", "graphs", "prefill_graphs", "release_of", "since")
    said: dict[str, object] = {name: getattr(spec, name) for name in names}
    return said | {"exchange": tuple(spec.exchange.items())}


def _habits(spec: TrainerSpec) -> dict[str, object]:
    """What a training framework does, beside its numbers."""
    return {
        "context": spec.context,
        "gradient": spec.gradient,
        "gathers": spec.gathers,
        "exchange": spec.exchange,
        "release_of": spec.release_of,
        "since": spec.since,
        "stages": Spread(
            ends=switch(spec.stages == "with_ends"),
            head=switch(spec.stages == "by_cost"),
        ),
        "keeps_working_gradients": switch(spec.keeps_working_gradients),
        "casts_weights": switch(spec.casts_weights),
        "balances_ring": switch(spec.balances_ring),
    }


def load_system(reference: Reference, where: str = "scenario") -> LoadedSystem:
    """Build the System that a reference names.

    Args:
        reference: a shipped name or a path, and changed leaves.
        where: how messages name the scenario that holds the reference.

    Raises:
        SpecError: the file is wrong, or a changed leaf does not exist.
    """
    key = (versions(reference.base), repr(reference.changes))
    if key not in _LOADED:
        if len(_LOADED) > 512:
            _LOADED.clear()
        _LOADED[key] = _load_system(reference, where)
    return _LOADED[key]


_LOADED: dict[tuple, LoadedSystem] = {}


def _load_system(reference: Reference, where: str) -> LoadedSystem:
    file = read_system_file(reference.base)
    figures = _changed(figures_of(file), file, reference, where)
    tree = _nest(figures)
    chip = tree["chip"]
    modes = file.expert_parallel
    system = System(
        chip=Chip(**chip),
        tiers={
            t.name: Tier(
                plane=t.plane,
                mesh=t.mesh or t.topology == "mesh",
                reduces=t.reduces,
                shape=tuple(t.shape),
                closes=t.closes,
                **tree["tiers"][t.name],
            )
            for t in file.tiers
        },
        endpoints={k: Endpoint(**v) for k, v in tree["endpoints"].items()},
        links={k: SideLink(**v) for k, v in tree.get("links", {}).items()},
        collectives={
            k: CollectiveLibrary(
                algorithms={
                    name: switch(True) for name in file.collectives[k].algorithms
                },
                pipelined=switch(file.collectives[k].pipelined),
                **v,
            )
            for k, v in tree["collectives"].items()
        },
        expert_parallel={
            library: {
                mode: ExpertMode(
                    plane=modes[library][mode].plane,
                    gathers=switch(True) if modes[library][mode].gathers else None,
                    deduplicates=(
                        switch(True) if modes[library][mode].deduplicates else None
                    ),
                    **leaves,
                )
                for mode, leaves in by_mode.items()
            }
            for library, by_mode in tree["expert_parallel"].items()
        },
        engines={
            k: Engine(**_ways(file.engines[k]), **v) for k, v in tree["engines"].items()
        },
        trainers={
            k: Trainer(**_habits(file.trainers[k]), **v)
            for k, v in tree["trainers"].items()
        },
        fabrics={k: FabricRate(**v) for k, v in tree.get("fabrics", {}).items()},
        operations=Operations(**tree["operations"]),
        power=Power(**tree["power"]),
        parts=Parts(**tree["parts"]),
        name=file.name,
        tier_order=tuple(t.name for t in file.tiers),
        package_tier=file.package_tier,
        scale_up_tier=file.scale_up_tier,
        defaults=(
            ("collective", file.default_collective),
            ("serving_collective", file.serving_collective or file.default_collective),
            ("expert", file.default_expert),
            ("engine", file.default_engine),
            ("trainer", file.default_trainer),
            ("unpacking", file.default_unpacking),
        ),
    )
    return LoadedSystem(system, figures, file.title, file)
