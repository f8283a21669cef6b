"""Evaluate millions of points of a scenario, and draw them."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich.console import Console

if TYPE_CHECKING:
    from ..report.sweep_picture import Wish
    from ..sweeps.plan import Plan
else:
    Wish = Plan = object  # both are loaded when first used


@dataclass(frozen=True)
class Sweep:
    """Evaluate every point of a sweep, and write the rows that it keeps as Parquet."""

    sweep: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME|FILE|FOLDER")]
    """A shipped sweep (see `list sweeps`), a path that ends in .toml, or the folder of a
    finished sweep, which is read instead."""
    out: str | None = None
    """The folder for the rows; left out, NAME-sweep here."""
    resume: bool = False
    """Go on where a sweep into the same folder was stopped."""
    cluster: str | None = None
    """Evaluate on a Dask cluster: a scheduler's address such as tcp://host:8786, or
    local:N for N processes of this machine."""
    picture: str | None = None
    """Draw the rows into this file."""
    show: Literal["front", "map", "cost"] | None = None
    """Throughput over latency with the front (if left out), a map of a metric over two
    axes, or the cost of a million tokens over the rate; each with one sigma."""
    metric: str | None = None
    """What a front or a map shows, such as tokens_rate; left out, what rows were chosen
    by, or the usual."""
    over: tuple[str, ...] = ()
    """What it is shown over: of a front the latency, such as ttft; of a map the keys of
    its two axes; of cost the rate."""
    json: bool = False
    """Print JSON alone, in SI, with units in the keys."""

    def run(self, console: Console) -> object:
        from ..report.sweep import swept_tables
        from ..report.sweep_picture import Wish
        from ..settings import use_all_cores
        from ..specs.errors import SpecError, afterwards
        from ..specs.output import check_outputs, inputs_of
        from ..sweeps.run import sweep
        from .progress import shown_progress

        check_outputs({"--picture": self.picture}, inputs_of(self.sweep))
        if self.picture is None and (self.show or self.metric or self.over):
            raise SpecError(["--show, --metric and --over: need --picture FILE"])
        wish = Wish(self.show or "front", self.metric, self.over)
        if Path(self.sweep).is_dir():
            return self._read_back(console, wish)
        use_all_cores()
        out = self.out or f"{Path(self.sweep).stem}-sweep"
        with shown_progress() as progress:
            swept = sweep(
                self.sweep,
                out,
                resume=self.resume,
                cluster=self.cluster,
                progress=progress,
                **({} if self.picture is None else {"check": wish.check}),
            )
        console.print(swept_tables(swept))
        return afterwards(
            swept.as_json(), lambda: self._draw(swept.folder, wish, swept.plan)
        )

    def _read_back(self, console: Console, wish: Wish) -> object:
        """What became of a folder's points, and its picture."""
        from ..report.sweep import counts_text
        from ..specs.errors import SpecError, afterwards
        from ..sweeps.run import finished_in

        given = {"--out": self.out, "--resume": self.resume, "--cluster": self.cluster}
        if wrong := [option for option, value in given.items() if value]:
            said = "says nothing beside the folder of a sweep, which is only read"
            raise SpecError([f"{wrong[0]}: {said}; leave it out"])
        folder = Path(self.sweep)
        counts = finished_in(folder)
        console.print(counts_text(folder, counts))
        data = {"out": str(folder), **counts.as_json()}
        return afterwards(data, lambda: self._draw(folder, wish, None))

    def _draw(self, folder: Path, wish: Wish, plan: Plan | None) -> None:
        from ..report.sweep_picture import draw_sweep

        if self.picture is not None:
            draw_sweep(folder, wish, self.picture, plan)
