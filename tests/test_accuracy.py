"""The model against what was measured: a sample of every kind of row, run anew.

Each kind of row of each calibration holds the median error that its committed result
reached on the same rows. Rows are taken evenly from all, fitted or not.
"""

import csv
import math
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import cmxjax as cmx
from cmxjax.quantities import field_of, scaled_to
from cmxjax.specs.build import build
from cmxjax.specs.measurement_file import Measurement, load_measurements
from cmxjax.specs.recipe_file import load_recipe
from cmxjax.units import to_si

RESULTS = {
    "cloudmatrix384": "cloudmatrix384",
    "gb200-nvl72": "gb200_nvl72",
    "hgx-h800": "hgx_h800",
    "dgx-h100": "dgx_h100",
    "hgx-h200": "hgx_h200",
    "hgx-b200": "hgx_b200",
    "hgx-b300": "hgx_b300",
    "hgx-h20": "hgx_h20",
    "ascend-950dt": "ascend_950dt",
    "atlas-800-a2": "atlas_800_a2",
    "dgx-a100-training": "dgx_a100",
    "dgx-h100-training": "dgx_h100_training",
    "atlas-a2-training": "atlas_a2_training",
    "hgx-b200-training": "hgx_b200_training",
    "gb200-nvl72-training": "gb200_nvl72_training",
    "gb300-nvl72-training": "gb300_nvl72_training",
}
FOLDER = Path(__file__).parents[1] / "calibration"
EACH = 4
"""Rows of a kind that are run, at most."""

PRINTED = 5e-4
"""Errors are printed to four digits after the point."""


def committed(calibration: str) -> dict[str, dict[str, str]]:
    with (FOLDER / RESULTS[calibration] / "results" / "rows.csv").open() as file:
        return {row["id"]: row for row in csv.DictReader(file)}


def sampled(calibration: str) -> dict[str, list[str]]:
    """Ids of the rows to run, by kind; those of training by their source."""
    kinds: dict[str, list[str]] = {}
    for row in committed(calibration).values():
        source = row["table"].split(":")[0] if row["kind"] == "train" else row["kind"]
        kinds.setdefault(source, []).append(row["id"])
    return {kind: ids[:: math.ceil(len(ids) / EACH)] for kind, ids in kinds.items()}


def side(scenario: Any, row: Measurement, calibration: str) -> float:
    problem = build(scenario, calibration)
    compiled = scenario.phase == "serve"  # which looks for a batch in a loop
    with jax.disable_jit(not compiled):
        found = cmx.metrics(*problem.inputs)
    spec = row.spec
    value = getattr(found, field_of(spec.quantity, spec.part, scenario.phase))
    return float(scaled_to(value, spec.quantity, spec.per, found))


def error(row: Measurement, calibration: str) -> float:
    """Predicted over observed, minus one; steps aren't compiled, which takes longer."""
    value = side(row.scenario, row, calibration)
    if row.below is not None:
        value /= side(row.below, row, calibration)
    return value / to_si(row.spec.value, row.spec.unit) - 1.0


@pytest.fixture(scope="module")
def measured():
    """Rows of a calibration's files by id."""
    known: dict[str, dict[str, Measurement]] = {}

    def of(calibration: str) -> dict[str, Measurement]:
        if calibration not in known:
            files = load_recipe(calibration).measurements
            every = [row for name in files for row in load_measurements(name)]
            known[calibration] = {row.spec.id: row for row in every}
        return known[calibration]

    return of


KINDS = [
    pytest.param(name, kind, marks=[pytest.mark.slow] * (kind == "serve"))
    for name in RESULTS
    for kind in sampled(name)
]


@pytest.mark.parametrize(("calibration", "kind"), KINDS)
def test_the_model_is_as_close_to_measurements_as_its_calibration_says(
    measured, calibration, kind
):
    ids, printed = sampled(calibration)[kind], committed(calibration)
    now = [abs(error(measured(calibration)[i], calibration)) for i in ids]
    then = [abs(float(printed[i]["error_fit"])) for i in ids]
    assert np.median(now) <= np.median(then) + PRINTED


def test_every_kind_of_row_is_run():
    assert len(KINDS) >= 40
    assert all(sampled(name) for name in RESULTS)
