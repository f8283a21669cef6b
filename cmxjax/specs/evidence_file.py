"""The measured runs that ship, in one table that is read without building any of them.

`calibration/evidence_of_all.py` writes it from the measurement files and the committed
results of the calibrations.
"""

import csv
import io
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

from .files import DATA
from .traits import Traits

RUNS, SOURCES = "evidence.csv", "evidence-sources.csv"
GROWTH = "extrapolation.json"
"""How error bars grow outside of what was fitted, learned from the runs."""

WORDS = ("engine", "model", "weights", "dtype", "cache", "exchange", "library", "mode")
SIZES = (
    *("devices", "batch", "context", "output", "in_flight", "requests_per_s"),
    *("layers", "hidden", "experts", "topk", "groups", "m", "n", "k", "bytes"),
    *("sequences", "query", "heads", "width", "tokens"),
)
"""What the traits of jobs are made of; each has a column."""


class Run(NamedTuple):
    """One measured row and what the model says of it."""

    id: str
    quantity: str
    per: str
    """Device, package or total; empty where the quantity says it."""
    unit: str
    measured: float
    calibration: str
    """Whose files hold it; empty for none."""
    modelled: float
    fitted: bool
    fold: int
    """Of the cross-validation, in which it was left out; -1 for none."""
    log_error: float
    """Log of predicted over measured by a fit that didn't see it."""
    sigma: float
    """Of that, as that fit's error bar had it."""
    file: str
    """Of measurements, as it ships."""
    source: str
    """Its key in that file."""
    locator: str
    traits: Traits


HEADER = (*Run._fields[:-1], "kind", "system", *WORDS, *SIZES)


def as_text(runs: Iterable[Run]) -> str:
    """The table as CSV; what a job doesn't have stays empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    for run in runs:
        *plain, traits = run._replace(fitted=int(run.fitted))
        words = [traits.words.get(name, "") for name in WORDS]
        sizes = [traits.sizes.get(name) for name in SIZES]
        numbers = ["" if size is None else f"{size:.6g}" for size in sizes]
        writer.writerow([*plain, traits.kind, traits.system, *words, *numbers])
    return text.getvalue()


def _run(row: dict[str, str]) -> Run:
    traits = Traits(
        row["kind"],
        row["system"],
        {name: row[name] for name in WORDS if row[name]},
        {name: float(row[name]) for name in SIZES if row[name]},
    )
    values: dict = {name: row[name] for name in Run._fields[:-1]}
    names = ("measured", "modelled", "log_error", "sigma")
    values |= {name: float(row[name]) for name in names}
    values |= {"fitted": row["fitted"] == "1", "fold": int(row["fold"])}
    return Run(**values, traits=traits)


@cache
def shipped_runs() -> tuple[Run, ...]:
    """All runs."""
    rows = csv.DictReader(io.StringIO((DATA / RUNS).read_text("utf-8")))
    return tuple(map(_run, rows))


@cache
def sources() -> dict[tuple[str, str], str]:
    """Title and address of each source, by its file and its key there."""
    rows = csv.DictReader(io.StringIO((DATA / SOURCES).read_text("utf-8")))
    return {
        (row["file"], row["source"]): ", ".join(filter(None, (row["title"], row["url"])))
        for row in rows
    }
