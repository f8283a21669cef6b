"""Tables, picture and scenario file of an answer of the layout search."""

import numpy as np
from rich.console import Group, RenderableType
from rich.text import Text

from ..answers.limits import more_is_better
from ..answers.operations import operations_lines
from ..job.layout import AXES
from ..optimization.answer import Answer, Certificate
from ..optimization.cells import Points
from ..optimization.price import GRADIENT_COST
from ..optimization.trade_off import TradeOff
from ..specs.build import build
from ..specs.errors import SpecError
from ..specs.scenario import validate_scenario
from ..specs.scenario_write import raw_scenario, write_scenario
from .pictures import save, subplots
from .tables import make_table, number, percent, warning_lines

ROWS = 12
"""Rows of a printed front; the JSON holds all of them."""

BESIDE = ("layout.vpp",)
"""Keys of the layout that a front lists beside the settings."""


def answer_tables(answer: Answer) -> Group:
    """The layout, the certificate and the front of throughput against latency."""
    p, objective = answer.job.problem, answer.job.objective
    title = (
        f"{p.scenario.phase} on {p.system.name}: best {objective.quantity}"
        f" by {answer.method} in {answer.seconds:.1f} s (calibration: {p.calibration})"
    )
    table = make_table(title, "quantity", "value", "one sigma")
    for name, value in answer.metrics.items():
        sigma = 0.0 if answer.point is None else answer.sigma(answer.point, name)
        table.add_row(name, number(name, value), percent(sigma))
    for key, value in answer.changes.items():
        if value is None:
            continue
        table.add_row(key, _short(value), "")
    notes = map(Text, operations_lines(p, [*answer.metrics]))
    parts: list[RenderableType] = [table, *notes, _certificate_table(answer)]
    latency = answer.front.fields[1]
    parts += [_trade_table(answer, trade) for trade in answer.trade_offs if trade.steps]
    if latency in answer.front.points and not answer.trade_offs:
        parts.append(_front_table(answer, latency))
    parts += warning_lines(p.warnings)
    verdict = Text("feasible", style="green")
    if not answer.feasible:
        verdict = Text("; ".join(answer.reasons), style="red")
    return Group(*parts, verdict)


def _certificate_table(answer: Answer):
    c = answer.certificate
    table = make_table("how good it is", "", "value", "model evaluations")
    field = answer.job.objective.field

    def show(value: float | None) -> str:
        return "-" if value is None else number(field, value)

    spent = c.evaluations
    if "search_total" in spent:
        gradients = f"{spent['search_gradients']:,} gradients, {GRADIENT_COST} each"
        table.add_row("relaxed, end of descent", show(c.relaxed), gradients)
        table.add_row("rounded, exact", show(c.rounded), "")
        exact = f"{spent['search_exact']:,} exact; {spent['search_total']:,} in all"
        table.add_row("refined, exact", show(c.refined), exact)
    if "exhaustive" in spent:
        table.add_row("best of all", show(answer.value), f"{spent['exhaustive']:,}")
        table.add_row("no layout is better than", show(c.bound), _checks(c))
    gap = "-" if c.gap is None else f"{c.gap:.2%}"
    table.add_row("gap", gap, f"of {c.points:,} layouts")
    return Group(table, Text(f"Searched: {c.space}.", style="dim"))


