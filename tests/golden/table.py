"""The golden table: what the model said of several hundred drawn jobs, to 1e-9.

A row is a scenario with every metric, the breakdown, and the derivative of every metric
along three directions, exact and relaxed. It holds the numbers still while the code
moves; it says nothing of whether they are right. `python -m golden.table` (in `tests/`)
writes it anew, which is only due when the physics or the data changed on purpose.
"""

import functools
import gzip
import json
import re
import sys
import zlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import cmxjax as cmx
from cmxjax.machine.pad import padded
from cmxjax.machine.resolve import Meets, machine_of
from cmxjax.parameters import is_fraction, is_switch, path_of
from cmxjax.specs.scenario import validate_scenario

from .draw import COUNTS, Scenario, drawn

FOLDER = Path(__file__).parent
SHARPNESSES = {"exact": None, "relaxed": 4.0}
VALUES, GRADIENTS = 1e-9, 1e-6
"""Relative tolerances. Shares of a breakdown are held relative to the whole."""

NOTHING = 1e-14
"""Differences of this size are those of numbers that are zero but for rounding."""

DIRECTIONS = ("machine", "job", "model")
"""Inputs that move: leaves of the system, of workload and layout, of the model."""

Numbers = dict[str, Any]


RENAMED = {
    "software.": "serving.",
    "balance.skew": "skew",
    "mixers.0.": "attention.",
    "feed_forwards.0.": "",
    "feed_forwards.1.": "experts.",
}
"""Parts of paths that have changed since the table was made, and what they were then."""


STILL = re.compile(
    r"\.on$|\.sizes\.|element_bytes$|out_bytes$|\.window$|vectors$|\.norms$|(?<!feed_forwards\.1)\.extra$|\.narrowing$|\.projected$|stored$"
    r"|\.biased_gate_bytes$|\.recurrent_rate_factor$"
)
"""Numbers that were none when the table was made."""


