"""The machines that ship and what is known of each."""

from rich.table import Table

from ..specs.related import calibrated_systems, status_of
from ..specs.system_load import read_system_file
from .tables import make_table


def systems_table(names: list[str]) -> Table:
    """Names, titles and where the efficiencies of each machine come from."""
    table = make_table("systems", "name", "status", "efficiencies from", "title")
    calibrated = calibrated_systems()
    for name in names:
        file = read_system_file(name)
        own = name in calibrated
        known = "its own measurements" if own else ", ".join(file.relatives)
        table.add_row(
            name, status_of(file), known or "all that are calibrated", file.title
        )
    return table
