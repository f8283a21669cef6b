"""Run a sweep, or go on with one; read its rows."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..specs.errors import SpecError
from ..specs.sweep_file import load_sweep
from .cluster import written_there
from .counts import BY_CONSTRAINT, Counts
from .dataset import MANIFEST, Folder, arrow, part_name
from .finish import add_bars, best_rows, chosen
from .origin import origin_of
from .plan import Plan, plan_of
from .table import POINT
from .written import written_here

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = object  # loaded when rows are read


class Progress(NamedTuple):
    """How far a sweep is."""

    done: int
    """Points, those of a run before included."""
    total: int
    fresh: int
    """Points of this run."""
    seconds: float
    """Since it began."""

    @property
    def rate(self) -> float:
        """Points a second."""
        return self.fresh / self.seconds if self.seconds > 0.0 else 0.0

    @property
    def left_s(self) -> float | None:
        """Seconds until the end at this rate; None before there is one."""
        return (self.total - self.done) / self.rate if self.rate else None


@dataclass(frozen=True)
class Swept:
    """A finished sweep."""

    folder: Path
    plan: Plan
    counts: Counts
    fresh: int
    """Points that were evaluated now."""
    seconds: float
    best: list[dict[str, object]]

    @property
    def rate(self) -> float:
        """Points a second of this run."""
        return self.fresh / self.seconds if self.seconds > 0.0 else 0.0

    def to_frame(self) -> "pd.DataFrame":
        """All rows, see `read_sweep`."""
        return read_sweep(self.folder)

    def as_json(self) -> dict[str, object]:
        """What `sweep --json` prints."""
        counts = self.counts.as_json()
        return {
            "out": str(self.folder),
            **counts,
            "fast": list(self.plan.fast),
            "one_by_one": list(self.plan.slow),
            "seconds": self.seconds,
            "points_per_s": self.rate,
            "best": self.best,
        }


def sweep(
    name: str | Mapping[str, object],
    out: str | Path,
    *,
    resume: bool = False,
    cluster: str | None = None,
    progress: Callable[[Progress], object] = lambda _: None,
    check: Callable[[Plan], object] = lambda _: None,
) -> Swept:
    """Evaluate every point of a sweep, and write the rows that it keeps to a folder.

    Args:
        name: a shipped sweep, a path that ends in `.toml`, or the keys of such a file.
        out: a new folder; any reader of Parquet reads its files.
        resume: go on where a run that was stopped left off.
        cluster: a Dask scheduler's address, or `local:N` for N processes here.
        progress: called now and then.
        check: called before the first point is evaluated; raises what is wrong with the
            sweep for its caller.

    Raises:
        SpecError: (a `ValueError`) with every mistake of the file; the folder can't be
            written or holds another sweep.
    """
    arrow()
    start = time.monotonic()
    plan = plan_of(load_sweep(name))
    check(plan)
    folder = Folder(out, origin_of(plan), bool(plan.keep.scores))
    with folder.opened(resume) as found:
        counts, fresh = Counts(), 0
        finished = found.get("finished")
        if isinstance(finished, dict):
            counts = Counts.from_json(finished)
        else:
            done = folder.done()
            for told in done.values():
                counts.add(Counts.from_json(told))
            todo = [i for i in range(plan.grid.parts) if i not in done]
            for told in _parts(plan, folder, todo, cluster):
                counts.add(told)
                fresh += told.points
                seconds = time.monotonic() - start
                progress(Progress(counts.points, plan.grid.points, fresh, seconds))
            if counts.refused == counts.points:
                folder.discard()
                raise SpecError(_why_none(plan, counts))
            if plan.keep.scores:
                table = chosen(plan, folder)
                counts.kept = table.num_rows
                folder.write(folder.path / part_name(0), table, counts.as_json())
            elif plan.sweep.spec.keep.with_sigma(counts.kept, plan.phase):
                add_bars(plan, folder)
            folder.finish(counts.as_json())
        best = best_rows(plan, folder.path)
    return Swept(folder.path, plan, counts, fresh, time.monotonic() - start, best)


def _parts(
    plan: Plan, folder: Folder, todo: Sequence[int], cluster: str | None
) -> Iterator[Counts]:
    """What became of each part that is written."""
    if cluster is None:
        yield from written_here(plan, folder, todo)
        return
    yield from written_there(plan, folder, todo, cluster)


def _why_none(plan: Plan, counts: Counts) -> list[str]:
    """Why not one point can be built."""
    where, lines = plan.sweep.where, []
    for reason, count in counts.reasons.most_common(5):
        said = f"no point can be built: {reason}"
        if reason == BY_CONSTRAINT:
            said = f"constraints leave out {count} of {counts.points} points; loosen them"
        lines.append(f"{where}: {said}")
    return lines


def read_sweep(
    folder: str | Path, columns: Sequence[str] | None = None, *, partial: bool = False
) -> "pd.DataFrame":
    """The rows of a sweep: keys as the sweep file names them, numbers in SI. They come in
    the order of their points, or best first where `top` or `pareto` chose them.

    Args:
        folder: that a sweep wrote.
        columns: to read; all if left out.
        partial: read what is there of one that isn't finished.

    Raises:
        SpecError: there is no sweep, it isn't finished, or has no such column.
    """
    pa, parquet = arrow()
    path = Path(folder)
    manifest = _manifest(path, partial)
    files = sorted(path.glob("part-*.parquet"))
    if not files:
        raise SpecError([f"{path}: holds no rows yet; go on with --resume"])
    known = parquet.read_schema(files[0]).names
    for column in columns or ():
        if column not in known:
            said = f"no such column; use some of {', '.join(known)}"
            raise SpecError([f"{path}: {column}: {said}"])
    wanted = None if columns is None else [*columns, POINT]
    tables = [parquet.read_table(file, columns=wanted) for file in files]
    whole = pa.concat_tables([table.replace_schema_metadata(None) for table in tables])
    keep = manifest["origin"]["sweep"].get("keep", {})
    if not keep.get("top") and not keep.get("pareto"):
        whole = whole.take(np.argsort(whole[POINT].to_numpy(), kind="stable"))
    frame = (whole if columns is None else whole.select(list(columns))).to_pandas()
    frame.attrs["sweep"] = manifest
    return frame


def finished_in(folder: str | Path) -> Counts:
    """What became of the points of a finished sweep. Raises `SpecError` without one."""
    return Counts.from_json(_manifest(Path(folder), False)["finished"])


def _manifest(path: Path, partial: bool) -> dict:
    """What a folder says of its rows.

    Raises:
        SpecError: it is no sweep's, or the sweep isn't finished.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_text("utf-8"))
    except (OSError, ValueError):
        raise SpecError([f"{path}: holds no sweep; name the folder of one"]) from None
    if "finished" not in manifest and not partial:
        said = "the sweep isn't finished; go on with --resume, or read it as partial"
        raise SpecError([f"{path}: {said}"])
    return manifest
