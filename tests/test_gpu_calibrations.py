"""Calibrations of GPU systems that ship: they load, apply, and beat the priors."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from cmxjax.answers.validate import validate
from cmxjax.specs.calibration_file import Calibration, calibration_for
from cmxjax.specs.measurement_file import load_measurements
from cmxjax.specs.recipe_file import load_recipe, resolve, why_excluded
from cmxjax.specs.system_load import Reference, load_system

ROOT = Path(__file__).parents[1]
SYSTEMS = (
    *("hgx-h800", "dgx-h100", "gb200-nvl72", "hgx-h200", "hgx-b200", "hgx-b300"),
    *("hgx-h20", "ascend-950dt"),
)
ROWS_PER_PARAMETER = 4
LEFT_OUT = {"hgx-b300": 0.15}
"""Most that left-out rows are off in the median; of B300 nine deployments are known."""


def results(system):
    return ROOT / "calibration" / system.replace("-", "_") / "results"


def rows_of(recipe):
    """Measurements in a recipe's files that a fit uses."""
    return [
        row
        for name in recipe.measurements
        for row in load_measurements(name)
        if row.scenario.phase != "system"
        and row.scenario.system.base == recipe.system
        and not why_excluded(recipe, row.spec.id)
    ]


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_shipped_calibration_applies_to_its_system(system):
    calibration = calibration_for(system, None)
    assert calibration.name == system
    calibration.check(load_system(Reference(system)).figures)
    assert calibration.theta.keys() == calibration_for(system, system).theta.keys()


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_pattern_of_a_recipe_names_leaves(system):
    recipe = load_recipe(system)
    found = resolve(recipe, load_system(Reference(system)).figures, system)
    assert [p.name for p in found] == [*calibration_for(system, None).parameters]


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_exclusion_of_a_recipe_names_rows(system):
    recipe = load_recipe(system)
    ids = [r.spec.id for name in recipe.measurements for r in load_measurements(name)]
    for exclusion in recipe.excluded:
        for pattern in exclusion.rows:
            one = exclusion.model_copy(update={"rows": [pattern]})
            alone = recipe.model_copy(update={"excluded": [one]})
            assert any(why_excluded(alone, i) for i in ids), pattern


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_recipe_has_four_rows_for_each_parameter(system):
    recipe = load_recipe(system)
    assert len(recipe.parameters) * ROWS_PER_PARAMETER <= len(rows_of(recipe))


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_shipped_calibration_is_the_committed_result(system):
    committed = json.loads((results(system) / f"{system}.json").read_text())
    assert calibration_for(system, None) == Calibration.model_validate(committed)
    fitted = {row.spec.id for row in rows_of(load_recipe(system))}
    assert set(committed["provenance"]["fitted_rows"]) == fitted


@pytest.mark.parametrize("system", SYSTEMS)
def test_left_out_rows_are_as_far_off_as_their_error_bars_say(system):
    with (results(system) / "rows.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if not row["not_fitted_because"]]
    error = np.log1p([float(row["error_left_out"]) for row in rows])
    sigma = np.array([float(row["sigma_left_out"]) for row in rows])
    queues = np.array([row["id"].endswith("-ttft") for row in rows])
    assert np.median(np.abs(error[~queues])) < LEFT_OUT.get(system, 0.10)
    assert 0.5 <= np.mean(np.abs(error) <= sigma) <= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("system", SYSTEMS)
def test_a_calibration_is_closer_to_its_rows_than_the_priors(system):
    fitted = {row.spec.id for row in rows_of(load_recipe(system))}

    def median(calibration):
        found = [
            abs(row.log_error)
            for name in load_recipe(system).measurements
            for row in validate(name, calibration).rows
            if row.id in fitted
        ]
        return np.median(found)

    assert median(system) < 0.85 * median("none")
