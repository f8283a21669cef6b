"""The workloads of a mix as one function of the machine's multipliers and the batches."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from ..._types import Scalar, Sharpness
from ...answers.numbers import paths_of, row_of, scaled
from ...phases.metrics import metrics
from ..price import unshared
from .cost import Prices, log_cost
from .workloads import Form, Job


class Moved(NamedTuple):
    """A job and how its numbers follow the variables; leaves are arrays."""

    inputs: tuple
    """What `metrics` takes."""
    powers: np.ndarray
    """Of each number in each resource's multiplier, (number, resource)."""
    batch: np.ndarray
    """1 for the number that is the batch, (number,)."""
    bounds: Array | np.ndarray
    """Logs of the limits."""
    weight: Array


class Data(NamedTuple):
    """What the terms of a mix take beside the variables."""

    jobs: tuple[Moved, ...]
    prices: Prices


def moved_by(job: Job, powers: list[dict[str, float]]) -> Moved:
    """A job whose machine follows the resources.

    Args:
        powers: for each resource that of each leaf which follows it, by path.
    """
    paths = paths_of(job.problem)
    return Moved(
        job.problem.inputs,
        np.array([row_of(paths, each) for each in powers]).T,
        row_of(paths, {f"workload.{job.form.batch}": 1.0}),
        jnp.asarray(job.bounds, float),
        jnp.asarray(job.weight),
    )


def outcome(
    form: Form, moved: Moved, z: Array, batch: Array, sharpness: Sharpness
) -> tuple[Scalar, Array]:
    """What a workload makes of a machine: log of its metric, negated where that is
    minimized, and logs of used over allowed.

    Args:
        z: logs of the resources' multipliers, (resource,).
        batch: log of the multiplier of the batch; unused where the batch is fixed.
    """
    inputs = scaled(moved.inputs, jnp.matmul(moved.powers, z) + moved.batch * batch)
    machine, _, workload, layout = inputs
    m = metrics(*inputs, sharpness)
    value = form.sign * jnp.log(getattr(m, form.field))
    if form.whole_system:
        value = value + jnp.log(machine.scale_up_devices)
    used = [
        sign * (jnp.log(getattr(m, field)) - moved.bounds[i])
        for i, (field, sign) in enumerate(form.limits)
    ]
    if hasattr(m, "memory_bytes"):
        used.append(jnp.log(m.memory_bytes / machine.chip.memory_usable_bytes))
        used.append(jnp.log1p(m.placement_excess))
    if form.batch:
        # a group of devices holds at least one whole request
        used.append(unshared(workload, layout, jnp.ones(())))
    return value, jnp.stack(used) if used else jnp.zeros(0)


class Mix(NamedTuple):
    """Static description of a design problem; calling it gives its terms.

    Variables are the logs of the resources' multipliers and then one log batch for each
    job that has a free one.
    """

    forms: tuple[Form, ...]
    resources: int
    aim: str = "gain"
    """`gain`: most of the mix within a budget. `change`: least change that brings the
    mix over the cost to a target."""

    def __call__(
        self, data: Data, bound: Array, x: Array, sharpness: Sharpness
    ) -> tuple[Scalar, Array]:
        z, at, value, used = x[: self.resources], self.resources, jnp.zeros(()), []
        for form, moved in zip(self.forms, data.jobs):
            batch = x[at] if form.batch else jnp.zeros(())
            at += bool(form.batch)
            objective, constraints = outcome(form, moved, z, batch, sharpness)
            value = value + moved.weight * objective
            used.append(constraints)
        cost = log_cost(data.prices, z)
        if self.aim == "change":
            return -0.5 * (z @ z), jnp.concatenate([(bound - value + cost)[None], *used])
        return value, jnp.concatenate([(cost - bound)[None], *used])
