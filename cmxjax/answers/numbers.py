"""The numbers of a job in one row, each with its path, to be scaled at will."""

import math
from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree

from .._types import Real, Scalar
from ..machine.resolve import origins
from ..parameters import apply, every_leaf, is_fraction, is_switch, leaf_paths
from ..phases.metrics import metrics
from ..specs.build import Problem

FORMATS = ("element_bytes", "out_bytes")


def _moves(path: str) -> bool:
    """Whether a number can be scaled: a switch can't, nor the bytes of a format."""
    return not (is_switch(path) or ".sizes." in path or path.endswith(FORMATS))


def paths_of(problem: Problem) -> list[str]:
    """Path of each number of machine, model and workload, in the order of their leaves:
    those of the machine as in the system's file. Empty for entries of a list,
    switches and formats."""
    machine = origins(problem.system, problem.choices)
    paths = [path and f"system.{path}" for path in machine]
    for group, tree in (("model", problem.model), ("workload", problem.workload)):
        for path, leaf in every_leaf(tree).items():
            scalar = np.ndim(leaf) == 0 and _moves(path)
            paths += [f"{group}.{path}" if scalar else ""] * np.size(leaf)
    return paths


def values_of(problem: Problem) -> dict[str, float]:
    """Every scalar of system, model and workload that can be scaled, used or not."""
    groups = {
        "system": apply(problem.system, problem.theta),
        "model": problem.model,
        "workload": problem.workload,
    }
    return {
        f"{group}.{path}": float(leaf)
        for group, tree in groups.items()
        for path, leaf in leaf_paths(tree).items()
        if np.ndim(leaf) == 0 and _moves(path) and float(leaf) != 0.0
    }


def row_of(paths: Sequence[str], logs: Mapping[str, Scalar]) -> np.ndarray:
    """A log, or another shift, for each number, (number,), from those that a mapping
    names; others stay."""
    return np.array([float(logs.get(path, 0.0)) for path in paths])


def log_shift(path: str, value: float, theta: float) -> float:
    """ln of what a leaf is multiplied by where its unconstrained parameter moves by
    theta."""
    inside = 1.0 - value + value * math.exp(theta) if is_fraction(path) else 1.0
    return theta - math.log(inside)


def scaled(inputs: tuple, logs: Real) -> tuple:
    """The job with each number multiplied by the exponential of its log."""
    *numbers, layout = inputs
    row, restored = ravel_pytree(tuple(numbers))
    return (*restored(row * jnp.exp(logs)), layout)


def log_metric(field: str, inputs: tuple, logs: Real) -> Array:
    """ln of a metric of the job with its numbers scaled."""
    return jnp.log(getattr(metrics(*scaled(inputs, logs)), field))
