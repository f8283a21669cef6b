r"""Which measurement next: the one that narrows a chosen prediction most.

A measurement with slopes h and variance s^2 turns a covariance C into

$$ C' = C - \frac{C h\, h^\top C}{h^\top C h + s^2} $$

so its worth for a prediction with slopes g is known before it is made. C holds the
fitted parameters' posterior and, for what was not fitted, the priors.
"""

import math
from typing import NamedTuple

import numpy as np
from pydantic import Field, ValidationError

from ..answers.batch import Outcome, evaluate, loose
from ..answers.sensitivity import quantity_field
from ..quantities import field_of
from ..specs.build import Problem, build
from ..specs.discrepancy import model_error
from ..specs.errors import SpecError, explain
from ..specs.figures import Positive, Strict, Text
from ..specs.files import load
from ..specs.resolved import resolved
from ..specs.scenario import validate_scenario, with_overrides
from ..specs.scenario_file import Scenario


class CandidateSpec(Strict):
    """A measurement that could be made."""

    id: Text
    scenario: Text
    set: dict[str, object] = {}
    quantity: Text
    relative_sigma: Positive = 0.03
    note: Text | None = None


class PlanSpec(Strict):
    """A list of measurements that could be made."""

    scenarios: dict[str, dict[str, object]] = Field(min_length=1)
    candidates: list[CandidateSpec] = Field(min_length=1)


class Choice(NamedTuple):
    """What one measurement is worth."""

    id: str
    quantity: str
    note: str
    sigma: float
    """Relative sigma of the prediction once it is made."""
    expected: float
    """What the model expects of the measurement, in SI."""


class Plan(NamedTuple):
    """Candidates by their worth for one prediction."""

    problem: Problem
    quantity: str
    value: float
    sigma: float
    """Relative sigma of the prediction now."""
    floor: float
    """Part of it that no measurement of parameters narrows: the model's discrepancy."""
    choices: list[Choice]

    def as_json(self) -> dict[str, object]:
        return {
            "quantity": self.quantity,
            "value": self.value,
            "calibration": self.problem.calibration,
            "relative_sigma": self.sigma,
            "discrepancy": self.floor,
            "candidates": [
                {
                    "id": c.id,
                    "quantity": c.quantity,
                    "expected": c.expected,
                    "relative_sigma_after": c.sigma,
                }
                for c in self.choices
            ],
            "job": resolved(self.problem),
        }


def load_plan(name: str) -> list[tuple[CandidateSpec, Scenario]]:
    """Candidates of a shipped plan or of a user's file.

    Raises:
        SpecError: with every mistake of the file.
    """
    raw, where = load("plans", name)
    try:
        plan = PlanSpec.model_validate(raw)
    except ValidationError as error:
        raise SpecError(explain(error, where, PlanSpec)) from None
    candidates, mistakes = [], []
    for c in plan.candidates:
        label = f"{where}: candidates[{c.id}]"
        if c.scenario not in plan.scenarios:
            options = ", ".join(plan.scenarios)
            mistakes.append(f"{label}: scenario = {c.scenario!r}: use one of {options}")
            continue
        try:
            changed = with_overrides(plan.scenarios[c.scenario], c.set, label)
            scenario = validate_scenario(changed, label)
            field_of(c.quantity, "attention", scenario.phase)
            candidates.append((c, scenario))
        except SpecError as error:
            mistakes += error.mistakes
        except ValueError as error:
            mistakes.append(f"{label}: {error}")
    if mistakes:
        raise SpecError(mistakes)
    return candidates


def _slopes(
    problem: Problem, outcome: Outcome, field: str
) -> tuple[float, dict[str, float]]:
    value = float(getattr(outcome.metrics, field))
    if not (math.isfinite(value) and value > 0.0):
        raise ArithmeticError(
            f"{field} is {value}; check the scenario for extreme values"
        )
    slopes = outcome.slopes or {}
    return value, {p: float(getattr(m, field)) / value for p, m in slopes.items()}


class _Space(NamedTuple):
    """Fitted parameters, then loose leaves with their priors."""

    groups: list[tuple[str, ...]]
    covariance: np.ndarray

    def along(self, slopes: dict[str, float]) -> np.ndarray:
        return np.array([sum(slopes.get(p, 0.0) for p in g) for g in self.groups])


def _space(problem: Problem) -> _Space:
    fitted, priors = problem.fitted, loose(problem)
    count = len(fitted.parameters)
    covariance = np.zeros((count + len(priors), count + len(priors)))
    if count:
        covariance[:count, :count] = np.array(fitted.covariance)
    covariance[count:, count:] = np.diag(np.square(list(priors.values())))
    groups = [tuple(p.leaves) for p in fitted.parameters.values()]
    return _Space([*groups, *((path,) for path in priors)], covariance)


def plan_measurements(
    scenario: Scenario,
    candidates: str,
    quantity: str | None = None,
    calibration: str | None = None,
) -> Plan:
    """Rank candidate measurements by how much each narrows a prediction.

    Args:
        scenario: the prediction that matters.
        candidates: a shipped plan's name or a path.
        quantity: of the scenario; None for the phase's usual one.
        calibration: a calibration's name, "none", or None for what ships.

    Raises:
        SpecError: (a `ValueError`) a file is wrong, or the candidates are of another
            system.
        ArithmeticError: a prediction is not finite.
    """
    name, field = quantity_field(quantity, scenario)
    options = load_plan(candidates)
    problem = build(scenario, calibration)
    others = [build(s, calibration, f"{candidates}: {c.id}") for c, s in options]
    foreign = sorted({o.system.name for o in others} - {problem.system.name})
    if foreign:
        raise SpecError(
            [
                f"{candidates}: measures {', '.join(foreign)}, the scenario is of"
                f" {problem.system.name}; name candidates on the scenario's system"
            ]
        )
    outcomes = evaluate([problem, *others], with_slopes=True)
    value, slopes = _slopes(problem, outcomes[0], field)
    space = _space(problem)
    g, c = space.along(slopes), space.covariance
    floor = model_error(problem.fitted, scenario, name)
    choices = []
    for (spec, other), outcome in zip(options, outcomes[1:], strict=True):
        target = field_of(spec.quantity, "attention", other.phase)
        expected, others = _slopes(problem, outcome, target)
        h = space.along(others)
        model = model_error(problem.fitted, other, spec.quantity)
        noise = spec.relative_sigma**2 + model**2
        gain = float(g @ c @ h) ** 2 / (float(h @ c @ h) + noise)
        after = math.sqrt(max(float(g @ c @ g) - gain, 0.0) + floor**2)
        choices.append(Choice(spec.id, spec.quantity, spec.note or "", after, expected))
    choices.sort(key=lambda choice: choice.sigma)
    now = math.sqrt(float(g @ c @ g) + floor**2)
    return Plan(problem, name, value, now, floor, choices)
