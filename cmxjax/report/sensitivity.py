"""Tables and pictures of elasticities, inverse questions and measurement plans."""

from pathlib import Path

import numpy as np
from rich.console import Group
from rich.text import Text

from ..answers.operations import operations_lines
from ..answers.predict import Prediction
from ..answers.sensitivity import USUAL, WHAT_IF, Sensitivity
from ..answers.solve import Solution
from ..calibrate.plan import Plan
from ..quantities import field_of
from ..specs.measurement_file import QUANTITIES
from ..units import dimension_of, format_si
from .pictures import Axes, save, subplots
from .tables import make_table, number

SMALLEST = 1e-3
"""Elasticities below this are left out of tables."""

BARS = 25


def sensitivity_tables(result: Sensitivity) -> Group:
    """Elasticities with one-sided values at kinks, and the what-if beside them."""
    title = (
        f"elasticities of {result.quantity} ="
        f" {number(result.field, result.value, result.sigma)}"
        f" (calibration: {result.problem.calibration})"
    )
    more = f"{WHAT_IF - 1.0:+.0%}"
    table = make_table(
        title, "leaf", "value", "elasticity", f"{more}, exact", f"{more}, first order", ""
    )
    shown = [e for e in result.leaves if max(abs(e.elasticity), abs(e.right)) > SMALLEST]
    for e in shown:
        value = format_si(e.value, dimension_of(e.path))
        changes = f"{e.larger - 1.0:+.2%}", f"{e.first_order - 1.0:+.2%}"
        table.add_row(e.path, value, f"{e.elasticity:+.4f}", *changes, e.note)
    rest = len(result.leaves) - len(shown)
    lines = [
        *operations_lines(result.problem, [result.field]),
        f"{rest} more leaves have elasticities below {SMALLEST:g}.",
        f"Times minus rates: {result.time_sum:+.6f}. A time gives +1 and a rate -1:"
        " with every latency doubled and every rate halved it doubles.",
    ]
    return Group(table, *(Text(line) for line in lines))


def draw_elasticities(result: Sensitivity, path: Path) -> None:
    """A bar for each of the largest elasticities."""
    largest = [e for e in result.leaves if abs(e.elasticity) > SMALLEST][:BARS][::-1]
    height = 1.2 + 0.28 * len(largest)
    figure, axes = subplots(figsize=(9, height), layout="constrained")
    values = [e.elasticity for e in largest]
    colors = ["tab:red" if v > 0 else "tab:blue" for v in values]
    axes.barh([e.path for e in largest], values, color=colors)
    axes.axvline(0.0, color="gray", lw=0.8)
    axes.set_xlabel(f"d ln {result.quantity} / d ln leaf")
    system = result.problem.system.name
    value = number(result.field, result.value, result.sigma)
    axes.set_title(f"{result.quantity} on {system}, {value}: what it follows")
    save(figure, path)


def draw_binding(
    key: str, values: list[float], predictions: list[Prediction], path: Path
):
    """The time over a workload key with one sigma, and each resource's share of it."""
    shares: dict[str, list[float]] = {}
    for prediction in predictions:
        total = sum(prediction.breakdown.values())
        percents: dict[str, float] = {}
        for name, value in prediction.breakdown.items():
            group = resource_of(name)
            percents[group] = percents.get(group, 0.0) + 100.0 * value / total
        for name, value in percents.items():
            shares.setdefault(name, []).append(value)
    order = sorted(shares, key=lambda name: -max(shares[name]))
    order = [name for name in order if max(shares[name]) > 0.5]
    heights = {"height_ratios": [1, 2.5]}
    figure, (above, axes) = subplots(
        2, figsize=(9, 6), sharex=True, layout="constrained", gridspec_kw=heights
    )
    phase = predictions[0].problem.scenario.phase
    field = field_of(USUAL[phase], None, phase)
    _draw_band(above, field, values, predictions)
    axes.stackplot(values, [shares[name] for name in order], labels=order)
    axes.set(xlabel=key, ylabel="share of the time, %", ylim=(0, 100))
    axes.set(xlim=(min(values), max(values)), xscale="log")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
    system = predictions[0].problem.system.name
    above.set_title(f"{phase} on {system}: what binds")
    save(figure, path)


def _draw_band(
    axes: Axes, field: str, values: list[float], predictions: list[Prediction]
) -> None:
    """A metric with its one sigma."""
    # a gap where more arrives than can be served
    middle = np.array([p.values.get(field, np.nan) for p in predictions])
    sigma = np.array([p.sigma.get(field, np.nan) for p in predictions])
    axes.plot(values, middle, color="black")
    axes.fill_between(values, middle * (1 - sigma), middle * (1 + sigma), alpha=0.3)
    axes.set_ylabel(f"{field}, one sigma", fontsize=8)
    axes.set_ylim(bottom=0.0)


def resource_of(component: str) -> str:
    """The resource of a breakdown's component, such as `attention.memory`."""
    block, _, part = component.rpartition(".")
    if part in ("matrix", "vector", "memory", "launch"):
        return part
    if part == "transfer":
        return f"{block} bandwidth"
    return "host" if block == "host" else f"{block} latency"


def solution_table(solution: Solution) -> Group | Text:
    """The leaves' values, or why there are none."""
    if solution.reason:
        return Text("not solved: " + solution.reason, style="red")
    target = solution.target
    title = (
        f"{target.quantity} = {target.meaning} (calibration:"
        f" {solution.problem.calibration}); {solution.iterations} Newton steps"
    )
    table = make_table(title, "leaf", "value", "times what it is")
    for path, value in solution.values.items():
        shown = format_si(value, dimension_of(path), solution.sigma)
        table.add_row(path, shown, f"{solution.factor:.4g}")
    notes = operations_lines(solution.problem, [target.field])
    return Group(table, *map(Text, notes))


def plan_table(plan: Plan) -> Group:
    """Candidates by the error bar that each would leave."""
    title = (
        f"{plan.quantity} now: relative sigma {plan.sigma:.2%}, of which"
        f" {plan.floor:.2%} is the model's discrepancy"
    )
    table = make_table(title, "measure next", "quantity", "expected", "sigma after", "")
    for choice in plan.choices:
        expected = format_si(choice.expected, QUANTITIES[choice.quantity])
        after = f"{choice.sigma:.2%}"
        table.add_row(choice.id, choice.quantity, expected, after, choice.note)
    return Group(table)
