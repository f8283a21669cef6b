"""Published rows that a calibration misses by far carry the reason."""

import csv
from pathlib import Path

import numpy as np
import pytest

from cmxjax.report.calibration import EXPECTED, LARGE
from cmxjax.specs.files import shipped
from cmxjax.specs.measurement_file import load_measurements
from cmxjax.specs.recipe_file import load_recipe

RESULTS = Path(__file__).parents[1] / "calibration"


def _far_off(name: str) -> list[str]:
    """Fitted rows beyond both 10 % and what their error bar lets expect."""
    (result,) = RESULTS.glob(f"*/results/{name}.json")
    with result.with_name("rows.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if not row["not_fitted_because"]]
    return [
        row["id"]
        for row in rows
        if abs(float(row["error_fit"])) > LARGE
        and abs(np.log1p(float(row["error_left_out"])))
        > EXPECTED * float(row["sigma_left_out"])
    ]


@pytest.mark.parametrize("name", shipped("recipes"))
def test_every_row_far_off_has_a_reason(name):
    notes = {
        row.spec.id: row.spec.conflict or row.spec.note
        for file in load_recipe(name).measurements
        for row in load_measurements(file)
    }
    assert [row for row in _far_off(name) if not notes[row]] == []
