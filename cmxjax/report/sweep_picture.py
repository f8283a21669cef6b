"""Draws a sweep: of a run just now, or of a folder that one left."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from ..sweeps.plan import Plan
from ..sweeps.run import read_sweep
from ..sweeps.sigma import sigmas_of
from .chart import Show, chart_of, subject_of, subject_read
from .front import draw_over
from .heat import draw_map
from .pictures import Figure, save
from .points import points_of


class Wish(NamedTuple):
    """What of a sweep somebody wants to see; see `chart_of`."""

    show: Show = "front"
    metric: str | None = None
    over: tuple[str, ...] = ()

    def check(self, plan: Plan) -> None:
        """Raises `SpecError` where a sweep won't have what is to be drawn."""
        chart_of(subject_of(plan), *self)


def draw_sweep(
    folder: str | Path, wish: Wish, path: str, plan: Plan | None = None
) -> None:
    """Draw the rows of a finished sweep into a file.

    Args:
        plan: of the sweep where it is at hand, for error bars that the rows don't have.

    Raises:
        SpecError: there is no sweep, nothing to draw, or the file can't be written.
    """
    save(figure_of(folder, wish, plan), path)


def figure_of(folder: str | Path, wish: Wish, plan: Plan | None = None) -> Figure:
    """The picture of a finished sweep's rows. Raises `SpecError` if there is none."""
    frame = read_sweep(folder)
    manifest = frame.attrs["sweep"]
    subject = subject_read(manifest["origin"], list(frame))
    chart = chart_of(subject, *wish)
    bars = None if plan is None else _bars_of(plan)
    points = points_of(frame, subject, chart, manifest["finished"], bars)
    draw: Callable[..., Figure] = draw_map if chart.show == "map" else draw_over
    return draw(points, subject, chart)


def _bars_of(plan: Plan) -> Callable[[Sequence[int], str], Sequence[float]]:
    return lambda points, field: sigmas_of(plan, points, [field])[field].tolist()
