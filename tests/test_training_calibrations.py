"""Calibrations of training: they load, serve training only, and improve on the priors."""

import csv
from pathlib import Path

import jax
import numpy as np
import pytest

from cmxjax.specs.build import _calibration, build
from cmxjax.specs.calibration_file import calibration_for, shipped_calibration
from cmxjax.specs.measurement_file import load_measurements
from cmxjax.specs.recipe_file import load_recipe
from cmxjax.specs.system_load import Reference, load_system

REPOSITORY = Path(__file__).parents[1]
FOLDERS = {
    "dgx-a100-training": "dgx_a100",
    "dgx-h100-training": "dgx_h100_training",
    "atlas-a2-training": "atlas_a2_training",
    "hgx-b200-training": "hgx_b200_training",
    "gb200-nvl72-training": "gb200_nvl72_training",
    "gb300-nvl72-training": "gb300_nvl72_training",
}
FILES = [
    "training-a100-megatron",
    "training-a100-bloom",
    "training-ascend",
    "training-h100-nemo",
    "training-h100-nanotron",
    "training-mosaic",
    "training-a100-vtrain",
    "training-h100-torchtitan",
    "training-ascend-mindformers",
    "training-b200-simumax",
    "training-b200-nemo",
    "training-b300-nemo",
    "training-gb200-nemo",
    "training-gb300-nemo",
]


def _rows(name: str) -> list[dict[str, str]]:
    path = REPOSITORY / "calibration" / FOLDERS[name] / "results" / "rows.csv"
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", FOLDERS)
def test_calibration_is_the_default_of_training_only(name):
    system = load_recipe(name).system
    assert shipped_calibration(name).system == system
    assert calibration_for(system, None, "train").name == name
    assert calibration_for(system, None, "decode").name != name
    assert calibration_for(system, "none", "train").name == "none"


def test_relatives_learn_nothing_about_serving_from_training():
    found = _calibration(load_system(Reference("gh200")), None, "decode")
    known = found.provenance["relatives"]
    assert "dgx-h100" in known
    assert not set(known) & set(FOLDERS)


@pytest.mark.parametrize("name", FOLDERS)
def test_shipped_result_is_the_committed_one(name):
    folder = REPOSITORY / "calibration" / FOLDERS[name] / "results"
    shipped = REPOSITORY / "cmxjax/specs/data/calibrations" / f"{name}.json"
    assert (folder / f"{name}.json").read_text() == shipped.read_text()


def test_scatter_grows_with_nodes_where_rows_left_out_say_so():
    """Of nanotron and InternEvo it does; published runs of NeMo scatter no more."""
    h100 = shipped_calibration("dgx-h100-training").scales
    a100 = shipped_calibration("dgx-a100-training").scales
    assert h100["train/nanotron"].growth > 0.2
    assert a100["train/internevo"].growth > 0.1
    assert h100["train/nemo"].growth < 0.1


@pytest.mark.parametrize("name", FOLDERS)
def test_left_out_rows_improve_on_the_priors(name):
    rows = [row for row in _rows(name) if not row["not_fitted_because"]]
    prior, left = (
        np.median([abs(float(row[key])) for row in rows])
        for key in ("error_prior", "error_left_out")
    )
    assert left < prior
    assert left < 0.12


def test_times_of_megatron_runs_that_calculon_was_fitted_to():
    rows = [r for r in _rows("dgx-a100-training") if r["id"].startswith("kor22-t5-")]
    assert len(rows) == 8
    assert np.mean([abs(float(row["error_fit"])) for row in rows]) < 0.045


def test_models_that_differ_in_size_alone_share_a_program():
    structures = set()
    for row in load_measurements("training-a100-megatron"):
        if row.spec.id in ("kor22-t5-175b-full-time", "kor22-t5-530b-full-time"):
            structures.add(jax.tree.structure(build(row.scenario, "none").inputs))
    assert len(structures) == 1
