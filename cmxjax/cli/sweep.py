"""Evaluate millions of points of a scenario."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from .arguments import Name


@dataclass(frozen=True)
class Sweep:
    """Evaluate every point of a sweep, and write the rows that it keeps as Parquet."""

    sweep: Name
    """A shipped sweep (see `list sweeps`) or a path that ends in .toml."""
    out: str | None = None
    """The folder for the rows; left out, NAME-sweep here."""
    resume: bool = False
    """Go on where a sweep into the same folder was stopped."""
    cluster: str | None = None
    """Evaluate on a Dask cluster: a scheduler's address such as tcp://host:8786, or
    local:N for N processes of this machine."""
    json: bool = False
    """Print JSON alone, in SI, with units in the keys."""

    def run(self, console: Console) -> object:
        from ..report.sweep import swept_tables
        from ..settings import use_all_cores
        from ..sweeps.run import sweep
        from .progress import shown_progress

        use_all_cores()
        out = self.out or f"{Path(self.sweep).stem}-sweep"
        with shown_progress() as progress:
            swept = sweep(
                self.sweep,
                out,
                resume=self.resume,
                cluster=self.cluster,
                progress=progress,
            )
        console.print(swept_tables(swept))
        return swept.as_json()
