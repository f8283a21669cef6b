"""How far a sweep is, on standard error: a bar on a terminal, else lines."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from ..sweeps.run import Progress as Far

EVERY_S = 5.0
"""Between lines."""


@contextmanager
def shown_progress() -> Iterator[Callable[[Far], None]]:
    """What shows progress while a sweep runs."""
    if not sys.stderr.isatty():
        yield _lines()
        return
    bar = Progress(
        TextColumn("{task.percentage:>3.0f} %"),
        BarColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(compact=True),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task("", total=None, rate="")

        def show(far: Far) -> None:
            rate = f"{far.rate:,.0f} points/s"
            bar.update(task, completed=far.done, total=far.total, rate=rate)

        yield show


def _lines() -> Callable[[Far], None]:
    last = time.monotonic()

    def show(far: Far) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < EVERY_S and far.done < far.total:
            return
        last = now
        print(line_of(far), file=sys.stderr, flush=True)

    return show


def line_of(far: Far) -> str:
    """One line of progress."""
    left = "" if far.left_s is None else f", {far.left_s:,.0f} s left"
    rate = f"{far.rate:,.0f} points/s{left}"
    return f"{far.done / far.total:.0%}: {far.done:,} of {far.total:,} points, {rate}"
