"""Say what may be written in a scenario."""

from dataclasses import dataclass
from typing import Annotated

import tyro
from rich.console import Console


@dataclass(frozen=True)
class Keys:
    """List every key of a scenario with its unit, its default and what it says."""

    phase: Annotated[str | None, tyro.conf.Positional] = None
    """Those of one phase, such as decode; sweep: of a sweep; all if left out."""
    json: bool = False
    """Print JSON alone."""

    def run(self, console: Console) -> object:
        from ..report.keys import keys_table, scenario_keys

        keys = scenario_keys(self.phase)
        console.print(keys_table(keys))
        return [key._asdict() for key in keys]
