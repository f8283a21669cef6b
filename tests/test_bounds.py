"""Published values that are marks: a prediction beyond them is right."""

import json

import numpy as np
import pytest
from bench import HEAD, MEMORY, copy
from scipy.stats import norm
from scipy.stats import t as student

from cmxjax.answers.validate import validate
from cmxjax.calibrate.fit import Data, fit, gauss_newton, objective
from cmxjax.calibrate.posterior import covariance
from cmxjax.calibrate.run import fit as calibrate
from cmxjax.cli.main import main
from cmxjax.specs.errors import SpecError

RECIPE = 'system = "dgx-h100"\nrobust = 4\n' + MEMORY


def row(id, value, bound="", size=1e9, **kind):
    return copy(id, size, value, id, bound=bound, **kind)


VALUES = "".join(row(f"copy-{i}", 2900 + 10 * i, size=(2 + i) * 1e9) for i in range(8))

# 2 GB read and written at 3.35 TB/s, the peak of the memory, take 0.6 ms
MARKS = (
    row("slow-rate", 1, "floor")
    + row("no-chip-rate", 3400, "floor")
    + row("slow-time", 1, "ceiling", quantity="time", unit="s")
    + row("no-chip-time", 0.2, "ceiling", quantity="time", unit="ms")
    + row("high-rate", 3400, "ceiling")
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return tmp_path


def write(folder, name, rows):
    (folder / f"{name}.toml").write_text(HEAD + rows)
    return f"./{name}.toml"


def test_a_mark_that_is_met_is_no_error_and_a_missed_one_counts(folder):
    found = validate(write(folder, "marks", MARKS), "none")
    rows = {row.id: row for row in found.rows}
    met = {id for id, row in rows.items() if row.met}
    assert met == {"slow-rate", "slow-time", "high-rate"}
    for id, row in rows.items():
        assert row.verdict == ("consistent" if id in met else "inconsistent")
        assert row.relative_error == pytest.approx(row.predicted / row.observed - 1.0)
    # no memory copies faster than its peak
    assert -1.0 < rows["no-chip-rate"].counted_error < 0.0
    assert found.median == 0.0
    missed = [abs(rows[id].relative_error) for id in rows.keys() - met]
    assert found.worst == max(missed)


def test_the_same_numbers_as_values_are_errors(folder):
    values = MARKS.replace('bound = "floor"', "").replace('bound = "ceiling"', "")
    found = validate(write(folder, "values", values), "none")
    assert not any(row.met for row in found.rows)
    assert found.worst == max(abs(row.relative_error) for row in found.rows) > 100.0


def test_json_and_table_say_which_values_are_bounds(folder, capsys):
    path = write(folder, "marks", MARKS + row("value", 2900))
    assert main(["validate", path, "--calibration", "none", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["bound"] for row in rows] == [
        *("floor", "floor", "ceiling", "ceiling", "ceiling"),
        None,
    ]
    assert main(["validate", path, "--calibration", "none"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for part in (">= 3400", "<= 3400", "5 of them bound the true value", "met: 3."):
        assert part in text


DESIGN = np.random.default_rng(5).normal(size=(12, 2))


def linear(theta):
    slopes = np.broadcast_to(DESIGN, (len(theta), *DESIGN.shape)).copy()
    return theta @ DESIGN.T, slopes


def data(observed, bound=None, weight=None, robust=None):
    count = len(DESIGN)
    weight = np.ones((1, count)) if weight is None else weight
    return Data(
        observed[None], np.full(count, 0.1), weight, np.ones(2), robust, bound=bound
    )


@pytest.mark.parametrize("robust", [None, 4.0])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_marks_far_behind_are_as_if_they_were_not_there(robust, sign):
    observed = DESIGN @ np.array([0.5, -0.3])
    marks = np.arange(12) % 2 == 0
    bound = np.where(marks, sign, 0.0)
    far = data(observed - 30.0 * bound, bound, robust=robust)
    gone = data(observed, weight=np.where(marks, 0.0, 1.0)[None], robust=robust)
    fits = [fit(linear, np.full((1, 2), 0.1), case) for case in (far, gone)]
    np.testing.assert_allclose(fits[0].theta, fits[1].theta, atol=1e-9)
    spreads = [covariance(f.logs, f.slopes, d) for f, d in zip(fits, (far, gone))]
    np.testing.assert_allclose(spreads[0], spreads[1], rtol=1e-9)


@pytest.mark.parametrize("robust", [None, 4.0])
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("missed", [-0.2, 0.0, 0.1, 2.0])
def test_marks_are_censored_values(robust, sign, missed):
    """The optimum is the one of the likelihood with scipy's own distributions."""
    observed = DESIGN @ np.array([0.5, -0.3])
    bound = np.where(np.arange(12) < 4, sign, 0.0)
    case = data(observed + missed * bound, bound, robust=robust)
    errors = norm(scale=0.1) if robust is None else student(robust, scale=0.1)

    def minus_log_posterior(theta):
        apart = case.observed[0] - DESIGN @ theta
        logs = np.where(bound, errors.logsf(bound * apart), errors.logpdf(apart))
        return 0.5 * (theta @ theta) - logs.sum()

    # of Student's t the posterior may have several modes: the one nearest
    found = fit(linear, np.array([[0.5, -0.3]]), case, tolerance=1e-12)
    for step in 1e-2 * np.random.default_rng(0).normal(size=(200, 2)):
        there = minus_log_posterior(found.theta[0] + step)
        assert minus_log_posterior(found.theta[0]) <= there + 1e-9
    plain = fit(linear, np.array([[0.5, -0.3]]), data(observed, robust=robust))
    beyond = sign * (found.logs - plain.logs)[0, :4]
    assert beyond.mean() > 0.0


def test_a_mark_alone_is_met_by_its_closed_form():
    """One parameter, prior 1, a floor at 0 and an error of 1: theta = phi / Phi."""
    row = Data(
        np.zeros((1, 1)), np.ones(1), np.ones((1, 1)), np.ones(1), bound=np.ones(1)
    )
    found = fit(lambda theta: (theta, np.ones((*theta.shape, 1))), np.zeros((1, 1)), row)
    theta = found.theta[0, 0]
    assert theta == pytest.approx(norm.pdf(theta) / norm.cdf(theta), rel=1e-4)
    assert theta == pytest.approx(0.5061, abs=1e-3)


@pytest.mark.parametrize("robust", [None, 4.0])
def test_the_slope_of_the_misfit_is_that_of_its_differences(robust):
    bound = np.tile([1.0, -1.0, 0.0], 4)
    case = data(DESIGN @ np.array([0.5, -0.3]), bound, robust=robust)
    theta, step = np.array([[0.2, 0.4]]), 1e-6
    logs, slopes = linear(theta)
    _, descent = gauss_newton(logs, slopes, case)
    for k in range(2):
        near = [theta + way * step * np.eye(2)[k] for way in (-1.0, 1.0)]
        low, high = (float(objective(t, linear(t)[0], case)[0]) for t in near)
        expected = theta[0, k] - descent[0, k]
        assert (high - low) / (2.0 * step) == pytest.approx(expected, rel=1e-5)


def test_marks_teach_neither_discrepancy_nor_coverage(folder):
    met = row("slow-rate", 1, "floor") + row("high-rate", 3400, "ceiling")
    plain = calibrate("./recipe.toml", (write(folder, "plain", VALUES),), None, 4).result
    more = calibrate("./recipe.toml", (write(folder, "more", VALUES + met),), None, 4)
    found = more.result
    assert found.theta == pytest.approx(plain.theta, rel=0.01)
    assert found.covariance == pytest.approx(plain.covariance, rel=0.1)
    assert found.measured.sum() == plain.measured.sum() == 8
    assert max(found.discrepancy.values()) < 0.05
    assert set(found.coverage) == set(plain.coverage)
    # a rate that no copy reaches pulls the fit up, and is no part of the bars
    missed = VALUES + row("no-chip-rate", 3400, "floor")
    pulled = calibrate("./recipe.toml", (write(folder, "up", missed),), None, 4).result
    assert pulled.theta[0] > plain.theta[0]
    assert max(pulled.discrepancy.values()) < 0.05


def test_marks_alone_are_no_calibration(folder):
    path = write(folder, "marks", MARKS)
    with pytest.raises(SpecError, match="all measurements are bounds"):
        calibrate("./recipe.toml", (path,), None, 4)
