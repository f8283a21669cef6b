"""Pictures without a display."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..specs.errors import SpecError

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
    from matplotlib import pyplot

    return pyplot.subplots(*shape, **settings)


def save(figure: Figure, path: str | Path, option: str = "--picture") -> None:
    """Write a figure in the format of the path's suffix, and close it.

    Raises:
        SpecError: it can't be written; nothing is left behind.
    """
    from matplotlib import pyplot

    try:
        figure.savefig(path, dpi=DOTS_PER_INCH)
    except (OSError, ValueError) as error:
        problem = f"{option} {path}: can't be written ({error}); use another path"
        raise SpecError([problem]) from None
    finally:
        pyplot.close(figure)
