r"""Maximum a posteriori by Levenberg-Marquardt, many problems at once.

$$ \min_\theta \sum_i w_i\, \rho\!\Bigl(\frac{\ln y_i - f_i(\theta)}{s_i}\Bigr)
+ \frac12 \sum_k \Bigl(\frac{\theta_k}{\sigma_k}\Bigr)^2, \qquad
\rho(z) = \tfrac12 z^2 \;\text{ or }\; \tfrac{\nu + 1}{2} \ln(1 + z^2 / \nu) $$

The reverse pass of every row is at hand, so the Gauss-Newton matrix costs nothing more
than the gradient; 10 to 30 steps replace a few hundred of L-BFGS. Student's t becomes
reweighted least squares: a row far off loses weight instead of bending the fit.

A row that is a bound is a censored value: what was measured lies somewhere beyond the
mark, so its loss is minus the log of the chance of that,

$$ \rho(u) = -\ln F(u), \qquad u = \pm \frac{f_i(\theta) - \ln y_i}{s_i}, $$

F the cumulative distribution of the same errors, plus for floors (Tobin, Econometrica
26 (1958) 24). A prediction on the mark is pulled beyond it as far as errors are wide; one
far beyond is neither pulled nor does the row narrow an error bar.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import gammaln, log_ndtr, stdtr

from .rows import Model

LARGEST_DAMPING = 1e8


class Data(NamedTuple):
    """What is fitted. Leading axes may be left out where all problems share them."""

    observed: np.ndarray
    """Logs of the observations, (batch, row)."""
    sigma: np.ndarray
    """Standard errors of the logs, (row,)."""
    weight: np.ndarray
    """1 for rows in the fit and 0 for others, (batch, row)."""
    prior_sigma: np.ndarray
    """Prior width of each parameter, (parameter,) or (batch, parameter); prior mean 0."""
    robust: float | None = None
    """Degrees of freedom of Student's t; None is Gaussian."""
    bound: np.ndarray | None = None
    """1 for rows that are floors, -1 for ceilings, 0 for values, (row,)."""


class Fit(NamedTuple):
    """The optimum of every problem of a batch."""

    theta: np.ndarray
    objective: np.ndarray
    logs: np.ndarray
    slopes: np.ndarray
    converged: np.ndarray
    steps: int


def robust_weight(z: np.ndarray, robust: float | None) -> np.ndarray:
    """Weight of a row in least squares at its standardized residual z."""
    if robust is None:
        return np.ones_like(z)
    return (robust + 1.0) / (robust + np.square(z))


def _loss(z: np.ndarray, robust: float | None) -> np.ndarray:
    if robust is None:
        return 0.5 * np.square(z)
    return 0.5 * (robust + 1.0) * np.log1p(np.square(z) / robust)


