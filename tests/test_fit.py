"""The fitter against closed forms, and planted parameters against their error bars."""

import numpy as np
import pytest

from cmxjax.calibrate.fit import Data, fit, objective, robust_weight, starts
from cmxjax.calibrate.posterior import (
    USUAL_ROWS,
    covariance,
    coverage,
    directions,
    discrepancy,
    row_variance,
    usual_error,
)
from cmxjax.calibrate.scales import USUAL, growth

ROWS, COUNT = 40, 3
DESIGN = np.random.default_rng(3).normal(size=(ROWS, COUNT))
PRIOR = np.array([1.0, 2.0, 0.5])
SIGMA = np.full(ROWS, 0.1)


def linear(theta):
    slopes = np.broadcast_to(DESIGN, (len(theta), ROWS, COUNT)).copy()
    return theta @ DESIGN.T, slopes


def curved(theta):
    """Each row the log of a sum of two exponentials, as rooflines are."""
    a, b = theta @ DESIGN.T, theta @ np.roll(DESIGN, 1, axis=0).T
    share = 1.0 / (1.0 + np.exp(b - a))
    slopes = share[..., None] * DESIGN + (1.0 - share[..., None]) * np.roll(DESIGN, 1, 0)
    return np.logaddexp(a, b), slopes


def data(observed, robust=None, weight=None):
    observed = np.atleast_2d(observed)
    weight = np.ones_like(observed) if weight is None else weight
    return Data(observed, SIGMA, weight, PRIOR, robust)


def test_a_linear_model_gives_the_closed_form_of_ridge_regression():
    observed = np.random.default_rng(1).normal(size=ROWS)
    precision = DESIGN.T @ DESIGN / 0.01 + np.diag(1 / PRIOR**2)
    expected = np.linalg.solve(precision, DESIGN.T @ observed / 0.01)
    found = fit(linear, np.zeros((1, COUNT)), data(observed))
    assert found.converged.all()
    np.testing.assert_allclose(found.theta[0], expected, rtol=1e-6)
    own = covariance(found.logs, found.slopes, data(observed))
    np.testing.assert_allclose(own[0], np.linalg.inv(precision), rtol=1e-10)


def test_a_parameter_without_data_keeps_its_prior():
    def blind(theta):
        logs, slopes = linear(theta * np.array([1.0, 1.0, 0.0]))
        slopes[..., 2] = 0.0
        return logs, slopes

    observed = np.random.default_rng(1).normal(size=ROWS)
    found = fit(blind, np.full((1, COUNT), 0.3), data(observed))
    spread = covariance(found.logs, found.slopes, data(observed))[0]
    assert found.theta[0, 2] == pytest.approx(0.0, abs=1e-6)
    assert spread[2, 2] == pytest.approx(PRIOR[2] ** 2)
    values, weak = directions(found.logs, found.slopes, data(observed), ["a", "b", "c"])
    assert values[-1] == pytest.approx(0.0, abs=1e-9)
    assert weak[0].words == "c up"


def test_every_start_ends_at_the_same_optimum():
    truth = np.array([0.4, -0.8, 0.3])
    found = fit(curved, starts(PRIOR, 16), data(curved(truth[None])[0]))
    assert found.converged.all()
    np.testing.assert_allclose(found.theta, found.theta[:1].repeat(16, 0), atol=1e-4)


def test_the_optimum_does_not_depend_on_what_else_is_in_the_batch():
    observed = np.stack([curved(np.array([[0.1 * k, 0.2, 0.0]]))[0][0] for k in range(5)])
    together = fit(curved, np.zeros((5, COUNT)), data(observed))
    for k in range(5):
        alone = fit(curved, np.zeros((1, COUNT)), data(observed[k]))
        np.testing.assert_allclose(together.theta[k], alone.theta[0], atol=1e-6)


def test_rows_of_weight_zero_do_not_count():
    observed = curved(np.array([[0.4, -0.8, 0.3]]))[0]
    spoiled = observed.copy()
    spoiled[0, :5] += 10.0
    weight = np.ones_like(observed)
    weight[0, :5] = 0.0
    clean = fit(curved, np.zeros((1, COUNT)), data(observed, weight=weight))
    found = fit(curved, np.zeros((1, COUNT)), data(spoiled, weight=weight))
    np.testing.assert_array_equal(found.theta, clean.theta)


def test_students_t_is_hardly_moved_by_rows_far_off():
    truth = np.array([0.4, -0.8, 0.3])
    noise = 0.1 * np.random.default_rng(0).normal(size=ROWS)
    observed = curved(truth[None])[0][0] + noise
    observed[:4] += 3.0
    square = fit(curved, np.zeros((1, COUNT)), data(observed))
    robust = fit(curved, np.zeros((1, COUNT)), data(observed, robust=4.0))
    assert np.abs(robust.theta - truth).max() < 0.2 * np.abs(square.theta - truth).max()
    near, far = robust_weight(np.array([0.0, 30.0]), 4.0)
    assert near == pytest.approx(1.25)
    assert far < 0.01


