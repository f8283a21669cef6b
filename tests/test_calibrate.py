"""Recipes, folds, files and the whole way on a small user's measurement file."""

import json

import jax
import numpy as np
import pytest
from bench import GEMM, HEAD, MEMORY, copy, gemm

from cmxjax.answers.validate import validate
from cmxjax.calibrate import folds
from cmxjax.calibrate.run import fit as calibrate
from cmxjax.calibrate.setup import _narrowed, prepare
from cmxjax.cli.main import main
from cmxjax.machine.resolve import origins
from cmxjax.parameters import leaf_paths
from cmxjax.specs.build import build
from cmxjax.specs.calibration_file import (
    InheritedSpec,
    calibration_for,
    calibration_names,
    shipped_calibration,
)
from cmxjax.specs.discrepancy import FIRST
from cmxjax.specs.errors import SpecError
from cmxjax.specs.files import shipped
from cmxjax.specs.measurement_file import load_measurements
from cmxjax.specs.recipe_file import (
    Parameter,
    ParameterSpec,
    load_recipe,
    matches,
    resolve,
)
from cmxjax.specs.system_load import Reference, load_system

RECIPE = (
    """
system = "dgx-h100"
measurements = []
robust = 4

[[parameters]]
name = "gemm"
leaves = ["chip.gemm_efficiency"]
sigma = 0.5
reason = "large GEMMs"
"""
    + MEMORY
)

SIZES = (2048, 4096, 6144, 8192, 12288, 16384)


def rows(efficiency_scale=1.0):
    """Utilizations and copy rates of a chip like the datasheet's, one table each."""
    found = []
    for i, size in enumerate(SIZES):
        value = round(60.0 * efficiency_scale + 0.4 * i, 2)
        found.append(gemm(f"gemm-{size}", size, value, 1))
        found.append(copy(f"copy-{size}", f"{size}e6", 2900 + 10 * i, 2))
    return "".join(found)


@pytest.fixture
def own(tmp_path):
    """A measurement file and a recipe of the user's."""
    (tmp_path / "own.toml").write_text(HEAD + GEMM + rows())
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return tmp_path


def test_patterns_match_part_by_part():
    assert matches("engines.a.wait_excess", "engines.*.wait_excess")
    assert not matches("engines.a.b.wait_excess", "engines.*.wait_excess")
    assert matches("chip.half_rows", "chip.half_*")


@pytest.mark.parametrize(
    ("leaves", "sigma", "expected"),
    [
        (["a"], None, 0.2),  # what relatives leave of the file's
        (["a", "b"], None, 0.7),  # nothing is known of one
        (["a"], 1.0, 1.0),  # the recipe's own
    ],
)
def test_relatives_narrow_a_width_that_the_recipe_does_not_give(leaves, sigma, expected):
    spec = ParameterSpec(name="p", leaves=leaves, sigma=sigma, reason="test")
    parameter = Parameter("p", tuple(leaves), sigma or 0.7, "test")
    known = {"a": InheritedSpec(theta=0.5, sigma=0.2)}
    assert _narrowed(parameter, spec, known).sigma == expected


@pytest.mark.parametrize("name", shipped("recipes"))
def test_shipped_recipes_name_leaves_and_keep_to_their_budget(name):
    recipe = load_recipe(name)
    figures = load_system(Reference(recipe.system)).figures
    parameters = resolve(recipe, figures, name)
    measured = [row for file in recipe.measurements for row in load_measurements(file)]
    own = [row for row in measured if row.scenario.phase != "system"]
    assert len(parameters) <= max(25, len(own) // 20)
    assert len(own) >= 4 * len(parameters)
    ids = [row.spec.id for row in measured]
    for exclusion in recipe.excluded:
        for pattern in exclusion.rows:
            from fnmatch import fnmatchcase

            assert any(fnmatchcase(i, pattern) for i in ids), pattern


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("chip.gemm_efficiency", "chip.nothing", ["no such leaf"]),
        ("chip.memory_efficiency", "chip.gemm_efficiency", ["belongs to gemm too"]),
        ('name = "memory"', 'name = "gemm"', ["name repeats"]),
        ("sigma = 0.5", "sigma = -1", ["sigma"]),
        ("sigma = 0.5", "colour = 1", ["colour"]),
        ("chip.memory_efficiency", "chip.memory_bytes_per_s", ["write sigma"]),
        ('system = "dgx-h100"', 'system = "dgx"', ["not shipped"]),
        ("robust = 4", "robust = 0", ["robust"]),
    ],
)
def test_a_wrong_recipe_gets_one_message_and_writes_nothing(
    own, capsys, monkeypatch, old, new, words
):
    monkeypatch.chdir(own)
    text = RECIPE.replace(old, new, 1)
    (own / "recipe.toml").write_text(text)
    arguments = ["calibrate", "./recipe.toml", "--measurements", "./own.toml"]
    assert main([*arguments, "--out", "result"]) == 2
    message = capsys.readouterr().err
    assert all(word in message for word in words), message
    assert "recipe.toml" in message or "not shipped" in message
    assert not (own / "result").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing"], ["not shipped"]),
        (["dgx-a100-80g"], ["no measurements", "--measurements"]),
        (["./recipe.toml", "--measurements", "./missing.toml"], ["no such file"]),
        (["./recipe.toml", "--measurements", "h800-deepep"], ["no measurement of dgx"]),
        (
            ["./recipe.toml", "--measurements", "./own.toml", "./own.toml"],
            ["measurements repeat"],
        ),
        (
            ["./recipe.toml", "--measurements", "./own.toml", "--restarts", "0"],
            ["restarts"],
        ),
    ],
)
def test_bad_arguments_get_one_message(own, capsys, monkeypatch, arguments, words):
    monkeypatch.chdir(own)
    assert main(["calibrate", *arguments, "--out", "result"]) == 2
    message = capsys.readouterr().err
    assert all(word in message for word in words), message
    assert not (own / "result").exists()


