"""Tables and pictures of a calibration."""

import shutil
from pathlib import Path

import numpy as np
from rich.console import Console, Group
from rich.text import Text

from ..calibrate.calibrate import Calibrated
from ..calibrate.folds import kind_of
from ..calibrate.result import summary
from ..calibrate.run import fit
from ..specs.files import DATA
from ..specs.output import replacing
from .pictures import save, subplots
from .tables import make_table

LARGE = 0.10
"""Errors beyond this are listed one by one."""

EXPECTED = 2.0
"""Standard errors within which a row far off needs no other reason."""


def _parameters(result: Calibrated):
    table = make_table(
        "fitted parameters (shift of a log or logit)",
        "parameter",
        "shift",
        "sigma",
        "prior",
        "BIC gain",
        "",
    )
    for k, p in enumerate(result.setup.parameters):
        sigma = float(np.sqrt(result.covariance[k, k]))
        known = "" if result.identified[k] else "not identified: mostly the prior"
        table.add_row(
            p.name,
            f"{result.theta[k]:+.3f}",
            f"{sigma:.3f}",
            f"{p.sigma:.2f}",
            f"{result.bic_gain[k]:+.1f}",
            known,
        )
    return table


def _kinds(result: Calibrated):
    table = make_table(
        "errors by kind",
        "kind",
        "rows",
        "median, prior",
        "median, fit",
        "median, left out",
        "largest, left out",
        "inside one sigma",
    )
    rows = result.setup.rows
    for kind in sorted({kind_of(row) for row in rows}):
        chosen = np.array([kind_of(row) == kind for row in rows]) & result.measured
        if not chosen.any():
            continue
        errors = (result.prior_log_error, result.log_error, result.cross.log_error)
        before, fit, left = (np.abs(np.expm1(e[chosen])) for e in errors)
        inside = np.abs(result.cross.log_error[chosen]) <= result.cross.sigma[chosen]
        table.add_row(
            kind,
            str(chosen.sum()),
            f"{np.median(before):.1%}",
            f"{np.median(fit):.1%}",
            f"{np.median(left):.1%}",
            f"{left.max():.1%}",
            f"{inside.mean():.0%}",
        )
    return table


def _reason(result: Calibrated, i: int) -> str:
    """Why a row is far off: what its file or the recipe says, or that it may well be."""
    spec, why = result.setup.rows[i].spec, result.setup.reasons[i]
    if why:
        return f"not fitted: {why}"
    expected = abs(result.cross.log_error[i]) <= EXPECTED * result.cross.sigma[i]
    return spec.conflict or spec.note or ("inside its error bar" if expected else "")


def _far_off(result: Calibrated):
    table = make_table(
        f"rows more than {LARGE:.0%} off", "measurement", "fit", "left out", "note"
    )
    for i, row in enumerate(result.setup.rows):
        fit, cross = np.expm1(result.log_error[i]), np.expm1(result.cross.log_error[i])
        if abs(fit) <= LARGE or result.log_error[i] * row.bound_sign > 0.0:
            continue  # near, or on the right side of a bound
        table.add_row(row.spec.id, f"{fit:+.1%}", f"{cross:+.1%}", _reason(result, i))
    table.columns[-1].justify = "left"
    return table


def calibration_tables(result: Calibrated) -> Group:
    """Parameters, errors by kind, rows far off, and the summary."""
    totals = summary(result)
    covered = ", ".join(
        f"{share:.0%} inside the {name} % interval"
        for name, share in result.coverage.items()
    )
    off = ", ".join(f"{k} {v:.1%}" for k, v in result.discrepancy.items())
    lines = [
        f"{totals['rows_fitted']} rows fitted by {totals['parameters']} parameters;"
        f" {totals['rows_predicted_only']} more predicted only;"
        f" {totals['restarts_at_the_optimum']} starts end at the optimum.",
        f"Median error: prior {totals['median_error_prior']:.1%}, fit"
        f" {totals['median_error_fit']:.1%}, runs left out in turn"
        f" {totals['median_error_cross_validation']:.1%}, tables"
        f" {totals['median_error_tables_left_out']:.1%}, sources"
        f" {totals['median_error_sources_left_out']:.1%}.",
        f"Model discrepancy: {off}.",
        f"Left-out rows: {covered}; median sigma"
        f" {totals['median_sigma_cross_validation']:.1%}.",
        "What the data say least about:",
        *(
            f"  {d.words} (information {d.information:.2g} of the prior's)"
            for d in result.weak
        ),
    ]
    return Group(
        _parameters(result),
        _kinds(result),
        _far_off(result),
        *(Text(line) for line in lines),
    )


