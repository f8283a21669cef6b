"""Tables and pictures of a calibration."""

from pathlib import Path

import numpy as np
from rich.console import Group
from rich.text import Text

from ..calibrate.calibrate import Calibrated
from ..calibrate.folds import kind_of
from ..calibrate.result import summary
from .tables import make_table

LARGE = 0.10
"""Errors beyond this are listed one by one."""


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
        own = np.array([kind_of(row) == kind for row in rows]) & result.fitted
        if not own.any():
            continue
        errors = (result.prior_log_error, result.log_error, result.cross.log_error)
        before, fit, left = (np.abs(np.expm1(e[own])) for e in errors)
        inside = np.abs(result.cross.log_error[own]) <= result.cross.sigma[own]
        table.add_row(
            kind,
            str(own.sum()),
            f"{np.median(before):.1%}",
            f"{np.median(fit):.1%}",
            f"{np.median(left):.1%}",
            f"{left.max():.1%}",
            f"{inside.mean():.0%}",
        )
    return table


def _far_off(result: Calibrated):
    table = make_table(
        f"rows more than {LARGE:.0%} off", "measurement", "fit", "left out", "note"
    )
    for i, row in enumerate(result.setup.rows):
        fit, cross = np.expm1(result.log_error[i]), np.expm1(result.cross.log_error[i])
        if abs(fit) <= LARGE:
            continue
        note = result.setup.reasons[i] or row.spec.conflict or row.spec.note or ""
        label = "not fitted: " if result.setup.reasons[i] else ""
        table.add_row(row.spec.id, f"{fit:+.1%}", f"{cross:+.1%}", label + note)
    table.columns[-1].justify = "left"
    return table


def calibration_tables(result: Calibrated) -> Group:
    """Parameters, errors by kind, rows far off, and the summary."""
    found = summary(result)
    covered = ", ".join(
        f"{share:.0%} inside the {name} % interval"
        for name, share in found["coverage"].items()
    )
    off = ", ".join(f"{k} {v:.1%}" for k, v in result.discrepancy.items())
    lines = [
        f"{found['rows_fitted']} rows fitted by {found['parameters']} parameters;"
        f" {found['rows_predicted_only']} more predicted only;"
        f" {found['restarts_at_the_optimum']} starts end at the optimum.",
        f"Median error: prior {found['median_error_prior']:.1%}, fit"
        f" {found['median_error_fit']:.1%}, runs left out in turn"
        f" {found['median_error_cross_validation']:.1%}, tables"
        f" {found['median_error_tables_left_out']:.1%}, sources"
        f" {found['median_error_sources_left_out']:.1%}.",
        f"Model discrepancy: {off}.",
        f"Left-out rows: {covered}; median sigma"
        f" {found['median_sigma_cross_validation']:.1%}.",
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


def draw(result: Calibrated, path: Path) -> None:
    """Predicted against published, and left-out residuals with their sigmas, by kind."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [(i, kind_of(row)) for i, row in enumerate(result.setup.rows)]
    rows = [(i, kind) for i, kind in rows if result.fitted[i]]
    kinds = sorted({kind for _, kind in rows})
    colors = pyplot.get_cmap("tab20").colors  # pyright: ignore
    figure, (left, right) = pyplot.subplots(
        1, 2, figsize=(13, 6), width_ratios=(1, 1.7), layout="constrained"
    )
    place = 0
    for k, kind in enumerate(kinds):
        own = np.array([i for i, name in rows if name == kind])
        observed = np.exp(result.setup.observed[own])
        predicted = observed * np.exp(result.log_error[own])
        color = colors[k % len(colors)]
        left.plot(observed, predicted, "o", ms=4, color=color, label=kind)
        x = place + np.arange(len(own))
        place += len(own) + 1
        right.errorbar(
            x,
            100.0 * result.cross.log_error[own],
            yerr=100.0 * result.cross.sigma[own],
            fmt="o",
            ms=3,
            lw=0.8,
            color=color,
        )
    ends = np.array(left.get_xlim())
    left.set(xscale="log", yscale="log", xlabel="published, SI", ylabel="predicted, SI")
    ends = np.array(left.get_xlim())
    left.plot(ends, ends, color="gray", lw=0.8, zorder=0)
    left.set_title(f"{result.setup.recipe.system}: predicted and published")
    left.legend(fontsize=8)
    right.axhline(0.0, color="gray", lw=0.8, zorder=0)
    right.set_ylim(-60, 60)
    right.set_xticks([])
    right.set(ylabel="log error of rows left out, % (bars: one sigma)")
    right.set_title("rows left out in turn, by kind; outside the frame: see rows.csv")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
