"""A machine split into pools, and how good the split is."""

from typing import NamedTuple

import numpy as np

from ..serve.metrics import ServeMetrics
from ..specs.build import Problem
from ..specs.scenario_file import ServeScenario

WAITING = {"expert", "encode"}
"""Roles of pools on whose size the rate of others depends."""


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
    share: dict[str, float]
    """Best share of the devices by role, relaxed."""
    relaxed_requests_per_s: float
    rounded: Split
    """Best of the whole splits next to the relaxed one."""
    best: Split
    """Of all splits."""
    splits: list[Split]
    evaluations: dict[str, int]
    """Model evaluations by what took them."""
    metrics: ServeMetrics
    """Of phase `serve`, at the best split."""

    @property
    def gap(self) -> float:
        """What whole instances cost."""
        return 1.0 - self.best.requests_per_s / self.relaxed_requests_per_s

    @property
    def climbed(self) -> bool:
        """Whether pools wait for each other, so that the split isn't a closed form."""
        return bool(WAITING & self.share.keys())

    @property
    def rounding_gap(self) -> float:
        """What the rounded split loses against the best one."""
        return 1.0 - self.rounded.requests_per_s / self.best.requests_per_s

    @property
    def idle_devices(self) -> int:
        return self.devices - sum(self.best.devices.values())

    @property
    def changes(self) -> dict[str, int]:
        """Dotted keys that turn the scenario into the best split."""
        given = self.problem.scenario
        assert isinstance(given, ServeScenario)
        roles = [pool.role for pool in given.pools]
        return {
            f"pools.{roles.index(role)}.devices": count
            for role, count in self.best.devices.items()
        }

    @property
    def scenario(self) -> ServeScenario:
        """The scenario with the best split."""
        given = self.problem.scenario
        assert isinstance(given, ServeScenario)
        pools = [
            pool.model_copy(
                update={"devices": self.best.devices.get(pool.role, pool.devices)}
            )
            for pool in given.pools
        ]
        return given.model_copy(update={"pools": pools})

    def as_json(self) -> dict[str, object]:
        """The contract of `optimize --json` for phase `serve`."""
        return {
            "phase": "serve",
            "system": self.problem.system.name,
            "calibration": self.problem.calibration,
            "objective": "request_capacity_rate",
            "maximized": True,
            "method": "gradient, and every split"
            if self.climbed
            else "closed form, and every split",
            "feasible": True,
            "reason": "",
            "value": self.best.requests_per_s,
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
                "gap": self.rounding_gap,
                "points": len(self.splits),
                "evaluations": self.evaluations,
            },
            "splits": [split._asdict() for split in self.splits],
            "idle_devices": self.idle_devices,
        }
