"""Rows of results as a CSV file."""

import csv
from pathlib import Path

from ..specs.output import make_folder, replacing


def write_rows(rows: list[dict[str, object]], path: Path) -> None:
    """Write rows under a header of all their keys, by first appearance.

    The folder is made where it isn't there; what a row lacks stays empty.
    """
    make_folder(path.parent)
    names = list(dict.fromkeys(key for row in rows for key in row))
    with replacing(path) as part, part.open("w", newline="") as file:
        table = csv.DictWriter(file, names, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
