"""Heat maps: a metric over two keys, the best value where more of them vary."""

from typing import Any

import numpy as np

from ..specs.sweep_file import Sweep
from ..sweeps.axes import axes_of
from ..sweeps.table import column_of
from .chart import Chart, Subject
from .labels import key_scale, metric_scale, shown
from .pictures import Axes, Figure, subplots
from .points import NO_BARS, Points, foot, head, setting
from .tables import percent

MOST_WRITTEN = 80
"""Cells whose values are written into them."""

MOST_TICKS = 14

SPREAD = 10.0
"""Ratio of values from which on colors are of logs."""


def draw_map(points: Points, subject: Subject, chart: Chart) -> Figure:
    """A cell for each pair of values, with the best that any row of it reaches; hatched
    where no row is left. The best cell has a frame."""
    across, up = chart.over
    columns, rows = _values(subject, across), _values(subject, up)
    best = best_cells(points, chart, columns, rows)
    known = best >= 0
    found = points.values(chart.metric)
    scale = metric_scale(chart.metric, found)
    cells = np.where(known, found[best] / scale.factor, np.nan)
    written = known.sum() <= MOST_WRITTEN and cells.size <= 2 * MOST_WRITTEN
    width = min(14.0, max(7.5, 3.0 + (0.95 if written else 0.3) * len(columns)))
    height = min(10.0, max(4.5, 2.5 + 0.45 * len(rows)))
    figure, axes = subplots(figsize=(width, height), layout="constrained")
    axes.set_facecolor("0.92")
    axes.patch.set_hatch("///")
    axes.patch.set_edgecolor("0.75")
    image = axes.imshow(
        np.ma.masked_invalid(cells),
        norm=_norm(cells),
        cmap="viridis" if chart.largest else "viridis_r",  # the better the brighter
        aspect="auto",
        origin="lower",
        interpolation="nearest",
    )
    word = "largest" if chart.largest else "smallest"
    others = len(subject.spec.axes) > 2
    label = f"{scale.label}" + (f", {word} over the other axes" if others else "")
    bar = figure.colorbar(image, ax=axes)
    bar.set_label(label)
    bar.ax.yaxis.set_major_formatter(lambda value, _: shown(value))
    bar.ax.yaxis.set_minor_formatter(lambda *_: "")
    _ticks(axes.xaxis, subject, across, columns)
    _ticks(axes.yaxis, subject, up, rows)
    top = np.unravel_index(
        np.nanargmax(cells) if chart.largest else np.nanargmin(cells), cells.shape
    )
    _frame(axes, int(top[1]), int(top[0]))
    sigma = np.full(cells.shape, np.nan)
    sigma[known] = points.sigma(chart.metric, best[known])
    if written:
        _write(axes, cells, sigma)
    head(axes, points, subject)
    notes = [*points.notes, _bars_line(sigma[known])]
    if missing := int((~known).sum()):
        said = "no row that can run and was kept"
        notes.append(f"hatched: {said}, {missing:,} of {known.size:,} cells")
    notes.append(_best_line(points, subject, int(best[top])))
    foot(figure, notes)
    return figure


def best_cells(points: Points, chart: Chart, columns: list, rows: list) -> np.ndarray:
    """Place of the best row of each cell, (row, column); -1 where there is none."""
    across, up = chart.over
    places = []
    for key, values in ((across, columns), (up, rows)):
        at = {value: i for i, value in enumerate(values)}
        places.append(np.array([at[value] for value in points.frame[key].tolist()]))
    found = points.values(chart.metric)
    order = np.argsort(found if chart.largest else -found, kind="stable")  # best last
    best = np.full((len(rows), len(columns)), -1)
    best[places[1][order], places[0][order]] = order
    return best


def _values(subject: Subject, key: str) -> list:
    """All values of a key that the sweep has, as its rows have them: numbers by size."""
    axes = axes_of(Sweep(subject.spec, "sweep"))
    axis = next(axis for axis in axes if key in axis.keys)
    column = column_of(axis, key, np.arange(len(axis.options[key].written)))
    values = list(dict.fromkeys(column.tolist()))
    return sorted(values) if axis.is_number(key) else values


def _norm(cells: np.ndarray) -> Any:
    from matplotlib.colors import LogNorm, Normalize

    low, high = float(np.nanmin(cells)), float(np.nanmax(cells))
    return (
        LogNorm(low, high) if low > 0.0 and high > SPREAD * low else Normalize(low, high)
    )


def _ticks(axis: Any, subject: Subject, key: str, values: list) -> None:
    """The values themselves at their cells, in a unit that suits them."""
    numbers = not any(isinstance(value, str | bool) for value in values)
    label, factor = key, 1.0
    if numbers:
        known = np.asarray(values, float)
        unit, said = subject.unit_of(key), subject.said_of(key)
        label, factor = key_scale(key, unit, known, said)
    every = -(-len(values) // MOST_TICKS)
    places = list(range(0, len(values), every))
    told = [values[i] / factor if numbers else values[i] for i in places]
    axis.set_ticks(places, [shown(value) for value in told])
    axis.set_label_text(label)


def _frame(axes: Axes, column: int, row: int) -> None:
    from matplotlib.patches import Rectangle

    corner = column - 0.5, row - 0.5
    axes.add_patch(Rectangle(corner, 1.0, 1.0, fill=False, ec="red", lw=2.0))


def _bars_line(sigma: np.ndarray) -> str:
    known = sigma[np.isfinite(sigma)]
    if not len(known):
        return NO_BARS
    low, high = float(known.min()), float(known.max())
    return f"one sigma of the cells is {low:.1%} to {high:.1%}"


def _write(axes: Axes, cells: np.ndarray, sigma: np.ndarray) -> None:
    """Values with their one sigma into the cells."""
    shades = np.asarray(axes.images[0].norm(cells), float)
    for row, column in np.argwhere(np.isfinite(cells)).tolist():
        value, bar = float(cells[row, column]), float(sigma[row, column])
        text = shown(value) + (f"\n{percent(bar)}" if bar > 0.0 else "")
        axes.text(
            column,
            row,
            text,
            ha="center",
            va="center",
            fontsize=7.5,
            color="white" if shades[row, column] < 0.6 else "black",
        )


def _best_line(points: Points, subject: Subject, row: int) -> str:
    said = ", ".join(
        f"{key} {setting(subject, key, points.frame.at[row, key])}"
        for key in subject.keys
    )
    return f"framed, the best: {said}"
