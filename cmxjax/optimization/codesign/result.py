"""What a co-design found."""

import math
from typing import NamedTuple

from ...specs.budget_file import BudgetSpec
from .certificate import Certificate
from .workloads import Job


class Run(NamedTuple):
    """One workload on one machine, exactly."""

    metric: float
    """In SI; a token rate is of the whole system."""
    batch: float | None
    """Mean batch of a device; None where the scenario's is kept."""
    whole: tuple[float, float] | None
    """Best metric and batch over the whole batches; None where none fits."""
    limits: dict[str, float]
    """What is used over what is allowed, of limits and memory."""


class Design(NamedTuple):
    """A machine for one budget."""

    budget: float
    cost: float
    multipliers: dict[str, float]
    values: dict[str, float]
    """Every leaf that moves, in SI."""
    spent: dict[str, float]
    """On each item."""
    shares: dict[str, float]
    """d ln cost / d ln multiplier of each resource."""
    runs: list[Run]
    mean: float
    """Weighted mean of the logs of the metrics, exact."""
    reasons: list[str]
    relaxed: float | None = None
    """The mean of the relaxed problem, where its best ascent ended."""
    certificate: Certificate | None = None
    best_exchange: float = 0.0

    @property
    def feasible(self) -> bool:
        return not self.reasons

    def as_json(self) -> dict[str, object]:
        """JSON has no NaN."""
        fields: dict[str, object] = {**self._asdict(), "feasible": self.feasible}
        fields["runs"] = [run._asdict() for run in self.runs]
        if (c := self.certificate) is not None:
            told: dict[str, object] = c._asdict()
            del told["marginal"]
            gains = [None if math.isnan(m) else m for m in c.marginal.tolist()]
            told |= {"elasticities": c.elasticities.tolist(), "marginal_gain": gains}
            fields["certificate"] = told
        return fields


class Codesign(NamedTuple):
    """The best machine, the one there is, and the path over budgets."""

    spec: BudgetSpec
    leaves: dict[str, list[str]]
    """That each resource moves."""
    jobs: list[Job]
    now: Design
    """The machine as it is, batches adjusted to the limits."""
    best: Design
    path: list[Design]
    """By budget; the one asked for is among them."""
    gradients: int
    machines: int
    """Exact evaluations of a machine, each with its batches searched."""
    seconds: float

    @property
    def gain(self) -> float | None:
        """Of the mix over the machine as it is; None where either can't run."""
        if not (self.now.feasible and self.best.feasible):
            return None
        return math.exp(self.best.mean - self.now.mean)

    @property
    def warnings(self) -> list[str]:
        """What to know of the machine, which all workloads share."""
        return self.jobs[0].problem.warnings

    def as_json(self) -> dict[str, object]:
        """The contract of `optimize --budget --json`."""
        return {
            "budget_file": self.spec.title,
            "system": self.spec.system,
            "calibration": [job.problem.calibration for job in self.jobs],
            **({"warnings": self.warnings} if self.warnings else {}),
            "workloads": [
                {
                    "phase": job.share.scenario.phase,
                    "objective": job.objective,
                    "weight": job.weight,
                    "limits": list(job.share.limits),
                }
                for job in self.jobs
            ],
            "feasible": self.best.feasible,
            "reason": "; ".join(self.best.reasons),
            "gain": self.gain,
            "now": self.now.as_json(),
            "best": self.best.as_json(),
            "path": [design.as_json() for design in self.path],
            "evaluations": {"gradients": self.gradients, "machines": self.machines},
            "seconds": self.seconds,
        }
