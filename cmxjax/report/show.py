"""What `show` prints: a whole file of what ships or of the user's, that loads again."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ..specs.errors import SpecError
from ..specs.files import (
    DATA,
    KINDS,
    aliases,
    canonical,
    is_path,
    kind_of,
    load,
    read_text,
    shipped,
)
from ..specs.model_load import model_leaves, read_model_file
from ..specs.related import status_of, warning_of
from ..specs.system_file import figures_of
from ..specs.system_load import read_system_file
from ..specs.toml_text import toml_text
from ..specs.whole import whole_model, whole_system
from ..words import choose, hint, plain
from .model import understood


class Shown(NamedTuple):
    """The text of a file, and what it says as data."""

    text: str
    data: dict[str, object]


def show(name: str, kind: str = "") -> Shown:
    """A file of some kind: a system or model with all that it leaves out or takes from
    elsewhere, anything else as it was written.

    Args:
        kind: such as `recipes`; left out, the first of `KINDS` that has the name, or the
            one that a path's file looks like.

    Raises:
        SpecError: there is no such kind, nothing of that name ships, or the file is
            wrong.
    """
    kinds = [k for k in KINDS if kind in (k, k.removesuffix("s"))] if kind else [*KINDS]
    if not kinds:
        raise SpecError([f"show {kind}: no kind of file; {choose(kind, KINDS)}"])
    if is_path(name):
        found = kinds if kind else [kind_of(*load("", name))]
    else:
        found = [k for k in kinds if canonical(k, name) in shipped(k)]
    if not found:
        known = [each for k in kinds for each in [*shipped(k), *aliases(k)]]
        said = f"`cmxjax list {kinds[0]}` and so on list names"
        raise SpecError([f"show {name}: not shipped; {hint(name, known)}{said}"])
    also = [] if is_path(name) else [f"{k.removesuffix('s')} {name}" for k in found[1:]]
    if found[0] == "systems":
        return _system(name, also)
    return _model(name, also) if found[0] == "models" else _as_written(found[0], name)


def _commented(lines: Iterable[str], tables: dict[str, object]) -> str:
    """A TOML file with comments on top."""
    comments = (f"# {plain(line)}".replace("\n", " ") + "\n" for line in lines if line)
    return "".join(comments) + "\n" + toml_text(tables)


def _more(also: list[str]) -> str:
    """What else ships under the name."""
    return f"See also: {', '.join(f'cmxjax show {one}' for one in also)}" if also else ""


def _system(name: str, also: list[str]) -> Shown:
    file = read_system_file(name)
    figures = figures_of(file)
    lines = [
        warning_of(file),
        "What a scenario changes of it: system.PATH, such as"
        f" system.{next(iter(figures))}; of tiers system.tiers.NAME.KEY",
        _more(also),
    ]
    text = _commented(lines, whole_system(file))
    data = {
        "kind": "system",
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
        "toml": text,
    }
    return Shown(text, data)


def _model(name: str, also: list[str]) -> Shown:
    file = read_model_file(name)
    leaves = model_leaves(file)
    lines, sums = understood(file)
    text = _commented([*lines, _more(also)], whole_model(file))
    data = {
        "kind": "model",
        "name": file.name,
        "title": file.title,
        "leaves": {f"model.{path}": value for path, value in leaves.items()},
        "source": file.sources[file.source].model_dump(),
        "locator": file.locator,
        **sums,
        "toml": text,
    }
    return Shown(text, data)


def _as_written(kind: str, name: str) -> Shown:
    raw, where = load(kind, name)
    if is_path(name):
        text = read_text(Path(name))
    else:
        text = (DATA / kind / where).read_text("utf-8")
    text = text if text.endswith("\n") else f"{text}\n"
    data: dict[str, object] = {"kind": kind.removesuffix("s"), "name": name}
    data |= {"json": raw} if where.endswith(".json") else {"toml": text}
    return Shown(text, data)
