"""Error bars hold what they promise on rows that a fit has not seen."""

import io
import sys
from pathlib import Path

import pytest
from rich.console import Console

from cmxjax.report.coverage import coverage_table, scales_of
from cmxjax.specs.calibration_file import shipped_calibration

CALIBRATION = Path(__file__).parents[1] / "calibration"
ENOUGH, SEVERAL = 20, 3
"""Rows and runs of a group, below which a share says little."""


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def groups():
    sys.path.insert(0, str(CALIBRATION))
    try:
        import coverage_of_all  # pyright: ignore[reportMissingImports]
    finally:
        sys.path.remove(str(CALIBRATION))
    return coverage_of_all.groups()


def test_the_committed_table_is_that_of_the_committed_results(groups):
    text = io.StringIO()
    Console(file=text, width=130).print(coverage_table(groups))
    assert text.getvalue() == (CALIBRATION / "coverage.txt").read_text("utf-8")


@pytest.mark.parametrize("path", sorted(CALIBRATION.glob("*/results/*.json")))
def test_errors_grow_with_nodes_as_the_committed_rows_say(path):
    """See calibration/scales_of_all.py."""
    assert shipped_calibration(path.stem).scales == scales_of(path.stem, path.parent)


def test_half_to_nine_tenths_lie_inside_one_sigma_and_most_inside_two(groups):
    large = [g for g in groups if g.rows >= ENOUGH and g.runs >= SEVERAL]
    assert len(large) > 10
    assert not [g for g in large if not 0.5 <= g.within_one <= 0.9]
    assert not [g for g in large if g.within_two < 0.85]
