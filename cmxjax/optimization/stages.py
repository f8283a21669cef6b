r"""Pipeline stages of unlike layers: where to cut, relaxed and exactly.

A model is a row of units (embedding, dense and mixture layers, draft module, head) that
is cut into contiguous stages. A pipeline is as fast as its slowest stage. With schedule
1F1B stage s of p keeps the activations of p - s micro-batches.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Float, Int

from .._types import Scalar
from ..smooth import anneal

STEPS, RATE = 300, 0.05
SHARPNESS = (5.0, 500.0)


class Stages(NamedTuple):
    """A partition and how it was found."""

    counts: Int[np.ndarray, " stage"]
    """Units of each stage."""
    slowest_s: float
    """Time of the slowest stage, exact optimum."""
    relaxed_s: float
    """The same with cuts anywhere within units: never more than the optimum, where
    memory does not bind."""
    rounded_s: float | None
    """Of the relaxed cuts rounded to whole units and mended by single steps; None where
    they don't fit into memory."""


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

    Dynamic programming is exact and takes milliseconds, so its answer is returned; the
    relaxation, which gradients of a whole training step can flow through, is compared
    with it.

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
    sums = tuple(np.concatenate([[0.0], np.cumsum(x)]) for x in (times, weights, kept))
    cuts = _exact(sums, stages, capacity_bytes)
    relaxed = relaxed_cuts(times, stages)
    rounded = _mended(np.round(relaxed).astype(int), sums, capacity_bytes)
    between = np.interp(relaxed, np.arange(units + 1.0), sums[0])
    return Stages(
        np.diff(cuts),
        float(np.diff(sums[0][cuts]).max()),
        float(np.diff(between).max()),
        None if rounded is None else float(np.diff(sums[0][rounded]).max()),
    )


def _exact(sums: tuple, stages: int, capacity: float) -> np.ndarray:
    """Cuts of the optimum: best[s, j] is the slowest of s stages on the first j units."""
    times, weights, kept = sums
    units = len(times) - 1
    spans = times[None] - times[:, None]
    best = np.full(units + 1, np.inf)
    best[0] = 0.0
    chosen = np.zeros((stages, units + 1), int)
    for s, flying in enumerate(in_flight(stages)):
        needs = weights[None] - weights[:, None] + flying * (kept[None] - kept[:, None])
        whole = np.arange(units + 1)
        allowed = (whole[None] > whole[:, None]) & (needs <= capacity)
        value = np.where(allowed, np.maximum(best[:, None], spans), np.inf)
        chosen[s] = value.argmin(axis=0)
        best = value.min(axis=0)
    if not np.isfinite(best[-1]):
        raise ValueError(
            f"no {stages} stages fit into {capacity:.4g} bytes; use more stages or memory"
        )
    cuts = [units]
    for s in range(stages - 1, -1, -1):
        cuts.append(int(chosen[s, cuts[-1]]))
    return np.array(cuts[::-1])


def relaxed_cuts(
    times_s: Float[np.ndarray, " unit"], stages: int
) -> Float[np.ndarray, " cut"]:
    """Cuts anywhere within units that make the slowest stage fastest, by Adam on the
    logs of the stages' lengths; without regard to memory."""
    sums = np.concatenate([[0.0], np.cumsum(times_s)]) / np.sum(times_s)
    return np.asarray(_descend(sums, np.zeros(stages)))


@jax.jit
def _descend(sums: Array, start: Array) -> Array:
    units = jnp.arange(sums.shape[0] * 1.0)

    def cuts_of(lengths: Array) -> Array:
        inner = jnp.cumsum(jax.nn.softmax(lengths)) * units[-1]
        return jnp.concatenate([jnp.zeros(1), inner[:-1], units[-1:]])

    def loss(lengths: Array, sharpness: Scalar) -> Array:
        spans = jnp.diff(jnp.interp(cuts_of(lengths), units, sums)) * start.shape[0]
        return jax.nn.logsumexp(sharpness * spans) / sharpness

    optimizer = optax.adam(RATE)

    def step(carry: tuple, sharpness: Array) -> tuple:
        lengths, state = carry
        updates, state = optimizer.update(jax.grad(loss)(lengths, sharpness), state)
        lengths = jnp.asarray(optax.apply_updates(lengths, updates))
        return (lengths, state), (lengths, loss(lengths, SHARPNESS[1]))

    schedule = anneal(*SHARPNESS, STEPS)
    _, (trace, losses) = jax.lax.scan(step, (start, optimizer.init(start)), schedule)
    return cuts_of(trace[jnp.argmin(losses)])


def _mended(cuts: np.ndarray, sums: tuple, capacity: float) -> np.ndarray | None:
    """Whole cuts moved one unit at a time as long as the slowest stage gets faster."""
    times, weights, kept = sums
    stages, units = len(cuts) - 1, len(times) - 1
    cuts = np.clip(cuts, np.arange(stages + 1), units - np.arange(stages, -1, -1))
    for i in range(1, stages + 1):
        cuts[i] = max(cuts[i], cuts[i - 1] + 1)

    def cost(c: np.ndarray) -> tuple[float, float]:
        needs = np.diff(weights[c]) + in_flight(stages) * np.diff(kept[c])
        spans = np.sort(np.diff(times[c]))[::-1]
        # ties are broken by the next slowest stages, so that steps lead on
        return max(float(needs.max()) - capacity, 0.0), float(
            (spans * 2.0 ** -np.arange(stages)).sum() if stages else 0.0
        )

    now, moved = cost(cuts), True
    while moved:
        moved = False
        for i in range(1, stages):
            for step in (-1, 1):
                trial = cuts.copy()
                trial[i] += step
                if (np.diff(trial) >= 1).all() and cost(trial) < now:
                    cuts, now, moved = trial, cost(trial), True
    return cuts if now[0] <= 0.0 else None
