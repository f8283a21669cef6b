"""Exact outcomes of machines, each with the batch that its limits and memory allow."""

from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jax import Array
from jaxtyping import Float

from ..price import in_blocks
from .mix import Data, Mix, Moved, outcome
from .workloads import Form

LEVELS, POINTS = 5, 24
SPAN = 6.0
"""Batches from e^-6 to e^6 times the scenario's are tried, each level narrowing the
interval around the best by a factor of 11.5: to 7e-5 of the batch at the end."""

SIZE = 1024
"""Pairs of machine and batch that are evaluated at once."""

MET = 1e-6
"""Limits hold within this, relative."""


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
        each = [c.max(axis=1, initial=0.0) for c in self.constraints]
        worst = np.max(each, axis=0)
        return np.where(worst > MET, worst, 0.0)


@partial(jax.jit, static_argnums=0)
def _points(form: Form, moved: Moved, z: Array, batch: Array) -> tuple:
    """Outcomes of pairs of a machine and a log batch; all calls have one size."""
    return jax.vmap(lambda row, b: outcome(form, moved, row, b, None))(z, batch)


def _outcomes(mix: Mix, data: Data, job: int, z: np.ndarray, b: np.ndarray) -> tuple:
    """Objectives and constraints of any number of pairs."""
    return in_blocks(partial(_points, mix.forms[job], data.jobs[job]), SIZE, z, b)


def _with_best_batch(mix: Mix, data: Data, job: int, z: np.ndarray) -> tuple:
    """Log batch, objective and constraints of each machine at the batch that suits it."""
    count = len(z)
    if not mix.forms[job].batch:
        fixed = np.zeros(count)
        return (fixed, *_outcomes(mix, data, job, z, fixed))
    low, high = np.full(count, -SPAN), np.full(count, SPAN)
    chosen, k = np.arange(count), np.zeros(count, int)
    best = values = used = np.zeros((count, 1))
    for _ in range(LEVELS):
        grid = np.linspace(low, high, POINTS, axis=1)
        pairs = np.repeat(z, POINTS, axis=0), grid.reshape(-1)
        values, used = _outcomes(mix, data, job, *pairs)
        worst = used.max(axis=1).reshape(count, POINTS)
        values, good = values.reshape(count, POINTS), worst <= MET
        merit = np.where(good, values, -np.inf)
        # where nothing fits, what comes closest says by how much it doesn't
        k = np.where(good.any(axis=1), merit.argmax(axis=1), worst.argmin(axis=1))
        best, step = grid[chosen, k], grid[:, 1] - grid[:, 0]
        low, high = best - step, best + step
    used = used.reshape(count, POINTS, -1)[chosen, k]
    return best, values[chosen, k], used


def exact_rows(mix: Mix, data: Data, z: Float[np.ndarray, "row resource"]) -> Rows:
    """Exact outcomes of machines at these logs of multipliers.

    The batch is searched on nested grids for the best that meets the limits. Assumes
    that what meets them is one interval, as more work never takes less time.
    """
    best = [_with_best_batch(mix, data, job, z) for job in range(len(mix.forms))]
    batches, objectives, constraints = zip(*best)
    each = np.stack(objectives, axis=1)
    value = each @ np.array([float(moved.weight) for moved in data.jobs])
    return Rows(each, np.exp(np.stack(batches, axis=1)), list(constraints), value)


LARGEST_BATCH = 4096


def whole_batch(
    mix: Mix, data: Data, z: Float[np.ndarray, " resource"], job: int
) -> tuple[float, float] | None:
    """Best objective and batch of a job over all whole batches; None where none fits or
    the batch is not free."""
    form, workload = mix.forms[job], data.jobs[job].inputs[2]
    if not form.batch:
        return None
    given = float(getattr(workload, form.batch))
    sizes = np.arange(1.0, LARGEST_BATCH + 1.0)
    if form.batch == "tokens_per_device":
        sizes = sizes * 16.0
    rows = np.broadcast_to(z, (len(sizes), len(z)))
    values, used = _outcomes(mix, data, job, rows, np.log(sizes / given))
    merit = np.where(used.max(axis=1) <= MET, values, -np.inf)
    k = int(merit.argmax())
    return (float(merit[k]), float(sizes[k])) if np.isfinite(merit[k]) else None
