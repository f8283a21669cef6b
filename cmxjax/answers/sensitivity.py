r"""How much a metric follows each parameter: elasticities by one reverse pass.

$$ e_x = \frac{\partial \ln f}{\partial \ln x} $$

Units give a check: a time doubles when every latency doubles and every rate halves, so
the elasticities of the times minus those of the rates sum to 1 (to -1 for a rate).
"""

import math
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..quantities import field_of
from ..specs.build import Problem, build
from ..specs.errors import SpecError
from ..specs.resolved import resolved
from ..specs.scenario_file import Scenario
from ..units import dimension_of
from .batch import steps_of
from .extrapolation import outside, widening
from .numbers import log_metric, log_shift, paths_of, row_of, values_of
from .operations import check_known
from .uncertainty import relative_sigma

USUAL = {
    "op": "time",
    "collective": "time",
    "decode": "tpot",
    "prefill": "ttft",
    "train": "step_time",
    "serve": "request_time",
}
"""The quantity of each phase that is explained if none is named."""

NUDGE = 1e-5
"""Step of ln x on either side of a value, to find kinks."""

KINK = 1e-3
"""Difference of the one-sided elasticities above which there is a kink."""

STEEP = 20.0
"""A one-sided elasticity beyond this is a step, as where one more tile is needed."""

WHAT_IF = 1.2
"""Factor of the what-if column."""


class Elasticity(NamedTuple):
    """A metric's response to one leaf."""

    path: str
    value: float
    elasticity: float
    left: float
    """One-sided, for a smaller leaf; the two differ where the exact model has a kink."""
    right: float
    larger: float
    """The metric with 20 % more of the leaf, over the metric."""

    @property
    def kink(self) -> bool:
        return abs(self.right - self.left) > KINK

    @property
    def note(self) -> str:
        """The one-sided values at a kink; a step is a finite change at once."""
        if not self.kink:
            return ""
        sides = []
        for side, slope, sign in (("below", self.left, -1), ("above", self.right, 1)):
            if abs(slope) > STEEP:
                sides.append(f"steps by {sign * slope * NUDGE:+.2%} {side}")
            else:
                sides.append(f"{slope:+.3f} {side}")
        return ", ".join(sides)

    @property
    def first_order(self) -> float:
        """Estimate of `larger` from the elasticity alone."""
        return 1.0 + (WHAT_IF - 1.0) * self.elasticity


class Sensitivity(NamedTuple):
    """Elasticities of one metric, largest first."""

    problem: Problem
    quantity: str
    field: str
    value: float
    """In SI."""
    sigma: float
    """Of the value, relative."""
    leaves: list[Elasticity]
    time_sum: float
    """Elasticities of times minus those of rates."""

    def as_json(self) -> dict[str, object]:
        return {
            "quantity": self.quantity,
            self.field: self.value,
            "sigma": {self.field: self.sigma},
            "calibration": self.problem.calibration,
            "time_sum": self.time_sum,
            "elasticities": {e.path: e.elasticity for e in self.leaves},
            "one_sided": {e.path: [e.left, e.right] for e in self.leaves if e.kink},
            "with_20_percent_more": {e.path: e.larger for e in self.leaves},
            "job": resolved(self.problem),
        }


@partial(jax.jit, static_argnums=0)
def _slopes(field: str, inputs: tuple, logs: Array) -> tuple[Array, Array]:
    return jax.value_and_grad(partial(log_metric, field, inputs))(logs)


@partial(jax.jit, static_argnums=0)
def _shifted(field: str, inputs: tuple, logs: Array) -> Array:
    """The log metric at many scalings, one after another."""
    return jax.lax.map(partial(log_metric, field, inputs), logs)


def quantity_field(quantity: str | None, scenario: Scenario) -> tuple[str, str]:
    """A quantity's name and metrics field; the phase's usual one without a name.

    Raises:
        SpecError: the phase does not predict it.
    """
    name = quantity or USUAL.get(scenario.phase, "memory_bandwidth")
    try:
        return name, field_of(name, "attention", scenario.phase)
    except ValueError as error:
        raise SpecError([f"--{error}".replace(" = ", " ", 1)]) from None


