"""Fit a recipe's parameters, with error bars that left-out rows confirm."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from . import folds
from .fit import Data, Fit, fit, objective, starts
from .posterior import (
    IDENTIFIED,
    Direction,
    covariance,
    coverage,
    directions,
    discrepancy,
    row_variance,
    usual_error,
)
from .rows import Model
from .setup import Setup

FOLDS = 5
ROUNDS = 3
"""Rounds of fitting and of learning the discrepancy from left-out rows."""

FIXED = 1e-9
"""Prior width of a parameter that is held at its prior mean."""

NEAR = 0.5
"""Restarts whose log posterior is this close to the best one's have found it: less than
half a parameter's standard error apart, as neighboring tiles of a kernel are."""

FINE = 1e-6
"""Tolerance of the fits whose optimum counts: a gain far below `NEAR`. Models have kinks,
along which a finer one takes hundreds of steps."""

ROUGH = 1e-5
"""Likewise of fits that only say how much is lost without something: far below a
parameter's error."""

TOUCHED = 0.01
"""Elasticity above which a measured row is said to depend on a leaf."""


class LeftOut(NamedTuple):
    """Errors of rows under fits that did not see them."""

    log_error: np.ndarray
    sigma: np.ndarray
    """Predictive, of parameters and discrepancy."""
    groups: list[str]
    """What was left out with each row."""


class Calibrated(NamedTuple):
    """A fit with everything that says how good it is."""

    setup: Setup
    theta: np.ndarray
    covariance: np.ndarray
    discrepancy: dict[str, float]
    log_error: np.ndarray
    """ln(predicted / observed) of every row, fitted or not."""
    sigma: np.ndarray
    """Predictive sigma of every row."""
    prior_log_error: np.ndarray
    cross: LeftOut
    tables: LeftOut
    sources: LeftOut
    bic_gain: np.ndarray
    """By how much the Bayesian information criterion rises without each parameter."""
    singular_values: np.ndarray
    weak: list[Direction]
    converged: int
    restarts: int

    @property
    def fitted(self) -> np.ndarray:
        return self.setup.fitted > 0

    @property
    def measured(self) -> np.ndarray:
        """Rows in the fit that are values, not bounds."""
        return self.setup.measured > 0

    @property
    def shrinkage(self) -> np.ndarray:
        """Posterior over prior width of each parameter."""
        prior = np.array([p.sigma for p in self.setup.parameters])
        return np.sqrt(np.diag(self.covariance)) / prior

    @property
    def identified(self) -> np.ndarray:
        return self.shrinkage <= IDENTIFIED

    @property
    def coverage(self) -> dict[str, float]:
        """Of measured rows left out in turn."""
        rows = self.measured
        return coverage(self.cross.log_error[rows], self.cross.sigma[rows])


def data_of(
    setup: Setup, by_level: dict[str, float], weight: np.ndarray | None = None
) -> Data:
    """What a recipe fits, with a row's error and its level's discrepancy.

    Args:
        by_level: discrepancy of each level.
        weight: rows in each fit, (batch, row); all that the recipe fits, if left out.
    """
    model = np.array([by_level.get(level, usual_error(level)) for level in setup.levels])
    return Data(
        observed=setup.observed[None],
        sigma=np.hypot(setup.row_sigma, model),
        weight=setup.fitted[None] if weight is None else weight,
        prior_sigma=np.array([p.sigma for p in setup.parameters]),
        robust=setup.recipe.robust,
        bound=setup.bound,
    )


class Models(NamedTuple):
    """Predictions of a setup's rows, by its parameters."""

    fitted: Model
    """Of the rows in the fit, which every step of a fit takes."""
    whole: Model
    """Of all rows."""

    def report(self, found: Fit) -> Fit:
        """A fit with the predictions of all rows at its optimum."""
        logs, slopes = self.whole(found.theta)
        return found._replace(logs=logs, slopes=slopes)


def models_of(setup: Setup) -> Models:
    model = setup.predictor.model
    return Models(model(setup.parameters, setup.fitted), model(setup.parameters))


def _level_variance(setup: Setup, by_level: dict[str, float]) -> np.ndarray:
    return np.square([by_level.get(level, 0.0) for level in setup.levels])


def left_out(
    setup: Setup,
    models: Models,
    theta: np.ndarray,
    fold: np.ndarray,
    names: list[str],
    by_level: dict[str, float],
) -> LeftOut:
    """Fit without each fold in turn, starting from theta, and predict what was left."""
    weight = folds.weights(fold, setup.fitted)
    data = data_of(setup, by_level, weight)
    start = np.repeat(theta[None], len(weight), 0)
    fits = models.report(fit(models.fitted, start, data, tolerance=ROUGH))
    spread = row_variance(fits.slopes, covariance(fits.logs, fits.slopes, data))
    rows = np.arange(len(fold))
    errors = fits.logs[fold, rows] - setup.observed
    sigma = np.sqrt(spread[fold, rows] + _level_variance(setup, by_level))
    return LeftOut(errors, sigma, [names[k] for k in fold])


