"""Relaxed placement: replicas to devices as a transport plan, annealed, then rounded."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment

STEPS = 40
SINKHORN = 4
RATE = 4.0
SHARPNESS = (10.0, 200.0)
"""Sharpness of the softmax that stands for the slowest device, over the descent."""


@partial(jax.jit, static_argnames=("per_device",))
def plans(
    each: Float[Array, "layer item time"],
    start: Float[Array, "layer item device"],
    per_device: int,
) -> Float[Array, "layer item device"]:
    """Plans of every layer, (layer, item, device): rows sum to 1, columns to slots.

    Mirror descent on the smooth maximum of the device loads, averaged over time: the
    plan is multiplied by exp(-rate x gradient) and scaled back to its margins by
    Sinkhorn's iteration, which is the projection in relative entropy.
    """
    sharp = jnp.geomspace(*SHARPNESS, STEPS)

    def slowest(plan: Array, each: Array, sharpness: Array) -> Array:
        busy = jnp.einsum("id,it->td", plan, each)
        smooth = jax.nn.logsumexp(sharpness * busy, axis=1) / sharpness
        return smooth.mean()

    def layer(args: tuple) -> Array:
        each, plan = args

        def step(plan: Array, sharpness: Array) -> tuple:
            gradient = jax.grad(slowest)(plan, each, sharpness)
            scale = jnp.abs(gradient).max() + 1e-12
            plan = plan * jnp.exp(-RATE * gradient / scale)
            for _ in range(SINKHORN):
                plan = plan * (per_device / plan.sum(axis=0, keepdims=True))
                plan = plan / plan.sum(axis=1, keepdims=True)
            return jnp.maximum(plan, 1e-12), None

        return jax.lax.scan(step, plan, sharp)[0]

    return jax.lax.map(layer, (each, start))


def spread(
    loads: Float[np.ndarray, "layer expert time"],
    counts: Int[np.ndarray, "layer expert"],
    devices: int,
    per_device: int,
    seed: int,
) -> Int[np.ndarray, "layer device slot"]:
    """Slot tables of every layer, from relaxed plans by the Hungarian method."""
    rng = np.random.default_rng(seed)
    experts = np.arange(loads.shape[1])
    items = np.stack([np.repeat(experts, row) for row in counts])
    each = np.take_along_axis(loads / counts[..., None], items[..., None], axis=1)
    mean = each.sum(axis=1, keepdims=True).mean(axis=2, keepdims=True) / devices
    each = each / np.maximum(mean, 1e-300)
    # random starts break the symmetry between devices
    start = np.exp(rng.normal(0.0, 1.0, (*items.shape, devices)))
    start /= start.sum(axis=2, keepdims=True)
    relaxed = np.asarray(
        plans(each.astype(np.float32), start.astype(np.float32), per_device)
    )
    return np.stack([_rounded(p, held, per_device) for p, held in zip(relaxed, items)])


def _rounded(plan: np.ndarray, items: np.ndarray, per_device: int) -> np.ndarray:
    """The whole assignment of greatest log-likelihood under the plan."""
    devices = plan.shape[1]
    score = np.repeat(np.log(plan), per_device, axis=1)
    rows, columns = linear_sum_assignment(score, maximize=True)
    table = np.zeros(devices * per_device, int)
    table[columns] = items[rows]
    return table.reshape(devices, per_device)
