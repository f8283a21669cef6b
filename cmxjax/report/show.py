"""What `show` prints of a system, model or any other shipped file."""

from typing import NamedTuple

from rich.console import Group, RenderableType
from rich.syntax import Syntax

from ..specs.errors import SpecError
from ..specs.files import DATA, canonical, is_path, load, shipped
from ..specs.model_load import model_leaves, read_model_file
from ..specs.related import status_of, warning_of
from ..specs.system_file import figures_of
from ..specs.system_load import read_system_file
from ..words import hint
from .model import understood
from .tables import alternatives_table, figures_table, leaves_table, warning_lines

GROUPS = ("models", "systems", "scenarios", "measurements", "budgets")


class Shown(NamedTuple):
    """Something to print and the same as data."""

    renderable: RenderableType
    data: dict[str, object]


def show(name: str) -> Shown:
    """A system's or model's leaves, or the text of a measurement or scenario file.

    Raises:
        SpecError: nothing of that name ships, or the file is wrong.
    """
    if name in shipped("models") or (is_path(name) and _is_model(name)):
        return _model(name)
    if canonical("systems", name) in shipped("systems") or is_path(name):
        return _system(name)
    for group in GROUPS[2:]:
        if name in shipped(group):
            text = (DATA / group / f"{name}.toml").read_text("utf-8")
            return Shown(Syntax(text, "toml"), {"name": name, "toml": text})
    known = [name for group in GROUPS for name in shipped(group)]
    said = "`cmxjax list systems` and so on list names"
    raise SpecError([f"show {name}: not shipped; {hint(name, known)}{said}"])


def _is_model(path: str) -> bool:
    """A Hugging Face configuration, or a TOML file that says how wide a model is."""
    return path.endswith(".json") or "hidden" in load("models", path)[0]


def _system(name: str) -> Shown:
    file = read_system_file(name)
    figures = figures_of(file)
    data = {
        "name": file.name,
        "title": file.title,
        "hypothetical": file.hypothetical,
        "announced": file.announced,
        "status": status_of(file),
        "leaves": {
            f"system.{path}": {"si": figure.si, **figure.model_dump()}
            for path, figure in figures.items()
        },
        "alternatives": {
            key: {"note": a.note, "self_consistent": a.self_consistent}
            for key, a in file.alternatives.items()
        },
        "sources": {key: s.model_dump() for key, s in file.sources.items()},
    }
    warning, table = warning_of(file), figures_table(file.name, figures)
    tables: list[RenderableType] = [*warning_lines([warning] if warning else []), table]
    if file.alternatives:
        tables.append(alternatives_table(file))
    return Shown(Group(*tables), data)


def _model(name: str) -> Shown:
    file = read_model_file(name)
    leaves = model_leaves(file)
    layers, sums = understood(file)
    data = {
        "name": file.name,
        "title": file.title,
        "leaves": {f"model.{path}": value for path, value in leaves.items()},
        "source": file.sources[file.source].model_dump(),
        "locator": file.locator,
        **sums,
    }
    table = leaves_table(file.name, leaves, file.sources[file.source].title)
    return Shown(Group(table, layers), data)