def _checks(c: Certificate) -> str:
    """How far the bound was seen to hold."""
    held = "all within it" if c.slack == 0.0 else f"at worst {c.slack:.2%} beyond, added"
    return f"{c.checked:,} of what was dropped drawn: {held}"


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _front_table(answer: Answer, cost: str):
    rate = answer.front.fields[0]
    title = f"{rate} against {cost}, of the layouts that were priced on the way"
    table = make_table(title, cost, rate, "degrees", "settings")
    rows = answer.front.table(cost)
    step = max(1, -(-len(rows) // ROWS))
    for throughput, paid, point in rows[::step]:
        table.add_row(
            number(cost, paid, answer.sigma(point, cost)),
            number(rate, throughput, answer.sigma(point, rate)),
            *_layout(answer, point),
        )
    return table


def _trade_table(answer: Answer, trade: TradeOff):
    """The best under each limit, with what none within it is better than."""
    first, other = (answer.job.field(name) for name in (trade.first, trade.other))
    title = f"best {trade.first} under limits on {trade.other}: none within is better"
    columns = (trade.first, trade.other, "none better than", "gap", "degrees", "settings")
    table = make_table(title, "limit", *columns)
    for step in trade.steps:
        table.add_row(
            number(other, step.limit),
            number(first, step.value, answer.sigma(step.point, first)),
            number(other, step.other, answer.sigma(step.point, other)),
            number(first, step.bound),
            f"{step.gap:.2%}",
            *_layout(answer, step.point),
        )
    return table


def _layout(answer: Answer, point: Points) -> tuple[str, str]:
    """Degrees and settings of a point, short."""
    changes = answer.changes_of(point)
    degrees = " ".join(
        f"{axis}{changes[f'layout.{axis}']}"
        for axis in AXES
        if changes[f"layout.{axis}"] != 1
    )
    settings = " ".join(
        f"{key.removeprefix('workload.').removeprefix('layout.')}={_short(value)}"
        for key, value in changes.items()
        if key.startswith("workload.") or key in BESIDE
    )
    return degrees, settings


def write_picture(answer: Answer, path: str) -> None:
    """Draw throughput against latency, memory and energy; or the trade-offs asked for.

    Raises:
        SpecError: the file can't be written.
    """
    curves = _curves(answer)
    figure, axes = subplots(1, len(curves), figsize=(4 * len(curves), 3.4), squeeze=False)
    for axis, (rate, cost, where, rows) in zip(axes[0], curves):
        paid, rates = [row[1] for row in rows], np.array([row[0] for row in rows])
        axis.step(paid, rates, where=where, marker=".")
        wide = rates * np.array([answer.sigma(row[2], rate) for row in rows])
        band = rates - wide, rates + wide
        axis.fill_between(paid, *band, step=where, alpha=0.2, label="one sigma")
        axis.set_xlabel(cost)
        axis.set_ylabel(rate)
        axis.set_xscale("log")
        axis.legend()
        axis.grid(alpha=0.3)
    scenario = answer.job.problem.scenario
    figure.suptitle(f"{scenario.phase} on {answer.job.problem.system.name}")
    figure.tight_layout()
    save(figure, path)


def _curves(answer: Answer) -> list[tuple[str, str, str, list]]:
    """What is drawn: a quantity, what it is traded against, how steps between points
    go, and rows of both with the point."""
    front = answer.front
    if not answer.trade_offs:
        return [(front.fields[0], c, "post", front.table(c)) for c in front.fields[1:]]
    curves = []
    for trade in answer.trade_offs:
        first, other = (answer.job.field(name) for name in (trade.first, trade.other))
        rows = [(step.value, step.other, step.point) for step in reversed(trade.steps)]
        where = "pre" if more_is_better(trade.other) else "post"
        curves.append((first, other, where, rows))
    return curves


def as_scenario(answer: Answer) -> dict[str, object]:
    """The raw keys of a scenario with the answer's layout."""
    return raw_scenario(answer.job.problem.scenario, answer.changes)


def write_answer(answer: Answer, path: str) -> None:
    """Write the answer as a scenario file.

    An answer that only exceeds memory or limits is written too.

    Raises:
        SpecError: no layout was found or the nearest can't be run at all, or the file
            can't be written.
    """
    if not answer.changes:
        raise SpecError([f"--out {path}: there is no layout to write"])
    nearest = f"--out {path}: the nearest layout can't be run"
    build(validate_scenario(as_scenario(answer), nearest), "none", nearest)
    write_scenario(answer.job.problem.scenario, answer.changes, path)
