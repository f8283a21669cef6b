"""How often rows that a fit left out lie inside their error bars."""

import csv
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.table import Table

from ..calibrate.folds import run_of
from ..calibrate.scales import scales
from ..specs.calibration_file import ScaleSpec
from ..specs.discrepancy import level_of
from ..specs.measurement_file import Measurement, load_measurements
from ..specs.recipe_file import load_recipe

HEADINGS = (
    *("calibration", "level", "runs", "rows"),
    *("median error", "in 1 sigma", "in 2 sigma"),
)


class Coverage(NamedTuple):
    """Rows of one calibration and level, each predicted by a fit without its run."""

    calibration: str
    level: str
    runs: int
    rows: int
    median: float
    """Of the absolute relative errors."""
    within_one: float
    within_two: float


def _fitted(
    calibration: str, folder: Path
) -> tuple[dict[str, Measurement], list[dict[str, str]]]:
    """Measurements of a committed result by name, and its rows of those that were fitted.

    Args:
        calibration: a shipped recipe's name.
        folder: of its results, with `rows.csv`.
    """
    known = {
        row.spec.id: row
        for name in load_recipe(calibration).measurements
        for row in load_measurements(name)
        if row.scenario.phase != "system" and row.spec.bound is None
    }
    with (folder / "rows.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if not row["not_fitted_because"]]
    return known, [row for row in rows if row["id"] in known]


def scales_of(calibration: str, folder: Path) -> dict[str, ScaleSpec]:
    """How errors of a committed result grow with the scale of jobs, see `scales`."""
    known, rows = _fitted(calibration, folder)
    return scales(
        (known[row["id"]], math.log1p(float(row["error_left_out"]))) for row in rows
    )


def coverage_of(calibration: str, folder: Path) -> list[Coverage]:
    """The rows of a committed result that were fitted, by level, see `_fitted`."""
    measured, known = _fitted(calibration, folder)
    levels = {
        name: (level_of(row.scenario, row.spec.quantity), run_of(row))
        for name, row in measured.items()
    }
    found = []
    for level in sorted({level for level, _ in levels.values()}):
        own = [row for row in known if levels[row["id"]][0] == level]
        if not own:
            continue
        errors = np.array([float(row["error_left_out"]) for row in own])
        sigmas = np.array([float(row["sigma_left_out"]) for row in own])
        z = np.abs(np.log1p(errors)) / sigmas
        shares = float(np.mean(z <= 1.0)), float(np.mean(z <= 2.0))
        median = float(np.median(np.abs(errors)))
        runs = len({levels[row["id"]][1] for row in own})
        found.append(Coverage(calibration, level, runs, len(own), median, *shares))
    return found


def coverage_table(groups: list[Coverage]) -> Table:
    """All groups, a row each."""
    table = Table(title="Rows left out of the fit, run by run", title_justify="left")
    for i, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="left" if i < 2 else "right", no_wrap=True)
    for g in groups:
        shares = (g.median, g.within_one, g.within_two)
        counts = (str(g.runs), str(g.rows))
        table.add_row(
            g.calibration, g.level, *counts, *(f"{share:.0%}" for share in shares)
        )
    return table
