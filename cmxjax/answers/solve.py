"""Inverse questions: which value of a leaf makes a metric what is wanted."""

import math
from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..phases.metrics import metrics
from ..quantities import field_of
from ..specs.build import Problem, build
from ..specs.errors import SpecError
from ..specs.renamed import NOW
from ..specs.resolved import resolved
from ..specs.scenario import load_scenario
from ..specs.scenario_file import Scenario
from ..units import dimension_of, format_si
from ..words import LONGEST_WORD, cut, hint
from .extrapolation import outside, widening
from .limits import parse_limit
from .numbers import log_metric, paths_of, row_of, values_of
from .operations import check_known
from .spread import slopes_of
from .uncertainty import ratio_sigma, relative_sigma, shared_error

WIDEST = 1e6
"""Largest factor by which a leaf is moved, up or down."""

STEPS = 60
CLOSE = 1e-9
"""Newton stops when ln(metric / target) is this small."""


Gap = Callable[[float], tuple[float, float]]
"""Log of the metric over its target, and its slope, at a log factor of the leaf."""


class Target(NamedTuple):
    """What a metric should be."""

    quantity: str
    field: str
    value: float
    """In SI."""
    meaning: str
    other: Problem | None = None
    """The job that it is read off, which is as uncertain."""


class Solution(NamedTuple):
    """The leaf's value, or why there is none."""

    problem: Problem
    paths: list[str]
    values: dict[str, float]
    """Of every leaf that was moved, in SI; empty without a solution."""
    factor: float
    target: Target
    reached: float
    """The metric there, in SI."""
    iterations: int
    reason: str
    sigma: float
    """Relative one sigma of the factor: what the metric's error bar makes of it. What
    the leaves themselves are uncertain by has no part in it."""

    def as_json(self) -> dict[str, object]:
        return {
            "calibration": self.problem.calibration,
            "target": {self.target.field: self.target.value},
            "reached": {self.target.field: self.reached},
            "factor": self.factor,
            "values": self.values,
            "sigma": dict.fromkeys(self.values, self.sigma),
            "iterations": self.iterations,
            "solved": not self.reason,
            "reason": self.reason,
            "job": resolved(self.problem),
        }


def parse_target(text: str, scenario: Scenario, calibration: str | None) -> Target:
    """`tpot=50ms`, or `tpot=@NAME` for the value that another scenario has.

    Raises:
        SpecError: no such quantity, unit or scenario.
    """
    name, equals, wanted = text.partition("=")
    if not equals or not wanted:
        raise SpecError([f"--for {text!r}: write QUANTITY=VALUE, such as tpot=50ms"])
    try:
        field = field_of(name, "attention", scenario.phase)
    except ValueError as error:
        raise SpecError([f"--for {text!r}: {error}"]) from None
    if not wanted.startswith("@"):
        limit = parse_limit(text, "--for")
        return Target(name, field, limit.value, wanted)
    other = load_scenario(wanted[1:])
    if other.phase != scenario.phase:
        raise SpecError(
            [f"--for {text!r}: phase {other.phase}; name one of phase {scenario.phase}"]
        )
    built = build(other, calibration)
    check_known(built, field)
    value = getattr(metrics(*built.inputs), field)
    return Target(name, field, float(value), wanted, built)


@partial(jax.jit, static_argnums=0)
def _along(field: str, inputs: tuple, moves: Array, shift: Array) -> tuple[Array, Array]:
    """The log metric and its slope with the numbers that move scaled by exp(shift)."""

    def value(z: Array) -> Array:
        return log_metric(field, inputs, z * moves)

    return jax.jvp(value, (shift,), (jnp.ones(()),))


