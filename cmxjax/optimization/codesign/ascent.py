r"""Constrained ascent: Adam on an augmented Lagrangian, many starts at once.

    maximize f(x)  where  c_i(x) <= 0  and  low <= x <= high

Each round descends on

$$ -f(x) + \frac{1}{2\rho} \sum_i \bigl(\max(0, \mu_i + \rho c_i(x))^2 - \mu_i^2\bigr) $$

projected onto the box, and ends with mu_i <- max(0, mu_i + rho c_i). The multipliers then
tend to those of Karush, Kuhn and Tucker (Nocedal & Wright, Numerical Optimization, 2006,
section 17.3). Sharpness is annealed from round to round. Where the best start of a budget
ended, sequential quadratic programming goes on: Adam leaves what hardly matters where it
is.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Float
from scipy.optimize import minimize

from ..._types import Scalar
from ...smooth import anneal
from ..price import FAST_COMPILE

SHARPNESS = (2.0, 16.0)

RATE = (0.05, 2e-4)
"""Length of Adam's steps in the first and in the last round."""

RHO = 10.0
ROUNDS, STEPS = 36, 40

POLISHED, FEASIBLE = 100, 1e-4
"""Steps at the end at most, and the constraint that counts as met there."""

D = TypeVar("D")
B = TypeVar("B")

Terms = Callable[[D, B, Array, Array], tuple[Scalar, Array]]
"""(data, bound, x, sharpness) to what is maximized and to what must not exceed 0; `bound`
is what a start has for itself. Hashable, as each needs a program."""


class Ascent(NamedTuple):
    """Where every start ended."""

    x: Float[np.ndarray, "start variable"]
    objective: Float[np.ndarray, " start"]
    violation: Float[np.ndarray, " start"]
    """Largest constraint, 0 where all hold."""
    gradients: int
    """Value-and-gradients that all starts took together."""


class Slopes(NamedTuple):
    """Terms at a point with their derivatives, at the last sharpness."""

    objective: float
    constraints: Float[np.ndarray, " constraint"]
    up: Float[np.ndarray, " variable"]
    """Gradient of the objective."""
    across: Float[np.ndarray, "constraint variable"]
    """Jacobian of the constraints."""


def _ascended(
    terms: Terms[D, B],
    data: D,
    owned: B,
    starts: Array,
    box: tuple,
    schedule: tuple,
) -> tuple:
    optimizer = optax.scale_by_adam(b1=0.8, b2=0.99)

    def lagrangian(x: Array, bound: B, mu: Array, sharpness: Array) -> tuple:
        value, c = terms(data, bound, x, sharpness)
        over = jnp.maximum(0.0, mu + RHO * c)
        return -value + (over**2 - mu**2).sum() / (2.0 * RHO), (value, c)

    def one(x: Array, bound: B) -> tuple:
        def step(carry: tuple, now: tuple) -> tuple:
            x, mu, state = carry
            sharpness, rate, last = now
            slope, (value, c) = jax.grad(lagrangian, has_aux=True)(
                x, bound, mu, sharpness
            )
            update, state = optimizer.update(slope, state)
            mu = jnp.where(last, jnp.maximum(0.0, mu + RHO * c), mu)
            moved = optax.projections.projection_box(x - rate * update, *box)
            return (moved, mu, state), (value, c.max())

        shape = jax.eval_shape(lambda y: terms(data, bound, y, jnp.ones(())), x)[1]
        carry = (x, jnp.zeros(shape.shape, x.dtype), optimizer.init(x))
        carry, (values, worst) = jax.lax.scan(step, carry, schedule)
        return carry[0], values[-1], worst[-1]

    return jax.vmap(one)(starts, owned)


_run = jax.jit(_ascended, static_argnums=0, compiler_options=FAST_COMPILE)


@partial(jax.jit, static_argnums=0, compiler_options=FAST_COMPILE)
def _slopes(terms: Terms[D, B], data: D, bound: B, x: Array, sharpness: Array) -> tuple:
    def both(y: Array) -> tuple:
        pair = terms(data, bound, y, sharpness)
        return pair, pair

    return jax.jacfwd(both, has_aux=True)(x)


def ascend(
    terms: Terms[D, B],
    data: D,
    owned: B,
    starts: Float[np.ndarray, "start variable"],
    low: Float[np.ndarray, " variable"],
    high: Float[np.ndarray, " variable"],
) -> Ascent:
    """Ascend from every start at once.

    Args:
        data: what all starts share.
        owned: what each has for itself, every leaf with a leading axis of the starts.
    """
    progress = np.minimum(np.arange(ROUNDS) / (2 * ROUNDS // 3), 1.0)
    sharpness = SHARPNESS[0] * (SHARPNESS[1] / SHARPNESS[0]) ** progress
    rates = np.asarray(anneal(*RATE, ROUNDS))
    last = np.arange(ROUNDS * STEPS) % STEPS == STEPS - 1
    schedule = (np.repeat(sharpness, STEPS), np.repeat(rates, STEPS), last)
    box = (jnp.asarray(low, float), jnp.asarray(high, float))
    args = jnp.asarray(starts, float), box, schedule
    x, value, worst = map(np.asarray, _run(terms, data, owned, *args))
    return Ascent(x, value, np.maximum(worst, 0.0), len(x) * len(last))


def slopes(
    terms: Terms[D, B], data: D, bound: B, x: Float[np.ndarray, " variable"]
) -> Slopes:
    """Terms at a point, with gradient and Jacobian."""
    sharpness = jnp.asarray(SHARPNESS[1], float)
    jacobian = _slopes(terms, data, bound, jnp.asarray(x, float), sharpness)
    (up, across), (value, c) = jax.device_get(jacobian)
    return Slopes(float(value), c, up, across)


def polished(
    evaluate: Callable[[np.ndarray], Slopes],
    x: Float[np.ndarray, " variable"],
    box: tuple[np.ndarray, np.ndarray],
) -> Float[np.ndarray, " variable"]:
    """A point near an end of the ascent that meets the conditions more closely, or that
    end, where none is found that is better and as feasible.

    Reference: Kraft, DFVLR-FB 88-28, 1988 (SLSQP).
    """
    seen: dict[bytes, Slopes] = {}

    def at(y: np.ndarray) -> Slopes:
        if y.tobytes() not in seen:
            seen[y.tobytes()] = evaluate(y)
        return seen[y.tobytes()]

    room = {
        "type": "ineq",
        "fun": lambda y: -at(y).constraints,
        "jac": lambda y: -at(y).across,
    }
    found = minimize(
        lambda y: -at(y).objective,
        x,
        jac=lambda y: -at(y).up,
        bounds=np.stack(box, axis=1),
        constraints=[room],
        method="SLSQP",
        options={"maxiter": POLISHED, "ftol": 1e-12},
    ).x
    found = np.clip(found, *box)
    before, after = at(x), at(found)
    feasible = after.constraints.max() <= max(before.constraints.max(), FEASIBLE)
    return found if feasible and after.objective >= before.objective - FEASIBLE else x
