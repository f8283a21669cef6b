"""How certain a fit is: Laplace covariance, weak directions, model discrepancy."""

from typing import NamedTuple

import numpy as np

from ..specs.discrepancy import FIRST
from .fit import Data, gauss_newton

IDENTIFIED = 0.7
"""A parameter is identified if the data narrow its prior to at most this share."""

USUAL = 0.04
"""Relative error of a calibrated performance model, before any row says otherwise."""

USUAL_OF = {"serve": 0.1, FIRST: 0.5}
"""Likewise of whole serving runs, in which an engine's habits come on top, and of their
times to the first token, most of which is waiting."""

USUAL_ROWS = 6.0

TAILS, TAIL_SIGMAS = (0.683, 0.9), 1.645
"""Shares of rows that a Gaussian has inside one standard error and inside so many."""

COVERAGES = {"50": 0.6745, "68": 1.0, "95": 1.96}
"""Shares, in percent, and the standard errors that a Gaussian has within them."""


class Direction(NamedTuple):
    """A combination of parameters and what the data say of it."""

    information: float
    """Relative to the prior: below 1 the prior decides."""
    words: str


def covariance(logs: np.ndarray, slopes: np.ndarray, data: Data) -> np.ndarray:
    """Inverse of the Gauss-Newton Hessian of minus the log posterior, (batch, p, p).

    With Student's t a row has its expected information, (nu + 1) / (nu + 3) of a
    Gaussian's; the weights at the optimum favor rows that happen to fit.

    Args:
        logs, slopes: of the model at the optimum, as `Fit` has them.
    """
    matrix, _ = gauss_newton(logs, slopes, data._replace(robust=None))
    if data.robust is not None:
        matrix = matrix * (data.robust + 1.0) / (data.robust + 3.0)
    widths = np.broadcast_to(data.prior_sigma, (len(matrix), matrix.shape[-1]))
    prior = np.eye(matrix.shape[-1]) / np.square(widths)[:, None, :]
    return np.linalg.inv(matrix + prior)


def row_variance(slopes: np.ndarray, covariances: np.ndarray) -> np.ndarray:
    """Variance of every log prediction by the delta method, (batch, row)."""
    return np.einsum("bip,bpq,biq->bi", slopes, covariances, slopes)


def directions(
    logs: np.ndarray, slopes: np.ndarray, data: Data, names: list[str], count: int = 3
) -> tuple[np.ndarray, list[Direction]]:
    """Singular values of the weighted slopes per prior width, and the weakest directions.

    Args:
        logs, slopes: of one fit, with a batch of one.

    Returns:
        The singular values, largest first, and `count` directions, weakest first.
    """
    matrix, _ = gauss_newton(logs, slopes, data)
    scaled = matrix[0] * data.prior_sigma[:, None] * data.prior_sigma[None, :]
    values, vectors = np.linalg.eigh(scaled)
    weakest = []
    for k in range(min(count, len(names))):
        vector = vectors[:, k] * np.sign(vectors[np.argmax(np.abs(vectors[:, k])), k])
        strongest = np.argsort(-np.abs(vector))[:3]
        parts = [
            f"{names[i]} {'up' if vector[i] > 0 else 'down'}"
            for i in strongest
            if abs(vector[i]) > 0.25
        ]
        weakest.append(Direction(max(float(values[k]), 0.0), " with ".join(parts)))
    return np.sqrt(np.maximum(values[::-1], 0.0)), weakest


def usual_error(level: str) -> float:
    return USUAL_OF.get(level.partition("/")[0], USUAL)


def discrepancy(
    errors: np.ndarray,
    variances: np.ndarray,
    levels: list[str],
    used: np.ndarray,
    runs: list[str] | None = None,
) -> dict[str, float]:
    """Model error by level that puts 68 % of left-out rows inside one sigma, and 90 %
    inside 1.645.

    Each row needs at least sqrt(e^2 - v) beyond the parameters' variance v; the level
    takes the 68.3 % quantile of these, so a few rows far off do not widen all bars, or
    where errors have heavier tails than a Gaussian's the 90 % quantile over 1.645.
    The quantile of a few runs is itself uncertain: it is shrunk, in the square, toward
    `usual_error` with the weight of `USUAL_ROWS` runs.

    Args:
        runs: what each row was measured with; without, each is a run of its own.
    """
    needed = np.sqrt(np.maximum(np.square(errors) - variances, 0.0))
    by_level = {}
    for level in dict.fromkeys(levels):
        chosen = np.array([name == level for name in levels]) & (used > 0)
        if chosen.any():
            count = chosen.sum()
            if runs is not None:
                count = len({run for run, own in zip(runs, chosen) if own})
            one, most = np.quantile(needed[chosen], TAILS)
            quantile = max(one, most / TAIL_SIGMAS)
            usual = USUAL_ROWS * usual_error(level) ** 2
            mean = (count * quantile**2 + usual) / (count + USUAL_ROWS)
            by_level[level] = float(np.sqrt(mean))
    return by_level


def coverage(errors: np.ndarray, sigmas: np.ndarray) -> dict[str, float]:
    """Share of rows within the standard errors that should hold 50, 68 and 95 %."""
    z = np.abs(errors) / sigmas
    return {name: float(np.mean(z <= limit)) for name, limit in COVERAGES.items()}
