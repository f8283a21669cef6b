"""Optimize a scenario: the answer, how it was found, and how good it is proven to be."""

import math
import time
from typing import NamedTuple

from ..job.layout import AXES
from ..job.workload import Train
from ..specs.errors import SpecError
from ..specs.scenario_file import Scenario
from . import ways
from .ask import ask
from .bound import LARGEST, bound, degree_points
from .evaluator import Point, Scored, factor_of, gap
from .front import Front
from .question import Question
from .search import GRADIENT_COST, Search, search
from .serving import expert_slots, model_of
from .sweep import Sweep, exhaustive

METHODS = ("auto", "gradient", "enumerate")

ENUMERATED = 2_000_000
"""Points up to which `auto` enumerates: that takes a few seconds, less than compiling
the gradient, and its answer is exact."""


class Certificate(NamedTuple):
    """How good the answer is. Values are of the objective, in SI."""

    relaxed: float | None
    """Of the relaxed problem, at the end of the descent; no bound, as it isn't convex."""
    rounded: float | None
    """Best exact value of the rounded iterates, before refinement."""
    optimum: float | None
    """Of the exhaustive sweep."""
    bound: float | None
    """No layout is better, from an ideal network; None where the optimum is known."""
    gap: float | None
    """Relative distance of the search's answer from the optimum, or else the bound."""
    points: int
    """Points of the space."""
    evaluations: dict[str, int]
    """Model evaluations by what took them."""


class Answer(NamedTuple):
    """The best layout found."""

    question: Question
    method: str
    point: Point | None
    score: Scored | None
    certificate: Certificate
    front: Front
    seconds: float

    @property
    def feasible(self) -> bool:
        return self.score is not None and self.score.feasible

    @property
    def value(self) -> float | None:
        """The objective in SI."""
        return self.question.value(self.score.objective) if self.score else None

    @property
    def metrics(self) -> dict[str, float]:
        """Fields that the search looked at, in SI."""
        if self.score is None:
            return {}
        return {
            field: math.exp(value)
            for field, value in zip(self.question.fields, self.score.logs)
        }

    @property
    def changes(self) -> dict[str, object]:
        """Dotted keys that turn the scenario into the answer."""
        return {} if self.point is None else changes_of(self.question, self.point)

    @property
    def reasons(self) -> list[str]:
        """Why there is no feasible answer; empty where there is one."""
        if self.feasible:
            return []
        if self.score is None:
            return ["no whole layout of these devices is allowed by the model"]
        sure = self.certificate.optimum is None and self.certificate.bound is not None
        verdict = "none found" if sure or self.method == "gradient" else "there is none"
        asked = [f"{limit.quantity} {limit.value:g}" for limit in self.question.limits]
        limits = " and ".join(["memory", *asked])
        if self.score.worst in self.question.needs:
            # these hold or don't, so by how much says nothing
            lacked = self.question.needs[self.score.worst]
            return [f"no layout within {limits} that has {lacked}: {verdict}"]
        worst = math.exp(self.score.violation) - 1.0
        return [f"no layout within {limits}: {verdict}; the nearest is {worst:.1%} over"]

    def as_json(self) -> dict[str, object]:
        """The contract of `optimize --json`."""
        q = self.question
        return {
            "phase": q.problem.scenario.phase,
            "system": q.problem.system.name,
            "calibration": q.problem.calibration,
            "objective": q.objective,
            "maximized": q.maximizes,
            "limits": {limit.quantity: limit.value for limit in q.limits},
            "method": self.method,
            "feasible": self.feasible,
            "reason": "; ".join(self.reasons),
            "value": self.value,
            "metrics": self.metrics,
            "set": self.changes,
            "certificate": self.certificate._asdict(),
            "front": front_rows(self),
            "seconds": self.seconds,
        }


def front_rows(answer: Answer) -> dict[str, list[dict[str, object]]]:
    """The fronts of throughput against each cost, with the layouts."""
    first = answer.front.fields[0]
    return {
        cost: [
            {
                first: throughput,
                cost: value,
                "set": changes_of(answer.question, point),
            }
            for throughput, value, point in answer.front.table(cost)
        ]
        for cost in answer.front.entries
    }


def changes_of(question: Question, point: Point) -> dict[str, object]:
    """Dotted keys that turn the scenario into a point of its space; None unsets one."""
    space, family = question.space, question.families[point.family]
    factor = factor_of(point, len(space.frames[0].units)).astype(int)
    degrees = dict(zip(AXES, factor.prod(axis=1).tolist()))
    values = {
        setting.name: setting.values[level]
        for setting, level in zip(space.settings, point.levels)
    }
    extra = values.pop("extra_slots", 0.0)
    slots = expert_slots(
        model_of(question.problem), family, degrees["ep"], extra, sharpness=None
    )
    attention = family.attention
    if attention == "tp" and degrees["tp"] == 1:
        attention = "dp"
    split = {axis: row.tolist() for axis, row in zip(AXES, factor) if max(row) > 1}
    work = question.problem.workload
    layout = {
        "devices": space.frames[point.frame].devices,
        **degrees,
        "placement": split,
        "sequence_parallel": question.problem.placed.sequence_parallel,
        # those of the scenario belong to its own degrees
        "stages": None,
    }
    if isinstance(work, Train):
        again = values.pop("recompute_fraction")
        if not bool(work.selective.on):
            values["recompute"] = again
    else:
        layout |= {
            "attention": attention,
            "overlapped_microbatches": family.microbatches,
        }
        if attention != "dp":
            layout["head"] = None  # a tensor group has it
    changes = {f"workload.{name}": value for name, value in values.items()}
    changes |= {f"layout.{key}": value for key, value in layout.items()}
    changes |= ways.changes_of(family, degrees["pp"])
    experts = model_of(question.problem).experts
    if experts is not None and not isinstance(work, Train):
        redundant, shared = float(slots.redundant), float(slots.shared)
        held = float(experts.routed) + redundant + shared
        changes |= {
            "routing.redundant_experts": redundant,
            "routing.shared_replicas": shared,
            "routing.experts_per_device": held / degrees["ep"],
        }
    return changes


