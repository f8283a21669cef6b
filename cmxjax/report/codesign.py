"""Tables and picture of a co-design."""

import math

from rich.console import Group, RenderableType
from rich.text import Text

from ..optimization.codesign.result import Codesign, Design, Run
from ..units import dimension_of, format_si
from .pictures import Axes, save, subplots
from .tables import make_table, number, warning_lines


def codesign_tables(result: Codesign) -> Group:
    """Resources, items, workloads, the path over budgets, and how good it is."""
    parts: list[RenderableType] = [
        _resources(result),
        _items(result),
        _workloads(result),
        _path(result),
    ]
    parts += [Text(line) for line in _quality(result)]
    parts += warning_lines(result.warnings)
    verdict = Text("feasible", style="green")
    if not result.best.feasible:
        verdict = Text("not feasible: " + "; ".join(result.best.reasons), style="red")
    elif result.gain is not None:
        verdict = Text(f"feasible; the mix gains {result.gain - 1.0:+.1%}", style="green")
    return Group(*parts, verdict)


def _resources(result: Codesign):
    best, c = result.best, result.best.certificate
    budget = format_si(best.budget, result.spec.dimension)
    names = sorted({job.problem.calibration for job in result.jobs})
    title = (
        f"{result.spec.title}: best machine for {budget} in {result.seconds:.1f} s"
        f" (calibration: {', '.join(names)})"
    )
    columns = ("now", "best", "times", "of the budget", "elasticity", "marginal gain", "")
    table = make_table(title, "resource", *columns)
    for k, (name, resource) in enumerate(result.spec.resources.items()):
        path = next((p for p in best.values if _moves(result, name, p)), None)
        cells = ["-", "-"]
        if path is not None:
            factor = best.multipliers[name] ** resource.power
            shown = best.values[path] / factor, best.values[path]
            cells = [format_si(value, dimension_of(path)) for value in shown]
        row = [*cells, f"{best.multipliers[name]:.3f}", f"{best.shares[name]:.1%}"]
        if c is not None:
            gain = "-" if math.isnan(c.marginal[k]) else f"{c.marginal[k]:.4f}"
            row += [f"{c.elasticities[k]:+.4f}", gain, c.at[k]]
        table.add_row(name, *row)
    table.caption = (
        "marginal gain: % of the mix for 1 % of the budget spent there, batches adjusted"
    )
    return table


def _moves(result: Codesign, resource: str, path: str) -> bool:
    return path in result.leaves[resource]


def _items(result: Codesign):
    table = make_table("what it is spent on", "item", "now", "best", "kind", "source")
    unit = result.spec.dimension
    for name, item in result.spec.items.items():
        spent = result.now.spent[name], result.best.spent[name]
        shown = [format_si(value, unit) for value in spent]
        table.add_row(name, *shown, item.kind, f"{item.source}: {item.locator}")
    table.add_section()
    shown = [format_si(design.cost, unit) for design in (result.now, result.best)]
    table.add_row("sum", *shown, "", "")
    return table


def _workloads(result: Codesign):
    columns = ("metric", "now", "best", "whole batch", "mean batch", "used of the limits")
    table = make_table("workloads", "workload", *columns)
    for k, job in enumerate(result.jobs):
        first, last = result.now.runs[k], result.best.runs[k]
        unit = "tokens_per_s" if job.form.whole_system else job.form.field
        shown = [number(unit, run.metric) for run in (first, last)]
        whole = "-" if last.whole is None else number(unit, last.whole[0])
        batch = "-" if last.batch is None else f"{first.batch:.1f} -> {last.batch:.1f}"
        used = ", ".join(f"{n} {v:.1%}" for n, v in _told(last).items())
        label = f"{job.share.scenario.phase}, weight {job.weight:.2f}"
        table.add_row(label, job.objective, *shown, whole, batch, used)
    return table


def _told(run: Run) -> dict[str, float]:
    """Limits that a reader asks for: devices and whole requests only where broken."""
    return {
        name: used
        for name, used in run.limits.items()
        if name not in ("devices", "requests of a group") or used > 1.0 + 1e-6
    }


def _path(result: Codesign):
    names = list(result.spec.resources)
    table = make_table("over budgets", "budget", "mix", *names, "")
    for design in result.path:
        gain = math.exp(design.mean - result.now.mean)
        shown = [f"{design.multipliers[name]:.3f}" for name in names]
        mark = "" if design.feasible else "not feasible"
        budget = format_si(design.budget, result.spec.dimension)
        table.add_row(budget, f"{gain:.3f}x", *shown, mark)
    return table


def _quality(result: Codesign) -> list[str]:
    best, c = result.best, result.best.certificate
    lines = []
    if c is not None and best.relaxed is not None:
        lines += [
            f"Relaxed optimum: marginal gains of free resources agree within"
            f" {c.spread:.2%}; 1 % more budget gains {c.budget_multiplier:.3f} %; a batch"
            f" could still gain {c.residual:.1e} per log; limits exceeded by"
            f" {c.violation:.1e}.",
            f"Exact mix over the relaxed one: {math.exp(best.mean - best.relaxed):.4f}."
            f" The best exact exchange of 1 % of a resource for others gains"
            f" {best.best_exchange:.1e}.",
        ]
    lines.append(
        f"{result.gradients:,} gradients, {result.machines:,} machines evaluated exactly,"
        " each with its batches searched."
    )
    return lines


def draw_codesign(result: Codesign, path: str) -> None:
    """Resources over the budget, the mix over the budget, where the budget goes.

    Raises:
        SpecError: the file can't be written.
    """
    figure, axes = subplots(1, 3, figsize=(14, 4.2), layout="constrained")
    good = [design for design in result.path if design.feasible]
    scale = 1e3 if result.spec.dimension == "power" else 1.0
    unit = "kW" if result.spec.dimension == "power" else result.spec.dimension
    budgets = [design.budget / scale for design in good]
    for k, name in enumerate(result.spec.resources):
        values = [design.multipliers[name] for design in good]
        axes[0].plot(budgets, values, marker="os^vD*P"[k % 7], label=name)
    axes[0].set(yscale="log", ylabel="times what it is", ylim=(0.2, 5.0))
    ticks = (0.25, 0.5, 1.0, 2.0, 4.0)
    axes[0].set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes[0].legend(fontsize=8, ncols=4, loc="upper center", bbox_to_anchor=(0.5, 1.2))
    mix = [math.exp(design.mean - result.now.mean) for design in good]
    axes[1].plot(budgets, mix, marker="o", label="best machine")
    now = result.now.cost / scale
    axes[1].plot([now], [1.0], "kx", label="the machine as it is")
    axes[1].set(ylabel="mix of workloads, times what it is")
    axes[1].legend(fontsize=8)
    for axis in axes[:2]:
        axis.set_xlabel(f"budget, {unit}")
        axis.grid(alpha=0.3)
    _spent(axes[2], [result.now, result.best], scale, unit)
    axes[1].set_title(result.spec.title)
    save(figure, path)


def _spent(axis: Axes, designs: list[Design], scale: float, unit: str) -> None:
    bottom = [0.0, 0.0]
    for name in designs[0].spent:
        values = [design.spent[name] / scale for design in designs]
        axis.bar(["as it is", "best"], values, 0.6, bottom=bottom, label=name)
        bottom = [b + v for b, v in zip(bottom, values)]
    axis.set(ylabel=unit, xlim=(-0.5, 2.6))
    axis.legend(fontsize=8, loc="center right")
