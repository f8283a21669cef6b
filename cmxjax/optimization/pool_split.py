"""A machine split into pools, and how good the split is."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ..serve.metrics import ServeMetrics
from ..specs.build import Problem
from ..specs.scenario_file import ServeScenario


def with_devices(scenario: ServeScenario, devices: Mapping[str, int]) -> ServeScenario:
    """A scenario with other numbers of devices of some pools, by role."""
    pools = [
        pool.model_copy(update={"devices": devices.get(pool.role, pool.devices)})
        for pool in scenario.pools
    ]
    return scenario.model_copy(update={"pools": pools})


class Split(NamedTuple):
    """A machine split into whole instances."""

    instances: dict[str, int]
    devices: dict[str, int]
    requests_per_s: float
    """Most that can be served within the limits."""


class PoolSplit(NamedTuple):
    """The best split and how good it is."""

    problem: Problem
    devices: int
    """That may be used."""
    fewest: bool
    """Whether the best split has the fewest devices, not the highest rate."""
    share: dict[str, float]
    """Best share of the devices by role, relaxed; empty where nothing is served."""
    relaxed_requests_per_s: float
    climbed: bool
    """Whether pools wait for each other, so that the relaxed split has no closed form."""
    rounded: Split
    """Best of the whole splits next to the relaxed one."""
    best: Split
    """Of all splits; where nothing is feasible, the nearest to it."""
    splits: list[Split]
    """That were tried."""
    complete: bool
    """Whether these are all."""
    evaluations: dict[str, int]
    """Model evaluations by what took them."""
    metrics: ServeMetrics
    """Of phase `serve`, at the best split."""
    reasons: list[str]
    """What the best split lacks; empty where it serves what is asked."""

    @property
    def feasible(self) -> bool:
        return not self.reasons

    @property
    def requested_requests_per_s(self) -> float | None:
        """Rate that the scenario asks for; None in a closed loop."""
        asked = self.problem.workload.requests_per_s  # pyright: ignore
        return None if asked is None else float(asked)

    @property
    def rate_met(self) -> bool | None:
        """Whether the best split serves it within the limits."""
        asked = self.requested_requests_per_s
        return None if asked is None else self.best.requests_per_s >= asked * (1 - 1e-9)

    @property
    def gap(self) -> float:
        """What whole instances cost."""
        return 1.0 - self.best.requests_per_s / max(self.relaxed_requests_per_s, 1e-300)

    @property
    def rounding_gap(self) -> float:
        """What the rounded split loses against the best one."""
        return 1.0 - self.rounded.requests_per_s / max(self.best.requests_per_s, 1e-300)

    @property
    def bound(self) -> float | None:
        """Rate that no split beats; None where not all were tried and none is known."""
        if self.complete:
            return max(split.requests_per_s for split in self.splits)
        return None if self.climbed else self.relaxed_requests_per_s

    @property
    def covers(self) -> str:
        """The space that the claim is about, in one sentence."""
        tried = f"all {len(self.splits):,} splits"
        if not self.complete:
            tried = f"{len(self.splits):,} splits near the relaxed one, not all"
        sizes = [
            f"{role} on {self.best.devices[role] // count}"
            for role, count in self.best.instances.items()
        ]
        return (
            f"{tried} of {self.devices} devices into whole instances, {', '.join(sizes)}"
            " devices each, whose layouts stay as the scenario gives them"
        )

    @property
    def idle_devices(self) -> int:
        return self.devices - sum(self.best.devices.values())

    @property
    def changes(self) -> dict[str, int]:
        """Dotted keys that turn the scenario into the best split."""
        roles = [pool.role for pool in self._given.pools]
        return {
            f"pools.{roles.index(role)}.devices": count
            for role, count in self.best.devices.items()
        }

    @property
    def scenario(self) -> ServeScenario:
        """The scenario with the best split."""
        return with_devices(self._given, self.best.devices)

    @property
    def _given(self) -> ServeScenario:
        given = self.problem.scenario
        assert isinstance(given, ServeScenario)
        return given

    def as_json(self) -> dict[str, object]:
        """The contract of `optimize --json` for phase `serve`."""
        used, tried = sum(self.best.devices.values()), "every split"
        relaxed = "gradient" if self.climbed else "closed form"
        return {
            "phase": "serve",
            "system": self.problem.system.name,
            "calibration": self.problem.calibration,
            **({"warnings": told} if (told := self.problem.warnings) else {}),
            "objective": "devices" if self.fewest else "request_capacity_rate",
            "maximized": not self.fewest,
            "method": f"{relaxed}, and {tried if self.complete else 'splits near it'}",
            "feasible": self.feasible,
            "reason": "; ".join(self.reasons),
            "value": used if self.fewest else self.best.requests_per_s,
            "requested_requests_per_s": self.requested_requests_per_s,
            "request_rate_met": self.rate_met,
            "metrics": {
                name: float(value)
                for name, value in vars(self.metrics).items()
                if isinstance(value, np.ndarray | np.floating)
            },
            "set": self.changes,
            "certificate": {
                "relaxed": self.relaxed_requests_per_s,
                "relaxed_share": self.share,
                "rounded": self.rounded.requests_per_s,
                "optimum": self.best.requests_per_s,
                "bound": self.bound,
                "gap": self.rounding_gap if self.complete and self.share else None,
                "covers": self.covers,
                "points": len(self.splits),
                "evaluations": self.evaluations,
            },
            "splits": [split._asdict() for split in self.splits],
            "idle_devices": self.idle_devices,
        }
