"""Fitted parameters that ship with the package, or none."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
from pydantic import ValidationError, model_validator

from .._types import Real
from ..words import choose
from .errors import SpecError, explain, shown
from .figures import Figure, NonNegative, Number, Strict, Text
from .files import DATA, is_path, parse_json, read_text, version

UNCALIBRATED = "none"


class FittedSpec(Strict):
    """One fitted parameter: a shift of every leaf that it names."""

    leaves: list[Text]
    theta: Number
    sigma: NonNegative
    """Standard error; the root of the covariance's diagonal."""
    prior_sigma: NonNegative
    identified: bool
    """Whether the data narrow the prior; if not, the prior is all that is known."""
    bic_gain: Number
    """Rise of the Bayesian information criterion when the parameter is held fixed."""
    reason: Text


class InheritedSpec(Strict):
    """What relatives of a system say of a leaf: a shift, and its standard error."""

    theta: Number
    sigma: NonNegative


class ScaleSpec(Strict):
    """How many scale-up systems the jobs of a level's rows spanned."""

    nodes: Number
    """Geometric mean, at which the level's discrepancy holds."""
    most: Number
    growth: NonNegative
    """Exponent with which it grows with them."""


class Calibration(Strict):
    """Fitted parameters of one system with their covariance."""

    name: str
    system: str
    phases: list[str] = []
    """Phases that it is meant for; empty for all that no other one claims."""
    parameters: dict[str, FittedSpec] = {}
    covariance: list[list[Number]] = []
    """Of the shifts, in the order of `parameters`."""
    inherited: dict[str, InheritedSpec] = {}
    """Shifts of leaves that the fit started from; fitted ones come on top."""
    absorbed: list[str] = []
    """Leaves whose prior widths are part of the discrepancy."""
    discrepancy: dict[str, NonNegative] = {}
    """Relative error of the model itself, by level; see `discrepancy.level_of`."""
    scales: dict[str, ScaleSpec] = {}
    """By level, where rows were left out to learn it."""
    provenance: dict[str, object] = {}

    @model_validator(mode="after")
    def _square(self) -> "Calibration":
        count = len(self.parameters)
        if [len(row) for row in self.covariance] != [count] * count:
            raise ValueError(f"covariance must be {count} x {count}, as the parameters")
        return self

    @property
    def theta(self) -> dict[str, float]:
        """Shift of each leaf."""
        shifts = {leaf: i.theta for leaf, i in self.inherited.items()}
        for p in self.parameters.values():
            shifts |= {leaf: shifts.get(leaf, 0.0) + p.theta for leaf in p.leaves}
        return shifts

    def check(self, figures: dict[str, Figure]) -> None:
        """Raises `SpecError` if a parameter is not a leaf of the system."""
        unknown = [path for path in self.theta if path not in figures]
        if unknown:
            raise SpecError(
                [
                    f"calibration {self.name}: {path}: {self.system} has no such leaf;"
                    " calibrate again"
                    for path in unknown
                ]
            )

    def variance(self, slopes: Mapping[str, Real]) -> Real:
        """Variance of log metrics from the fitted parameters, by the delta method.

        Args:
            slopes: derivative of one log metric, or of some of whatever shape, along the
                shift of each leaf.
        """
        fitted = [p.leaves for p in self.parameters.values()]
        sums = [sum(slopes.get(leaf, 0.0) for leaf in leaves) for leaves in fitted]
        along = np.array(np.broadcast_arrays(*sums))
        matrix = np.array(self.covariance).reshape(len(fitted), len(fitted))
        rest = self.inherited.keys() - set().union(*fitted) - set(self.absorbed)
        kept = sum((slopes.get(x, 0.0) * self.inherited[x].sigma) ** 2 for x in rest)
        return np.sum(along * np.tensordot(matrix, along, 1), axis=0) + kept


def calibration_names() -> list[str]:
    """Names of the shipped calibrations."""
    folder = DATA / "calibrations"
    if not folder.is_dir():
        return []
    names = [item.name for item in folder.iterdir() if item.name.endswith(".json")]
    return sorted(name.removesuffix(".json") for name in names)


def shipped_calibration(name: str) -> Calibration:
    """A calibration by its shipped name or by path.

    Raises:
        SpecError: the file is wrong.
    """
    return _parsed(version(name))


@lru_cache(maxsize=64)
def _parsed(key: tuple[str, float]) -> Calibration:
    name = key[0]
    if is_path(name):
        text, where = read_text(Path(name)), name
    else:
        where = f"{name}.json"
        text = (DATA / "calibrations" / where).read_text("utf-8")
    try:
        return Calibration.model_validate(parse_json(text, where))
    except ValidationError as error:
        raise SpecError(explain(error, where, Calibration)) from None


def calibration_for(
    system: str, name: str | None, phase: str | None = None
) -> Calibration:
    """The calibration to use for a system, or for one phase on it.

    `none` is the spec as printed. A named calibration applies to the system that it
    holds; other systems use what ships for them, which is also the default.

    Raises:
        SpecError: no calibration of that name, or its file is wrong.
    """
    if name == UNCALIBRATED:
        return Calibration(name=UNCALIBRATED, system=system)
    names = calibration_names()
    if name is not None:
        if not is_path(name) and name not in names:
            options = choose(name, [*names, UNCALIBRATED])
            raise SpecError([f"calibration{shown(name)}: not there; {options}"])
        chosen = shipped_calibration(name)
        if chosen.system == system:
            return chosen
    shipped = [c for c in map(shipped_calibration, names) if c.system == system]
    claimed = [c for c in shipped if phase in c.phases]
    for calibration in claimed + [c for c in shipped if not c.phases]:
        return calibration
    return Calibration(name=UNCALIBRATED, system=system)
