"""Optimize a scenario: the answer, how it was found, and how good it is proven to be."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ..specs.errors import SpecError
from ..specs.scenario import load_scenario
from ..specs.scenario_file import Scenario
from .cells import Points, together
from .changes import changes_of
from .claims import lacking, none_at_all, space_of
from .front import Front
from .gradient import descend_and_refine
from .job import Job, job_of
from .price import GRADIENT_COST
from .search import MOST_ROWS, Search
from .spread import sigmas_of
from .trade_off import TradeOff, trade_off

METHODS = ("auto", "gradient", "enumerate")
PROVEN = 2e-4
"""Gap up to which an answer counts as the optimum: what the search tells apart."""


class Certificate(NamedTuple):
    """How good the answer is. Values are of the objective, in SI."""

    relaxed: float | None
    """Of the relaxed problem, at the end of the descent; no bound, as it isn't convex."""
    rounded: float | None
    """Best exact value of the rounded iterates, before refinement."""
    refined: float | None
    """Best exact value of the descent after refinement."""
    optimum: float | None
    """The answer's value where none is better by more than the search tells apart."""
    bound: float | None
    """No layout of the space is better; None where it wasn't looked for."""
    gap: float | None
    """Relative distance of the answer from the bound."""
    points: int
    """Points of the space."""
    evaluations: dict[str, int]
    """Model evaluations by what took them."""
    space: str
    """What the claim covers, in a sentence."""
    checked: int
    """Points drawn from what was dropped, to see whether a bound holds."""
    slack: float
    """By how much the worst of them was better than its bound; it is in the gap."""


@dataclass(frozen=True, eq=False)
class Answer:
    """The best layout found."""

    job: Job
    search: Search
    method: str
    point: Points | None
    """A single row; the nearest where none is feasible."""
    certificate: Certificate
    trade_offs: tuple[TradeOff, ...]
    """Of the objective against each other one, with a proof."""
    seconds: float

    @property
    def front(self) -> Front:
        """Of the points that were priced on the way."""
        return self.search.front

    @property
    def feasible(self) -> bool:
        return math.isfinite(self.search.score)

    @property
    def metrics(self) -> dict[str, float]:
        """Fields that the search looked at, in SI."""
        logs = [] if self.point is None else self.point.logs[0].tolist()
        return {f: math.exp(x) for f, x in zip(self.job.objective.fields, logs)}

    @property
    def value(self) -> float | None:
        """The objective in SI."""
        return self.metrics.get(self.job.objective.field)

    @property
    def changes(self) -> dict[str, object]:
        """Dotted keys that turn the scenario into the answer."""
        return {} if self.point is None else self.changes_of(self.point)

    def changes_of(self, point: Points) -> dict[str, object]:
        return changes_of(self.search.bounds, point)

    @cached_property
    def sigmas(self) -> dict[bytes, dict[str, float]]:
        """Relative one sigma of the fields looked at, by `Points.key`: of the answer, the
        fronts and the trade-offs. Empty where none is feasible."""
        if not self.feasible or self.point is None:
            return {}
        parts = [self.point, *self.front.points.values()]
        parts += [step.point for trade in self.trade_offs for step in trade.steps]
        every = together(parts)
        rows = [every.take(np.array([i])) for i in range(len(every.score))]
        points = {row.key: row for row in rows}
        return dict(zip(points, sigmas_of(self.search.bounds, [*points.values()])))

    def sigma(self, point: Points, field: str) -> float:
        """Relative one sigma of a field at one of the points found."""
        return self.sigmas.get(point.key, {}).get(field, 0.0)

    @property
    def reasons(self) -> list[str]:
        """Why there is no feasible answer; empty where there is one."""
        if self.feasible:
            return []
        if self.point is None:
            return [none_at_all(self.search)]
        limits = self.job.objective.limits
        within = ["memory", *(f"{limit.quantity} {limit.value:g}" for limit in limits)]
        sure = self.method != "gradient" and self.certificate.bound is None
        said = f"no layout within {' and '.join(within)}"
        said += f": {'there is none' if sure else 'none found'}"
        return [f"{said}; {lacking(self.job, self.point)}"]

    def as_json(self) -> dict[str, object]:
        """The contract of `optimize --json`."""
        problem, objective = self.job.problem, self.job.objective
        return {
            "phase": problem.scenario.phase,
            "system": problem.system.name,
            "calibration": problem.calibration,
            **({"warnings": told} if (told := problem.warnings) else {}),
            "objective": objective.quantity,
            "maximized": objective.maximizes,
            "limits": {limit.quantity: limit.value for limit in objective.limits},
            "method": self.method,
            "feasible": self.feasible,
            "reason": "; ".join(self.reasons),
            "value": self.value,
            "metrics": self.metrics,
            "sigma": {} if self.point is None else self.sigmas.get(self.point.key, {}),
            "set": self.changes,
            "certificate": self.certificate._asdict(),
            "front": {cost: self._front(cost) for cost in self.front.fields[1:]},
            "trade_offs": {t.other: self._steps(t) for t in self.trade_offs},
            "seconds": self.seconds,
        }

    def _front(self, cost: str) -> list[dict[str, object]]:
        """The front of throughput against a cost, with the layouts."""
        rate = self.front.fields[0]
        return [
            {rate: high, cost: low, **self._row(point, {rate: rate, cost: cost})}
            for high, low, point in self.front.table(cost)
        ]

    def _steps(self, trade: TradeOff) -> list[dict[str, object]]:
        """The best of a quantity under each limit on the other, with its bound."""
        fields = {name: self.job.field(name) for name in (trade.first, trade.other)}
        return [
            {
                "limit": step.limit,
                trade.first: step.value,
                trade.other: step.other,
                "bound": step.bound,
                "gap": step.gap,
                **self._row(step.point, fields),
            }
            for step in trade.steps
        ]

    def _row(self, point: Points, fields: dict[str, str]) -> dict[str, object]:
        sigma = {name: self.sigma(point, field) for name, field in fields.items()}
        return {"sigma": sigma, "set": self.changes_of(point)}


