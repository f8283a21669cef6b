"""Fitted parameters that ship with the package, or none."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from .errors import SpecError, explain
from .figures import Figure, NonNegative, Number, Strict
from .files import DATA, is_path, parse_json, read_text

UNCALIBRATED = "none"


class Calibration(Strict):
    """Unconstrained parameters of one system, by leaf path, with their sigmas."""

    name: str
    system: str
    theta: dict[str, Number] = {}
    sigma: dict[str, NonNegative] = {}
    discrepancy: dict[str, NonNegative] = {}
    """Relative model error by phase, to be added to that of the parameters."""
    provenance: dict[str, Any] = {}

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


def calibration_names() -> list[str]:
    """Names of the shipped calibrations."""
    folder = DATA / "calibrations"
    if not folder.is_dir():
        return []
    names = [item.name for item in folder.iterdir() if item.name.endswith(".json")]
    return sorted(name.removesuffix(".json") for name in names)


def _read(name: str) -> Calibration:
    if is_path(name):
        text, where = read_text(Path(name)), name
    else:
        where = f"{name}.json"
        text = (DATA / "calibrations" / where).read_text("utf-8")
    try:
        return Calibration.model_validate(parse_json(text, where))
    except ValidationError as error:
        raise SpecError(explain(error, where)) from None


def calibration_for(system: str, name: str | None) -> Calibration:
    """The calibration to use for a system.

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
            options = ", ".join([*names, UNCALIBRATED])
            raise SpecError([f"calibration = {name!r}: not there; use one of {options}"])
        chosen = _read(name)
        if chosen.system == system:
            return chosen
    for shipped in names:
        calibration = _read(shipped)
        if calibration.system == system:
            return calibration
    return Calibration(name=UNCALIBRATED, system=system)
