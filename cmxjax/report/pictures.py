"""Pictures without a display."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..specs.errors import SpecError
from ..specs.output import replacing
from ..words import plain
from .labels import digits

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Axes
    from matplotlib.figure import Figure as Figure
else:
    Axes = Figure = object  # only what draws imports matplotlib

DOTS_PER_INCH = 130


def subplots(*shape: int, **settings: Any) -> tuple[Figure, Any]:
    """A figure and its axes, as `pyplot.subplots` makes them, on no screen.

    Matplotlib takes half a second to import, which only what draws should pay.

    Raises:
        SpecError: it is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        said = "pictures need matplotlib: pip install 'cmxjax[plots]'"
        raise SpecError([said]) from None
    matplotlib.use("Agg")
    matplotlib.rcParams["text.parse_math"] = False  # a $ in a name is a dollar
    from matplotlib import pyplot

    return pyplot.subplots(*shape, **settings)


def _plain_decades(axis: Any) -> None:
    """Label an axis of logs with plain numbers: powers are set as formulas otherwise,
    which `subplots` turned off."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    axis.set_major_locator(
        LogLocator(subs=(1.0, 2.0, 5.0) if high < 1e3 * low else (1.0,))
    )
    axis.set_major_formatter(FuncFormatter(lambda value, _: digits(value)))
    axis.set_minor_formatter(NullFormatter())


def save(figure: Figure, path: str | Path, option: str = "--picture") -> None:
    """Write a figure in the format of the path's suffix, and close it.

    Raises:
        SpecError: it can't be written; nothing is left behind.
    """
    from matplotlib import pyplot
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_text(plain(text.get_text()))
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            if (
                axis.get_scale() == "log"
                and getattr(axis.get_transform(), "base", 0.0) == 10.0
            ):
                _plain_decades(axis)
    try:
        with replacing(path, option) as part, warnings.catch_warnings():
            # a name may be in a script that the font doesn't have
            warnings.filterwarnings("ignore", "Glyph .* missing from font")
            figure.savefig(part, dpi=DOTS_PER_INCH, format=Path(path).suffix[1:] or None)
    finally:
        pyplot.close(figure)