def test_the_whole_way_from_a_users_file_to_a_better_prediction(own, capsys, monkeypatch):
    monkeypatch.chdir(own)
    arguments = ["calibrate", "./recipe.toml", "--measurements", "./own.toml"]
    assert main([*arguments, "--out", "result", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    stored = json.loads((own / "result" / "dgx-h100-own.json").read_text())
    assert printed == stored
    assert set(stored["parameters"]) == {"gemm", "memory"}
    assert not (own / "result" / "fit.partial.json").exists()
    assert (own / "result" / "fit.png").stat().st_size > 10_000
    assert (own / "result" / "rows.csv").read_text().count("\n") == 1 + 2 * len(SIZES)
    before = validate("./own.toml", "none")
    after = validate("./own.toml", "result/dgx-h100-own.json")
    assert after.calibration == "result/dgx-h100-own.json"
    assert after.median < 0.02 < before.median
    # the error bar shrinks too, and says what left-out rows say
    sigmas = [row.predicted_relative_sigma for row in after.rows]
    assert max(sigmas) < min(row.predicted_relative_sigma for row in before.rows)
    inside = [abs(row.log_error) <= row.predicted_relative_sigma for row in after.rows]
    assert np.mean(inside) >= 0.5
    # other systems stay as they are
    assert calibration_for("hgx-h200", "result/dgx-h100-own.json").system == "hgx-h200"


@pytest.mark.slow
def test_the_result_repeats_bit_for_bit_and_resumes_where_it_stopped(own, monkeypatch):
    monkeypatch.chdir(own)
    texts = []

    class Stopped(Exception):
        pass

    def stop(text):
        if "tables" in text:
            raise Stopped

    for out in ("a", "b"):
        calibrate("./recipe.toml", ("./own.toml",), out, restarts=4)
        texts.append((own / out / "dgx-h100-own.json").read_text())
    assert texts[0] == texts[1]
    with pytest.raises(Stopped):
        calibrate("./recipe.toml", ("./own.toml",), "c", restarts=4, progress=stop)
    assert [path.name for path in (own / "c").iterdir()] == ["fit.partial.json"]
    seen = []
    calibrate("./recipe.toml", ("./own.toml",), "c", restarts=4, progress=seen.append)
    resumed, whole = (
        json.loads((own / out / "dgx-h100-own.json").read_text()) for out in ("c", "a")
    )
    for name, parameter in whole["parameters"].items():
        again = resumed["parameters"][name]["theta"]
        assert again == pytest.approx(parameter["theta"], abs=1e-5)


def test_contradictory_rows_are_shown_and_do_not_stop_the_fit(own):
    spoiled = rows().replace("value = 60.4", "value = 6.04")
    (own / "own.toml").write_text(HEAD + GEMM + spoiled)
    report = calibrate(str(own / "recipe.toml"), (str(own / "own.toml"),), None, 4)
    ids = [row.spec.id for row in report.result.setup.rows]
    errors = dict(zip(ids, np.expm1(report.result.log_error), strict=True))
    assert errors["gemm-4096"] > 5.0
    assert abs(errors["gemm-8192"]) < 0.05


def test_a_system_without_a_recipe_gets_the_parameters_its_rows_speak_about(own):
    text = (own / "own.toml").read_text()
    (own / "other.toml").write_text(text.replace("dgx-h100", "hgx-h20"))
    report = calibrate("hgx-h20", (str(own / "other.toml"),), None, 4)
    names = [p.name for p in report.result.setup.parameters]
    assert len(names) <= len(SIZES) * 2 // 4
    assert any("memory" in name for name in names)
    assert any("gemm" in name or "half" in name for name in names)


def test_folds_keep_runs_whole_and_spread_kinds():
    measured = load_measurements("h800-deepep")
    fold = folds.by_run(measured, 5)
    runs = {}
    for row, k in zip(measured, fold, strict=True):
        runs.setdefault(repr(row.scenario), set()).add(int(k))
    assert all(len(members) == 1 for members in runs.values())
    sizes = np.bincount(fold)
    assert len(sizes) == 5
    assert sizes.max() <= 2 * sizes.min()
    np.testing.assert_array_equal(fold, folds.by_run(measured, 5))
    weight = folds.weights(fold, np.ones(len(measured)))
    np.testing.assert_array_equal(weight.sum(axis=0), 4)


@pytest.mark.slow
def test_slopes_of_tied_leaves_are_those_of_finite_differences():
    recipe = load_recipe("cloudmatrix384")
    few = recipe.model_copy(update={"parameters": recipe.parameters[:]})
    setup = prepare_some(few, ("cm384-dispatch-ep16", "cm384-cache-reuse-gain"))
    model = setup.predictor.model(setup.parameters)
    count = len(setup.parameters)
    theta = 0.1 * np.random.default_rng(0).normal(size=(1, count))
    logs, slopes = model(theta)
    step = 1e-6
    moved = np.concatenate([theta + step * np.eye(count), theta - step * np.eye(count)])
    ends = model(moved)[0]
    central = (ends[:count] - ends[count:]) / (2 * step)
    np.testing.assert_allclose(slopes[0], central.T, atol=2e-8)
    assert np.abs(slopes[0]).max(axis=1).min() > 0.01
    # rows that are not fitted take no part in a fit's steps
    first = np.array([1.0, 0.0])
    for chosen, whole in zip(
        setup.predictor.model(setup.parameters, first)(theta), (logs, slopes)
    ):
        np.testing.assert_array_equal(chosen[0, 0], whole[0, 0])
        assert not chosen[0, 1].any()


def prepare_some(recipe, ids):
    """Setup of a few rows: fewer programs to compile."""
    from cmxjax.calibrate import setup as module

    whole = module.load_measurements
    try:
        module.load_measurements = lambda name: [
            row for row in whole(name) if row.spec.id in ids
        ]
        return prepare(recipe, recipe.measurements, "recipe")
    finally:
        module.load_measurements = whole


@pytest.mark.parametrize("name", calibration_names())
def test_shipped_calibrations_fit_their_systems(name):
    calibration = shipped_calibration(name)
    figures = load_system(Reference(calibration.system)).figures
    calibration.check(figures)
    assert set(calibration.absorbed) <= figures.keys()
    matrix = np.array(calibration.covariance)
    assert np.linalg.eigvalsh(matrix).min() > 0.0
    sigmas = [p.sigma for p in calibration.parameters.values()]
    np.testing.assert_allclose(np.sqrt(np.diag(matrix)), sigmas, rtol=1e-5)
    for level, value in calibration.discrepancy.items():
        # queues make the first token uncertain
        assert 0.005 < value < (2.0 if level.startswith(FIRST) else 0.3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"covariance": [[1.0]]}, "covariance must be"),
        ({"parameters": {"x": {"leaves": ["chip.none"]}}}, "theta"),
        ({"sistem": "x"}, "sistem"),
        ({"discrepancy": {"phase": -1.0}}, "discrepancy"),
    ],
)
def test_a_broken_calibration_file_says_what_is_wrong(tmp_path, change, words):
    good = {"name": "x", "system": "dgx-h100", "parameters": {}, "covariance": []}
    path = tmp_path / "x.json"
    path.write_text(json.dumps(good | change))
    with pytest.raises(SpecError, match=words):
        calibration_for("dgx-h100", str(path))


