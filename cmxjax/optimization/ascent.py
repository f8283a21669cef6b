"""Constrained ascent by sequential quadratic programming.

    maximize f(x)  where  c_i(x) <= 0  and  low <= x <= high

from one start, on ever sharper relaxations. Reference: Kraft, DFVLR-FB 88-28, 1988
(SLSQP).
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float
from scipy.optimize import minimize

from .._types import Scalar
from .price import FAST_COMPILE

SHARPNESS, LEAST = (3.0, 16.0), (1e-6, 1e-12)
"""Of one ascent after the other, and the gain of a step below which each ends."""

STEPS = 100
"""Of each ascent at most."""

D = TypeVar("D")

Terms = Callable[[D, Array, Array, Array], tuple[Scalar, Array]]
"""(data, bound, x, sharpness) to what is maximized and to what must not exceed 0.
Hashable, as each needs a program."""


class Slopes(NamedTuple):
    """Terms at a point with their derivatives."""

    objective: float
    constraints: Float[np.ndarray, " constraint"]
    up: Float[np.ndarray, " variable"]
    """Gradient of the objective."""
    across: Float[np.ndarray, "constraint variable"]
    """Jacobian of the constraints."""


@partial(jax.jit, static_argnums=0, compiler_options=FAST_COMPILE)
def _slopes(terms: Terms[D], data: D, bound: Array, x: Array, sharpness: Array) -> tuple:
    def both(y: Array) -> tuple:
        pair = terms(data, bound, y, sharpness)
        return pair, pair

    return jax.jacfwd(both, has_aux=True)(x)


def slopes(
    terms: Terms[D],
    data: D,
    bound: float,
    x: Float[np.ndarray, " variable"],
    sharpness: float = SHARPNESS[-1],
) -> Slopes:
    """Terms at a point, with gradient and Jacobian."""
    numbers = (jnp.asarray(value, float) for value in (bound, x, sharpness))
    (up, across), (value, c) = jax.device_get(_slopes(terms, data, *numbers))
    return Slopes(float(value), c, up, across)


def ascend(
    evaluate: Callable[[np.ndarray, float], Slopes],
    x: Float[np.ndarray, " variable"],
    box: tuple[np.ndarray, np.ndarray],
    sharper: tuple[float, ...] = SHARPNESS,
) -> tuple[Float[np.ndarray, " variable"], int]:
    """Where an ascent from a point ends, and the evaluations that it took.

    Args:
        evaluate: (x, sharpness) to the terms there.
        box: smallest and largest values of the variables.
        sharper: of one ascent after the other.
    """
    spent = 0
    for sharpness, least in zip(sharper, LEAST):
        seen: dict[bytes, Slopes] = {}

        def at(y: np.ndarray, seen=seen, sharpness=sharpness) -> Slopes:
            if y.tobytes() not in seen:
                seen[y.tobytes()] = evaluate(y, sharpness)
            return seen[y.tobytes()]

        room = {
            "type": "ineq",
            "fun": lambda y, at=at: -at(y).constraints,
            "jac": lambda y, at=at: -at(y).across,
        }
        found = minimize(
            lambda y, at=at: -at(y).objective,
            x,
            jac=lambda y, at=at: -at(y).up,
            bounds=np.stack(box, axis=1),
            constraints=[room],
            method="SLSQP",
            options={"maxiter": STEPS, "ftol": least},
        )
        x, spent = np.clip(found.x, *box), spent + len(seen)
    return x, spent
