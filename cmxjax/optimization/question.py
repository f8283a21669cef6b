"""What is asked: an objective and limits on metrics, and how a point is scored."""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._types import Scalar, Sharpness
from ..answers.limits import Limit
from ..job.workload import Train
from ..phases.metrics import metrics
from ..quantities import field_of
from ..specs.build import Problem
from ..specs.errors import SpecError, all_of
from ..specs.measurement_file import QUANTITIES
from . import ways
from .serving import Family, layout_of, unshared
from .space import Space, count

FIELDS = {
    "decode": (
        "tokens_per_s_per_package",
        "tpot_s",
        "energy_per_token_j",
        "memory_bytes",
    ),
    "prefill": (
        "tokens_per_s_per_package",
        "ttft_s",
        "energy_per_token_j",
        "memory_bytes",
    ),
    "train": (
        "tokens_per_s_per_package",
        "step_time_s",
        "energy_per_token_j",
        "memory_bytes",
    ),
}
"""Metrics of every point by phase: throughput, latency, energy, memory."""

WHOLE = {
    "decode": "a whole number of requests for every group",
    "prefill": "a prompt for every group",
    "train": "a whole number of micro-batches for every rank and whole groups of"
    " workload.zero_group",
}
"""What a layout needs by phase, whatever its way."""

DEFAULT_OBJECTIVE = "tokens_rate_per_package"
NO_LIMIT = 1e3
"""Log of a bound that is never reached."""


class Target(NamedTuple):
    """Objective and limits as arrays over the fields, so that all share a program."""

    weights: Array | np.ndarray
    """The objective is weights @ log(field); it is minimized."""
    signs: Array | np.ndarray
    """+1 where a field is bounded from above, -1 from below."""
    bounds: Array | np.ndarray
    """Logs of the bounds."""


class Question(NamedTuple):
    """A job, what is free in it, what is wanted."""

    problem: Problem
    space: Space
    families: tuple[Family, ...]
    fields: tuple[str, ...]
    target: Target
    objective: str
    limits: tuple[Limit, ...]
    inputs: tuple
    """What `metrics` takes, made once: every batch of points asks for it."""

    @property
    def points(self) -> int:
        """Layouts with settings, in all families, infeasible ones included."""
        return count(self.space) * len(self.families)

    @property
    def needs(self) -> dict[int, str]:
        """What a layout needs beside memory and limits, by the place of its violation
        in a score."""
        others = ways.NEEDS if isinstance(self.problem.workload, Train) else ()
        names = (WHOLE[self.problem.scenario.phase], *others)
        return dict(enumerate(names, start=1))

    @property
    def maximizes(self) -> bool:
        return is_rate(self.objective)

    def value(self, score: float) -> float:
        """The objective in SI from the minimized score."""
        return math.exp(-score if self.maximizes else score)


class Score(NamedTuple):
    """How good a point is. Leading axes are those of the points."""

    objective: Float[Array, "*points"]
    """Log of the objective, negated where it is maximized."""
    violations: Float[Array, "*points violation"]
    """Logs of what is used over what is allowed: memory, grouping, what the way of
    training needs, limits."""
    logs: Float[Array, "*points field"]


def is_rate(quantity: str) -> bool:
    """Whether more of a quantity is better."""
    return QUANTITIES[quantity].endswith("_rate")


