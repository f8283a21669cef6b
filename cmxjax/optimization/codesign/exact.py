"""Exact outcomes of machines, each with the batch that its limits and memory allow."""

from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jax import Array
from jaxtyping import Float

from ..price import in_blocks
from .mix import Mix, Work, outcome

LEVELS, POINTS = 5, 24
SPAN = 6.0
"""Batches from e^-6 to e^6 times the scenario's are tried, each level narrowing the
interval around the best by a factor of 11.5: to 7e-5 of the batch at the end."""

SIZE = 1024
"""Pairs of machine and batch that are evaluated at once."""

MET = 1e-6
"""Limits hold within this, relative."""

LARGEST_BATCH = 4096


class Rows(NamedTuple):
    """Exact outcomes of many machines, batches as means over time, not whole."""

    objectives: Float[np.ndarray, "row job"]
    batches: Float[np.ndarray, "row job"]
    """Multipliers of the scenario's batch."""
    constraints: list[Float[np.ndarray, "row constraint"]]
    """Of each job."""
    value: Float[np.ndarray, " row"]
    """Weighted mean of the objectives."""

    @property
    def violation(self) -> np.ndarray:
        """Largest log of used over allowed, 0 where all limits hold."""
        worst = np.concatenate(self.constraints, axis=1).max(axis=1, initial=0.0)
        return np.where(worst > MET, worst, 0.0)


@jax.jit
def _points(work: Work, z: Array, batch: Array) -> tuple:
    """Outcomes of pairs of a machine and a log batch; all calls have one size."""
    return jax.vmap(lambda row, b: outcome(work, row, b, None))(z, batch)


def _at_batches(
    work: Work, z: Float[np.ndarray, "row resource"], logs: Float[np.ndarray, "row batch"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The best of some log batches for each machine: which, its objective, and its
    constraints; and whether they hold.

    Where nothing fits, what comes closest says by how much it doesn't.
    """
    count, tried = logs.shape
    pairs = np.repeat(z, tried, axis=0), logs.ravel()
    values, used = in_blocks(partial(_points, work), SIZE, *pairs)
    values, used = values.reshape(logs.shape), used.reshape(count, tried, -1)
    worst = used.max(axis=2, initial=-np.inf)
    good, each = worst <= MET, np.arange(count)
    merit = np.where(good, values, -np.inf)
    best = np.where(good.any(axis=1), merit.argmax(axis=1), worst.argmin(axis=1))
    return best, values[each, best], used[each, best], good[each, best]


def exact_rows(mix: Mix, z: Float[np.ndarray, "row resource"]) -> Rows:
    """Exact outcomes of machines at these logs of multipliers.

    The batch is searched on nested grids for the best that meets the limits. Assumes
    that what meets them is one interval, as more work never takes less time.
    """
    objectives, batches, constraints = [], [], []
    for work in mix.works:
        low, high = np.full(len(z), -SPAN), np.full(len(z), SPAN)
        batch, levels, points = 0.0 * low, LEVELS, POINTS
        if not work.form.batch:
            low, high, levels, points = batch, batch, 1, 1
        value, used = batch, batch
        for _ in range(levels):
            grid = np.linspace(low, high, points, axis=1)
            best, value, used, _ = _at_batches(work, z, grid)
            batch, step = grid[np.arange(len(z)), best], (high - low) / max(points - 1, 1)
            low, high = batch - step, batch + step
        objectives.append(value)
        batches.append(np.exp(batch))
        constraints.append(used)
    each = np.stack(objectives, axis=1)
    value = each @ np.array([work.weight for work in mix.works])
    return Rows(each, np.stack(batches, axis=1), constraints, value)


def whole_batch(
    work: Work, z: Float[np.ndarray, " resource"]
) -> tuple[float, float] | None:
    """Best objective and batch of a job over all whole batches; None where none fits or
    the batch is not free."""
    if not work.form.batch:
        return None
    sizes = np.arange(1.0, LARGEST_BATCH + 1.0)
    if work.form.batch == "tokens_per_device":
        sizes = sizes * 16.0
    logs = np.log(sizes / float(getattr(work.inputs[2], work.form.batch)))
    best, value, _, good = _at_batches(work, z[None], logs[None])
    return (float(value[0]), float(sizes[best[0]])) if good[0] else None
