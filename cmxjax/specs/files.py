"""Find and read spec files: shipped by name, or the user's by path."""

import json
import re
import tomllib
from collections import Counter
from collections.abc import Mapping
from functools import cache
from importlib.resources import files as package_files
from pathlib import Path

from ..words import LONGEST_WORD, cut, hint
from .errors import SpecError, shown

LARGEST_FILE_BYTES = 16 * 2**20
DEEPEST = 32
"""Levels of nested tables and lists that a spec file may have."""
DATA = package_files("cmxjax.specs") / "data"


KINDS = (
    "systems",
    "models",
    "scenarios",
    "sweeps",
    "measurements",
    "budgets",
    "recipes",
    "plans",
    "calibrations",
)
"""Of files that ship, by the folder that holds them."""

_TELLING = {
    "sweeps": ("axes",),
    "budgets": ("resources", "items"),
    "plans": ("candidates",),
    "recipes": ("parameters",),
    "measurements": ("measurements", "scenarios"),
    "scenarios": ("phase", "model", "workload", "layout", "system"),
    "models": ("hidden", "layers"),
}
"""Keys that only files of a kind have, or of those that come later here."""


def kind_of(raw: Mapping[str, object], where: str) -> str:
    """The kind of a user's file by what it says; a system where nothing tells."""
    if where.endswith(".json"):
        return "calibrations" if "covariance" in raw else "models"
    named = raw.get("measurements")
    if isinstance(named, list) and all(isinstance(name, str) for name in named):
        return "recipes"  # they name the files that they are fitted to
    for kind, keys in _TELLING.items():
        if any(key in raw for key in keys):
            return kind
    return "systems"


@cache
def shipped(group: str) -> tuple[str, ...]:
    """Names of the shipped `systems`, `models`, `measurements` or `scenarios`."""
    names = (Path(item.name) for item in (DATA / group).iterdir())
    return tuple(sorted(n.stem for n in names if n.suffix in (".toml", ".json")))


def read_text(path: Path) -> str:
    """Read a spec file. Raises `SpecError` if it can't be one."""
    if "\0" in str(path):
        raise SpecError([f"{str(path)!r}: has a null byte; check the path"])
    try:
        size, is_file = path.stat().st_size, path.is_file()
        readable = is_file and 0 < size <= LARGEST_FILE_BYTES
        text = path.read_bytes().decode("utf-8-sig") if readable else ""
    except FileNotFoundError:
        raise SpecError([f"{path}: no such file; check the path"]) from None
    except UnicodeDecodeError:
        raise SpecError([f"{path}: not UTF-8 text; name a TOML file"]) from None
    except OSError as error:
        raise SpecError([f"{path}: {error.strerror}; check the path"]) from None
    if not is_file:
        raise SpecError([f"{path}: not a file; name a TOML file"])
    if size > LARGEST_FILE_BYTES:
        raise SpecError(
            [f"{path}: {size} bytes; spec files hold at most {LARGEST_FILE_BYTES}"]
        )
    if not text.strip():
        raise SpecError([f"{path}: empty; see `cmxjax show` for an example"])
    return text


def _deeper_than(levels: int, node: object) -> bool:
    if not isinstance(node, dict | list):
        return False
    items = node.values() if isinstance(node, dict) else node
    return levels == 0 or any(_deeper_than(levels - 1, item) for item in items)


_LONG_KEY = re.compile(
    r"""(?<![\w."'-])(?:(?:[\w-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*){1000}"""
)
"""A dotted key of a thousand parts."""


def parse_toml(text: str, where: str) -> dict[str, object]:
    """Parse TOML. Raises `SpecError` for syntax, with the line."""
    too_deep = f"{where}: nested too deeply; use at most {DEEPEST} levels of tables"
    if _LONG_KEY.search(text):  # which the parser takes minutes for
        raise SpecError([too_deep])
    try:
        value = tomllib.loads(text)
    except RecursionError:
        raise SpecError([too_deep]) from None
    except tomllib.TOMLDecodeError as error:
        raise SpecError([f"{where}: not valid TOML: {error}; correct it"]) from None
    except ValueError:
        raise SpecError([f"{where}: a number has thousands of digits"]) from None
    if _deeper_than(DEEPEST, value):
        raise SpecError([too_deep])
    return value


