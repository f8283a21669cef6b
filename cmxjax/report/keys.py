"""The keys of a scenario as a table."""

from rich.table import Table

from ..specs.errors import SpecError
from ..specs.keys import Key, described
from ..specs.scenario_file import SCENARIOS
from ..specs.sweep_file import SweepSpec
from ..words import choose
from .tables import make_table

SWEEP = "sweep"


def scenario_keys(phase: str | None) -> list[Key]:
    """Every key of a phase, or of all, each once; of `sweep` those of a sweep's file.

    Raises:
        SpecError: there is no such phase.
    """
    if phase == SWEEP:
        return sorted(described(SweepSpec))
    if phase is not None and phase not in SCENARIOS:
        options = choose(phase, [*SCENARIOS, SWEEP])
        raise SpecError([f"keys {phase}: no such phase; {options}"])
    models = SCENARIOS.values() if phase is None else [SCENARIOS[phase]]
    found: dict[str, Key] = {}
    for key in (key for model in models for key in described(model)):
        if found.setdefault(key.key, key).default is None:  # phases differ in it
            found[key.key] = key
    return [found[key] for key in sorted(found)]


def keys_table(keys: list[Key]) -> Table:
    """What may be written at each key."""
    table = make_table("keys, to write or to --set", "key", "unit")
    for column in ("default", "takes"):
        table.add_column(column, overflow="fold")
    table.add_column("")
    for key in keys:
        default = "required" if key.required else _shown(key.default)
        table.add_row(key.key, key.unit, default, key.takes, key.about)
    return table


def _shown(default: object) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    return "-" if default is None or default in ([], {}) else str(default)