def sensitivity(
    scenario: Scenario | str | Mapping[str, object],
    quantity: str | None = None,
    calibration: str | None = None,
) -> Sensitivity:
    """Elasticities of a metric with respect to every hardware and workload parameter.

    Args:
        scenario: from `load_scenario`, or what that takes.
        quantity: a quantity name such as `tpot`; None for the phase's usual one.
        calibration: a calibration's name, "none", or None for what ships.

    Raises:
        SpecError: (a `ValueError`) the scenario can't be built or the phase does not
            predict the quantity.
        ArithmeticError: the metric is not finite.
    """
    problem = build(scenario, calibration)
    name, field = quantity_field(quantity, problem.scenario)
    check_known(problem, field)
    inputs, paths, known = problem.inputs, paths_of(problem), values_of(problem)
    base, slopes = jax.device_get(_slopes(field, inputs, jnp.zeros(len(paths))))
    if not math.isfinite(base):
        raise ArithmeticError(f"{name} is not a positive number; nothing to explain")
    elasticities = dict.fromkeys(known, 0.0)
    for path, slope in zip(paths, slopes, strict=True):
        if path in known:
            elasticities[path] += float(slope)
    used = sorted(known.keys() & set(paths))
    steps = (-NUDGE, NUDGE, math.log(WHAT_IF))
    moves = [{path: step} for path in used for step in steps]
    widths = {p: step for p, step in steps_of(problem).items() if f"system.{p}" in used}
    for path, step in widths.items():
        leaf = f"system.{path}"
        moves += [{leaf: log_shift(path, known[leaf], t)} for t in (step, -step)]
    cases = np.array([row_of(paths, move) for move in moves])
    values = np.asarray(_shifted(field, inputs, cases)) - base
    nudged, shifted = np.split(values, [len(used) * len(steps)])
    around = dict(zip(used, nudged.reshape(-1, len(steps)), strict=True))
    ups, downs = shifted.reshape(-1, 2).T
    quotients = (ups - downs) / (2.0 * np.array([*widths.values()]))
    theta = dict(zip(widths, map(float, quotients), strict=True))
    sigma = relative_sigma(problem, theta, field, widening(outside(problem)))
    leaves = []
    for path, value in known.items():
        down, up, larger = around.get(path, np.zeros(len(steps)))
        left, right = -float(down) / NUDGE, float(up) / NUDGE
        elasticity = elasticities[path]
        leaves.append(
            Elasticity(path, value, elasticity, left, right, float(np.exp(larger)))
        )
    leaves.sort(key=lambda e: -abs(e.elasticity))
    total = sum(e.elasticity * _time_power(e.path) for e in leaves)
    value = float(np.exp(base))
    return Sensitivity(problem, name, field, value, sigma, leaves, total)


POINTS = 24
"""Values of a key along which shares are drawn."""


def grid(text: str) -> tuple[str, list[float]]:
    """`KEY=FIRST:LAST` as the key and values between them, evenly spaced in the log.

    Raises:
        SpecError: not of that form, or not two positive numbers in order.
    """
    key, _, ends = text.partition("=")
    try:
        first, last = (float(end) for end in ends.split(":"))
    except ValueError:
        first, last = 0.0, 0.0
    if not key or not 0.0 < first < last < math.inf:
        raise SpecError([f"--over {text!r}: write KEY=FIRST:LAST, such as {EXAMPLE}"])
    whole = float(first).is_integer() and float(last).is_integer()
    values = np.geomspace(first, last, POINTS)
    if whole:
        values = np.unique(np.round(values))
    return key, [float(value) for value in values]


EXAMPLE = "workload.sequences_per_device=1:128"


def _time_power(path: str) -> float:
    """+1 for a leaf in seconds, -1 for one per second, else 0."""
    if path.startswith("model."):
        return 0.0
    dimension = dimension_of(path)
    if dimension == "time":
        return 1.0
    return -1.0 if dimension.endswith("_rate") else 0.0