def _draws(path: str, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers of a standard normal distribution that only the path decides."""
    for now, then in RENAMED.items():
        path = path.replace(now, then)
    return np.random.default_rng(zlib.crc32(path.encode())).normal(size=shape)


def _shaken(key_path: tuple, leaf: Any) -> Any:
    """A leaf off its printed value, so that every term is there and nothing is equal."""
    path = path_of(key_path)
    if is_switch(path):
        return leaf
    leaf, draw = np.asarray(leaf, float), _draws(path, np.shape(leaf))
    if is_fraction(path):
        odds = (0.02 + 0.96 * leaf) / (0.98 - 0.96 * leaf) * np.exp(0.1 * draw)
        return odds / (1.0 + odds)
    absent = 1e-6 if path.endswith("_s") else 0.05
    return np.where(leaf == 0.0, absent, leaf) * np.exp(0.05 * draw)


def _inputs(scenario: Scenario, row: int) -> tuple[tuple, Meets]:
    """System, model, workload and layout, and what is used of the system; every second
    row is on a shaken system."""
    p = cmx.build(validate_scenario(scenario, "golden"), "none")
    system = p.system
    if row % 2:
        system = jax.tree_util.tree_map_with_path(_shaken, system)
    inputs = (system, p.model, p.workload, p.layout)
    return jax.tree.map(lambda x: jnp.asarray(x, float), inputs), p.choices


def _tangents(inputs: tuple) -> tuple:
    """The three directions as a leading axis: each moves its inputs by their size."""
    own_tiers = len(inputs[0].tier_order)

    def along(key_path: tuple, leaf: Any) -> Any:
        place = {0: 0, 1: 2}.get(key_path[0].idx, 1)
        path, shape = path_of(key_path), np.shape(leaf)
        if STILL.search(path):
            place = None
        if path.endswith(".factor"):  # tiers of one unit may follow
            draws = padded(_draws(path, (shape[0], own_tiers)), shape[1], 0.0)
        else:
            draws = _draws(path, shape)
        move = np.asarray(leaf, float) * np.asarray(draws)
        if path.endswith("feed_forwards.1.extra"):  # a bias of the router
            move = np.asarray(leaf, float) * _draws(
                path.replace("extra", "routed"), shape
            )
        if path.endswith(".order") and np.ndim(leaf) == 2:  # of layers
            move = _deepened(path, np.asarray(leaf, float))
        return np.stack([move if k == place else 0.0 * move for k in range(3)])

    return jax.tree_util.tree_map_with_path(along, inputs)


def _deepened(path: str, order: np.ndarray) -> np.ndarray:
    """How the order of layers moves with the numbers of layers and of dense ones, which
    come first. Where more kinds take turns it stays."""
    if len(order) > 2:
        return np.zeros_like(order)
    sizes = {"layers": order[:, -1].sum()}
    if len(order) > 1:
        sizes["dense_layers"] = order[0, -1]
    steps, found, sums = np.arange(order.shape[1]), [], 0.0
    for name in reversed(sizes):  # layers end where the later kinds do
        move = sizes[name] * _draws(path.replace("order", name), ())
        found.append(move * (steps >= sizes[name]) - sums)
        sums = sums + found[-1]
    return np.stack(found)


def _flat(metrics: Any) -> Numbers:
    """Every metric by name, those of pools and stages too, but no breakdown."""
    found: Numbers = {}
    for name, value in vars(metrics).items():
        if name == "pools":
            for role, pool in value.items():
                found |= {f"{role}.{k}": v for k, v in _flat(pool).items()}
        elif name == "limits":
            found |= {f"limits.{k}": v for k, v in value.items()}
        elif hasattr(value, "dtype"):
            found[name] = value
    return found


def predicted(
    choices: Meets, inputs: tuple, tangents: tuple, sharpness: float | None
) -> Numbers:
    """Metrics, breakdown and derivatives along the tangents."""

    def met(inputs: tuple) -> tuple:
        system, *job = inputs
        return machine_of(system, choices), *job, sharpness

    explained = cmx.explain(*met(inputs))

    def values(moved: tuple) -> Numbers:
        return _flat(cmx.metrics(*met(moved)))

    def derivative(tangents: tuple) -> Numbers:
        return jax.jvp(values, (inputs,), (tangents,))[1]

    slopes = jax.vmap(derivative)(tangents)
    shares = getattr(explained, "breakdown", None) or {}
    stages = getattr(explained, "memory_of_stages", None) or {}
    return {
        "metrics": _flat(explained),
        "stages": stages,
        "breakdown": shares,
        "slopes": slopes,
    }


def _evaluated(inputs: tuple, choices: Meets, sharpness: float | None) -> Numbers:
    """Without compiling, which takes longer than a single evaluation; but the solve of
    phase serve has too many of them."""
    tangents = _tangents(inputs)
    if inputs[2].kind == "serve":
        s = None if sharpness is None else jnp.asarray(sharpness)
        compiled = jax.jit(functools.partial(predicted, choices))
        return jax.device_get(compiled(inputs, tangents, s))
    with jax.disable_jit():
        return jax.device_get(predicted(choices, inputs, tangents, sharpness))


def _digits(value: Any, count: int) -> Any:
    rounded = [float(f"{x:.{count - 1}e}") for x in np.ravel(value)]
    return rounded[0] if np.ndim(value) == 0 else rounded


def row_of(scenario: Scenario, row: int) -> Numbers:
    """A row of the table: exact and relaxed numbers of one scenario."""
    inputs, choices = _inputs(scenario, row)
    found: Numbers = {}
    for name, sharpness in SHARPNESSES.items():
        numbers = _evaluated(inputs, choices, sharpness)
        found[name] = {
            part: {k: _digits(v, 9 if part == "slopes" else 12) for k, v in of.items()}
            for part, of in numbers.items()
        }
    return found


def differences(held: Numbers, now: Numbers) -> list[str]:
    """What differs between two rows beyond the tolerances; absent numbers included."""
    found = []
    for sharpness, parts in held.items():
        for part, numbers in parts.items():
            other = now[sharpness][part]
            tolerance = GRADIENTS if part == "slopes" else VALUES
            missing = sorted(numbers.keys() - other.keys())
            found += [f"{sharpness} {part} {name}: gone" for name in missing]
            for name in numbers.keys() & other.keys():
                old, new = np.asarray(numbers[name]), np.asarray(other[name])
                size = np.abs(old)
                if part == "breakdown":
                    size = np.sum(np.abs(list(numbers.values())))
                elif part == "slopes":
                    size = np.maximum(size, abs(parts["metrics"][name]))
                # a token of a job that serves none costs infinitely much, then as now
                same = (old == new) | (np.isnan(old) & np.isnan(new))
                with np.errstate(invalid="ignore"):
                    near = np.abs(new - old) <= tolerance * size + NOTHING
                if not (same | (near & np.isfinite(old))).all():
                    found.append(f"{sharpness} {part} {name}: {old} is now {new}")
    return found


def path_to(phase: str) -> Path:
    return FOLDER / f"{phase}.json.gz"


def read(phase: str) -> list[dict[str, Any]]:
    """Rows of a phase: `scenario` and `numbers`."""
    return json.loads(gzip.decompress(path_to(phase).read_bytes()))


def write(phase: str) -> None:
    rows = []
    for i, scenario in enumerate(drawn(phase)):
        rows.append({"scenario": scenario, "numbers": row_of(scenario, i)})
        print(f"{phase}: {i + 1} of {COUNTS[phase]}", file=sys.stderr)
    text = json.dumps(rows, separators=(",", ":"))
    path_to(phase).write_bytes(gzip.compress(text.encode(), mtime=0))


if __name__ == "__main__":
    from cmxjax.settings import setup

    setup(cache=False)
    for name in sys.argv[1:] or COUNTS:
        write(name)
