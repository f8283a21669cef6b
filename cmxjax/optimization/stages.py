r"""Pipeline stages of unlike layers: where to cut, by dynamic programming.

A model is a row of units (embedding, dense and mixture layers, draft module, head) that
is cut into contiguous stages. A pipeline is as fast as its slowest stage. With schedule
1F1B stage s of p keeps the activations of p - s micro-batches.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int


class Stages(NamedTuple):
    """A partition of the units and its time."""

    counts: Int[np.ndarray, " stage"]
    """Units of each stage."""
    slowest_s: float
    """Time of the slowest stage, exact optimum."""
    relaxed_s: float
    """The same with cuts anywhere within units, all stages alike: never more."""


def in_flight(stages: int) -> Float[np.ndarray, " stage"]:
    """Micro-batches whose activations each stage keeps under 1F1B."""
    return np.arange(stages, 0.0, -1.0)


def partition(
    times_s: Float[np.ndarray, " unit"],
    stages: int,
    *,
    weights_bytes: Float[np.ndarray, " unit"] | None = None,
    activations_bytes: Float[np.ndarray, " unit"] | None = None,
    capacity_bytes: float = np.inf,
) -> Stages:
    """Cut units into stages so that the slowest one is fastest and each fits.

    Args:
        times_s: time of each unit on one micro-batch.
        weights_bytes: of each unit, optimizer state included.
        activations_bytes: of each unit and micro-batch in flight.

    Raises:
        ValueError: naming what is wrong, or that no partition fits into memory.
    """
    times = np.asarray(times_s, float)
    units = len(times)
    if not 1 <= stages <= units:
        raise ValueError(f"stages = {stages}: use 1 to {units}, the number of units")
    weights = np.zeros(units) if weights_bytes is None else np.asarray(weights_bytes)
    kept = np.zeros(units) if activations_bytes is None else np.asarray(activations_bytes)
    for name, values in (("times", times), ("weights", weights), ("activations", kept)):
        if len(values) != units or not np.isfinite(values).all() or (values < 0).any():
            raise ValueError(f"{name}: give a number of at least 0 for each unit")
    cuts = _cuts(times, weights, kept, stages, capacity_bytes)
    slowest = max(times[a:b].sum() for a, b in zip(cuts, cuts[1:]))
    return Stages(np.diff(cuts), float(slowest), float(times.sum()) / stages)


def _cuts(
    times: np.ndarray, weights: np.ndarray, kept: np.ndarray, stages: int, capacity: float
) -> list[int]:
    """Cuts of the optimum: best[j] is the slowest of the stages so far on j units."""
    whole = np.arange(len(times) + 1)

    def spans(values: np.ndarray) -> np.ndarray:
        """Sum over the units from i to j, (i, j)."""
        sums = np.concatenate([[0.0], np.cumsum(values)])
        return sums[None] - sums[:, None]

    best, chosen = np.where(whole == 0, 0.0, np.inf), []
    for flying in in_flight(stages):
        fits = spans(weights) + flying * spans(kept) <= capacity
        allowed = fits & (whole[None] > whole[:, None])
        value = np.where(allowed, np.maximum(best[:, None], spans(times)), np.inf)
        chosen.append(value.argmin(axis=0))
        best = value.min(axis=0)
    if not np.isfinite(best[-1]):
        raise ValueError(
            f"no {stages} stages fit into {capacity:.4g} bytes; use more stages or memory"
        )
    cuts = [len(times)]
    for before in reversed(chosen):
        cuts.append(int(before[cuts[-1]]))
    return cuts[::-1]