def test_a_calibration_of_leaves_that_are_gone_says_so(tmp_path):
    parameter = {
        "leaves": ["chip.gone"],
        "theta": 0.1,
        "sigma": 0.1,
        "prior_sigma": 0.4,
        "identified": True,
        "bic_gain": 1.0,
        "reason": "r",
    }
    path = tmp_path / "x.json"
    path.write_text(
        json.dumps(
            {
                "name": "x",
                "system": "cloudmatrix384",
                "parameters": {"p": parameter},
                "covariance": [[0.01]],
            }
        )
    )
    row = load_measurements("cloudmatrix384")[30]
    with pytest.raises(SpecError, match="calibrate again"):
        build(row.scenario, str(path))


def test_numbers_of_a_machine_know_where_they_came_from():
    for row in load_measurements("cloudmatrix384"):
        problem = build(row.scenario, "none")
        whole = leaf_paths(problem.system)
        paths = origins(problem.system, problem.choices)
        numbers = np.concatenate([np.ravel(x) for x in jax.tree.leaves(problem.machine)])
        assert len(set(paths)) < len(whole) / 2
        for origin, number in zip(paths, numbers, strict=True):
            # what is in no file stands for nothing: a factor of 1, a power of 0
            assert float(whole[origin]) == number if origin else number in (0.0, 1.0)