def parse_json(text: str, where: str) -> dict[str, object]:
    """Parse a JSON object. Raises `SpecError` for syntax, a key that stands twice in a
    table, or another kind of value."""

    def table(pairs: list[tuple[str, object]]) -> dict[str, object]:
        if len(keys := dict(pairs)) < len(pairs):
            twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
            raise SpecError([f"{where}: {cut(twice, LONGEST_WORD)}: stands twice"])
        return keys

    try:
        value = json.loads(text, object_pairs_hook=table)
    except SpecError:
        raise
    except (json.JSONDecodeError, RecursionError) as error:
        raise SpecError([f"{where}: not valid JSON: {error}; correct it"]) from None
    except ValueError:
        raise SpecError([f"{where}: a number has thousands of digits"]) from None
    if not isinstance(value, dict):
        raise SpecError([f"{where}: holds no JSON object; name a config.json"])
    if _deeper_than(DEEPEST, value):
        raise SpecError([f"{where}: nested too deeply; use at most {DEEPEST} levels"])
    return value


def is_path(name: str) -> bool:
    """Whether a reference names a file rather than something shipped."""
    return "/" in name or name.endswith((".toml", ".json"))


@cache
def aliases(group: str) -> dict[str, str]:
    """What users call something that ships under another name."""
    return tomllib.loads((DATA / "aliases.toml").read_text("utf-8")).get(group, {})


def canonical(group: str, name: str) -> str:
    """The shipped name of what users call otherwise (`h100`, `MI300X`), or the name."""
    if is_path(name) or name in shipped(group):
        return name
    plain = name.lower().replace("_", "-").replace(" ", "-")
    return aliases(group).get(plain, plain if plain in shipped(group) else name)


def same_file(group: str, one: str, other: str) -> bool:
    """Whether two references, names or paths, are to one file of a group."""
    if is_path(one) != is_path(other):
        return False
    if not is_path(one):
        return canonical(group, one) == canonical(group, other)
    return Path(one).absolute() == Path(other).absolute() or _same_place(one, other)


def _same_place(one: str, other: str) -> bool:
    try:
        return Path(one).samefile(other)
    except (OSError, ValueError):
        return False


def missing(group: str, name: str) -> str | None:
    """What to do about a name that nothing ships under; None if it can be loaded."""
    if is_path(name) or canonical(group, name) in shipped(group):
        return None
    meant = hint(name, [*shipped(group), *aliases(group)])
    return (
        f"not shipped; {meant}use one of {', '.join(shipped(group))}, or a path that ends"
        f" in {'.toml or .json' if group == 'models' else '.toml'}"
    )


def load(group: str, name: str) -> tuple[dict[str, object], str]:
    """Contents and printable name of a shipped spec or a user's file.

    Raises:
        SpecError: nothing of that name is shipped, or the file can't be read.
    """
    if is_path(name):
        path = Path(name)
        text = read_text(path)
        parse = parse_json if path.suffix == ".json" else parse_toml
        return parse(text, name), name
    if problem := missing(group, name):
        raise SpecError([f"{group.removesuffix('s')}{shown(name)}: {problem}"])
    name = canonical(group, name)
    where = f"{name}.toml"
    if (DATA / group / where).is_file():
        return parse_toml((DATA / group / where).read_text("utf-8"), where), where
    where = f"{name}.json"
    return parse_json((DATA / group / where).read_text("utf-8"), where), where


def version(name: str) -> tuple[str, float]:
    """A key for caches of parsed files: it changes when a user's file does."""
    try:
        return name, Path(name).stat().st_mtime if is_path(name) else 0.0
    except (OSError, ValueError):  # reading it says what is wrong
        return name, 0.0
