"""Problems that differ only in names, made alike, so that they share a program.

A problem uses a few of a system's libraries, engines, endpoints and links. Without the
others, and with those it uses under one common name, a benchmark of one library has
the structure of a benchmark of any other.
"""

from typing import Any, NamedTuple

from ..job.layout import Layout
from ..job.workload import Collective, Decode, Operator, Prefill, Train, Workload
from ..machine.system import System
from ..parameters import leaf_paths
from ..specs.build import Problem

SAME = "it"
"""The common name."""


class Pruned(NamedTuple):
    """A problem's inputs, and where each leaf of its system came from."""

    system: System
    architecture: Any
    workload: Workload
    layout: Layout
    origins: list[str]
    """For each leaf in tree order, its path in the whole system."""


class _Used(NamedTuple):
    """Names of what a workload uses of a system; None keeps everything."""

    collectives: str = ""
    expert_library: str = ""
    expert_mode: str = ""
    engines: str = ""
    endpoints: str = ""
    links: str = ""
    trainers: str = ""
    fabrics: str = ""
    storage: str = ""
    """The link of checkpoints, which is asked for by name."""


def _of_collective(w: Collective) -> tuple[_Used, Collective]:
    exchange = w.collective in ("dispatch", "combine")
    used = _Used(
        collectives="" if exchange else w.library,
        expert_library=w.library if exchange else "",
        expert_mode=w.mode if exchange else "",
        engines=w.engine,
        endpoints="" if exchange else "cpu" if w.path == "npu-cpu" else "npu",
    )
    return used, w.replace(library=SAME, mode=SAME if exchange else "", engine=SAME)


def _of_serving(w: Decode | Prefill) -> tuple[_Used, Decode | Prefill]:
    software = w.software
    link = w.cache_link if isinstance(w, Prefill) else ""
    used = _Used(
        collectives=software.collective_library,
        expert_library=software.expert_library,
        expert_mode=software.expert_mode,
        engines=software.runtime,
        links=link,
    )
    names = dict(
        runtime=SAME, collective_library=SAME, expert_library=SAME, expert_mode=SAME
    )
    alike = w.replace(software=software.replace(**names))
    if isinstance(alike, Prefill) and link:
        alike = alike.replace(cache_link=SAME)
    return used, alike


def _of_training(w: Train, experts: bool) -> tuple[_Used, Train]:
    software = w.software
    used = _Used(
        collectives=software.collective_library,
        expert_library=software.expert_library if experts else "",
        expert_mode=software.expert_mode if experts else "",
        links=w.offload_link,
        trainers=software.runtime,
        fabrics=w.fabric,
        storage="vpc",
    )
    alike = software.replace(
        runtime=SAME, collective_library=SAME, expert_library=SAME, expert_mode=SAME
    )
    return used, w.replace(
        software=alike,
        offload_link=SAME if w.offload_link else "",
        fabric=SAME if w.fabric else "",
    )


def _only(nodes: dict[str, Any], name: str, new: str = SAME) -> dict[str, Any]:
    return {new: nodes[name]} if name else {}


def _cut(system: System, used: _Used) -> tuple[System, dict[str, str]]:
    """The system with nothing unused, and where its renamed branches came from."""
    modes = {}
    if used.expert_library:
        library = system.expert_parallel[used.expert_library]
        modes = {SAME: _only(library, used.expert_mode)}
    small = system.replace(
        collectives=_only(system.collectives, used.collectives),
        expert_parallel=modes,
        engines=_only(system.engines, used.engines),
        # remote access asks for its endpoint by name
        endpoints=_only(system.endpoints, used.endpoints, used.endpoints),
        links=_only(system.links, used.links)
        | _only(system.links, used.storage, used.storage),
        trainers=_only(system.trainers, used.trainers),
        fabrics=_only(system.fabrics, used.fabrics),
        name="",
        defaults=(),
    )
    branches = {
        f"collectives.{SAME}": f"collectives.{used.collectives}",
        f"expert_parallel.{SAME}.{SAME}": (
            f"expert_parallel.{used.expert_library}.{used.expert_mode}"
        ),
        f"engines.{SAME}": f"engines.{used.engines}",
        f"links.{SAME}": f"links.{used.links}",
        f"trainers.{SAME}": f"trainers.{used.trainers}",
        f"fabrics.{SAME}": f"fabrics.{used.fabrics}",
    }
    return small, branches


def pruned(problem: Problem) -> Pruned:
    """The problem with as little of its system as its phase can do with."""
    system, w = problem.system, problem.workload
    if isinstance(w, Operator):
        used, alike = _Used(), w
    elif isinstance(w, Collective):
        used, alike = _of_collective(w)
    elif isinstance(w, Decode | Prefill):
        used, alike = _of_serving(w)
    elif isinstance(w, Train):
        model = problem.architecture
        used, alike = _of_training(w, model is not None and model.experts is not None)
    else:
        paths = list(leaf_paths(system))
        return Pruned(system, problem.architecture, w, problem.layout, paths)
    small, branches = _cut(system, used)
    origins = []
    for path in leaf_paths(small):
        branch = next((b for b in branches if path.startswith(b + ".")), None)
        moved = path if branch is None else branches[branch] + path[len(branch) :]
        origins.append(moved)
    architecture = problem.architecture
    if architecture is not None:
        architecture = architecture.replace(name="")
    return Pruned(small, architecture, alike, problem.layout, origins)
