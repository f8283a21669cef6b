"""Text tables of predictions, validations, comparisons and specs."""

from collections.abc import Iterable

from rich.console import Group
from rich.table import Table
from rich.text import Text

from ..answers.compare import Comparison, Odds
from ..answers.predict import Prediction
from ..answers.validate import Validation
from ..units import dimension_of, format_si
from .job import job_text

SMALLEST_SHARE = 0.001

BOUNDS = {None: "", "floor": ">= ", "ceiling": "<= "}


def number(name: str, value: float, sigma: float = 0.0) -> str:
    """A metric with its unit, read off its name, and its relative one sigma."""
    return format_si(value, dimension_of(name), sigma)


def percent(sigma: float) -> str:
    """A relative one sigma; empty for what is exact."""
    return f"±{sigma:.1%}" if sigma else ""


def make_table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right")
    return table


def warning_lines(warnings: Iterable[str]) -> list[Text]:
    """What to know of machines, a line for each."""
    return [Text(line, style="yellow") for line in dict.fromkeys(warnings)]


def prediction_tables(prediction: Prediction) -> Group:
    """Metrics, breakdown and feasibility of one prediction."""
    p = prediction.problem
    title = f"{p.scenario.phase} on {p.system.name} (calibration: {p.calibration})"
    table = make_table(title, "metric", "value", "one sigma")
    for name, value in prediction.values.items():
        table.add_row(name, number(name, value), percent(prediction.sigma[name]))
    for name in prediction.endless:
        table.add_row(name, "-", "")
    parts: list = [table, *map(Text, prediction.operations)]
    if prediction.images_line:
        parts.append(Text(prediction.images_line))
    if prediction.pools:
        parts.append(_pools_table(prediction))
    if len(prediction.stages) > 1:
        parts.append(_stages_table(prediction))
    if prediction.busy:
        parts.append(_breakdown_table(prediction))
    parts += _evidence_lines(prediction)
    parts += warning_lines(prediction.warnings)
    verdict = Text("feasible", style="green")
    if prediction.reasons:
        verdict = Text("not feasible: " + "; ".join(prediction.reasons), style="red")
    return Group(*parts, job_text(p), verdict)


def _evidence_lines(prediction: Prediction) -> list[Text]:
    """The nearest measured runs, and what lies outside of all that was fitted."""
    trust, lines = prediction.trust, []
    for run in trust.evidence:
        off = run.modelled / run.measured - 1.0
        lines.append(
            f"measured nearby: {run.quantity} {run.measured:.4g} {run.unit}, model"
            f" {run.modelled:.4g} ({off:+.1%}): {run.id}, {run.locator}, {run.source}"
        )
    if trust.outside:
        parts = "; ".join(map(str, trust.outside))
        wider = f", bars {trust.widening:.2g} times as wide" if trust.widening > 1 else ""
        lines.append(f"outside of what was fitted{wider}: {parts}")
    return [Text(line, style="dim", no_wrap=True, overflow="ellipsis") for line in lines]


def _pools_table(prediction: Prediction) -> Table:
    """What each pool can serve within the limits, and what it is bound by."""
    columns = ("devices", "instances", "within limits", "utilization", "memory")
    table = make_table("pools", "role", *columns, "bound by")
    for role, pool in prediction.pools.items():
        values = {name: v for name, v in pool.items() if isinstance(v, float)}
        sigma = prediction.trust.pools[role]
        table.add_row(
            role,
            f"{values['devices']:g}",
            f"{values['instances']:g}",
            *(
                number(name, values[name], sigma[name])
                for name in ("requests_per_s", "utilization")
            ),
            number("memory_bytes", values["memory_bytes"], sigma["memory_bytes"])
            if role != "cache"
            else "-",
            str(pool["bound"]),
        )
    return table


def _stages_table(prediction: Prediction) -> Table:
    """Memory of a device of each pipeline stage, by class."""
    names = list(next(iter(prediction.stages.values())))
    short = [name.removeprefix("memory_").removesuffix("_bytes") for name in names]
    table = make_table("memory of a device by stage", "stage", *short, "all")
    for stage, classes in prediction.stages.items():
        sizes = [*classes.values(), sum(classes.values())]
        table.add_row(stage, *(number("memory_bytes", size) for size in sizes))
    return table


