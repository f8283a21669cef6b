"""Rows of a sweep as an Arrow table."""

from typing import TYPE_CHECKING, Any

import numpy as np

from .axes import Axis
from .chosen import Rows
from .dataset import arrow
from .plan import Plan

if TYPE_CHECKING:
    import pyarrow as pa
else:
    pa = object  # only what writes and reads imports it

POINT, FEASIBLE, SIGMA = "point", "feasible", "sigma."
"""Columns beside keys and metrics; sigmas are named `sigma.<metric>`."""


def table_of(plan: Plan, rows: Rows) -> "pa.Table":
    """The number of the point, values of all keys, metrics, and whether it can run.
    Metrics without a finite value are null."""
    pa, _ = arrow()
    columns: dict[str, object] = {POINT: rows.point}
    of = {
        key: (axis, codes)
        for axis, index in plan.grid.split(rows.point)
        for key, codes in axis.codes(index).items()
    }
    for axis in plan.axes:
        for key in axis.keys:
            columns[key] = column_of(axis, key, of[key][1])
    for field, values in rows.columns.items():
        finite = np.isfinite(values)
        columns[field] = pa.array(values, mask=None if finite.all() else ~finite)
    columns[FEASIBLE] = rows.feasible
    return pa.table(columns)


def column_of(axis: Axis, key: str, codes: np.ndarray) -> Any:
    """Values of a key, as NumPy or Arrow has them: whole numbers as such, others in SI,
    lists and mixtures as texts."""
    pa, _ = arrow()
    if axis.is_number(key):
        numbers = axis.numbers(key, codes)
        if key in axis.spans:
            return numbers.astype(int) if axis.spans[key].whole else numbers
        whole = all(type(value) is int for value in axis.options[key].written)
        return numbers.astype(int) if whole else numbers
    written = axis.options[key].written
    if all(type(value) is bool for value in written):
        return np.array(written, bool)[codes]
    texts = [value if isinstance(value, str) else str(value) for value in written]
    listed = pa.DictionaryArray.from_arrays(codes.astype(np.int32), texts)
    return listed.dictionary_decode()
