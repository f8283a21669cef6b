"""Compare predictions with a measurement file."""

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..phases.metrics import Metrics
from ..quantities import check_per, field_of, scaled_to
from ..specs.build import Problem, build
from ..specs.calibration_file import UNCALIBRATED
from ..specs.errors import SpecError, all_of
from ..specs.measurement_file import Measurement, MeasurementSpec, load_measurements
from ..units import from_si, to_si
from .batch import Outcome, evaluate
from .extrapolation import outside, widening
from .uncertainty import ratio_sigma, relative_sigma, shared_error

if TYPE_CHECKING:
    import pandas as pd


PRINTED = 5e-3
"""Relative error of rounding, at least."""

AGREE = 2.0
"""Standard errors within which 95 of 100 right predictions lie."""


class Row(NamedTuple):
    """One measurement beside its prediction, in the row's unit."""

    id: str
    quantity: str
    unit: str
    observed: float
    predicted: float
    relative_error: float
    log_error: float
    predicted_relative_sigma: float
    bound: str | None
    """Whether the observation is a "floor" or a "ceiling" of the true value."""
    relative_sigma: float
    """Of the observation, as the file states or implies it."""
    source: str
    note: str

    @property
    def met(self) -> bool:
        """Whether the prediction lies on the right side of a bound."""
        above = self.log_error >= 0.0
        return self.bound == "floor" and above or self.bound == "ceiling" and not above

    @property
    def counted_error(self) -> float:
        """Relative error as it counts in a summary: none on the right side of a bound."""
        return 0.0 if self.met else self.relative_error

    @property
    def joint_sigma(self) -> float:
        """Of prediction and observation together, relative; the observation is printed
        to three digits at best."""
        return math.hypot(
            self.predicted_relative_sigma, max(self.relative_sigma, PRINTED)
        )

    @property
    def verdict(self) -> str:
        """Whether prediction and observation agree within two of their joint sigma."""
        agrees = self.met or abs(self.log_error) <= AGREE * self.joint_sigma
        return "consistent" if agrees else "inconsistent"


class Validation(NamedTuple):
    """All rows of a file with the summary."""

    calibration: str
    rows: list[Row]

    @property
    def median(self) -> float:
        return float(np.median([abs(row.counted_error) for row in self.rows]))

    @property
    def worst(self) -> float:
        return float(np.max([abs(row.counted_error) for row in self.rows]))

    def as_json(self) -> dict[str, object]:
        """The contract of `validate --json`."""
        keys = Row._fields[: Row._fields.index("relative_sigma")]
        return {
            "calibration": self.calibration,
            "rows": [{key: getattr(row, key) for key in keys} for row in self.rows],
            "median_abs_relative_error": self.median,
            "max_abs_relative_error": self.worst,
        }

    def to_dict(self) -> dict[str, object]:
        """What `validate --json` prints."""
        return self.as_json()

    def to_frame(self) -> "pd.DataFrame":
        """A row for each measurement."""
        import pandas as pd  # half a second that only tables should pay

        return pd.DataFrame(self.as_json()["rows"]).set_index("id")


class _Sided(NamedTuple):
    """Value of one side of a row's fraction line, and slopes of its log."""

    value: float
    slopes: dict[str, float]
    problem: Problem


def _side(problem: Problem, outcome: Outcome, row: Measurement) -> _Sided:
    phase, spec = problem.scenario.phase, row.spec
    field = field_of(spec.quantity, spec.part, phase)

    def value_of(metrics: Metrics) -> float:
        value = float(getattr(metrics, field))
        return float(scaled_to(value, spec.quantity, spec.per, outcome.metrics))

    value = value_of(outcome.metrics)
    slopes = {p: value_of(m) / value for p, m in (outcome.slopes or {}).items()}
    return _Sided(value, slopes, problem)


