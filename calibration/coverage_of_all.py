"""Print how often left-out rows lie inside their error bars, and write `coverage.txt`.

python calibration/coverage_of_all.py
"""

from pathlib import Path

from rich.console import Console

from cmxjax.report.coverage import coverage_of, coverage_table

HERE = Path(__file__).parent


def groups():
    """Every committed calibration's rows, by level."""
    found = []
    for path in sorted(HERE.glob("*/results/*.json")):
        found += coverage_of(path.stem, path.parent)
    return found


if __name__ == "__main__":
    table = coverage_table(groups())
    Console().print(table)
    with (HERE / "coverage.txt").open("w", encoding="utf-8") as file:
        Console(file=file, width=130).print(table)
