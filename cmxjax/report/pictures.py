"""Pictures without a display."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..specs.errors import SpecError
from ..specs.output import replacing
from ..words import plain

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


def save(figure: Figure, path: str | Path, option: str = "--picture") -> None:
    """Write a figure in the format of the path's suffix, and close it.

    Raises:
        SpecError: it can't be written; nothing is left behind.
    """
    from matplotlib import pyplot
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_text(plain(text.get_text()))
    try:
        with replacing(path, option) as part, warnings.catch_warnings():
            # a name may be in a script that the font doesn't have
            warnings.filterwarnings("ignore", "Glyph .* missing from font")
            figure.savefig(part, dpi=DOTS_PER_INCH, format=Path(path).suffix[1:] or None)
    finally:
        pyplot.close(figure)
