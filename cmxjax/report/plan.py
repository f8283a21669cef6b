"""Tables of a capacity plan."""

from rich.console import Group, RenderableType
from rich.text import Text

from ..answers.operations import operations_lines
from ..job.layout import AXES
from ..planning.fleet import Fleet
from ..planning.lay_out import SPACE
from ..planning.plan import Plan
from ..specs.scenario_file import LayoutSpec
from .job import job_text
from .tables import make_table, number, warning_lines

TIMES = ("ttft_s", "ttft_p90_s", "tpot_s")


def plan_tables(plan: Plan) -> Group:
    """The fleets, how they are laid out, what requests see on them, and what to know."""
    rate = number("requests_per_s", plan.requests_per_s)
    title = f"fleets for {rate}" + (
        f", {plan.growth:g} times today's" if plan.growth != 1.0 else ""
    )
    columns = ("instances", "packages", "spare", "cost an hour", "cost a token")
    last = ("energy a token", "takes the load with")
    table = make_table(title, "scenario", *columns, *last)
    for fleet in plan.fleets:
        if fleet.feasible:
            table.add_row(fleet.name, *_row(fleet))
        else:
            table.add_row(fleet.name, *["-"] * 7)
    parts: list[RenderableType] = [table, _layouts(plan), _classes(plan)]
    if any(fleet.replayed for fleet in plan.fleets):
        parts.append(_replays(plan))
    for fleet in plan.fleets:
        parts += _lines(plan, fleet)
    searches = any(fleet.laid.searched for fleet in plan.fleets)
    covers = SPACE if searches else "numbers of instances, as the scenarios lay them out"
    parts += [Text(f"covered: {covers}", style="dim"), _verdict(plan)]
    return Group(*parts)


def _layouts(plan: Plan):
    """How an instance of each pool is laid out, here and in the scenario."""
    columns = ("load", "layout of an instance", "that of the scenario")
    table = make_table("pools", "scenario", "pool", *columns)
    for fleet in plan.fleets:
        laid, shown = fleet.laid, fleet.feasible
        for role, layout in (laid.chosen if shown else {}).items():
            given = laid.given[role]
            was = layout_text(given) if role in laid.changed else "the same"
            load = f"{fleet.sized.load[role]:.0%}"
            table.add_row(fleet.name, role, load, layout_text(layout), was)
    return table


def layout_text(layout: LayoutSpec) -> str:
    """The degrees that a layout says, and how it splits attention if by sequences."""
    said = {axis: getattr(layout, axis) for axis in ("devices", *AXES)}
    parts = [f"{axis} {n}" for axis, n in said.items() if n not in (None, 1)]
    along = [layout.attention] if layout.attention == "sp_tp_sp" else []
    return " ".join([*parts, *along])


def _row(fleet: Fleet) -> tuple[str, ...]:
    sized = fleet.sized
    counts = ", ".join(
        f"{n} {role} of {sized.devices[role]}" for role, n in sized.instances.items()
    )
    hour, token = fleet.usd_per_hour, fleet.usd_per_token
    largest = max(fleet.classes.values(), key=lambda s: s.values["requests_per_s"])
    return (
        counts,
        f"{fleet.packages:g}",
        f"{fleet.spare_packages:g}",
        "-" if hour is None else f"{hour:,.4g} USD ±{fleet.usd_sigma:.0%}",
        "-" if token is None else number("cost_per_token_usd", token, fleet.usd_sigma),
        number(
            "energy_per_token_j",
            fleet.energy_per_token_j,
            largest.sigma["energy_per_token_j"],
        ),
        f"{fleet.sufficient:.0%}",
    )


def _classes(plan: Plan):
    """What each class sees at the load of the fleet's busiest pool."""
    table = make_table("what requests see", "scenario", "class", *TIMES)
    for fleet in plan.fleets:
        for name, seen in fleet.classes.items():
            times = (
                number(key, seen.values[key], seen.sigma[key])
                if key in seen.values
                else "-"
                for key in TIMES
            )
            table.add_row(fleet.name, name, *times)
    return table


def _replays(plan: Plan):
    columns = ("requests", "TTFT mean", "P90", "P99", "TPOT mean", "P90", "within limits")
    table = make_table("the trace, replayed", "scenario", *columns)
    for fleet in plan.fleets:
        if (r := fleet.replayed) is None:
            continue
        times = [r.ttft_s[key] for key in ("mean", "p90", "p99")]
        times += [r.tpot_s[key] for key in ("mean", "p90")]
        shown = (number("ttft_s", seconds) for seconds in times)
        table.add_row(fleet.name, f"{r.requests:,}", *shown, f"{r.within:.1%}")
    return table


def _lines(plan: Plan, fleet: Fleet) -> list[Text]:
    """What a fleet lacks, or what it rests on and what would make it surer."""
    name = fleet.name
    if not fleet.feasible:
        return [Text(f"{name}: {reason}", style="red") for reason in fleet.reasons]
    lines = [
        f"{name}: {fleet.hosts_down:.2g} hosts are repaired at a time; spares make up for"
        f" them with {plan.available:.4g} probability",
    ]
    searched = f"none of {fleet.laid.counts} needs fewer"
    lines += [f"{name}: {searched}"] if fleet.laid.searched else []
    lines += [f"{name}: to be surer, {fleet.unsure}"] if fleet.unsure else []
    prices = ["cost_per_token_usd", "mtbf_s"]
    lines += [f"{name}: {line}" for line in operations_lines(fleet.problem, prices)]
    if (against := plan.against(fleet)) is not None:
        lines.append(
            f"{name}: costs as little as the cheapest at"
            f" {against.package_hour_usd:.3g} USD a package-hour; it is cheaper with"
            f" {against.cheaper:.0%} probability"
        )
    told = warning_lines(fleet.problem.warnings)
    return [*(Text(line, style="dim") for line in lines), *told, job_text(fleet.problem)]


def _verdict(plan: Plan) -> Text:
    if not plan.feasible:
        return Text("not feasible: " + "; ".join(plan.reasons), style="red")
    fewest, cheapest = plan.fleets[0], plan.cheapest
    said = f"fewest packages: {fewest.all_packages:g} of {fewest.problem.system.name}"
    if cheapest is not None and cheapest.usd_per_hour and cheapest.usd_per_token:
        token = number("cost_per_token_usd", cheapest.usd_per_token, cheapest.usd_sigma)
        said += (
            f"; least cost: {cheapest.usd_per_hour:,.4g} USD an hour, {token}, on"
            f" {cheapest.problem.system.name}"
        )
    return Text(said, style="green")
