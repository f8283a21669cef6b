"""How far off the model itself is: where a calibration has rows, and where it has none.

A level is `operator`, `collective` or `exchange` (MoE dispatch and combine), or a phase
and the engine or framework that runs it, such as `serve/vllm`. What was never measured
is never certain: it has the errors of the most alike that was, and more.
"""

import math
from collections.abc import Callable

from ..machine.resolve import release
from ..machine.system import System, scale_up_devices
from .calibration_file import UNCALIBRATED, Calibration, ScaleSpec
from .degrees import devices_of
from .relatives import NAME as RELATIVES
from .relatives import WIDER
from .scenario_file import Scenario
from .system_load import load_system

STEP = "phase"
"""Level of whole steps of any phase and engine, in calibrations that know no more."""

FIRST = "first token"
"""Of whole serving runs, in place of their phase in a level."""

UNKNOWN = 0.3
"""Relative error where nothing alike was measured (whole serving runs on chips whose
engines no row spoke of were 37 % off in the median), and the least on a machine of which
no row exists. By what relatives and their own files say, without a fit to their rows,
machines were 17 % (950DT), 23 % (MI300X), 23 % (kernels of H20, whose file scales H100's
efficiencies) and 32 % (training on GB300) off in the median."""

RELEASES = 0.05
"""Between the releases of an engine, where a job doesn't say which it runs: 5 to 10 %
from one to the next."""


BEYOND = 0.32
"""Exponent with which errors grow beyond the scale-up systems that any row of a level
spanned, 25 % for each doubling: that of 420 runs on 1 to 64 nodes that no calibration saw
(0.32 +- 0.04: one laboratory's grid, of which 168 others were fitted)."""

LEAST = 0.04
"""Relative error that small jobs keep."""


def nodes_of(scenario: Scenario) -> float:
    """Scale-up systems that a job spans, at least one; of serving the largest pool."""
    if scenario.phase == "collective":
        count = scenario.collective.ranks or 1
    elif scenario.phase == "serve":
        count = max(devices_of(pool.layout) for pool in scenario.pools)
    else:
        count = devices_of(scenario.layout)
    return max(count / scale_up_devices(_system(scenario)), 1.0)


def grows(quantity: str) -> bool:
    """Whether a quantity feels the network: memory doesn't."""
    return not quantity.startswith("memory")


def level_of(scenario: Scenario, quantity: str) -> str:
    """The level whose discrepancy a prediction carries. Times to the first token of whole
    serving runs, which wait in queues, are one of their own."""
    if scenario.phase == "op":
        return "operator"
    if scenario.phase == "collective":
        exchange = scenario.collective.kind in ("dispatch", "combine")
        return "exchange" if exchange else "collective"
    waits = scenario.phase == "serve" and quantity == "ttft"
    runtime = _runtime(scenario, _system(scenario))
    return f"{FIRST if waits else scenario.phase}/{runtime}"


def _system(scenario: Scenario) -> System:
    return load_system(scenario.system).system


def _runtime(scenario: Scenario, system: System) -> str:
    """The engine or framework, with its release."""
    trains, version = scenario.phase == "train", scenario.engine_version
    runtimes = system.trainers if trains else system.engines
    name = scenario.engine or dict(system.defaults)["trainer" if trains else "engine"]
    if name not in runtimes or (trains and version is None):
        return name  # building the scenario says that it isn't there
    return release(runtimes, name, version or "")


def model_error(fitted: Calibration, scenario: Scenario, quantity: str) -> float:
    """Relative error of the model itself for a quantity of a scenario, of one sigma."""
    if fitted.name == UNCALIBRATED or scenario.phase == "system":
        return 0.0
    level = level_of(scenario, quantity)
    system = _system(scenario)
    runtimes = {**system.trainers, **system.engines}
    releases = {name: entry.release_of for name, entry in runtimes.items()}
    # what relatives say of a chip without a calibration is wider by itself
    unmeasured = fitted.name == RELATIVES
    error = _nearest(level, fitted.discrepancy, releases, 1.0 if unmeasured else WIDER)
    if level in fitted.scales and grows(quantity):
        error = _at_scale(error, fitted.scales[level], nodes_of(scenario))
    queues = level.startswith(FIRST) and level not in fitted.discrepancy
    if unmeasured or queues:
        error = max(error, UNKNOWN)
    unsaid = "/" in level and scenario.engine_version is None
    released = scenario.engine in releases.values()
    return math.hypot(error, RELEASES) if unsaid and released else error


def _at_scale(error: float, scale: ScaleSpec, nodes: float) -> float:
    """The error of a level, learned at its rows' mean scale, at another one."""
    within = min(nodes, scale.most)
    grown = (within / scale.nodes) ** scale.growth
    beyond = (nodes / within) ** max(scale.growth, BEYOND)
    return max(error * grown * beyond, min(error, LEAST))


def _nearest(
    level: str, known: dict[str, float], releases: dict[str, str], wider: float
) -> float:
    """The error of a level, or more than that of the most alike.

    Args:
        releases: what each engine of the system is a release of; empty for none.
        wider: how much more.
    """
    if level in known:
        return known[level]
    if "/" in level and STEP in known:
        return known[STEP]

    def engine_of(level: str) -> str:
        name = level.partition("/")[2]
        return releases.get(name) or name

    phase, engine = level.partition("/")[0], engine_of(level)
    if phase != FIRST:
        known = {k: error for k, error in known.items() if not k.startswith(FIRST)}
    alike: list[Callable[[str], bool]] = [
        lambda other: other.startswith(f"{phase}/") and engine_of(other) == engine,
        lambda other: "/" in other and engine_of(other) == engine,
        lambda other: other.startswith(f"{phase}/"),
    ]
    for same in alike if "/" in level else []:
        if errors := [error for other, error in known.items() if same(other)]:
            return wider * max(errors)
    return max(UNKNOWN, *known.values()) if known else UNKNOWN
