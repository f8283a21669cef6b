"""Fleets of several machines for one load, side by side."""

import math
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ..answers.uncertainty import probability_above
from ..specs.errors import SpecError
from ..specs.mix_file import load_mix
from ..specs.resolved import resolved
from ..specs.scenario_file import LayoutSpec
from ..specs.trace_file import Trace, load_trace
from .fleet import ENOUGH, REPAIR_S, Fleet, fleet_of
from .load import classes_on, mix_of
from .replay import Replayed, replay


class Against(NamedTuple):
    """A fleet beside the cheapest one."""

    package_hour_usd: float
    """Price of a package at which it costs as much."""
    cheaper: float
    """Probability that it costs less, by the error bars of both prices and of what both
    serve, as if these were independent."""


class Plan(NamedTuple):
    """Fleets for a load, from the fewest packages on; those that can't take it last."""

    fleets: list[Fleet]
    requests_per_s: float
    """That are planned for, with growth."""
    growth: float
    confidence: float | None
    available: float
    repair_s: float

    @property
    def feasible(self) -> bool:
        return any(fleet.feasible for fleet in self.fleets)

    @property
    def cheapest(self) -> Fleet | None:
        """Least cost an hour of those whose price is known."""
        priced = [f for f in self.fleets if f.feasible and f.usd_per_hour is not None]
        return min(priced, key=lambda f: f.usd_per_hour or math.inf, default=None)

    def against(self, fleet: Fleet) -> "Against | None":
        """A fleet beside the cheapest one; None for that itself, or without prices."""
        best = self.cheapest
        if best is None or best is fleet or not fleet.feasible:
            return None
        if fleet.usd_per_hour is None or best.usd_per_hour is None:
            return None
        sigma = math.hypot(
            *(x for f in (fleet, best) for x in (f.usd_sigma, f.capacity_sigma))
        )
        return Against(
            best.usd_per_hour / fleet.all_packages,
            probability_above(math.log(best.usd_per_hour / fleet.usd_per_hour), sigma),
        )

    @property
    def reasons(self) -> list[str]:
        """Why nothing takes the load."""
        if self.feasible:
            return []
        return [f"{f.name}: {reason}" for f in self.fleets for reason in f.reasons]

    def as_json(self) -> dict[str, object]:
        """The contract of `plan --json`."""
        cheapest = self.cheapest
        return {
            "feasible": self.feasible,
            "reason": "; ".join(self.reasons),
            "requests_per_s": self.requests_per_s,
            "growth": self.growth,
            "confidence": self.confidence,
            "available": self.available,
            "repair_s": self.repair_s,
            "fewest": self.fleets[0].name if self.feasible else None,
            "cheapest": None if cheapest is None else cheapest.name,
            "fleets": [_fleet_json(f, self.against(f)) for f in self.fleets],
        }


def _fleet_json(fleet: Fleet, against: Against | None) -> dict[str, object]:
    sized = fleet.sized
    usd = {
        "usd_per_hour": fleet.usd_per_hour,
        "usd_per_token": fleet.usd_per_token,
    }
    return {
        "scenario": fleet.name,
        "system": fleet.problem.system.name,
        "calibration": fleet.problem.calibration,
        "feasible": fleet.feasible,
        "reason": "; ".join(fleet.reasons),
        "instances": sized.instances,
        "instance_devices": sized.devices,
        "layouts": {role: _layout_json(x) for role, x in fleet.laid.chosen.items()},
        "layouts_changed": fleet.laid.changed,
        "covers": fleet.laid.covers,
        "load": sized.load,
        "packages": fleet.packages,
        "spare_packages": fleet.spare_packages,
        "hosts_down": fleet.hosts_down,
        "sufficient": fleet.sufficient,
        "capacity_sigma": fleet.capacity_sigma,
        "surer": fleet.unsure,
        "tokens_per_s": fleet.tokens_per_s,
        **usd,
        "break_even_package_hour_usd": against and against.package_hour_usd,
        "cheaper_than_cheapest": against and against.cheaper,
        "energy_per_token_j": fleet.energy_per_token_j,
        "sigma": {name: fleet.usd_sigma for name, value in usd.items() if value},
        "classes": {
            name: {"values": seen.values, "sigma": seen.sigma}
            for name, seen in fleet.classes.items()
        },
        "replayed": None if fleet.replayed is None else fleet.replayed._asdict(),
        "warnings": fleet.problem.warnings,
        "job": resolved(fleet.problem),
    }


def _layout_json(layout: LayoutSpec) -> dict[str, object]:
    """What a layout says, as in a scenario."""
    return layout.model_dump(mode="json", exclude_none=True, exclude_defaults=True)


