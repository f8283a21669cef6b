"""A scenario as a file that `predict` takes."""

from collections.abc import Mapping

from .output import write_text
from .scenario_file import Scenario
from .toml_text import toml_text


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
    write_text(path, toml_text(raw))
