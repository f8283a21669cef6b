"""The table of measured runs that answers cite: what was measured, what the model says
there, and how far off it was where a fit had not seen the run."""

import csv
import io
import math
from pathlib import Path

from ..answers.validate import validated
from ..specs.evidence_file import Run
from ..specs.files import load, shipped
from ..specs.measurement_file import Measurement, load_measurements
from ..specs.recipe_file import load_recipe
from ..specs.traits import traits_of
from .calibrate import FOLDS
from .folds import by_run

DIGITS = 4


def results(folder: Path) -> dict[str, tuple[str, dict[str, str]]]:
    """Of each row of the committed results its calibration and what they print, by id.

    Args:
        folder: with one folder of results for each calibration.
    """
    found = {}
    for path in sorted(folder.glob("*/results/rows.csv")):
        (name,) = (other.stem for other in path.parent.glob("*.json"))
        with path.open(encoding="utf-8") as file:
            found |= {row["id"]: (name, row) for row in csv.DictReader(file)}
    return found


def _run(row: Measurement, file: str, **numbers: str | float | bool) -> Run:
    spec = row.spec
    return Run(
        *(spec.id, spec.quantity, spec.per or "", spec.unit, spec.value),
        file=file,
        source=spec.source,
        locator=spec.locator,
        traits=traits_of(row.scenario),
        **numbers,  # pyright: ignore[reportArgumentType]
    )


def calibrated_run(
    row: Measurement, file: str, fold: int, calibration: str, result: dict[str, str]
) -> Run:
    """A row that a calibration fitted, as its committed result has it.

    Args:
        fold: in which it was left out.
    """
    modelled = row.spec.value * (1.0 + float(result["error_fit"]))
    return _run(
        row,
        file,
        calibration=calibration,
        modelled=float(f"{modelled:.{DIGITS}g}"),
        fitted=True,
        fold=fold,
        log_error=round(math.log1p(float(result["error_left_out"])), DIGITS),
        sigma=float(result["sigma_left_out"]),
    )


def cited(measured: list[Measurement]) -> list[Measurement]:
    """Rows that are values of one job: neither ratios nor bounds nor counts."""
    rows = [row for row in measured if row.below is None and row.spec.bound is None]
    return [row for row in rows if row.spec.quantity != "parameters"]


def runs(folder: Path) -> list[Run]:
    """Every shipped row that can be cited. Those that calibrations fitted are as the
    committed results have them; the others, also of a calibration's own suites, are
    predicted here, with error bars as within of what was fitted.

    Args:
        folder: as `results` takes it.
    """
    known, found = results(folder), []
    files = {name: load_measurements(name) for name in shipped("measurements")}
    fold = _folds(files)
    for name, measured in files.items():
        rows = cited(measured)
        fitted = {row.spec.id for row in rows if _is_fitted(known, row.spec.id)}
        others = [row for row in rows if row.spec.id not in fitted]
        tried = validated(others, name, widened=False).rows if others else []
        answers = {answer.id: answer for answer in tried}
        for row in rows:
            if (i := row.spec.id) in fitted:
                found.append(calibrated_run(row, name, fold[i], *known[i]))
                continue
            numbers = {
                "modelled": float(f"{answers[i].predicted:.{DIGITS}g}"),
                "log_error": round(answers[i].log_error, DIGITS),
                "sigma": round(answers[i].predicted_relative_sigma, DIGITS),
            }
            calibration = known[i][0] if i in known else ""
            of = {"calibration": calibration, "fitted": False, "fold": -1}
            found.append(_run(row, name, **of, **numbers))
    return found


def _is_fitted(known: dict[str, tuple[str, dict[str, str]]], row: str) -> bool:
    return row in known and not known[row][1]["not_fitted_because"]


def _folds(files: dict[str, list[Measurement]]) -> dict[str, int]:
    """Fold of each row of the shipped recipes in their cross-validation, by id."""
    found = {}
    for name in shipped("recipes"):
        recipe = load_recipe(name)
        every = [row for file in recipe.measurements for row in files[file]]
        rows = [
            row
            for row in every
            if row.scenario.phase != "system"
            and row.scenario.system.base == recipe.system
        ]
        ids = [row.spec.id for row in rows]
        found |= dict(zip(ids, map(int, by_run(rows, FOLDS)), strict=True))
    return found


def sources_csv(found: list[Run]) -> str:
    """Title and address of the sources of some runs, as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("file", "source", "title", "url"))
    for file in sorted({run.file for run in found}):
        said: dict = load("measurements", file)[0]["sources"]  # pyright: ignore
        for key in sorted({run.source for run in found if run.file == file}):
            writer.writerow((file, key, said[key]["title"], said[key].get("url", "")))
    return text.getvalue()
