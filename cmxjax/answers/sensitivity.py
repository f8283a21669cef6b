r"""How much a metric follows each parameter: elasticities by one reverse pass.

$$ e_x = \frac{\partial \ln f}{\partial \ln x} $$

Units give a check: a time doubles when every latency doubles and every rate halves, so
the elasticities of the times minus those of the rates sum to 1 (to -1 for a rate).
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..parameters import apply, leaf_paths
from ..phases.metrics import metrics
from ..quantities import field_of
from ..specs.build import Problem, build
from ..specs.errors import SpecError
from ..specs.scenario_file import Scenario
from ..units import dimension_of

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

GROUPS = ("system", "model", "workload")


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
    leaves: list[Elasticity]
    time_sum: float
    """Elasticities of times minus those of rates."""

    def as_json(self) -> dict[str, Any]:
        return {
            "quantity": self.quantity,
            self.field: self.value,
            "calibration": self.problem.calibration,
            "time_sum": self.time_sum,
            "elasticities": {e.path: e.elasticity for e in self.leaves},
            "one_sided": {e.path: [e.left, e.right] for e in self.leaves if e.kink},
            "with_20_percent_more": {e.path: e.larger for e in self.leaves},
        }


def inputs_of(problem: Problem) -> dict[str, Any]:
    """Pytrees of a problem by group, with the calibration applied to the system."""
    return {
        "system": apply(problem.system, problem.theta),
        "model": problem.architecture,
        "workload": problem.workload,
        "layout": problem.layout,
    }


def scaled(inputs: dict[str, Any], logs: dict[str, Any]) -> dict[str, Any]:
    """The inputs with each leaf that `logs` names multiplied by the exponential."""

    def move(key_path: tuple, leaf: Any) -> Any:
        path = jax.tree_util.keystr(key_path, simple=True, separator=".")
        return leaf * jnp.exp(logs[path]) if path in logs else leaf

    return jax.tree_util.tree_map_with_path(move, inputs)


def log_metric(field: str, inputs: dict[str, Any], logs: dict[str, Any]) -> Any:
    """ln of a metric with some leaves scaled."""
    moved = scaled(inputs, logs)
    args = (moved["system"], moved["model"], moved["workload"], moved["layout"], {})
    return jnp.log(getattr(metrics(*args), field))


@partial(jax.jit, static_argnums=0)
def _slopes(field: str, inputs: dict[str, Any], logs: dict[str, Any]) -> Any:
    return jax.value_and_grad(partial(log_metric, field, inputs))(logs)


@partial(jax.jit, static_argnums=0)
def _shifted(field: str, inputs: dict[str, Any], logs: dict[str, Any]) -> Any:
    """The log metric at many scalings, one after another."""
    return jax.lax.map(partial(log_metric, field, inputs), logs)


def leaves_of(inputs: dict[str, Any]) -> dict[str, float]:
    """Every scalar leaf of system, model and workload that can be scaled."""
    chosen = {name: inputs[name] for name in GROUPS if inputs[name] is not None}
    return {
        path: float(leaf)
        for path, leaf in leaf_paths(chosen).items()
        if np.ndim(leaf) == 0 and float(leaf) != 0.0
    }


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
    scenario: Scenario, quantity: str | None = None, calibration: str | None = None
) -> Sensitivity:
    """Elasticities of a metric with respect to every hardware and workload parameter.

    Args:
        scenario: from `load_scenario`.
        quantity: a quantity name such as `tpot`; None for the phase's usual one.
        calibration: a calibration's name, "none", or None for what ships.

    Raises:
        SpecError: (a `ValueError`) the scenario can't be built or the phase does not
            predict the quantity.
        ArithmeticError: the metric is not finite.
    """
    problem = build(scenario, calibration)
    name, field = quantity_field(quantity, scenario)
    inputs = inputs_of(problem)
    leaves = leaves_of(inputs)
    zero = {path: jnp.zeros(()) for path in leaves}
    base, slopes = jax.device_get(_slopes(field, inputs, zero))
    if not math.isfinite(base):
        raise ArithmeticError(f"{name} is not a positive number; nothing to explain")
    paths = list(leaves)
    cases = 3 * len(paths)
    logs = {path: np.zeros(cases) for path in paths}
    for k, path in enumerate(paths):
        logs[path][3 * k : 3 * k + 3] = -NUDGE, NUDGE, math.log(WHAT_IF)
    values = np.asarray(_shifted(field, inputs, jax.tree.map(jnp.asarray, logs))) - base
    found = []
    for k, path in enumerate(paths):
        down, up, larger = values[3 * k : 3 * k + 3]
        left, right = -float(down) / NUDGE, float(up) / NUDGE
        found.append(
            Elasticity(
                path,
                leaves[path],
                float(slopes[path]),
                left,
                right,
                float(np.exp(larger)),
            )
        )
    found.sort(key=lambda e: -abs(e.elasticity))
    total = sum(e.elasticity * _time_power(e.path) for e in found)
    return Sensitivity(problem, name, field, float(np.exp(base)), found, total)


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