def _sigma(
    above: _Sided, below: _Sided | None, row: MeasurementSpec, widened: bool
) -> float:
    """Of the prediction, relative.

    Args:
        widened: outside of what was fitted.
    """
    field = field_of(row.quantity, row.part, above.problem.scenario.phase)
    top = _factor(above) if widened else 1.0
    if below is None:
        return relative_sigma(above.problem, above.slopes, field, top)
    sides = above.problem, above.slopes, below.problem, below.slopes
    factors = (top, _factor(below) if widened else 1.0)
    shared = shared_error(above.problem, below.problem)
    return ratio_sigma(*sides, field, shared, factors)


def _factor(side: _Sided) -> float:
    return widening(outside(side.problem))


def check_rows(rows: list[Measurement], name: str) -> None:
    """Every row's quantity must be one that its phase predicts."""
    mistakes = []
    for row in rows:
        phase, per = row.scenario.phase, row.spec.per
        try:
            field_of(row.spec.quantity, row.spec.part, phase)
            check_per(row.spec.quantity, per, phase)
        except ValueError as error:
            mistakes.append(f"{name}: measurements[{row.spec.id}]: {error}")
    if mistakes:
        raise SpecError(mistakes)


def problems_of(
    rows: list[Measurement], name: str, calibration: str | None
) -> list[tuple[Problem, Problem | None]]:
    built, mistakes = [], []
    for row in rows:
        label = f"{name}: measurements[{row.spec.id}]"
        try:
            above = build(row.scenario, calibration, label)
            below = build(row.below, calibration, label) if row.below else None
            built.append((above, below))
        except SpecError as error:
            mistakes += error.mistakes
    if mistakes:
        raise SpecError(mistakes)
    return built


def validate(name: str, calibration: str | None = None) -> Validation:
    """Predict every row of a measurement file and compare.

    Args:
        name: a shipped file's name or a path that ends in `.toml`.
        calibration: a calibration's name, "none", or None for what ships.

    Raises:
        SpecError: (a `ValueError`) naming every mistake of the file.
    """
    return validated(load_measurements(name), name, calibration)


def validated(
    rows: list[Measurement],
    name: str,
    calibration: str | None = None,
    widened: bool = True,
) -> Validation:
    """Likewise of rows that are loaded already.

    Args:
        name: of their file, for messages.
        widened: error bars are wider outside of what was fitted; without, as within.
    """
    _, pairs = all_of(
        lambda: check_rows(rows, name), lambda: problems_of(rows, name, calibration)
    )
    flat = [problem for pair in pairs for problem in pair if problem is not None]
    outcomes = iter(evaluate(flat, with_slopes=True))
    results = []
    for row, (above, below) in zip(rows, pairs, strict=True):
        top = _side(above, next(outcomes), row)
        bottom = None if below is None else _side(below, next(outcomes), row)
        results.append(_row(row, top, bottom, _sigma(top, bottom, row.spec, widened)))
    used = {problem.calibration for problem in flat}
    return Validation(calibration or _summary(used), results)


def _summary(used: set[str]) -> str:
    fitted = sorted(used - {UNCALIBRATED})
    return ", ".join(fitted) if fitted else UNCALIBRATED


def _row(row: Measurement, above: _Sided, below: _Sided | None, sigma: float) -> Row:
    spec = row.spec
    si = above.value if below is None else above.value / below.value
    observed = to_si(spec.value, spec.unit)
    if not (math.isfinite(si) and si > 0.0):
        raise ArithmeticError(
            f"measurements[{spec.id}]: the prediction is {si}; check the scenario for"
            " extreme values"
        )
    return Row(
        id=spec.id,
        quantity=spec.quantity,
        unit=spec.unit,
        observed=spec.value,
        predicted=from_si(si, spec.unit),
        relative_error=si / observed - 1.0,
        log_error=math.log(si / observed),
        predicted_relative_sigma=sigma,
        bound=spec.bound,
        relative_sigma=row.relative_sigma,
        source=spec.source,
        note=spec.note or spec.conflict or "",
    )
