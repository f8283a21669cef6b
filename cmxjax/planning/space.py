"""The layouts of an instance that a plan chooses from."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ..job.layout import AXES
from ..job.workload import Serve
from ..optimization.factors import divisors, tier_splits
from ..optimization.job import rules_of
from ..optimization.space import allowed, in_rank_order
from ..specs.scenario_file import LayoutSpec, ServeScenario
from ..specs.serve_build import PREFILL_TOKENS, filled_slots, instance_spec
from .load import RequestClass

LARGEST = 1024
"""Devices of an instance that are considered at most."""


class Layouts(NamedTuple):
    """Layouts of an instance, (layout, ...)."""

    degrees: np.ndarray
    """(layout, axis)."""
    factor: np.ndarray
    """(layout, axis, tier)."""
    redundant: np.ndarray
    shared: np.ndarray
    """Ranks that hold the shared expert."""

    @property
    def devices(self) -> np.ndarray:
        return self.degree("tp") * self.degree("dp") * self.degree("pp")

    def degree(self, axis: str) -> np.ndarray:
        return self.degrees[:, AXES.index(axis)]

    def take(self, rows: np.ndarray) -> "Layouts":
        return Layouts(*(column[rows] for column in self))


def sizes_of(tiers: list[float], package: int, most: int) -> list[int]:
    """Numbers of devices that tile a machine: whole packages, parts of a unit of each
    tier without a rest, or such units, a power of two of them or three times one.

    Args:
        tiers: units of the tier below that each joins, innermost first.
        package: devices of a package.
        most: devices at most.
    """
    units = np.cumprod([1.0, *tiers]).astype(np.int64).tolist()
    inner = [unit for unit in units[:-1] if unit <= LARGEST]
    found = {part for unit in inner for part in divisors(unit)}
    doubled = [2**i for i in range(LARGEST.bit_length())]
    found |= {unit * k * n for unit in inner for k in (1, 3) for n in doubled}
    return sorted(
        n
        for n in found
        if n <= min(most, units[-1], LARGEST)
        and n % package == 0
        and all(n % unit == 0 or unit % n == 0 for unit in units[:-1])
    )


def layouts_of(
    c: RequestClass, role: str, most: int, pinned: Mapping[str, int]
) -> Layouts:
    """Every layout of a pool's instance on at most so many devices: all degrees but cp
    that the model allows, in the usual rank order, where that splits tiers wholly.

    Args:
        pinned: degrees that are not free, by axis.

    Raises:
        SpecError: one of them is no whole number from 1.
    """
    model = c.problem.model
    assert model is not None
    machine, tiers = c.inputs[0][role], c.inputs[0][role].tiers.size
    tiers = np.asarray(tiers).tolist()
    rules, mixture = rules_of(c.problem, {"cp": 1, **pinned}), model.experts is not None
    tables = [
        tier_splits(n, mixture)
        for n in sizes_of(tiers, round(float(machine.package_devices)), most)
    ]
    degrees = np.concatenate([np.zeros((0, len(AXES)), np.int64), *tables])
    degrees = degrees[allowed(rules, degrees)]
    factor = in_rank_order(degrees, np.tile(tiers, (len(degrees), 1)))
    whole = (factor == np.round(factor)).all(axis=(1, 2))
    degrees, factor = degrees[whole], factor[whole]
    routed = float(model.experts.routed) if model.experts is not None else 0.0
    ranks = degrees[:, AXES.index("ep")].astype(float)
    slots = filled_slots(routed, c.scenario.routing, ranks)
    return Layouts(degrees, factor, *slots)


def chunk_tokens(c: RequestClass, role: str, layouts: Layouts) -> np.ndarray:
    """Prompt tokens of a device that layouts compute at once, as `build` has it."""
    w = c.problem.workload
    assert isinstance(w, Serve)
    group = layouts.degree("tp").astype(float)
    if role == "prefill":
        return np.maximum(PREFILL_TOKENS, float(w.prompt_tokens) / group)
    if any(pool.role == "prefill" for pool in c.scenario.pools):
        return np.full(len(group), float(w.tokens_per_device))
    return float(c.inputs[0][role].runtime.max_tokens_per_step) / group


def spec_of(
    c: RequestClass, role: str, layouts: Layouts, row: int, attention: str
) -> LayoutSpec:
    """A layout as in a scenario; settings beside degrees stay as the pool has them.

    Args:
        attention: `tp`, which is `dp` where tp = 1, or `sp_tp_sp`.
    """
    given = instance_of(c.scenario, role)
    degrees = dict(zip(AXES, layouts.degrees[row].tolist()))
    said: dict[str, object] = {}
    said |= dict.fromkeys(("order", "placement", "stages", "vpp", "edp"))
    said |= {axis: degrees[axis] for axis in ("tp", "cp", "pp", "etp")}
    said |= {axis: None for axis in ("tp", "cp", "pp", "etp") if degrees[axis] == 1}
    mixture = c.problem.model is not None and c.problem.model.experts is not None
    said |= {"devices": int(layouts.devices[row]), "dp": degrees["dp"]}
    said["ep"] = degrees["ep"] if mixture else None
    said["attention"] = attention if attention == "sp_tp_sp" else None
    if degrees["tp"] > 1:  # a tensor group has it
        said["head"] = None
    return given.model_copy(update=said)


def instance_of(scenario: ServeScenario, role: str) -> LayoutSpec:
    """The layout of an instance of a pool."""
    (pool,) = (pool for pool in scenario.pools if pool.role == role)
    return instance_spec(pool)


def with_layout(scenario: ServeScenario, role: str, layout: LayoutSpec) -> ServeScenario:
    """A scenario with another layout of a pool's instances, of which it has one."""
    update = {"layout": layout, "devices": layout.devices}
    pools = [
        pool.model_copy(update=update) if pool.role == role else pool
        for pool in scenario.pools
    ]
    return scenario.model_copy(update={"pools": pools})