def solve(
    scenario: Scenario, leaf: str, wanted: str, calibration: str | None = None
) -> Solution:
    """Newton on ln(metric) over ln(leaf), kept inside a bracket.

    Args:
        leaf: a path such as `workload.sequences_per_device`; `*` stands for any name,
            and all leaves that match are moved by one factor.
        wanted: see `parse_target`.

    Raises:
        SpecError: (a `ValueError`) no such leaf or quantity.
    """
    problem = build(scenario, calibration)
    inputs, known = problem.inputs, values_of(problem)
    leaf = _now(leaf)
    paths = tuple(path for path in known if fnmatchcase(path, leaf))
    if not paths:
        alike = [p for p in known if p.rsplit(".", 1)[-1] == leaf.rsplit(".", 1)[-1]]
        options = ", ".join((alike or list(known))[:8])
        said = f"no such leaf; {hint(leaf, known)}such as {options}"
        raise SpecError([f"--solve {cut(leaf, LONGEST_WORD)}: {said}"])
    target = parse_target(wanted, scenario, calibration)
    check_known(problem, target.field)
    goal = math.log(target.value)
    moves = row_of(paths_of(problem), dict.fromkeys(paths, 1.0))

    def gap(z: float) -> tuple[float, float]:
        value, slope = _along(target.field, inputs, moves, jnp.asarray(z, float))
        return float(value) - goal, float(slope)

    z, (error, slope) = 0.0, gap(0.0)
    low, high, taken = _bracket(gap, error)
    reason = ""
    if low is None or high is None:
        reason = _unreached(target, paths, gap)
    else:
        while abs(error) > CLOSE and taken < STEPS:
            step = z - error / slope if slope else math.nan
            inside = min(low, high) < step < max(low, high)
            z = step if inside else 0.5 * (low + high)
            error, slope = gap(z)
            taken += 1
            if error > 0.0:
                high = z
            else:
                low = z
    factor = math.exp(z)
    values = {} if reason else {path: known[path] * factor for path in paths}
    reached = target.value * math.exp(error)
    sigma = (
        0.0
        if reason
        else _sigma(problem, paths, target, jnp.asarray(moves * z)) / abs(slope)
    )
    return Solution(
        problem, list(paths), values, factor, target, reached, taken, reason, sigma
    )


def _sigma(
    problem: Problem, paths: tuple[str, ...], target: Target, moves: Array
) -> float:
    """Relative one sigma of the metric over its target where the leaves are moved, but
    for what these leaves are uncertain by."""
    field = target.field

    def run(*inputs: object) -> Array:
        return _along(field, inputs, moves, jnp.ones(()))[0]

    def numbers(log_value: Array | np.ndarray) -> dict[str, float]:
        return {field: math.exp(float(log_value))}

    slopes = slopes_of(problem, numbers(run(*problem.inputs)), run, numbers)[field]
    slopes = {path: x for path, x in slopes.items() if f"system.{path}" not in paths}
    factor, other = widening(outside(problem)), target.other
    if other is None:
        return relative_sigma(problem, slopes, field, factor)
    theirs = slopes_of(other, {field: target.value}).get(field, {})
    shared = shared_error(problem, other)
    factors = factor, widening(outside(other))
    return ratio_sigma(problem, slopes, other, theirs, field, shared, factors)


def _now(leaf: str) -> str:
    """A leaf's path under its newer name, if it has one."""
    machine, _, path = leaf.partition("system.")
    return f"system.{NOW[path]}" if not machine and path in NOW else leaf


def _bracket(gap: Gap, error: float) -> tuple[float | None, float | None, int]:
    """Points below and above the target, going out from 0 in growing strides."""
    low = 0.0 if error <= 0.0 else None
    high = 0.0 if error > 0.0 else None
    stride, taken = 0.1, 0
    while (low is None or high is None) and stride <= math.log(WIDEST):
        for z in (stride, -stride):
            value, _ = gap(z)
            taken += 1
            if math.isfinite(value) and value <= 0.0 and low is None:
                low = z
            if math.isfinite(value) and value > 0.0 and high is None:
                high = z
        stride *= 2.0
    return low, high, taken


def _unreached(target: Target, paths: tuple[str, ...], gap: Gap) -> str:
    ends = [gap(z)[0] for z in (-math.log(WIDEST), math.log(WIDEST))]
    finite = [e for e in ends if math.isfinite(e)]
    nearest = min(finite, key=abs, default=math.nan)
    best = target.value * math.exp(nearest) if finite else math.nan
    shown = format_si(best, dimension_of(target.field))
    return (
        f"no value of {', '.join(paths)} within a factor of {WIDEST:g} gives"
        f" {target.quantity} = {target.meaning}; the far ends reach {shown}"
    )
