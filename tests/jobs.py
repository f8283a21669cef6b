"""Jobs that tests of the whole model share, and functions of them compiled once."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

import cmxjax as cmx
from cmxjax.machine.pad import alike
from cmxjax.machine.resolve import Meets, machine_of
from cmxjax.parameters import apply, is_fraction, leaf_paths, path_of
from cmxjax.specs.build import build
from cmxjax.specs.scenario import load_scenario

SHIPPED = (
    "deepseek-r1-decode-cloudmatrix384",
    "deepseek-r1-prefill-cloudmatrix384",
    "gpt-3-175b-prefill-cloudmatrix384",
    "llama-3.1-70b-decode-gb200-nvl72",
    "deepseek-r1-decode-gb200-nvl72",
    "deepseek-r1-decode-hgx-h800",
)

JOBS: dict[str, tuple[str, dict[str, Any]]] = {
    "mla-decode": ("deepseek-r1-decode-cloudmatrix384", {}),
    "mla-prefill": (
        "deepseek-r1-prefill-cloudmatrix384",
        {"workload.cached_fraction": 0.3, "workload.cache_plane": "ub"},
    ),
    "gqa-decode": ("llama-3.1-70b-decode-gb200-nvl72", {}),
    "gqa-prefill": (
        "gpt-3-175b-prefill-cloudmatrix384",
        {"model": "llama-3.1-70b", "layout.devices": 8, "layout.tp": 8},
    ),
}
"""Latent and grouped-query attention in both phases; the latter are dense, with tp."""

_EVERY_AXIS = {
    "layout": {"devices": 32, "tp": 2, "cp": 2, "dp": 4, "pp": 2, "ep": 8, "etp": 2}
    | {"attention": "tp", "overlapped_microbatches": "auto"},
    "routing": {"experts_per_device": 16, "redundant_experts": 0},
}
EVERY_AXIS: dict[str, tuple[str, dict[str, Any]]] = {
    "every-axis-decode": (
        "deepseek-r1-decode-hgx-h800",
        {"model": "qwen3-235b-a22b", "workload.draft_tokens": 0, **_EVERY_AXIS},
    ),
    "every-axis-prefill": (
        "deepseek-r1-prefill-cloudmatrix384",
        {"model": "qwen3-235b-a22b", "workload.cached_fraction": 0.3}
        | {"workload.cache_plane": "vpc", **_EVERY_AXIS},
    ),
}
"""Mixtures of experts with grouped queries, split along all axes at once."""

TRAIN: dict[str, tuple[str, dict[str, Any]]] = {
    "dense-train": ("gpt-3-175b-train-dgx-a100", {}),
    "mixture-train": ("deepseek-v3-train-hgx-h800", {}),
}
"""Training steps, whose physics `test_train.py` tests on jobs of its own."""

DECODE = ("mla-decode", "gqa-decode")
PREFILL = ("mla-prefill", "gqa-prefill")

OVER = [*JOBS, *(pytest.param(name, marks=pytest.mark.slow) for name in EVERY_AXIS)]
"""Names to parametrize by; jobs on all axes are slow tests."""


class Theta(struct.PyTreeNode):
    """Calibrated parameters, and what a job uses of its system."""

    shifts: dict[str, Any]
    choices: Meets = struct.field(pytree_node=False)


def deeper(a: Any, more: float) -> Any:
    """A model with so many more layers of its last kind behind the others."""
    steps = np.arange(a.order.shape[-1])
    added = np.clip(steps - float(a.layers), 0.0, more)
    return a.replace(order=a.order.at[-1].add(added))


def with_experts(a: Any, **changes: Any) -> Any:
    """A mixture with other experts."""
    halves = (f.replace(**changes) if f is a.experts else f for f in a.feed_forwards)
    return a.replace(feed_forwards=tuple(halves))


Inputs = tuple[Any, Any, Any, Any, Theta]
"""System, model, workload, layout and theta, from which tests move leaves by path."""


def inputs_of(p: Any, shifts: dict[str, Any] | None = None) -> Inputs:
    """A problem as functions of its system take it."""
    theta = Theta(p.theta if shifts is None else shifts, p.choices)
    return p.system, p.model, p.workload, p.layout, theta


def machine_at(system: Any, theta: Theta) -> Any:
    """The machine that a job meets."""
    return machine_of(apply(system, theta.shifts), theta.choices)


def in_common_shape(p: Any) -> tuple[Any, Any, Any, Any]:
    """What `metrics` takes of a problem, with all switches that a machine may have."""
    machine = alike(p.machine)
    layouts = cmx.stack([p.layout], tiers=machine.tiers.size.shape[-1])
    layout = jax.tree.map(lambda leaf: leaf[0], layouts)
    return machine, p.model, p.workload, layout


def metrics(system, a, w, layout, theta: Theta, sharpness: Any = None):
    """Metrics as a function of the whole system."""
    return cmx.metrics(machine_at(system, theta), a, w, layout, sharpness)


def explain(system, a, w, layout, theta: Theta, sharpness: Any = None):
    """`metrics` with the breakdown."""
    return cmx.explain(machine_at(system, theta), a, w, layout, sharpness)


@functools.cache
def job(name: str, **changes: Any) -> Inputs:
    """A job of the tables above or a shipped scenario, with dotted keys changed.

    Theta names leaves of every sort and holds zeros, so it changes nothing but has
    gradients. In `changes` two underscores stand for a dot.
    """
    scenario, own = (JOBS | EVERY_AXIS | TRAIN).get(name, (name, {}))
    dotted = {key.replace("__", "."): value for key, value in changes.items()}
    p = build(load_scenario(scenario, own | dotted), "none")
    choices: Any = p.choices
    if isinstance(choices, dict):  # one for each pool of phase serve
        choices = next(iter(choices.values()))
    engine, tier = choices.engine, p.system.scale_up_tier
    named = [
        "chip.gemm_efficiency",
        "chip.half_rows",
        "chip.memory_bytes_per_s",
        f"tiers.{tier}.bytes_per_s",
    ]
    if p.scenario.phase != "train":
        named += [
            f"engines.{engine}.prefill_batch_s",
            f"engines.{engine}.decode_step_s",
            f"engines.{engine}.stream_exposed_fraction",
        ]
    return inputs_of(p, {path: jnp.zeros(()) for path in named})


def _traced(sharpness: float | None):
    return None if sharpness is None else jnp.asarray(sharpness, float)


def evaluated(inputs: Inputs, sharpness: Any = None):
    """All metrics but the breakdown, not compiled."""
    return metrics(*inputs, sharpness)


def time_field(inputs: Inputs) -> str:
    fields = {"decode": "tpot_s", "prefill": "ttft_s", "train": "step_time_s"}
    return fields[inputs[2].kind]


def _headline(inputs: Inputs, sharpness: Any):
    m = evaluated(inputs, sharpness)
    return jnp.log(jnp.stack([getattr(m, time_field(inputs)), m.memory_bytes]))


_predict = jax.jit(evaluated)
_headlines = jax.jit(_headline)


@jax.jit
def _gradient(inputs, weights, sharpness):
    return jax.vjp(lambda x: _headline(x, sharpness), inputs)[1](weights)[0]


@jax.jit
def _derivative(inputs, tangents, sharpness):
    return jax.jvp(lambda x: _headline(x, sharpness), (inputs,), (tangents,))[1]


@jax.jit
def _shares(inputs, sharpness):
    m = explain(*inputs, sharpness)
    step_s = m.ttft_s if inputs[2].kind == "prefill" else m.step_time_s
    return m.breakdown, step_s


def predict(inputs: Inputs, sharpness: float | None = None):
    """All metrics but the breakdown."""
    return _predict(inputs, _traced(sharpness))


def headline(inputs: Inputs, sharpness: float | None = None):
    """Logs of TPOT or TTFT and of the memory."""
    return _headlines(inputs, _traced(sharpness))


TIME, MEMORY = np.array([1.0, 0.0]), np.array([0.0, 1.0])


def gradient(inputs: Inputs, weights=TIME, sharpness: float | None = None) -> Inputs:
    """Gradient of weights @ headline with respect to every leaf."""
    return _gradient(inputs, jnp.asarray(weights), _traced(sharpness))


def derivative(inputs: Inputs, tangents: Inputs, sharpness: float | None = None):
    """Derivative of the headline along a direction of the inputs."""
    return _derivative(inputs, tangents, _traced(sharpness))


def shares(inputs: Inputs, sharpness: float | None = None):
    """The breakdown of the step or batch, and its time."""
    seconds, step_s = _shares(inputs, _traced(sharpness))
    return {name: float(value) for name, value in seconds.items()}, float(step_s)


def time_s(inputs: Inputs, sharpness: float | None = None) -> float:
    """TPOT or TTFT."""
    return float(getattr(predict(inputs, sharpness), time_field(inputs)))


def elasticities(inputs: Inputs, sharpness: float | None = None) -> dict[str, float]:
    """d log(time) / d log(leaf) of every leaf of the system, by path."""
    slopes = leaf_paths(gradient(inputs, TIME, sharpness)[0])
    return {p: float(leaf * slopes[p]) for p, leaf in leaf_paths(inputs[0]).items()}


def is_rate(path: str) -> bool:
    """Whether a leaf is per second; dtypes come below the name of a peak."""
    return any(part.endswith("_per_s") for part in path.split("."))


def is_latency(path: str) -> bool:
    return path.endswith("_s") and not is_rate(path)


def scaled(tree: Any, factors: dict[str, float]):
    """The tree with the leaves at the given paths multiplied.

    Raises:
        KeyError: there is no such leaf.
    """
    if unknown := factors.keys() - leaf_paths(tree).keys():
        raise KeyError(sorted(unknown))

    def scale(key_path, leaf):
        factor = factors.get(path_of(key_path))
        return leaf if factor is None else leaf * factor

    return jax.tree_util.tree_map_with_path(scale, tree)


def on_machine(inputs: Inputs, factors: dict[str, float]) -> Inputs:
    """The job on a machine with the leaves at the given paths multiplied."""
    return (scaled(inputs[0], factors), *inputs[1:])


def with_engines(inputs: Inputs, **leaves: Any) -> Inputs:
    """The job with some leaves of all engines replaced."""
    system, *rest = inputs
    engines = {name: e.replace(**leaves) for name, e in system.engines.items()}
    return (system.replace(engines=engines), *rest)  # pyright: ignore[reportReturnType]


def host_in_front(inputs: Inputs) -> Inputs:
    """The job with a host that works in front of each step and never beside it."""
    none = dict.fromkeys(("whole", "piecewise", "eager"), jnp.zeros(()))
    return with_engines(inputs, host_exposed_fraction=jnp.ones(()), launch_s=none)


def off_lattice(inputs: Inputs, seed: int) -> Inputs:
    """The job with each leaf moved by its own 0.5 to 3 percent, away from all kinks.

    Fractions and drafts move down, all else up, so that they stay feasible and no
    group has exactly one rank.
    """
    rng = np.random.default_rng(seed)

    def move(path, leaf):
        name = path_of(path)
        down = is_fraction(name) or name in ("draft_tokens", "acceptance")
        shift = rng.uniform(0.005, 0.03, np.shape(leaf))
        return np.asarray(leaf) * np.exp(-shift if down else shift)

    moved = [jax.tree_util.tree_map_with_path(move, tree) for tree in inputs[:4]]
    shifts = {path: np.asarray(rng.uniform(-0.05, 0.05)) for path in inputs[4].shifts}
    return (*moved, inputs[4].replace(shifts=shifts))  # pyright: ignore[reportReturnType]


def with_stages(inputs: Inputs, stages: float) -> Inputs:
    """The job with that many pipeline stages, on the outermost tier."""
    system, a, w, layout, theta = inputs
    factor = jnp.asarray(layout.factor).at[3].set(1.0).at[3, -1].set(stages)
    return system, a, w, layout.replace(factor=factor), theta


def all_finite(tree: Any) -> bool:
    return all(bool(np.isfinite(leaf).all()) for leaf in jax.tree.leaves(tree))
