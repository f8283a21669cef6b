"""Pictures of a metric over another: throughput over latency, cost over a rate."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..sweeps.keep import more_is_better
from .chart import Chart, Subject
from .labels import Scale, key_scale, metric_scale, short_names, shown, words
from .pictures import Axes, Figure, subplots
from .points import NO_BARS, Points, foot, front_rows, head, setting
from .tables import percent

MOST_COLORS = 8
"""Values of a key that points are told apart by."""

NAMED = ("system", "model", "engine")
"""Keys that tell points apart before others."""

MOST_TOLD = 6
"""Points of a front whose settings are written out."""

SPREAD = 10.0
"""Ratio of values from which on an axis is of logs."""

MOST_SHAPES = 5000
"""Points beyond which a vector format gets an image of them."""


class Curve(NamedTuple):
    """What is best: rows of the frame in the order of the abscissa."""

    label: str
    rows: np.ndarray
    where: Any
    """How steps between them go, as `step` says; None for a line."""


def draw_over(points: Points, subject: Subject, chart: Chart) -> Figure:
    """A dot for each row, the curve of those that are best with one sigma, and settings
    of some of them written out."""
    (over,) = chart.over
    x, y = points.values(over), points.values(chart.metric)
    across = _scale(subject, over, x)
    up = metric_scale(chart.metric, y)
    color = _color_key(points, subject, over)
    curves = _curves(points, subject, chart, color)
    figure, (axes, side) = subplots(
        1, 2, figsize=(12, 6), layout="constrained", width_ratios=[2.5, 1]
    )
    told_apart = color if over in subject.fields else None
    _dots(axes, points, subject, told_apart, x / across.factor, y / up.factor)
    known = False
    for number, curve in enumerate(curves):
        one = None if len(curves) == 1 else f"C{number % 10}"
        known |= _curve(axes, points, chart, curve, across, up, one)
    axes.set(xlabel=across.label, ylabel=up.label)
    _limits(axes, x / across.factor, y / up.factor)
    axes.grid(alpha=0.3)
    head(axes, points, subject)
    told = [] if len(curves) > 1 else _told(curves[0].rows)
    for number, row in enumerate(told, 1):
        _mark(axes, number, x[row] / across.factor, y[row] / up.factor)
    side.axis("off")
    side.legend(
        *axes.get_legend_handles_labels(),
        loc="upper left",
        fontsize=9,
        frameon=False,
        markerscale=1.5,
    )
    if told:
        text = _settings(points, subject, chart, told, across, up)
        side.text(0.0, 0.0, text, va="bottom", fontsize=8.5, linespacing=1.35)
    foot(figure, points.notes if known else (*points.notes, NO_BARS))
    return figure


def _scale(subject: Subject, name: str, values: np.ndarray) -> Scale:
    if name in subject.fields:
        return metric_scale(name, values)
    return key_scale(name, subject.unit_of(name), values, subject.said_of(name))


def _color_key(points: Points, subject: Subject, over: str) -> str | None:
    """A key with few values that points are told apart by."""
    keys = [key for key in subject.keys if key != over]
    keys.sort(key=lambda key: key not in NAMED)  # others stay in their order
    for key in keys:
        if 1 < len(set(points.frame[key].tolist())) <= MOST_COLORS:
            return key
    return None


def _curves(
    points: Points, subject: Subject, chart: Chart, color: str | None
) -> list[Curve]:
    """The front of all rows; over a key the best at each of its values, for each machine
    or other value that points are told apart by."""
    (over,) = chart.over
    x, y = points.values(over), points.values(chart.metric)
    cost = -y if chart.largest else y
    if over in subject.fields:
        # a machine is paid for whole: its price a token is reached where as much is asked
        large = more_is_better(over) and chart.show == "front"
        rows = front_rows(cost, -x if large else x)
        rows = rows[np.argsort(x[rows], kind="stable")]
        label = "front" if chart.show == "front" else "the cheapest up to this rate"
        return [Curve(label, rows, "pre" if large else "post")]
    every = [("the cheapest", np.arange(len(x)))]
    if color is not None:
        column = points.frame[color]
        every = [
            (_valued(subject, color, value), np.flatnonzero(column == value))
            for value in _ordered(column)
        ]
    curves = []
    for label, rows in every:
        order = rows[np.lexsort((cost[rows], x[rows]))]
        first = np.concatenate([[True], x[order][1:] != x[order][:-1]])
        curves.append(Curve(label, order[first], None))
    return curves


def _dots(
    axes: Axes,
    points: Points,
    subject: Subject,
    color: str | None,
    x: np.ndarray,
    y: np.ndarray,
) -> None:
    many = len(x) > MOST_SHAPES
    style: dict[str, Any] = {"s": 5 if many else 14, "linewidths": 0, "rasterized": many}
    style["alpha"] = 0.25 if many else 0.5
    if color is None:
        axes.scatter(x, y, color="tab:gray", label="points", **style)
        return
    column = points.frame[color]
    for number, value in enumerate(_ordered(column)):
        rows = np.flatnonzero(column == value)
        label = _valued(subject, color, value)
        axes.scatter(x[rows], y[rows], color=f"C{number}", label=label, **style)


def _valued(subject: Subject, key: str, value: object) -> str:
    return f"{key.rsplit('.', 1)[-1]} {setting(subject, key, value)}"


def _ordered(column: Any) -> list:
    """Values of a key: numbers by size, others as they come."""
    values = list(dict.fromkeys(column))
    return values if any(isinstance(v, str) for v in values) else sorted(values)


def _curve(
    axes: Axes,
    points: Points,
    chart: Chart,
    curve: Curve,
    across: Scale,
    up: Scale,
    color: str | None,
) -> bool:
    """A curve with its one sigma; whether it has any."""
    (over,) = chart.over
    x = points.values(over)[curve.rows] / across.factor
    y = points.values(chart.metric)[curve.rows] / up.factor
    style: dict[str, Any] = {"color": color or "black", "lw": 1.6, "marker": "."}
    if curve.where:
        axes.step(x, y, where=curve.where, label=curve.label, **style)
    else:
        axes.plot(x, y, label=curve.label, **style)
    sigma = points.sigma(chart.metric, curve.rows)
    if not (sigma > 0.0).any():
        return bool(np.isfinite(sigma).any())  # exact, or unknown
    band: dict[str, Any] = {"step": curve.where} if curve.where else {}
    axes.fill_between(
        x,
        y * (1.0 - sigma),
        y * (1.0 + sigma),
        color=color or "black",
        alpha=0.15,
        lw=0,
        label=f"one sigma of {words(chart.metric)}" if color in (None, "C0") else None,
        **band,
    )
    return True


def _limits(axes: Axes, x: np.ndarray, y: np.ndarray) -> None:
    """Logs where values are far apart; else from zero, so that heights compare."""
    for values, name in ((x, "x"), (y, "y")):
        low, high = float(values.min()), float(values.max())
        if low > 0.0 and high > SPREAD * low:
            axes.set(**{f"{name}scale": "log"})
        elif low >= 0.0 and high > 0.0:
            axes.set(**{f"{name}lim": (0.0, None)})


def _told(rows: np.ndarray) -> list[int]:
    """Rows of a front from end to end that are written out."""
    count = min(MOST_TOLD, len(rows))
    places = np.unique(np.linspace(0, len(rows) - 1, count).round().astype(int))
    return rows[places].tolist()


def _mark(axes: Axes, number: int, x: float, y: float) -> None:
    axes.annotate(
        str(number),
        (x, y),
        xytext=(-8, 11),
        textcoords="offset points",
        ha="center",
        fontsize=8,
        bbox={"boxstyle": "circle,pad=0.2", "fc": "white", "ec": "black", "lw": 0.7},
    )


def _settings(
    points: Points,
    subject: Subject,
    chart: Chart,
    rows: Sequence[int],
    across: Scale,
    up: Scale,
) -> str:
    """What some rows are, one after the other; what all have alike once."""
    (over,) = chart.over
    keys = [key for key in subject.keys if key != over]
    names, frame = short_names(keys), points.frame

    def told(key: str, row: int) -> str:
        return f"{names[key]} {setting(subject, key, frame.at[row, key])}"

    same = [key for key in keys if len({told(key, row) for row in rows}) == 1]
    lines = []
    if same:
        lines += ["all of them:", *_wrapped(told(key, rows[0]) for key in same)]
    sigma = points.sigma(chart.metric, np.asarray(rows))
    for number, row in enumerate(rows, 1):
        wide = sigma[number - 1]
        bar = f" {percent(wide)}" if wide > 0.0 else ""
        y = points.values(chart.metric)[row] / up.factor
        x = points.values(over)[row] / across.factor
        lines.append(f"{number}: {_short(across, x)}, {_short(up, y)}{bar}")
        lines += _wrapped(told(key, row) for key in keys if key not in same)
    return "\n".join(lines)


def _short(scale: Scale, value: float) -> str:
    name, _, unit = scale.label.rpartition(", ")
    return f"{name} {shown(value)} {unit}" if name else f"{shown(value)} {unit}"


WIDE = 46


def _wrapped(parts: Any) -> list[str]:
    """Parts in lines that fit beside the picture."""
    lines = [""]
    for part in parts:
        longer = f"{lines[-1]}, {part}" if lines[-1] else part
        if lines[-1] and len(longer) > WIDE:
            lines.append(part)
        else:
            lines[-1] = longer
    return [f"    {line}" for line in lines if line]
