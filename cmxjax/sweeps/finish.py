"""What is done once all parts of a sweep are there: choose among their rows, error bars,
and the best few for the eye."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .dataset import Folder, arrow, part_name
from .keep import more_is_better
from .plan import Plan
from .sigma import sigmas_of
from .table import FEASIBLE, POINT, SIGMA

if TYPE_CHECKING:
    import pyarrow as pa
else:
    pa = object  # only what writes and reads imports it

SHOWN = 5
"""Rows that an answer prints."""


def chosen(plan: Plan, folder: Folder) -> "pa.Table":
    """The rows that are best of all parts, with their error bars, best first."""
    pa, parquet = arrow()
    parts = (parquet.read_table(folder.part(i)) for i in range(plan.grid.parts))
    table = None
    for part in parts:
        part = part.replace_schema_metadata(None)
        table = part if table is None else pa.concat_tables([table, part])
        if table.num_rows:
            rows = plan.keep.best(_columns(plan, table), _numpy(table[POINT]))
            table = table.take(rows)
    assert table is not None  # a sweep has a part at least
    if not plan.sweep.spec.keep.with_sigma(table.num_rows, plan.phase):
        return table
    return _barred(plan, table)


def add_bars(plan: Plan, folder: Folder) -> None:
    """Give the rows of all parts their error bars, file by file; those that have them
    stay as they are."""
    _, parquet = arrow()
    for number in range(plan.grid.parts):
        path = folder.part(number)
        table = parquet.read_table(path)
        if not _has_bars(plan, table.schema.names):
            folder.write(path, _barred(plan, table), folder.told(path))


def _has_bars(plan: Plan, names: Sequence[str]) -> bool:
    return f"{SIGMA}{plan.keep.fields[0]}" in names


def _barred(plan: Plan, table: "pa.Table") -> "pa.Table":
    """Rows with the one sigma of each metric; null where there is none."""
    pa, _ = arrow()
    fields = plan.keep.fields
    found = sigmas_of(plan, table[POINT].to_pylist(), fields)
    for field in fields:
        values = found[field]
        known = pa.array(values, pa.float64(), mask=~np.isfinite(values))
        table = table.append_column(f"{SIGMA}{field}", known)
    return table


def _columns(plan: Plan, table: "pa.Table") -> dict[str, np.ndarray]:
    return {field: _numpy(table[field]) for field, _ in plan.keep.scores}


def _numpy(column) -> np.ndarray:
    return column.to_numpy()


def best_rows(plan: Plan, folder: Path) -> list[dict[str, object]]:
    """The first of the rows that were chosen; of all rows those that are best by the
    first metric and can run. Error bars are in `sigma`."""
    pa, parquet = arrow()
    fields = plan.keep.fields
    files = sorted(folder.glob(part_name(0).replace("000000", "*")))
    if plan.keep.scores:
        rows = parquet.read_table(files[0]).slice(0, SHOWN).to_pylist()
        return [_row(row, fields) for row in rows]
    field = fields[0]
    best: list[dict] = []
    for file in files:
        table = parquet.read_table(file, columns=[POINT, field, FEASIBLE])
        values = np.where(_numpy(table[FEASIBLE]), _numpy(table[field]), np.nan)
        cost = -values if more_is_better(field) else values
        cost = np.where(np.isnan(values), np.inf, cost)
        order = np.argsort(cost, kind="stable")[:SHOWN]
        order = order[np.isfinite(cost[order])]
        if len(order):
            picked = parquet.read_table(file).take(order).to_pylist()
            best += zip(cost[order].tolist(), picked)  # pyright: ignore
    best.sort(key=lambda pair: (pair[0], pair[1][POINT]))
    rows = [row for _, row in best[:SHOWN]]
    if rows and not _has_bars(plan, [*rows[0]]):
        known = parquet.read_schema(files[0])
        rows = _barred(plan, pa.Table.from_pylist(rows, known)).to_pylist()
    return [_row(row, fields) for row in rows]


def _row(row: dict[str, object], fields: Iterable[str]) -> dict[str, object]:
    """A row with its error bars in one table."""
    bars = {field: row.pop(f"{SIGMA}{field}", None) for field in fields}
    return row | {"sigma": bars}