def _breakdown_table(prediction: Prediction) -> Table:
    total = sum(prediction.breakdown.values())
    columns = ("time", "one sigma", "share", "busy", "parameters")
    table = make_table("where the time goes", "component", *columns)
    trust = prediction.trust
    ordered = sorted(prediction.breakdown.items(), key=lambda item: -item[1])
    for name, share in ordered:
        busy = prediction.busy[name]
        if share < SMALLEST_SHARE * total and busy < 0.01 * total:
            continue
        bar, busy = percent(trust.breakdown[name]), format_si(busy, "time")
        row = format_si(share, "time"), bar, f"{share / total:.1%}", busy
        table.add_row(name, *row, trust.origin.get(name, ""))
    hidden = sum(v for v in prediction.breakdown.values() if v < SMALLEST_SHARE * total)
    table.add_section()
    table.add_row("sum", format_si(total, "time"), "", "100.0%", "", "")
    table.caption = f"rows under 0.1 % together: {format_si(hidden, 'time')}"
    return table


def validation_table(name: str, validation: Validation) -> Group:
    """Every row of a measurement file beside its prediction."""
    title = f"validate {name} (calibration: {validation.calibration})"
    table = make_table(
        title,
        *("measurement", "observed", "sigma", "predicted", "sigma", "unit"),
        *("error", "joint sigma", "verdict"),
    )
    for row in validation.rows:
        style = "" if row.verdict == "consistent" else "yellow"
        table.add_row(
            row.id,
            f"{BOUNDS[row.bound]}{row.observed:.5g}",
            percent(row.relative_sigma),
            f"{row.predicted:.5g}",
            percent(row.predicted_relative_sigma),
            row.unit,
            "met" if row.met else f"{row.relative_error:+.1%}",
            percent(row.joint_sigma),
            row.verdict,
            style=style,
        )
    count = len(validation.rows)
    summary = (
        f"{count} row{'s' * (count != 1)}: median error {validation.median:.1%},"
        f" largest {validation.worst:.1%}. A row is consistent if prediction and"
        " measurement agree within two of their joint sigma."
    )
    bounds = [row for row in validation.rows if row.bound]
    if bounds:
        met = sum(row.met for row in bounds)
        summary += (
            f" {len(bounds)} of them bound{'s' * (len(bounds) == 1)} the true value and"
            f" count{'s' * (len(bounds) == 1)} as no error where met: {met}."
        )
    notes = [
        Text(f"  {row.id}: {row.note}")
        for row in validation.rows
        if row.note and row.verdict != "consistent"
    ]
    heading = [Text("Notes on inconsistent rows:")] if notes else []
    return Group(table, Text(summary, style="bold"), *heading, *notes)


def comparison_tables(comparison: Comparison) -> Group:
    """Metrics of several systems, each with its sigma, its ratio to the first, and the
    probability that it is the better of the two."""
    first, *others = comparison.predictions
    table = make_table("compare", "metric", *comparison.names)
    for name in (*first.values, *first.endless):
        cells = [value_of(first, name)]
        for other, odds in zip(others, comparison.odds, strict=True):
            cells.append(_compared(other, name, odds.get(name)))
        table.add_row(name, *cells)
    feasible = ["no" if p.reasons else "yes" for p in comparison.predictions]
    table.add_row("feasible", *feasible)
    if any(odds.better is not None for all_ in comparison.odds for odds in all_.values()):
        first_name = comparison.names[0]
        table.caption = f"better: the probability of being better than {first_name}"
    told = (line for p in comparison.predictions for line in p.warnings)
    costs = [
        Text(f"{name}: {line}")
        for name, p in zip(comparison.names, comparison.predictions, strict=True)
        for line in p.operations
    ]
    return Group(table, *costs, *warning_lines(told))


def value_of(prediction: Prediction, name: str) -> str:
    """A metric with its unit and sigma; a dash where it has no value."""
    if name not in prediction.values:
        return "-"
    return number(name, prediction.values[name], prediction.sigma[name])


def _compared(prediction: Prediction, name: str, odds: Odds | None) -> str:
    shown = value_of(prediction, name)
    if odds is None:
        return shown
    parts = [f"{odds.ratio:.3g}x {percent(odds.sigma)}".rstrip()]
    if odds.better is not None:
        parts.append(f"better {min(max(odds.better, 0.01), 0.99):.0%}")
    return f"{shown} ({', '.join(parts)})"


def names_table(what: str, names: list[str]) -> Table:
    """A list of shipped names."""
    table = make_table(what, "name")
    for name in names:
        table.add_row(name)
    return table
