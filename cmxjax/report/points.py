"""The rows of a sweep that a picture shows, and what it says of the others."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..specs.errors import SpecError
from ..specs.sweep_file import most_barred
from ..sweeps.keep import Keep
from ..sweeps.table import FEASIBLE, POINT, SIGMA
from ..units import UNITS, dimension_of, format_si
from ..words import cut
from .chart import Chart, Subject
from .labels import shown, words
from .pictures import Axes, Figure

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = object  # loaded when rows are read


Bars = Callable[[Sequence[int], str], Sequence[float]]
"""Relative one sigma of a metric at some points."""


class Points(NamedTuple):
    """Rows that can run and have all that is drawn."""

    frame: "pd.DataFrame"
    notes: tuple[str, ...]
    """What they are of, and what is left out, a line each."""
    bars: Bars | None
    """Error bars of metrics that the rows have none of; None where they can't be had."""
    most_bars: int
    """Rows that error bars are computed for so as to draw them."""

    def values(self, name: str) -> np.ndarray:
        """A column as numbers in SI."""
        return self.frame[name].to_numpy(float)

    def sigma(self, metric: str, rows: np.ndarray) -> np.ndarray:
        """Relative one sigma of a metric at some rows; not a number where unknown."""
        column = f"{SIGMA}{metric}"
        if column in self.frame:
            return self.frame[column].to_numpy(float)[rows]
        if self.bars is None or len(rows) > self.most_bars:
            return np.full(len(rows), np.nan)
        points = self.frame[POINT].to_numpy()[rows].tolist()
        return np.asarray(self.bars(points, metric), float)


NO_BARS = "no error bars were kept; keep.sigma = true keeps them"


def points_of(
    frame: "pd.DataFrame",
    subject: Subject,
    chart: Chart,
    counts: Mapping[str, int],
    bars: Bars | None = None,
) -> Points:
    """The rows that are drawn.

    Args:
        frame: as `read_sweep` gives it.
        counts: what became of all points, as `sweep.json` says.

    Raises:
        SpecError: there is none.
    """
    can = frame[FEASIBLE].to_numpy(bool)
    known = np.ones(len(frame), bool)
    for name in (chart.metric, *chart.over):
        if name in subject.fields:
            known &= np.isfinite(frame[name].to_numpy(float))
    good = can & known
    notes = [_counted(counts, len(frame)), *_kept(subject)]
    if unknown := int((can & ~known).sum()):
        what = " or ".join(map(words, (chart.metric, *chart.over)))
        notes.append(f"{unknown:,} rows without a value of {what} are left out")
    if not good.any():
        why = "no row can run" if not can.any() else f"no row has {words(chart.metric)}"
        raise SpecError([f"--picture: nothing to draw: {why} ({notes[0]})"])
    drawn = frame.loc[good].reset_index(drop=True)
    return Points(drawn, tuple(notes), bars, most_barred(subject.phase))


def _counted(counts: Mapping[str, int], rows: int) -> str:
    parts = [f"{counts['points']:,} points, {rows:,} rows kept"]
    if counts["infeasible"]:
        parts.append(f"{counts['infeasible']:,} can't run and are not drawn")
    if counts["refused"]:
        parts.append(f"{counts['refused']:,} are refused")
    return "; ".join(parts)


def _kept(subject: Subject) -> list[str]:
    """Which rows a sweep keeps, where not all that can run."""
    keep, said = subject.spec.keep, []
    if keep.top is not None:
        said.append(f"the best {keep.top.count:,} by {keep.top.metric}")
    if keep.pareto is not None:
        said.append(f"the front of {' and '.join(keep.pareto)}")
    if keep.limits:
        said.append(f"within {', '.join(keep.limits)}")
    return [f"of all points only those kept: {', '.join(said)}"] if said else []


def front_rows(cost: np.ndarray, over: np.ndarray) -> np.ndarray:
    """Places of the rows that none beats in both of two columns that are best when small,
    by the second one. Of equal rows the first.

    Raises:
        ValueError: a number is not finite, which nothing compares with.
    """
    if not (np.isfinite(cost).all() and np.isfinite(over).all()):
        raise ValueError("a front of numbers that are not finite")
    two = Keep((), False, (), (("over", False), ("cost", False)), 0)
    found = {"over": over, "cost": cost}
    return two.best(found, np.arange(len(cost)))


def head(axes: Axes, points: Points, subject: Subject) -> None:
    """Title of job and machine, and the sweep's own."""
    said = job_line(subject, points.frame)
    if subject.spec.title:
        said += f"\n{cut(subject.spec.title, LONGEST_TITLE)}"
    axes.set_title(said, fontsize=11)


LONGEST_TITLE = 100


def foot(figure: Figure, notes: Sequence[str]) -> None:
    """What the rows are of, below the picture."""
    longest = int(LETTERS_PER_INCH * figure.get_figwidth())
    lines = [line for note in notes for line in wrap(note, longest)]
    figure.supxlabel("\n".join(lines), fontsize=8, color="dimgray")


LETTERS_PER_INCH = 15


def job_line(subject: Subject, frame: "pd.DataFrame") -> str:
    """Job and machine of all rows, as titles say them."""
    phase, model, system = (
        subject.phase,
        _named(subject, frame, "model"),
        _named(subject, frame, "system"),
    )
    what = f"{phase} of {model}" if model else phase
    return f"{what} on {system}"


def _named(subject: Subject, frame: "pd.DataFrame", key: str) -> str:
    if key in subject.keys:
        names = [_stem(name) for name in dict.fromkeys(frame[key])]
        return ", ".join(names) if len(names) <= 3 else f"{len(names)} {key}s"
    return _stem(subject.raw.get(key, ""))


def setting(subject: Subject, key: str, value: object) -> str:
    """A value of a key as a row has it, with a unit where it has one."""
    if isinstance(value, str | bool | np.bool_):
        return shown(value)
    unit = subject.unit_of(key)
    dimension = UNITS[unit].dimension if unit else dimension_of(key)
    number = float(value)  # pyright: ignore[reportArgumentType]
    return shown(number) if dimension == "number" else format_si(number, dimension)


def _stem(name: object) -> str:
    """A name as titles have it: of a file without its folder, of changes their base."""
    if isinstance(name, Mapping):
        return f"{_stem(name.get('base', 'its own'))}, changed"
    text = str(name)
    return Path(text).stem if text.endswith((".toml", ".json")) else text
