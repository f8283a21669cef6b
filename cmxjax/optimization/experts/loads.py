"""Synthetic loads of experts: Zipf, and traces that drift and burst."""

import numpy as np
from jaxtyping import Float


def zipf(
    experts: int, exponent: float, rng: np.random.Generator
) -> Float[np.ndarray, "expert time"]:
    """One time: the k-th most popular expert gets a share proportional to k^-exponent."""
    shares = np.arange(1, experts + 1, dtype=float) ** -exponent
    return rng.permutation(shares / shares.sum())[:, None]


def trace(
    experts: int, times: int, spread: float, rng: np.random.Generator
) -> Float[np.ndarray, "expert time"]:
    """Log-normal popularity that drifts from time to time, with bursts of few experts.

    Like published traces, in which a fifth of the experts lie above the mean and the
    hottest far above (xDeepServe, arXiv 2508.02520).
    """
    base = rng.normal(0.0, spread, (experts, 1))
    drift = rng.normal(0.0, 0.15 * spread, (experts, times)).cumsum(axis=1)
    bursts = rng.random((experts, times)) < 0.01
    loads = np.exp(base + drift) * np.where(bursts, rng.uniform(2.0, 4.0), 1.0)
    return loads / loads.sum(axis=0)