def test_students_t_tends_to_the_gaussian_with_its_degrees_of_freedom():
    theta, logs = np.zeros((1, COUNT)), curved(np.full((1, COUNT), 0.2))[0]
    gaussian = objective(theta, logs, data(np.zeros(ROWS)))
    student = objective(theta, logs, data(np.zeros(ROWS), robust=1e7))
    np.testing.assert_allclose(student, gaussian, rtol=1e-4)


def test_a_model_that_is_nowhere_finite_is_an_error():
    def broken(theta):
        logs, slopes = linear(theta)
        return logs * np.nan, slopes

    with pytest.raises(ArithmeticError, match="no start gives finite"):
        fit(broken, np.zeros((2, COUNT)), data(np.zeros(ROWS)))


def test_a_start_that_is_not_finite_does_not_harm_the_others():
    def fragile(theta):
        logs, slopes = linear(theta)
        return np.where(theta[:, :1] > 5.0, np.nan, logs), slopes

    observed = linear(np.array([[0.4, -0.8, 0.3]]))[0]
    first = np.array([[6.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    found = fit(fragile, first, data(observed))
    assert not found.converged[0]
    assert found.converged[1]


def test_planted_parameters_lie_within_their_sigmas_at_the_stated_rate():
    # 100 data sets at once: truth drawn from the prior, noise from the stated sigma
    draw = np.random.default_rng(7)
    truth = draw.normal(size=(100, COUNT)) * PRIOR
    observed = curved(truth)[0] + SIGMA * draw.normal(size=(100, ROWS))
    found = fit(curved, np.zeros((100, COUNT)), data(observed))
    spread = covariance(found.logs, found.slopes, data(observed))
    sigma = np.sqrt(np.einsum("bpp->bp", spread))
    z = np.abs(found.theta - truth) / sigma
    # 300 draws: a binomial standard error of 2.7 % at 68 % and 1.3 % at 95 %
    assert np.mean(z < 1.0) == pytest.approx(0.683, abs=0.08)
    assert np.mean(z < 1.96) == pytest.approx(0.95, abs=0.04)


def test_row_variance_is_the_spread_of_predictions_under_the_posterior():
    observed = curved(np.array([[0.4, -0.8, 0.3]]))[0]
    found = fit(curved, np.zeros((1, COUNT)), data(observed))
    spread = covariance(found.logs, found.slopes, data(observed))
    draws = np.random.default_rng(2).multivariate_normal(found.theta[0], spread[0], 4000)
    sampled = curved(draws)[0].var(axis=0)
    np.testing.assert_allclose(row_variance(found.slopes, spread)[0], sampled, rtol=0.1)


def test_the_discrepancy_covers_two_thirds_of_left_out_rows():
    draw = np.random.default_rng(4)
    errors = 0.1 * draw.normal(size=2000)
    levels = ["a"] * 1000 + ["b"] * 1000
    errors[1000:] *= 0.3
    found = discrepancy(errors, np.zeros(2000), levels, np.ones(2000))
    assert found["a"] == pytest.approx(0.1, rel=0.06)
    assert found["b"] == pytest.approx(0.03, rel=0.06)
    inside = coverage(errors[:1000], np.full(1000, found["a"]))
    assert inside["68"] == pytest.approx(0.683, abs=0.02)


@pytest.mark.parametrize("planted", [0.0, 0.3, 0.6])
def test_growth_with_nodes_is_found_in_errors_with_tails(planted):
    draw = np.random.default_rng(5)
    nodes = 2.0 ** draw.integers(0, 8, size=600)
    errors = 0.03 * nodes**planted * draw.standard_t(4.0, size=600)
    assert growth(errors, nodes) == pytest.approx(planted, abs=0.07)
    # a single scale says nothing: the usual growth; errors that shrink are not followed
    assert growth(errors[:3], np.full(3, 4.0)) == pytest.approx(USUAL)
    assert growth(errors * nodes ** (-planted - 0.5), nodes) == 0.0


def test_the_discrepancy_of_few_rows_stays_near_the_usual_one():
    found = discrepancy(np.array([1e-6]), np.zeros(1), ["a"], np.ones(1))
    assert found["a"] == pytest.approx(0.04 * np.sqrt(6 / 7), rel=1e-3)


def test_rows_of_one_run_count_once():
    """Forty rows of one deployment teach no more than one, and serving runs least."""
    errors, level = np.full(40, 0.2), ["serve/x"] * 40
    args = errors, np.zeros(40), level, np.ones(40)
    one = discrepancy(*args, ["run"] * 40)["serve/x"]
    many = discrepancy(*args, [str(k) for k in range(40)])["serve/x"]
    wanted = [
        np.sqrt(
            (n * 0.2**2 + USUAL_ROWS * usual_error("serve/vllm") ** 2) / (n + USUAL_ROWS)
        )
        for n in (1, 40)
    ]
    assert [one, many] == pytest.approx(wanted)


def test_heavy_tails_widen_the_bar():
    """A tenth of the rows far off: the 90 % quantile counts, over 1.645."""
    errors = np.concatenate([np.full(8_500, 0.01), np.full(1_500, 0.5)])
    found = discrepancy(errors, np.zeros(10_000), ["a"] * 10_000, np.ones(10_000))
    assert found["a"] == pytest.approx(0.5 / 1.645, rel=1e-3)
