"""How every number of a prediction moves with each uncertain leaf of the machine.

The compiled program of the prediction is run again with each leaf moved up and down: that
compiles nothing and takes a millisecond each.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from ..machine.resolve import origins
from ..parameters import is_fraction
from ..phases.metrics import Metrics, metrics
from ..serve.pools import PoolMetrics
from ..specs.build import Problem
from .batch import absorbed, log_slope, steps_of, uncertain
from .extrapolation import outside, widening
from .uncertainty import relative_sigma

Numbers = Mapping[str, float]
Run = Callable[..., Any]


def numbers_of(result: Metrics | PoolMetrics) -> dict[str, float]:
    """Every metric of a result by its name, in SI; those that are absent are left out."""
    return {
        name: float(value)
        for name, value in vars(result).items()
        if isinstance(value, np.ndarray | np.floating)
    }


def slopes_of(
    problem: Problem,
    base: Numbers,
    run: Run = metrics,
    numbers: Callable[[Any], Numbers] = numbers_of,
    counted: bool = False,
) -> dict[str, dict[str, float]]:
    """d ln number / d theta along each uncertain leaf that the job's machine has.

    Args:
        base: the numbers as they are; those that are 0 have no slopes.
        run: what gives them, such as `metrics` or `explain`.
        numbers: reads them off its result, fetched from the device.
        counted: only along leaves that parameters' part of an error bar counts; of
            metrics that have all of the model's own error that changes no bar.

    Returns:
        For each number that isn't 0 its slopes by leaf path.
    """
    machine, *job = problem.inputs
    leaves, structure = jax.tree.flatten(machine)
    fetched = jax.device_get(leaves)
    known = {name: value for name, value in base.items() if value != 0.0}
    slopes: dict[str, dict[str, float]] = {name: {} for name in known}

    def moved(places: list[tuple[int, int]], path: str, theta: float) -> Numbers:
        changed = list(leaves)
        own = {leaf: np.array(fetched[leaf], float) for leaf, _ in places}
        for leaf, entry in places:
            value = own[leaf].flat[entry]
            scaled = value * np.exp(theta)
            bounded = scaled / (1.0 - value + scaled)
            own[leaf].flat[entry] = bounded if is_fraction(path) else scaled
            changed[leaf] = own[leaf]
        result = run(jax.tree.unflatten(structure, changed), *job)
        return numbers(jax.device_get(result))

    steps, passed = steps_of(problem), absorbed(problem) if counted else set()
    for path, places in _places(problem, fetched).items():
        if path in passed:
            continue
        step = steps[path]
        up, down = moved(places, path, step), moved(places, path, -step)
        for name, value in known.items():
            slopes[name][path] = _slope(value, up[name], down[name], step)
    return slopes


def _slope(value: float, up: float, down: float, step: float) -> float:
    """d ln value / d theta from the values a step away, or from one of them where the
    other is not finite."""
    ends = [(x, at) for x, at in ((up, step), (down, -step)) if math.isfinite(x)]
    if not ends:
        raise ArithmeticError("not finite an error bar away; check for extreme values")
    if len(ends) == 2:
        return float(log_slope(value, up, down, step))
    end, at = ends[0]
    return (end - value) / (at * value)


def _places(problem: Problem, leaves: list) -> dict[str, list[tuple[int, int]]]:
    """Where each uncertain leaf of the system stands among a machine's leaves: the leaf,
    and the entry in it."""
    paths = iter(origins(problem.system, problem.choices))
    wanted, found = uncertain(problem), {}
    for i, leaf in enumerate(leaves):
        for entry in range(np.size(leaf)):
            if (path := next(paths)) in wanted:
                found.setdefault(path, []).append((i, entry))
    return found


def sigmas(problem: Problem, names: list[str]) -> dict[str, float]:
    """Relative one sigma of some metrics of a built job, by their names.

    Args:
        names: fields of the phase's metrics, such as `tpot_s`.
    """
    base = numbers_of(jax.device_get(metrics(*problem.inputs)))
    slopes = slopes_of(problem, {name: base[name] for name in names})
    return widths(problem, slopes, names, widening(outside(problem)))


def widths(
    problem: Problem,
    slopes: Mapping[str, dict[str, float]],
    names: Iterable[str],
    factor: float,
) -> dict[str, float]:
    """Relative one sigma of numbers from their slopes.

    Args:
        names: of metrics; those of a pool may stand behind a prefix that ends in a dot.
        factor: of the error bar outside of what was fitted, see `extrapolation`.
    """
    return {
        name: relative_sigma(
            problem, slopes.get(name, {}), name.rpartition(".")[2], factor
        )
        for name in names
    }
