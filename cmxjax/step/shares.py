"""Shares of a step time by component, from Euler's theorem.

A step time is homogeneous of degree one in its component times, so it equals the sum
of (component x derivative with respect to it). Each component carries a factor of 1
here; the derivative with respect to the factor is its share of the step.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np

from ..rates.roofline import RESOURCES

COLLECTIVE_PARTS = ("start", "transfer", "protocol")
MESH_PARTS = ("start", "transfer")
EXCHANGE_PARTS = {
    "dispatch": ("start", "wait", "transfer", "copies"),
    "combine": ("start", "transfer", "copies", "sum"),
}


class Scales:
    """Factors of 1 on component times, by name; `prefixed` narrows to one collective.

    `operators` are the factors on the operators' resource times, (op, resource), or
    None where no breakdown is wanted.
    """

    def __init__(self, factors: dict[str, Any]):
        self.factors = factors

    def __call__(self, name: str) -> Any:
        return self.factors.get(name, None if name == "operators" else 1.0)

    def prefixed(self, prefix: str) -> Callable[[str], Any]:
        return lambda part: self(f"{prefix}.{part}")


def _ones(blocks: tuple[str, ...], components: tuple[str, ...]) -> dict[str, Any]:
    ones: dict[str, Any] = {name: jnp.ones(()) for name in components}
    ones["operators"] = jnp.ones((len(blocks), len(RESOURCES)))
    return ones


def _by_name(values: dict[str, Any], blocks: tuple[str, ...]) -> dict[str, Any]:
    """Sum the operators' entries by block and resource; keep the others."""
    by_row, shares = values["operators"], {}
    for block in dict.fromkeys(blocks):
        mask = np.array([float(other == block) for other in blocks])
        for column, resource in enumerate(RESOURCES):
            shares[f"{block}.{resource}"] = (by_row[:, column] * mask).sum()
    return shares | {name: v for name, v in values.items() if name != "operators"}


def breakdown(
    step_s: Callable[[Scales], Any],
    blocks: tuple[str, ...],
    components: tuple[str, ...],
) -> dict[str, Any]:
    """Seconds of a step by component; they sum to the step time.

    Args:
        step_s: the step time as a function of the factors.
        blocks: the block of each operator of the step's table.
        components: names of the components that are not operators.
    """
    ones = _ones(blocks, components)
    slopes = jax.grad(lambda factors: step_s(Scales(factors)))(ones)
    return _by_name(slopes, blocks)


DOMINANT = 1e6
"""Factor that makes one component outlast all that it could hide behind."""


def busy(
    step_s: Callable[[Scales], Any],
    blocks: tuple[str, ...],
    components: tuple[str, ...],
) -> dict[str, Any]:
    """Seconds that each component is busy in a step, hidden or not.

    A component made so slow that everything else hides behind it takes its busy time
    per unit of its factor. Busy times of components that overlap sum to more than the
    step.
    """
    flat, unflatten = jax.flatten_util.ravel_pytree(_ones(blocks, components))

    def slope(direction):
        factors = unflatten(flat + DOMINANT * direction)
        _, moved = jax.jvp(
            lambda f: step_s(Scales(f)), (factors,), (unflatten(direction),)
        )
        return moved

    slopes = jax.lax.map(slope, jnp.eye(flat.size))
    return _by_name(unflatten(slopes), blocks)