def optimize(
    scenario: Scenario,
    *,
    objective: str | None = None,
    limits: tuple[str, ...] = (),
    pinned: dict[str, int] | None = None,
    settings: dict[str, tuple] | None = None,
    devices: tuple[int, ...] = (),
    calibration: str | None = None,
    method: str = "auto",
    certify: bool | None = None,
    seed: int = 0,
) -> Answer:
    """Choose degrees, placement on the tiers, batch and experts of a job together.

    Args:
        scenario: from `load_scenario`; its own layout and batch are not used.
        method: `gradient`, `enumerate`, or `auto`, which enumerates small spaces.
        certify: compare with the exhaustive optimum even of a large space; False leaves
            any comparison out.
        seed: of the restarts.

    The other arguments are those of `ask`.

    Raises:
        SpecError: (a `ValueError`) the scenario or an option is wrong.
    """
    if method not in METHODS:
        raise SpecError([f"--method {method}: use one of {', '.join(METHODS)}"])
    start = time.perf_counter()
    question = ask(
        scenario,
        objective=objective,
        limits=limits,
        pinned=pinned,
        settings=settings,
        devices=devices,
        calibration=calibration,
    )
    points = question.points
    if method == "auto":
        method = "enumerate" if points <= ENUMERATED else "gradient"
    if method == "enumerate":
        if points > LARGEST and not certify:
            raise SpecError(
                [f"--method enumerate: {points:,} points; add --certify to sweep them"]
            )
        return _enumerated(question, points, start)
    result = search(question, seed)
    if certify is False:
        certificate = _certificate(question, result, points, None, bounded=False)
        return _answer(
            question, result.best, result.score, certificate, result.front, start
        )
    sweep = exhaustive(question) if certify or points <= LARGEST else None
    certificate = _certificate(question, result, points, sweep)
    if sweep is None:
        return _answer(
            question, result.best, result.score, certificate, result.front, start
        )
    # the sweep is exact, so its answer stands where the search missed it
    best, score = result.best, result.score
    if score is None or (sweep.score is not None and sweep.score.rank < score.rank):
        best, score = sweep.best, sweep.score
    return _answer(question, best, score, certificate, sweep.front, start)


def _answer(
    question: Question,
    point: Point | None,
    score: Scored | None,
    certificate: Certificate,
    front: Front,
    start: float,
) -> Answer:
    seconds = time.perf_counter() - start
    return Answer(question, "gradient", point, score, certificate, front, seconds)


def _enumerated(question: Question, points: int, start: float) -> Answer:
    sweep = exhaustive(question)
    feasible = sweep.score is not None and sweep.score.feasible
    value = question.value(sweep.score.objective) if feasible and sweep.score else None
    certificate = Certificate(
        None, None, value, None, 0.0, points, {"exhaustive": sweep.points}
    )
    answer = _answer(question, sweep.best, sweep.score, certificate, sweep.front, start)
    return answer._replace(method="enumerate")


def _certificate(
    question: Question,
    result: Search,
    points: int,
    sweep: Sweep | None,
    *,
    bounded: bool = True,
) -> Certificate:
    """Four numbers: relaxed, rounded, optimum or bound, gap."""
    evaluations = {
        "search_exact": result.exact,
        "search_gradients": result.gradients,
        "search_total": result.exact + GRADIENT_COST * result.gradients,
    }
    optimum = limit = reference = None
    if sweep is not None:
        evaluations["exhaustive"] = sweep.points
        if sweep.score is not None and sweep.score.feasible:
            reference = sweep.score.objective
            optimum = question.value(reference)
    elif bounded and degree_points(question) <= LARGEST:
        proven = bound(question)
        evaluations["bound"] = proven.points
        if proven.score is not None:
            reference = proven.score
            limit = question.value(reference)
    score = result.score
    beyond = None
    if score is not None and score.feasible and reference is not None:
        beyond = gap(score, reference)
    return Certificate(
        relaxed=None if result.relaxed is None else question.value(result.relaxed),
        rounded=question.value(result.rounded.objective)
        if result.rounded is not None and result.rounded.feasible
        else None,
        optimum=optimum,
        bound=limit,
        gap=beyond,
        points=points,
        evaluations=evaluations,
    )
