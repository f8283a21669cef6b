"""The workloads of a mix as functions of the machine's multipliers and the batches."""

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from ..._types import Leaf, Scalar, Sharpness
from ...answers.numbers import paths_of, row_of, scaled
from ...phases.metrics import metrics
from ..price import unshared
from .cost import Prices, log_cost
from .workloads import Form, Job


class Work(struct.PyTreeNode, kw_only=True, frozen=True):
    """A job and how its numbers follow the variables."""

    inputs: tuple
    """What `metrics` takes."""
    powers: Leaf
    """Of each number in each resource's multiplier, (number, resource)."""
    batch: Leaf
    """1 for the number that is the batch, (number,)."""
    bounds: Leaf
    """Logs of the limits."""
    weight: Leaf
    form: Form = struct.field(pytree_node=False)
    kind: str = struct.field(pytree_node=False, default="work_of_a_mix")


def work_of(job: Job, powers: list[dict[str, float]]) -> Work:
    """A job whose machine follows the resources.

    Args:
        powers: for each resource that of each leaf which follows it, by path.
    """
    paths = paths_of(job.problem)
    return Work(
        inputs=job.problem.inputs,
        powers=np.array([row_of(paths, each) for each in powers]).T,
        batch=row_of(paths, {f"workload.{job.form.batch}": 1.0}),
        bounds=np.array(job.bounds, float),
        weight=job.weight,
        form=job.form,
    )


def outcome(
    work: Work, z: Array, batch: Array, sharpness: Sharpness
) -> tuple[Scalar, Array]:
    """What a workload makes of a machine: log of its metric, negated where that is
    minimized, and logs of used over allowed.

    Args:
        z: logs of the resources' multipliers, (resource,).
        batch: log of the multiplier of the batch; unused where the batch is fixed.
    """
    form = work.form
    inputs = scaled(work.inputs, jnp.matmul(work.powers, z) + work.batch * batch)
    machine, _, workload, layout = inputs
    m = metrics(*inputs, sharpness)
    value = form.sign * jnp.log(getattr(m, form.field))
    if form.whole_system:
        value = value + jnp.log(machine.scale_up_devices)
    used = [
        sign * (jnp.log(getattr(m, field)) - work.bounds[i])
        for i, (field, sign) in enumerate(form.limits)
    ]
    if hasattr(m, "memory_bytes"):
        used.append(jnp.log(m.memory_bytes / machine.chip.memory_usable_bytes))
        used.append(jnp.log1p(m.placement_excess))
    if form.batch:
        # a group of devices holds at least one whole request
        used.append(unshared(workload, layout, jnp.ones(())))
    return value, jnp.stack(used) if used else jnp.zeros(0)


class Mix(struct.PyTreeNode, kw_only=True, frozen=True):
    """A design problem. Variables are the logs of the resources' multipliers and then one
    log batch for each job that has a free one."""

    works: tuple[Work, ...]
    prices: Prices
    resources: int = struct.field(pytree_node=False)
    kind: str = struct.field(pytree_node=False, default="mix")


def most_within(
    mix: Mix, log_budget: Array, x: Array, sharpness: Sharpness
) -> tuple[Scalar, Array]:
    """Terms of the most that a budget gives: mean log of the metrics, and logs of what is
    used over what is allowed, first of the budget."""
    z, batches = x[: mix.resources], iter(x[mix.resources :])
    value, used = jnp.zeros(()), [(log_cost(mix.prices, z) - log_budget)[None]]
    for work in mix.works:
        batch = next(batches) if work.form.batch else jnp.zeros(())
        objective, constraints = outcome(work, z, batch, sharpness)
        value = value + work.weight * objective
        used.append(constraints)
    return value, jnp.concatenate(used)
