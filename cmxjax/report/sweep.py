"""What a sweep prints: what became of its points, and the best rows."""

from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..sweeps.counts import BY_CONSTRAINT, Counts
from ..sweeps.run import Swept
from ..words import LONGEST_LINE, cut
from .tables import make_table, number

MOST_REASONS = 3


def swept_tables(swept: Swept) -> Group:
    """Counts, why points were refused, and the best rows with one sigma."""
    plan = swept.plan
    took = f" ({swept.seconds:,.1f} s, {swept.rate:,.0f} points/s)"
    parts: list[RenderableType] = [counts_text(swept.folder, swept.counts, took)]
    if plan.slow:
        parts.append(Text(f"built one by one: {', '.join(plan.slow)}"))
    if swept.best:
        parts.append(best_table(swept))
    return Group(*parts)


def counts_text(folder: Path, counts: Counts, took: str = "") -> Text:
    """What became of the points of a sweep, a line each."""
    rows = f"{counts.points:,} points, {counts.kept:,} rows in {folder}{took}"
    lines = [rows]
    if counts.infeasible:
        lines.append(f"{counts.infeasible:,} points can't run (memory, limits)")
    if counts.missing:
        lines.append(f"{counts.missing:,} rows lack a metric (null)")
    if counts.refused:
        lines.append(f"{counts.refused:,} points are none:")
    for reason, count in counts.reasons.most_common(MOST_REASONS):
        said = "constraints leave them out" if reason == BY_CONSTRAINT else reason
        lines.append(f"  {count:,}: {cut(said, LONGEST_LINE)}")
    if len(counts.reasons) > MOST_REASONS:
        lines.append(f"  and {len(counts.reasons) - MOST_REASONS} more reasons")
    return Text("\n".join(lines))


def best_table(swept: Swept) -> Table:
    """The best rows; error bars are one sigma."""
    plan = swept.plan
    keys = [key for axis in plan.axes for key in axis.keys]
    scores = [field for field, _ in plan.keep.scores] or [plan.keep.fields[0]]
    table = make_table(f"best by {' and '.join(scores)}, one sigma", "point")
    for name in (*keys, *plan.keep.fields):
        table.add_column(name, justify="right", overflow="fold")
    for row in swept.best:
        bars: Any = row["sigma"]
        cells = [str(row["point"]), *(_shown(row[key]) for key in keys)]
        for field in plan.keep.fields:
            value: Any = row[field]
            told = "-" if value is None else number(field, value, bars[field] or 0.0)
            cells.append(told)
        table.add_row(*cells)
    return table


def _shown(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