def _replayed(trace: Trace, of: np.ndarray, fleet: Fleet) -> Replayed | None:
    """A trace on a fleet that takes its load with a pool for prompts."""
    if not fleet.feasible or "prefill" not in fleet.sized.instances:
        return None
    return replay(trace, fleet.laid.classes, of, fleet.sized)


LAYOUTS = ("search", "given")

FREE = ("tp", "dp", "pp", "etp", "ep", "edp")
"""Degrees that are searched."""


def _degree_mistakes(pinned: Mapping[str, int]) -> list[str]:
    return [
        f"--pin {axis}={degree}: pin whole numbers from 1 of {', '.join(FREE)}"
        for axis, degree in pinned.items()
        if axis not in FREE or degree < 1
    ]


def plan(
    names: list[str],
    *,
    per_s: float | None = None,
    mix: str | None = None,
    trace: str | None = None,
    layouts: str = "search",
    pinned: Mapping[str, int] | None = None,
    growth: float = 1.0,
    confidence: float | None = None,
    available: float = ENOUGH,
    repair_s: float = REPAIR_S,
    changes: Mapping[str, object] | None = None,
    calibration: str | None = None,
    replays: bool = True,
) -> Plan:
    """How many packages of each machine take a load of requests within their limits.

    Args:
        names: scenarios of phase `serve`, one for each machine: what its pools do stays,
            how their instances are laid out and how many there are is found.
        per_s: requests a second of all classes together; as the mix or the scenario says
            if left out.
        mix: path of a file of classes of requests.
        trace: path of a trace of requests instead; the fleets are judged by replaying it,
            with its gaps shortened to the rate that is planned for.
        layouts: `search` to lay instances out anew, `given` to keep them as the scenario
            has them.
        pinned: degrees of layouts that are searched, by axis, such as `{"pp": 1}`.
        growth: factor of all rates.
        confidence: probability with which every pool must take the load by its error bar.
        available: probability with which as many hosts must work as are needed.
        repair_s: from a failure to a repaired host.
        changes: dotted keys that hold for all scenarios.
        calibration: as in `build`.
        replays: judge the fleets by replaying the trace.

    Raises:
        SpecError: (a `ValueError`) a scenario, the mix or a number is wrong.
    """
    if not names:
        raise SpecError(["plan: name at least one scenario of phase 'serve'"])
    spec = None if mix is None else load_mix(mix)
    arrived, of = None, None
    if trace is not None:
        arrived = load_trace(trace)
        spec, of = mix_of(arrived)
    mistakes = _degree_mistakes(pinned or {})
    if layouts not in LAYOUTS:
        mistakes.append(f"layouts: {layouts!r}: use {' or '.join(LAYOUTS)}")
    mistakes += [
        f"{name}: {value:g}: use a probability above 0 and below 1"
        for name, value in (("confidence", confidence), ("available", available))
        if value is not None and not 0.0 < value < 1.0
    ]
    if not (growth > 0.0 and math.isfinite(growth)):
        mistakes.append(f"growth: {growth:g}: use a factor above 0")
    if mistakes:
        raise SpecError(mistakes)
    every = {
        name: classes_on(
            name,
            spec,
            per_s=per_s,
            growth=growth,
            changes=changes,
            calibration=calibration,
        )
        for name in dict.fromkeys(names)
    }
    planned = partial(
        fleet_of,
        searches=layouts == "search",
        pinned=pinned,
        growth=growth,
        confidence=confidence,
        available=available,
        repair_s=repair_s,
    )
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        fleets = list(threads.map(planned, every.keys(), every.values()))
    total = sum(c.per_s for c in next(iter(every.values())))
    if replays and arrived is not None and of is not None:
        arrived = arrived._replace(arrival_s=arrived.arrival_s * arrived.per_s / total)
        fleets = [
            fleet._replace(replayed=_replayed(arrived, of, fleet)) for fleet in fleets
        ]
    fleets.sort(key=lambda f: (not f.feasible, f.all_packages))
    return Plan(fleets, total, growth, confidence, available, repair_s)


SHARES = (0.1, 0.15, 0.2, 0.3, 0.45, 0.7, 1.0, 1.4, 2.0, 3.0)
"""Rates of a picture, as shares of the one that is planned for."""


def over_rates(found: Plan, names: list[str], **asked: Any) -> list[Plan]:
    """Plans of the same machines from a tenth to three times the rate, one to two seconds
    for each machine and rate.

    Args:
        found: the plan for the rate itself.
        names: as `plan` takes them, and what else it was asked for.
    """
    today = found.requests_per_s / found.growth
    rest = {key: value for key, value in asked.items() if key != "per_s"}
    return [plan(names, per_s=x * today, replays=False, **rest) for x in SHARES]
