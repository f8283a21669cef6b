"""A budget for co-design from a system: what may change, and who draws its power."""

import math

from .errors import SpecError
from .figures import Figure
from .system_file import SystemFile, figures_of
from .system_load import read_system_file

JOULES_PER_BIT = 5e-12
"""Of a link's ports with their share of conversion: 4.6 pJ a bit on CloudMatrix384."""

WATTS_PER_BYTE = 0.15e-9
"""That memory draws to keep what it holds: 0.15 W a GB, HBM3."""

MOST_OF_PORTS = 0.1
"""Largest share of the power that ports are taken to draw."""

SOURCE = "split"


def budget_from(system: str) -> dict[str, object]:
    """The tables of a budget file that spends a system's all-in power on its parts.

    The total, the network's part and the shares of idling and of memory are those of the
    system's file; ports draw 5 pJ a bit and memory 0.15 W a GB beside; all of the split
    is marked as assumed. The items add up to the total.

    Args:
        system: a shipped name or a path.

    Raises:
        SpecError: the file is wrong or states no power to spend.
    """
    file = read_system_file(system)
    figures = figures_of(file)
    power = figures["power.all_in_w"]
    if not power.si > figures["power.network_w"].si:
        said = f"power.all_in_w = {power.value:g} {power.unit}"
        raise SpecError([f"{system}: {said}: the network draws as much; correct it"])
    planes = _planes(file)
    resources = {
        "compute": {
            "leaves": ["system.chip.matrix_flop_per_s.*", "system.chip.vector_flop_per_s"]
        },
        "hbm_bandwidth": {"leaves": ["system.chip.memory_bytes_per_s"]},
        "hbm_size": {
            "leaves": ["system.chip.memory_bytes", "system.chip.memory_usable_bytes"]
        },
        **{
            f"{plane}_bandwidth": {
                "leaves": [f"system.tiers.{tier}.bytes_per_s" for tier in tiers]
            }
            for plane, tiers in planes.items()
        },
    }
    sources = {SOURCE: {"title": "An even-handed split of the power; put in your own"}}
    if power.source in file.sources:
        own = file.sources[power.source].model_dump(exclude_defaults=True)
        sources = {power.source: own, **sources}
    budget = power.model_dump(exclude_none=True, exclude_defaults=True)
    return {
        "title": f"Power of {file.name}",
        "system": file.name,
        "budget": budget,
        "sources": sources,
        "resources": resources,
        "items": _items(file, figures, planes),
    }


def _inside(file: SystemFile) -> list[str]:
    """Names of the tiers of the scale-up system, innermost first."""
    names = [tier.name for tier in file.tiers]
    return names[: names.index(file.scale_up_tier) + 1]


def _planes(file: SystemFile) -> dict[str, list[str]]:
    """The scale-up system's tiers by the plane that they are on."""
    inside, planes = _inside(file), {}
    for tier in file.tiers:
        if tier.name in inside:
            planes.setdefault(tier.plane, []).append(tier.name)
    return planes


def _items(
    file: SystemFile, figures: dict[str, Figure], planes: dict[str, list[str]]
) -> dict[str, object]:
    """What draws the power, and what it grows with; in watts."""

    def of(path: str) -> float:
        return figures[path].si

    devices = math.prod(of(f"tiers.{name}.size") for name in _inside(file))
    network = of("power.network_w")
    left = of("power.all_in_w") - network
    items: dict[str, object] = {}

    def item(name: str, watts: float, grows: str | None, why: str) -> None:
        if watts > 0.0:
            scales = {"scales": {grows: 1}} if grows else {}
            figure = {"value": float(f"{watts:.6g}"), "unit": "W", "source": SOURCE}
            items[name] = figure | {"locator": why, "kind": "assumed"} | scales

    ports = {
        plane: 16.0 * JOULES_PER_BIT * devices * of(f"tiers.{tiers[-1]}.bytes_per_s")
        for plane, tiers in planes.items()
    }
    fit = min(1.0, MOST_OF_PORTS * left / sum(ports.values()))
    left -= fit * sum(ports.values())
    idle = of("power.idle_fraction") * left
    memory = of("power.memory_share") * (left - idle)
    kept = min(WATTS_PER_BYTE * devices * of("chip.memory_bytes"), 0.5 * idle)
    busy = "power.memory_share of what load adds"
    item("compute", left - idle - memory, "compute", f"all but {busy}")
    item("hbm_traffic", memory, "hbm_bandwidth", busy)
    item("hbm_refresh", kept, "hbm_size", "0.15 W a GB, at most half of idling")
    for plane, watts in ports.items():
        why = f"5 pJ a bit both ways, with others at most {MOST_OF_PORTS:.0%} of all"
        item(f"{plane}_ports", fit * watts, f"{plane}_bandwidth", why)
    last = next(p for p, tiers in planes.items() if file.scale_up_tier in tiers)
    item(f"{last}_network", network, f"{last}_bandwidth", "power.network_w")
    why = "power.idle_fraction without refresh: hosts, fans, leakage"
    item("rest", idle - kept, None, why)
    return items
