"""Tables of the best split of a machine into pools."""

from rich.console import Group
from rich.table import Table
from rich.text import Text

from ..optimization.pool_split import PoolSplit, Split
from .tables import make_table, number, warning_lines

ROWS = 12
"""Splits that are printed, those next to the best one; the JSON holds all."""


def split_tables(split: PoolSplit) -> Group:
    """The best pools, how good the rounded ones are, and the splits around them."""
    p, best = split.problem, split.best
    kind = "best" if split.feasible else "nearest"
    title = f"serve on {p.system.name}: {kind} pools (calibration: {p.calibration})"
    table = make_table(
        title, "role", "instances", "devices", "relaxed devices", "within limits"
    )
    for role, count in best.instances.items():
        pool = split.metrics.pools[role]
        table.add_row(
            role,
            f"{count}",
            f"{best.devices[role]}",
            f"{split.share[role] * split.devices:.1f}" if split.share else "-",
            number("requests_per_s", float(pool.requests_per_s)),
        )
    table.caption = f"{split.idle_devices} of {split.devices} devices idle"
    verdict = Text("feasible" + _met(split), style="green")
    if not split.feasible:
        verdict = Text("not feasible: " + "; ".join(split.reasons), style="red")
    claim = Text(f"Covered: {split.covers}.")
    told = warning_lines(split.problem.warnings)
    return Group(table, _certificate(split), _splits(split), *told, claim, verdict)


def _met(split: PoolSplit) -> str:
    asked = split.requested_requests_per_s
    return "" if asked is None else f": {number('requests_per_s', asked)} are met"


def _certificate(split: PoolSplit) -> Table:
    table = make_table("how good it is", "", "value", "model evaluations")
    spent = split.evaluations
    rows = {
        f"relaxed, {'gradient' if split.climbed else 'closed form'}": (
            split.relaxed_requests_per_s,
            spent["relaxed"],
        ),
        "rounded to whole instances": (split.rounded.requests_per_s, spent["rounded"]),
        "best of every split" if split.complete else "best of those tried": (
            split.best.requests_per_s,
            spent["exhaustive"],
        ),
    }
    for name, (rate, evaluations) in rows.items():
        table.add_row(name, number("requests_per_s", rate), f"{evaluations:,}")
    if split.share and not split.fewest:
        table.add_row("gap of the rounded", f"{split.rounding_gap:.2%}", "")
        table.add_row("cost of whole instances", f"{split.gap:.2%}", "")
    return table


def _splits(answer: PoolSplit) -> Table:
    """Splits whose first pool is closest in size to the best one's."""
    role = next(iter(answer.best.instances))

    def apart(split: Split) -> int:
        return abs(split.instances[role] - answer.best.instances[role])

    table = make_table("splits", *answer.best.instances, "requests within limits")
    near = sorted(answer.splits, key=apart)[:ROWS]
    for split in sorted(near, key=lambda split: split.instances[role]):
        counts = [f"{count}" for count in split.instances.values()]
        table.add_row(*counts, number("requests_per_s", split.requests_per_s))
    return table
