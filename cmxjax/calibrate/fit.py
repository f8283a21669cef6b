r"""Maximum a posteriori by Levenberg-Marquardt, many problems at once.

$$ \min_\theta \sum_i w_i\, \rho\!\Bigl(\frac{\ln y_i - f_i(\theta)}{s_i}\Bigr)
+ \frac12 \sum_k \Bigl(\frac{\theta_k}{\sigma_k}\Bigr)^2, \qquad
\rho(z) = \tfrac12 z^2 \;\text{ or }\; \tfrac{\nu + 1}{2} \ln(1 + z^2 / \nu) $$

The reverse pass of every row is at hand, so the Gauss-Newton matrix costs nothing more
than the gradient; 10 to 30 steps replace a few hundred of L-BFGS. Student's t becomes
reweighted least squares: a row far off loses weight instead of bending the fit.

A row that is a bound pulls from one side only: where the prediction meets it, it has
neither a residual nor slopes, so it neither moves the optimum nor narrows an error bar.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

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


def residual(logs: np.ndarray, data: Data) -> tuple[np.ndarray, np.ndarray]:
    """Logs of observed over predicted, and 1 for rows that pull, (batch, row) each.

    A floor pulls predictions that are below it, a ceiling those that are above.
    """
    misfit = data.observed - logs
    if data.bound is None:
        return misfit, np.ones_like(misfit)
    pulls = np.where(misfit * data.bound < 0.0, 0.0, 1.0)
    return np.where(pulls > 0.0, misfit, 0.0), pulls


def objective(theta: np.ndarray, logs: np.ndarray, data: Data) -> np.ndarray:
    """Minus the log posterior up to a constant, (batch,); infinite where not finite."""
    z = residual(logs, data)[0] / data.sigma
    misfit = (data.weight * _loss(z, data.robust)).sum(axis=-1)
    prior = 0.5 * np.square(theta / data.prior_sigma).sum(axis=-1)
    total = misfit + prior
    return np.where(np.isfinite(total), total, np.inf)


def gauss_newton(
    logs: np.ndarray, slopes: np.ndarray, data: Data
) -> tuple[np.ndarray, np.ndarray]:
    """J^T W J (batch, p, p) and J^T W r (batch, p) without the prior."""
    misfit, pulls = residual(logs, data)
    weight = robust_weight(misfit / data.sigma, data.robust)
    weight = weight * pulls * data.weight / np.square(data.sigma)
    matrix = np.einsum("bip,bi,biq->bpq", slopes, weight, slopes)
    return matrix, np.einsum("bip,bi->bp", slopes, weight * misfit)


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