def optimize(
    scenario: Scenario | str | Mapping[str, object],
    *,
    objective: str | tuple[str, ...] | None = None,
    limits: str | tuple[str, ...] = (),
    pinned: Mapping[str, int | float | str] | None = None,
    settings: Mapping[str, tuple] | None = None,
    devices: tuple[int, ...] = (),
    calibration: str | None = None,
    method: str = "auto",
    certify: bool | None = None,
    seed: int = 0,
) -> Answer:
    """Choose degrees, their placement and all settings of a job together.

    Args:
        scenario: from `load_scenario`, or what that takes; its own layout and batch are
            not used.
        objective: a quantity; rates are maximized, all else minimized. Of several the
            first is made best, and traded against each other one with a proof.
        limits: such as `tpot=50ms`; rates are bounded from below.
        pinned: degrees and settings that are not free, by name.
        settings: values of a setting to choose from, by name.
        devices: numbers of devices to choose from; the scenario's if empty.
        calibration: as in `build`.
        method: `auto` and `enumerate` search everything with a proof; `gradient`
            descends, rounds and refines, and shows the proven optimum beside.
        certify: True for a proof whatever it takes; False leaves it out of `gradient`.
        seed: of the starts of a descent, and of what is checked.

    Raises:
        SpecError: (a `ValueError`) the scenario or an option is wrong.
    """
    if method not in METHODS:
        raise SpecError([f"--method {method}: use one of {', '.join(METHODS)}"])
    start = time.perf_counter()
    if isinstance(scenario, str | Mapping):
        scenario = load_scenario(scenario)
    wanted = (objective,) if isinstance(objective, str) else objective or ()
    job = job_of(
        scenario,
        objectives=wanted,
        limits=(limits,) if isinstance(limits, str) else limits,
        pinned=pinned,
        settings=settings,
        devices=devices,
        calibration=calibration,
    )
    search = Search(job, seed=seed)
    price, descended, evaluations = search.bounds.price, None, {}
    if method == "gradient":
        descended = descend_and_refine(search, seed)
        evaluations = {
            "search_exact": price.rows,
            "search_gradients": descended.gradients,
            "search_placements": descended.placements,
            "search_total": price.rows + GRADIENT_COST * descended.gradients,
        }
    before, refined = price.rows, search.score
    most = math.inf if certify else MOST_ROWS
    if method != "gradient" or certify is not False:
        search.run(most)
        evaluations["exhaustive"] = price.rows - before
    trades = tuple(trade_off(search, other, most) for other in wanted[1:])
    if trades:
        evaluations["trade_offs"] = sum(trade.evaluations for trade in trades)
    gap = None
    if math.isfinite(search.score) and search.bound is not None:
        gap = max(0.0, math.expm1(search.score - search.bound))

    def value(score: float | None) -> float | None:
        if score is None or not math.isfinite(score):
            return None
        return job.objective.value(score)

    proof = Certificate(
        relaxed=value(descended and descended.relaxed),
        rounded=value(descended and descended.rounded),
        refined=value(descended and refined),
        optimum=value(search.score) if gap is not None and gap <= PROVEN else None,
        bound=value(search.bound),
        gap=gap,
        points=search.layouts.count(search.batches),
        evaluations=evaluations,
        space=space_of(job),
        checked=search.checked,
        slack=search.slack,
    )
    seconds = time.perf_counter() - start
    return Answer(job, search, method, search.best, proof, trades, seconds)