def target_of(
    phase: str, objective: str, limits: tuple[Limit, ...]
) -> tuple[tuple[str, ...], Target]:
    """Fields to compute and what to make of them.

    Raises:
        SpecError: the phase doesn't predict the objective or a limited quantity, or a
            limit is not above 0.
    """
    quantities = (objective, *(limit.quantity for limit in limits))
    asked, _ = all_of(
        lambda: all_of(*(partial(_field, quantity, phase) for quantity in quantities)),
        lambda: all_of(*(partial(_check_bound, limit) for limit in limits)),
    )
    fields = list(dict.fromkeys((*FIELDS[phase], *asked)))
    weights, bounds = np.zeros(len(fields)), np.full(len(fields), NO_LIMIT)
    signs = np.ones(len(fields))
    weights[fields.index(_field(objective, phase))] = -1.0 if is_rate(objective) else 1.0
    for limit in limits:
        place = fields.index(_field(limit.quantity, phase))
        sign = -1.0 if is_rate(limit.quantity) else 1.0
        # of two limits on one quantity the stricter one holds
        bound = sign * math.log(limit.value)
        known = bounds[place] != NO_LIMIT
        if known:
            bound = min(bound, signs[place] * bounds[place])
        signs[place], bounds[place] = sign, sign * bound
    return tuple(fields), Target(weights, signs, bounds)


def _check_bound(limit: Limit) -> None:
    if not limit.value > 0.0:
        raise SpecError([f"--limit {limit.quantity}: must be above 0"])


def _field(quantity: str, phase: str) -> str:
    if quantity not in QUANTITIES:
        known = ", ".join(QUANTITIES)
        raise SpecError([f"{quantity}: no such quantity; use one of {known}"])
    try:
        return field_of(quantity, None, phase)
    except ValueError as error:
        raise SpecError([f"optimize: {error}"]) from None


def score(
    inputs: tuple,
    target: Target,
    family: Family,
    fields: tuple[str, ...],
    names: tuple[str, ...],
    factor: Float[Array, "axis tier"],
    values: Float[Array, " setting"],
    sharpness: Sharpness = None,
) -> Score:
    """Score one point; differentiable in `factor` and `values` where relaxed.

    Args:
        inputs: machine, model, workload, layout.
        names: what the entries of `values` set, in order.
    """
    machine, a, workload, layout = inputs
    chosen = {name: values[i] for i, name in enumerate(names)}
    layout = layout_of(a, layout, family, factor, chosen, sharpness)
    sizes = {name: value for name, value in chosen.items() if hasattr(workload, name)}
    workload = ways.on_way(workload.replace(**sizes), family)
    m = metrics(machine, a, workload, layout, sharpness)
    logs = jnp.log(jnp.stack([getattr(m, field) for field in fields]))
    memory = jnp.log(m.memory_bytes / machine.chip.memory_usable_bytes)
    bounded = target.signs * (logs - target.bounds)
    grouping = unshared(workload, layout, sharpness)
    unmet = ways.violations(a, workload, layout, family, sharpness)
    violations = jnp.concatenate([jnp.stack([memory, grouping]), unmet, bounded])
    return Score(jnp.matmul(target.weights, logs), violations, logs)


def _score_rows(
    inputs: tuple,
    target: Target,
    factors: Array,
    values: Array,
    family: Family,
    fields: tuple[str, ...],
    names: tuple[str, ...],
) -> tuple[Array, Array, Array, Array]:
    """Exact objective, worst violation, which it is, and logs of many points, in pieces.

    Args:
        factors: whole numbers, (row, axis, tier).
        values: (row, setting).
    """

    def one(row: tuple) -> tuple[Scalar, Scalar, Array, Array]:
        factor, chosen = row
        exact = score(
            inputs, target, family, fields, names, factor.astype(chosen.dtype), chosen
        )
        worst = exact.violations.argmax()
        return exact.objective, exact.violations.max(), worst, exact.logs

    size = min(4096, factors.shape[0])
    return jax.lax.map(one, (factors, values), batch_size=size)


STATIC = ("family", "fields", "names")

FAST_COMPILE: dict[str, bool | str] = {"xla_backend_optimization_level": "0"}
"""For programs that run for less time than they take to compile."""

score_rows = jax.jit(_score_rows, static_argnames=STATIC)
"""For millions of points."""

score_few = jax.jit(_score_rows, static_argnames=STATIC, compiler_options=FAST_COMPILE)
"""For thousands of points: compiles in half the time and runs slower."""