def _bic_gain(setup: Setup, model: Model, best: Fit, data: Data) -> np.ndarray:
    """Rise of 2 x misfit + ln(rows) x parameters when one of them is held fixed."""
    count = best.theta.shape[1]
    widths = np.where(np.eye(count) > 0, FIXED, np.asarray(data.prior_sigma)[None])
    start = np.repeat(best.theta, count, 0) * (1.0 - np.eye(count))
    held = data._replace(prior_sigma=widths)
    without = fit(model, start, held, tolerance=ROUGH)
    misfit = objective(np.zeros_like(without.theta), without.logs, data)
    full = objective(np.zeros_like(best.theta), best.logs, data)
    return 2.0 * (misfit - full) - np.log(setup.measured.sum())


def _check(fits: Fit, which: int = 0) -> Fit:
    if not fits.converged[which]:
        raise ArithmeticError(
            f"the fit does not converge in {fits.steps} steps; look for rows that"
            " contradict each other, or narrow the priors"
        )
    return fits


def _optimum(setup: Setup, model: Model, first: np.ndarray) -> tuple[np.ndarray, int]:
    """The best fit from many starts, and how many of them end there.

    Raises:
        ArithmeticError: it does not converge.
    """
    fits = fit(model, first, data_of(setup, {}), tolerance=FINE)
    best = int(np.argmin(fits.objective))
    _check(fits, best)
    near = fits.objective <= fits.objective[best] + NEAR
    return fits.theta[best], int((fits.converged & near).sum())


def _runs(setup: Setup) -> tuple[np.ndarray, list[str]]:
    return folds.by_run(setup.rows, FOLDS), [str(k) for k in range(FOLDS)]


def _learned(
    setup: Setup, models: Models, theta: np.ndarray, progress: Callable[[str], object]
) -> tuple[np.ndarray, dict[str, float]]:
    """Discrepancies from runs left out in turn, and an optimum to start from."""
    (fold, names), by_level = _runs(setup), {}
    runs = [folds.run_of(row) for row in setup.rows]
    for round_ in range(ROUNDS):
        progress(f"cross-validation, round {round_ + 1} of {ROUNDS}")
        if round_ > 0:
            data = data_of(setup, by_level)
            found = fit(models.fitted, theta[None], data, tolerance=FINE)
            theta = _check(found).theta[0]
        cross = left_out(setup, models, theta, fold, names, by_level)
        spread = np.square(cross.sigma) - _level_variance(setup, by_level)
        args = cross.log_error, spread, setup.levels, setup.measured
        by_level = discrepancy(*args, runs)
    return theta, by_level


def calibrate(
    setup: Setup,
    restarts: int = 32,
    seed: int = 0,
    start: np.ndarray | None = None,
    progress: Callable[[str], object] = lambda text: None,
    checkpoint: Callable[[np.ndarray], object] = lambda theta: None,
) -> Calibrated:
    """Fit from many starts, learn the discrepancy, and leave out rows in turn.

    Args:
        start: optimum of an interrupted run, which makes restarts unnecessary.
        checkpoint: called with the optimum of the first fit.

    Raises:
        ArithmeticError: no start converges.
    """
    models = models_of(setup)
    prior = data_of(setup, {}).prior_sigma
    first = starts(prior, restarts, seed) if start is None else start[None]
    progress(f"fit from {len(first)} starts")
    theta, converged = _optimum(setup, models.fitted, first)
    checkpoint(theta)
    theta, by_level = _learned(setup, models, theta, progress)
    progress("runs, tables and sources left out in turn")
    data = data_of(setup, by_level)
    found = _check(fit(models.fitted, theta[None], data, tolerance=FINE))
    final = models.report(found)
    cross, tables, sources = (
        left_out(setup, models, final.theta[0], fold, names, by_level)
        for fold, names in (
            _runs(setup),
            folds.by_label([folds.table_of(row) for row in setup.rows]),
            folds.by_label([row.spec.source for row in setup.rows]),
        )
    )
    progress("information criterion of each parameter")
    spread = covariance(final.logs, final.slopes, data)
    values, weak = directions(
        final.logs, final.slopes, data, [p.name for p in setup.parameters]
    )
    variance = row_variance(final.slopes, spread)[0] + _level_variance(setup, by_level)
    return Calibrated(
        setup=setup,
        theta=final.theta[0],
        covariance=spread[0],
        discrepancy=by_level,
        log_error=final.logs[0] - setup.observed,
        sigma=np.sqrt(variance),
        prior_log_error=models.whole(np.zeros((1, len(prior))))[0][0] - setup.observed,
        cross=cross,
        tables=tables,
        sources=sources,
        bic_gain=_bic_gain(setup, models.fitted, found, data),
        singular_values=values,
        weak=weak,
        converged=converged,
        restarts=len(first),
    )


def absorbed(setup: Setup) -> list[str]:
    """Uncertain leaves that measured rows depend on but that are not fitted.

    Their prior widths are part of the discrepancy that left-out rows show, so a
    prediction must not count them once more.
    """
    owned = {path for p in setup.parameters for path in p.leaves}
    loose = [p for p in setup.uncertain("") if p.name not in owned]
    _, slopes = setup.predictor.model(loose)(np.zeros((1, len(loose))))
    strongest = np.abs(slopes[0][setup.measured > 0]).max(axis=0)
    return sorted(p.name for p, s in zip(loose, strongest) if s >= TOUCHED)