def _beyond(
    u: np.ndarray, robust: float | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Loss, minus its slope, and curvature of predictions that are u beyond a mark."""
    if robust is None:
        log_chance = log_ndtr(u)
        log_density = -0.5 * np.square(u) - 0.5 * np.log(2.0 * np.pi)
        falls = u
    else:
        log_chance = np.log(stdtr(robust, u))
        log_density = _log_peak(robust) - _loss(u, robust)
        falls = u * robust_weight(u, robust)
    hazard = np.exp(log_density - log_chance)
    return -log_chance, hazard, hazard * (hazard + falls)


def _log_peak(robust: float) -> float:
    """Log of the density of Student's t where it is highest."""
    half = 0.5 * robust
    return float(gammaln(half + 0.5) - gammaln(half) - 0.5 * np.log(robust * np.pi))


def _rows(logs: np.ndarray, data: Data) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Loss of each row, its pull on the log prediction and its curvature."""
    z = (data.observed - logs) / data.sigma
    weight = robust_weight(z, data.robust)
    loss, pull = _loss(z, data.robust), weight * z
    if data.bound is not None and data.bound.any():
        marks = data.bound != 0.0
        sign = data.bound[marks]
        lost, hazard, curvature = _beyond(-sign * z[:, marks], data.robust)
        loss[:, marks], pull[:, marks] = lost, sign * hazard
        # Student's t is not convex far below a mark
        weight[:, marks] = np.abs(curvature)
    return (
        data.weight * loss,
        data.weight * pull / data.sigma,
        data.weight * weight / np.square(data.sigma),
    )


def objective(theta: np.ndarray, logs: np.ndarray, data: Data) -> np.ndarray:
    """Minus the log posterior up to a constant, (batch,); infinite where not finite."""
    misfit = _rows(logs, data)[0].sum(axis=-1)
    prior = 0.5 * np.square(theta / data.prior_sigma).sum(axis=-1)
    total = misfit + prior
    return np.where(np.isfinite(total), total, np.inf)


def gauss_newton(
    logs: np.ndarray, slopes: np.ndarray, data: Data
) -> tuple[np.ndarray, np.ndarray]:
    """J^T W J (batch, p, p) and J^T W r (batch, p) without the prior."""
    _, pull, weight = _rows(logs, data)
    matrix = np.einsum("bip,bi,biq->bpq", slopes, weight, slopes)
    return matrix, np.einsum("bip,bi->bp", slopes, pull)


def fit(
    model: Model,
    start: np.ndarray,
    data: Data,
    steps: int = 300,
    tolerance: float = 1e-8,
    progress: Callable[[int, np.ndarray], None] = lambda step, objectives: None,
) -> Fit:
    """Minimize from every start at once.

    Args:
        start: (batch, parameter).
        tolerance: a problem is done when a step gains less than this share.
        progress: called with each step's number and the objectives so far.

    Raises:
        ArithmeticError: the model is not finite at any start.
    """
    theta = np.array(start, float)
    count = theta.shape[1]
    widths = np.broadcast_to(data.prior_sigma, theta.shape)
    precision = np.eye(count) / np.square(widths)[:, None, :]
    logs, slopes = model(theta)
    best = objective(theta, logs, data)
    if not np.isfinite(best).any():
        raise ArithmeticError("no start gives finite predictions; check the priors")
    damping = np.full(len(theta), 1e-3)
    settled = np.zeros(len(theta), bool)
    taken = 0
    while taken < steps and not settled.all():
        active = np.flatnonzero(~settled)
        part = _only(data, active)
        matrix, gradient = gauss_newton(logs[active], slopes[active], part)
        matrix = np.nan_to_num(matrix) + precision[active]
        gradient = np.nan_to_num(gradient) - theta[active] / np.square(widths[active])
        scale = np.einsum("bpp->bp", matrix)[:, :, None] * np.eye(count)
        damped = matrix + damping[active, None, None] * scale
        trial = theta[active] + np.linalg.solve(damped, gradient[..., None])[..., 0]
        trial_logs, trial_slopes = model(trial)
        value = objective(trial, trial_logs, part)
        better = value < best[active]
        moved = active[better]
        gain = best[moved] - value[better]
        settled[moved] = gain <= tolerance * (1.0 + np.abs(value[better]))
        theta[moved], best[moved] = trial[better], value[better]
        logs[moved], slopes[moved] = trial_logs[better], trial_slopes[better]
        damping[active] *= np.where(better, 0.2, 8.0)
        damping = np.maximum(damping, 1e-12)
        settled |= damping > LARGEST_DAMPING
        taken += 1
        progress(taken, best)
    return Fit(theta, best, logs, slopes, settled & np.isfinite(best), taken)


def _only(data: Data, active: np.ndarray) -> Data:
    """The data of some problems of a batch."""
    return data._replace(
        observed=data.observed[active] if len(data.observed) > 1 else data.observed,
        weight=data.weight[active] if len(data.weight) > 1 else data.weight,
        prior_sigma=(
            data.prior_sigma[active] if data.prior_sigma.ndim > 1 else data.prior_sigma
        ),
    )


def starts(prior_sigma: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """The prior's mean and draws of half its width, (count, parameter)."""
    draws = np.random.default_rng(seed).normal(size=(count, len(prior_sigma)))
    draws[0] = 0.0
    return 0.5 * draws * prior_sigma
