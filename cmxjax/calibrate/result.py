"""A calibration as files: the parameters for `--calibration`, and every row's fit."""

import csv
import io
import json
from importlib.metadata import version
from pathlib import Path

import numpy as np

from ..specs.calibration_file import Calibration, FittedSpec, InheritedSpec
from ..specs.output import write_text
from .calibrate import Calibrated, absorbed
from .folds import kind_of, table_of
from .scales import scales

DIGITS = 8
"""Significant digits in files: beyond what differs between machines."""


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}") if abs(value) > 1e-12 else 0.0


def summary(result: Calibrated) -> dict[str, object]:
    """How good the fit is, in numbers; errors are those of measured rows."""
    rows = result.measured
    fit = np.abs(np.expm1(result.log_error[rows]))
    cross = np.abs(np.expm1(result.cross.log_error[rows]))
    return {
        "rows_fitted": int(result.fitted.sum()),
        "rows_predicted_only": int((~result.fitted).sum()),
        "parameters": len(result.setup.parameters),
        "median_error_prior": _median(result.prior_log_error[rows]),
        "median_error_fit": float(np.median(fit)),
        "median_error_cross_validation": float(np.median(cross)),
        "median_error_tables_left_out": _median(result.tables.log_error[rows]),
        "median_error_sources_left_out": _median(result.sources.log_error[rows]),
        "median_sigma_cross_validation": float(np.median(result.cross.sigma[rows])),
        "coverage": result.coverage,
        "restarts_at_the_optimum": f"{result.converged} of {result.restarts}",
        "singular_values": [_rounded(v) for v in result.singular_values],
        "weakest_directions": [
            {"information": _rounded(d.information), "direction": d.words}
            for d in result.weak
        ],
    }


def _median(log_error: np.ndarray) -> float:
    return float(np.median(np.abs(np.expm1(log_error))))


def as_calibration(result: Calibrated, name: str) -> Calibration:
    """The fitted parameters in the form that `--calibration` takes."""
    setup = result.setup
    parameters = {
        p.name: FittedSpec(
            leaves=list(p.leaves),
            theta=_rounded(result.theta[k]),
            sigma=_rounded(float(np.sqrt(result.covariance[k, k]))),
            prior_sigma=p.sigma,
            identified=bool(result.identified[k]),
            bic_gain=_rounded(result.bic_gain[k]),
            reason=p.reason,
        )
        for k, p in enumerate(setup.parameters)
    }
    return Calibration(
        name=name,
        system=setup.system,
        phases=setup.recipe.phases,
        parameters=parameters,
        covariance=[[_rounded(v) for v in row] for row in result.covariance],
        inherited={
            path: InheritedSpec(theta=_rounded(i.theta), sigma=_rounded(i.sigma))
            for path, i in setup.inherited.items()
        },
        absorbed=absorbed(setup),
        discrepancy={k: _rounded(v) for k, v in result.discrepancy.items()},
        scales=scales(
            (setup.rows[i], float(result.cross.log_error[i]))
            for i in np.flatnonzero(result.measured)
        ),
        provenance={
            "package": f"cmxjax {version('cmxjax')}",
            "inputs": setup.fingerprint(),
            "fitted_rows": [r.spec.id for r, f in zip(setup.rows, result.fitted) if f],
            "summary": _plain(summary(result)),
        },
    )


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return _rounded(value) if isinstance(value, float) else value


ROW_COLUMNS = (
    "id",
    "kind",
    "table",
    "observed",
    "unit",
    "error_prior",
    "error_fit",
    "error_left_out",
    "sigma_left_out",
    "not_fitted_because",
)


def row_table(result: Calibrated) -> list[tuple]:
    """One record per row, in the order of `ROW_COLUMNS`; errors are fractions."""
    records = []
    for i, row in enumerate(result.setup.rows):
        errors = (
            result.prior_log_error[i],
            result.log_error[i],
            result.cross.log_error[i],
        )
        records.append(
            (
                row.spec.id,
                kind_of(row),
                table_of(row),
                row.spec.value,
                row.spec.unit,
                *(round(float(np.expm1(e)), 4) for e in errors),
                round(float(result.cross.sigma[i]), 4),
                result.setup.reasons[i],
            )
        )
    return records


def rows_csv(result: Calibrated) -> str:
    """The row table as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(ROW_COLUMNS)
    writer.writerows(row_table(result))
    return text.getvalue()


def paths_in(folder: Path, name: str) -> list[Path]:
    """The files of a calibration of that name."""
    return [folder / f"{name}.json", folder / "rows.csv"]


def write(result: Calibrated, name: str, folder: Path) -> list[Path]:
    """Write `NAME.json` and `rows.csv` into a folder; returns their paths."""
    calibration = as_calibration(result, name)
    text = json.dumps(calibration.model_dump(), indent=1) + "\n"
    paths = paths_in(folder, name)
    write_text(paths[0], text)
    write_text(paths[1], rows_csv(result))
    return paths
