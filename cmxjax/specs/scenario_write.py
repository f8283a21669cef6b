"""A scenario as a file that `predict` takes."""

import json
from collections.abc import Mapping

from .output import write_text
from .scenario_file import Scenario


def raw_scenario(scenario: Scenario, changes: Mapping[str, object]) -> dict[str, object]:
    """The keys of a scenario as in a file, dotted ones changed; None leaves one out."""
    raw = scenario.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    for name in ("system", "model"):
        base, leaves = raw[name]
        raw[name] = {"base": base, **dict(leaves)} if leaves else base
    for dotted, value in changes.items():
        first, _, rest = dotted.partition(".")
        raw.setdefault(first, {})[rest] = value
    if any(key.startswith("layout.") for key in changes):
        raw["layout"].pop("order", None)
        raw["layout"] = {k: v for k, v in raw["layout"].items() if v is not None}
    return raw


def write_scenario(scenario: Scenario, changes: Mapping[str, object], path: str) -> None:
    """Write a scenario with dotted keys changed.

    Raises:
        SpecError: the file can't be written.
    """
    raw = raw_scenario(scenario, changes)
    write_text(path, "".join(f"{key} = {_toml(value)}\n" for key, value in raw.items()))


def _toml(value: object) -> str:
    """A value as inline TOML."""
    if isinstance(value, dict):
        rows = ", ".join(f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items())
        return f"{{ {rows} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value)
