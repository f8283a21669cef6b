"""Scenarios: read, override by dotted keys, validate."""

import copy
from collections.abc import Mapping
from os import PathLike, fspath
from typing import Any

from pydantic import ValidationError

from ..words import choose
from .errors import SpecError, explain, shown
from .files import load
from .scenario_file import SCENARIOS, Scenario

LOADS = ("request_rate", "concurrency")
"""Keys of a workload of which one is given: setting it takes the other's place."""


def with_overrides(
    raw: Mapping[str, object], changes: Mapping[str, object], where: str = "scenario"
) -> dict[str, object]:
    """A scenario's raw keys with dotted keys set; `system.x` changes a leaf of it.

    Whole keys come before keys within them, whatever the order of `changes`. A load in
    another form (`LOADS`) takes the place of the one that was there.

    Raises:
        SpecError: a dotted key runs through something that is not a table.
    """
    changed = copy.deepcopy(dict(raw))
    mistakes, flat = [], _flat(changes)
    loads = [key for key in LOADS if f"workload.{key}" in dict(flat)]
    workload = changed.get("workload")
    if len(loads) == 1 and isinstance(workload, dict):
        changed["workload"] = {k: v for k, v in workload.items() if k not in LOADS}
    for dotted, value in sorted(flat, key=lambda row: row[0].count(".")):
        first, *rest = dotted.split(".")
        if first in ("system", "model") and rest:
            node = changed.get(first)
            if isinstance(node, str):
                node = {"base": node}
            if not isinstance(node, dict):
                mistakes.append(
                    f"{where}: {dotted}: names no {first}; add {first} = NAME"
                )
                continue
            # a changed leaf replaces one that was changed before under any spelling
            node = {**node, ".".join(rest): value}
            changed[first] = node
            continue
        node: object = changed
        for part in [first, *rest][:-1]:
            node = _below(node, part)
            if node is None:
                break
        if not isinstance(node, dict):
            mistakes.append(
                f"{where}: {dotted}{shown(value)}: runs through a key that is not a"
                " table; correct the key"
            )
            continue
        node[[first, *rest][-1]] = value
    if mistakes:
        raise SpecError(mistakes)
    return changed


def _below(node: object, part: str) -> object:
    """What lies under a key, made if it isn't there; of a list by number."""
    if isinstance(node, list):
        return node[int(part)] if part.isdigit() and int(part) < len(node) else None
    return node.setdefault(part, {}) if isinstance(node, dict) else None


def _flat(changes: Mapping[str, object], prefix: str = "") -> list[tuple[str, object]]:
    """Changes with nested tables written as dotted keys; `{ base = ... }` stays whole."""
    rows: list[tuple[str, object]] = []
    for key, value in changes.items():
        dotted = f"{prefix}{key}"
        if isinstance(value, dict) and value and "base" not in value:
            rows += _flat(value, dotted + ".")
        else:
            rows.append((dotted, value))
    return rows


def validate_scenario(raw: Mapping[str, object], where: str) -> Scenario:
    """Validate a scenario's keys. Raises `SpecError` with every mistake."""
    phase = raw.get("phase")
    if not isinstance(phase, str) or phase not in SCENARIOS:
        problem = "required key is missing; add it" if phase is None else "unknown"
        options = choose(phase if isinstance(phase, str) else "", SCENARIOS)
        raise SpecError([f"{where}: phase{shown(phase)}: {problem}; {options}"])
    try:
        scenario = SCENARIOS[phase].model_validate(raw)
    except ValidationError as error:
        raise SpecError(explain(error, where, SCENARIOS[phase])) from None
    scenario._where = where
    return scenario  # pyright: ignore[reportReturnType]


def load_scenario(
    name: str | PathLike[str] | Mapping[str, object],
    changes: Mapping[str, object] | None = None,
) -> Scenario:
    """A scenario by its shipped name, from a TOML file or from a dict, with dotted keys
    overridden.

    Args:
        name: a shipped name, a path that ends in `.toml`, or the keys of such a file.
        changes: dotted keys to set, e.g. `{"workload.kv_tokens": 8192}`. Numbers may be
            NumPy's or JAX's.

    Raises:
        SpecError: (a `ValueError`) with every mistake found.
    """
    if isinstance(name, Mapping):
        raw, where = _plain(name), "scenario"
    else:
        raw, where = load("scenarios", fspath(name))
    changed = with_overrides(raw, _plain(changes or {}), where)
    return validate_scenario(changed, where)


def _plain(value: Any) -> Any:
    """Keys as a file has them: arrays of one number are that number, tuples lists."""
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value.item() if getattr(value, "shape", None) == () else value