def draw(result: Calibrated, folder: Path) -> list[Path]:
    """Pictures `fit.png` and `residuals.png` of a calibration; returns their paths."""
    paths = [folder / "fit.png", folder / "residuals.png"]
    _draw_fit(result, paths[0])
    _draw_residuals(result, paths[1])
    return paths


def _draw_fit(result: Calibrated, path: Path) -> None:
    """Predicted against published: a panel for each kind and unit."""
    panels: dict[str, list[int]] = {}
    for i, row in enumerate(result.setup.rows):
        if result.measured[i]:
            what = f"{kind_of(row)}, {row.spec.quantity}"
            panels.setdefault(f"{what} [{row.spec.unit}]", []).append(i)
    columns = 4
    lines = -(-len(panels) // columns)
    figure, axes = subplots(
        lines, columns, figsize=(13, 3.1 * lines), layout="constrained", squeeze=False
    )
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for axis, (name, chosen) in zip(axes.flat, sorted(panels.items())):
        observed = np.array([result.setup.rows[i].spec.value for i in chosen])
        before = observed * np.exp(result.prior_log_error[chosen])
        after = observed * np.exp(result.log_error[chosen])
        sigma = after * result.sigma[chosen]
        axis.plot(observed, before, "x", ms=4, color="gray", label="prior")
        axis.errorbar(observed, after, yerr=sigma, fmt="o", ms=4, lw=0.8, label="fit")
        low = 0.9 * min(observed.min(), after.min(), before.min())
        high = 1.1 * max(observed.max(), after.max(), before.max())
        axis.plot([low, high], [low, high], color="gray", lw=0.8, zorder=0)
        if high / low > 5.0:
            axis.set(xscale="log", yscale="log")
        axis.set_title(name, fontsize=8)
        axis.tick_params(labelsize=7)
        axis.tick_params(which="minor", labelsize=5)
    axes[0, 0].legend(fontsize=7)
    figure.supxlabel("published")
    figure.supylabel("predicted, with one sigma")
    figure.suptitle(f"{result.setup.system}: prediction and publication")
    save(figure, path, "--out")


def _draw_residuals(result: Calibrated, path: Path) -> None:
    """Errors of rows left out in turn, with their sigmas, by kind."""
    kinds: dict[str, list[int]] = {}
    for i, row in enumerate(result.setup.rows):
        if result.measured[i]:
            kinds.setdefault(kind_of(row), []).append(i)
    figure, axis = subplots(figsize=(12, 5), layout="constrained")
    place, ticks = 0, []
    for k, kind in enumerate(sorted(kinds)):
        chosen = kinds[kind]
        x = place + np.arange(len(chosen))
        ticks.append((x.mean(), kind))
        place += len(chosen) + 2
        axis.errorbar(
            x,
            100.0 * result.cross.log_error[chosen],
            yerr=100.0 * result.cross.sigma[chosen],
            fmt="o",
            ms=3,
            lw=0.8,
            color=f"C{k}",
        )
    axis.axhline(0.0, color="gray", lw=0.8, zorder=0)
    axis.set_xticks([t for t, _ in ticks], [kind for _, kind in ticks], rotation=25)
    axis.set(ylim=(-60, 60), ylabel="log error of rows left out in turn, %")
    axis.set_title(
        f"{result.setup.system}: rows left out in turn, bars of one sigma;"
        " what is outside the frame is in rows.csv",
        fontsize=10,
    )
    save(figure, path, "--out")


def refit(recipe: str, results: Path, restarts: int = 32) -> None:
    """Fit a shipped recipe, publish its results in a folder, and ship them.

    Prints the tables and writes them to `table.txt` beside the calibration, the rows and
    the pictures; the calibration replaces the one in the package.
    """
    report = fit(recipe, out=str(results), restarts=restarts)
    tables = calibration_tables(report.result)
    Console().print(tables)
    with (
        replacing(results / "table.txt") as part,
        part.open("w", encoding="utf-8") as file,
    ):
        Console(file=file, width=150).print(tables)
    draw(report.result, results)
    shipped = Path(str(DATA / "calibrations"))
    shipped.mkdir(exist_ok=True)
    shutil.copy(report.files[0], shipped)
