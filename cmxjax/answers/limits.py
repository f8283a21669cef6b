"""The largest workload that meets limits, by exact evaluation of every whole value."""

import operator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..phases.metrics import Metrics, metrics
from ..quantities import field_of
from ..specs.build import build
from ..specs.errors import NoAnswerError, SpecError
from ..specs.figures import parse_quantity
from ..specs.measurement_file import QUANTITIES
from ..specs.scenario_file import Scenario
from ..words import choose
from .operations import check_known

COARSE, LARGEST = 4096, 10_000_000
SIZES = ("sequences_per_device", "kv_tokens", "tokens_per_device", "prompt_tokens")

RATIOS = ("mfu", "hfu", "utilization", "goodput", "mtbf", "tokens_rate_per_kw")
"""Quantities, besides rates, of which more is better."""


def more_is_better(quantity: str) -> bool:
    """Whether a quantity is a rate or a share of a peak."""
    return QUANTITIES[quantity].endswith("_rate") or quantity in RATIOS


class Limit(NamedTuple):
    """A bound on a quantity, in SI; rates and shares are bounded from below."""

    quantity: str
    value: float

    @property
    def holds(self):
        return operator.ge if more_is_better(self.quantity) else operator.le


def parse_limit(text: str, option: str = "--limit") -> Limit:
    """`tpot=50ms`. Raises `SpecError` for an unknown quantity, a wrong unit, or none."""
    name, _, value = text.partition("=")
    if name not in QUANTITIES or not value:
        said = f"{option} {text}: write QUANTITY=VALUE; {choose(name, QUANTITIES)}"
        raise SpecError([said])
    try:
        limit = Limit(name, parse_quantity(value, QUANTITIES[name]))
        if not limit.value > 0.0:
            raise ValueError("must be above 0")
    except ValueError as error:
        raise SpecError([f"{option} {text}: {error}"]) from None
    return limit


def largest(
    scenario: Scenario, key: str, limits: list[Limit], calibration: str | None = None
) -> float:
    """The largest whole value of a workload key that meets all limits and fits memory.

    Metrics need not be monotone in the key: every whole value is tried, those beyond
    4,096 first on a geometric grid.

    Args:
        scenario: the job; its own value of the key is ignored.
        key: such as `workload.sequences_per_device`.
        limits: bounds that must hold at once.

    Raises:
        SpecError: the key is no number of the workload; as a `NoAnswerError` where no
            value meets the limits.
    """
    problem = build(scenario, calibration)
    field = key.removeprefix("workload.")
    given = getattr(scenario, "workload", None)
    sizes = [
        name for name in SIZES if hasattr(given, name) and hasattr(problem.workload, name)
    ]
    if not key.startswith("workload.") or field not in sizes:
        known = ", ".join(f"workload.{name}" for name in sizes) or "none in this phase"
        raise SpecError([f"--max {key}: not a size of this workload; use {known}"])
    fields = [(_field(limit, scenario.phase), limit) for limit in limits]
    check_known(problem, *(field for field, _ in fields))
    inputs = problem.inputs
    grid = np.unique(np.round(np.geomspace(COARSE, LARGEST, 2048)))
    candidates = np.concatenate([np.arange(1.0, COARSE), grid])
    while True:
        good = _meets(_metrics_at(field, inputs, jnp.asarray(candidates)), fields)
        if not good.any():
            asked = ", ".join(f"{limit.quantity} {limit.value:g}" for limit in limits)
            said = f"--max {key}: no value meets {asked or 'it'} within memory"
            raise NoAnswerError([said])
        best = int(np.flatnonzero(good)[-1])
        low = candidates[best]
        high = candidates[min(best + 1, len(candidates) - 1)]
        if high - low <= 1.0:
            return float(low)
        candidates = np.unique(np.round(np.linspace(low, high, COARSE)))


def _field(limit: Limit, phase: str) -> str:
    try:
        return field_of(limit.quantity, None, phase)
    except ValueError as error:
        raise SpecError([f"--limit {limit.quantity}: {error}"]) from None


@partial(jax.jit, static_argnums=0)
def _metrics_at(field: str, inputs: tuple, values: Array) -> Metrics:
    """Metrics of a job at many values of one key of its workload."""
    machine, model, workload, layout = inputs

    def one(value: Array) -> Metrics:
        return metrics(machine, model, workload.replace(**{field: value}), layout)

    return jax.vmap(one)(values)


def _meets(m: Metrics, fields: list[tuple[str, Limit]]) -> np.ndarray:
    good = np.ones(len(np.asarray(jax.tree.leaves(m)[0])), bool)
    if (excess := getattr(m, "memory_excess_bytes", None)) is not None:
        good &= np.asarray(excess) <= 0.0
    for field, limit in fields:
        good &= limit.holds(np.asarray(getattr(m, field)), limit.value)
    return good
