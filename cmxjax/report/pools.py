"""Tables of the best split of a machine into pools."""

from rich.console import Group
from rich.table import Table

from ..optimization.pool_split import PoolSplit, Split
from .tables import make_table, number

ROWS = 12
"""Splits that are printed, those next to the best one; the JSON holds all."""


def split_tables(found: PoolSplit) -> Group:
    """The best pools, how good the rounded ones are, and the splits around them."""
    p, best = found.problem, found.best
    title = f"serve on {p.system.name}: best pools (calibration: {p.calibration})"
    table = make_table(
        title, "role", "instances", "devices", "relaxed devices", "within limits"
    )
    for role, count in best.instances.items():
        own = found.metrics.pools[role]
        table.add_row(
            role,
            f"{count}",
            f"{best.devices[role]}",
            f"{found.share[role] * found.devices:.1f}",
            number("requests_per_s", float(own.requests_per_s)),
        )
    table.caption = f"{found.idle_devices} of {found.devices} devices idle"
    return Group(table, _certificate(found), _splits(found))


def _certificate(found: PoolSplit) -> Table:
    table = make_table("how good it is", "", "value", "model evaluations")
    spent = found.evaluations
    rows = {
        f"relaxed, {'gradient' if 'expert' in found.share else 'closed form'}": (
            found.relaxed_requests_per_s,
            spent["relaxed"],
        ),
        "rounded to whole instances": (found.rounded.requests_per_s, spent["rounded"]),
        "exhaustive optimum": (found.best.requests_per_s, spent["exhaustive"]),
    }
    for name, (rate, evaluations) in rows.items():
        table.add_row(name, number("requests_per_s", rate), f"{evaluations:,}")
    table.add_row("gap of the rounded", f"{found.rounding_gap:.2%}", "")
    table.add_row("cost of whole instances", f"{found.gap:.2%}", "")
    return table


def _splits(found: PoolSplit) -> Table:
    """Splits whose first pool is closest in size to the best one's."""
    role = next(iter(found.best.instances))

    def apart(split: Split) -> int:
        return abs(split.instances[role] - found.best.instances[role])

    table = make_table("splits", *found.best.instances, "requests within limits")
    near = sorted(found.splits, key=apart)[:ROWS]
    for split in sorted(near, key=lambda split: split.instances[role]):
        counts = [f"{count}" for count in split.instances.values()]
        table.add_row(*counts, number("requests_per_s", split.requests_per_s))
    return table
