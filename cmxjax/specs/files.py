"""Find and read spec files: shipped by name, or the user's by path."""

import json
import math
import tomllib
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

from .errors import SpecError

LARGEST_FILE_BYTES = 16 * 2**20
DATA = package_files("cmxjax.specs") / "data"


def shipped(group: str) -> list[str]:
    """Names of the shipped `systems`, `models`, `measurements` or `scenarios`."""
    folder = DATA / group
    names = [item.name for item in folder.iterdir() if item.name.endswith(".toml")]
    return sorted(name.removesuffix(".toml") for name in names)


def read_text(path: Path) -> str:
    """Read a spec file. Raises `SpecError` if it can't be one."""
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise SpecError([f"{path}: not a file; name a TOML file"])
        if size == 0:
            raise SpecError([f"{path}: empty; see `cmxjax show` for an example"])
        if size > LARGEST_FILE_BYTES:
            raise SpecError(
                [f"{path}: {size} bytes; spec files hold at most {LARGEST_FILE_BYTES}"]
            )
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise SpecError([f"{path}: no such file; check the path"]) from None
    except UnicodeDecodeError:
        raise SpecError([f"{path}: not UTF-8 text; name a TOML file"]) from None
    except OSError as error:
        raise SpecError([f"{path}: {error.strerror}; check the path"]) from None


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """Parse TOML. Raises `SpecError` for syntax, with the line."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SpecError([f"{where}: not valid TOML: {error}"]) from None
    except RecursionError:
        raise SpecError([f"{where}: nested too deeply; flatten the tables"]) from None


def parse_json(text: str, where: str) -> dict[str, Any]:
    """Parse a JSON object. Raises `SpecError` for syntax or another kind of value."""
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise SpecError([f"{where}: not valid JSON: {error}"]) from None
    if not isinstance(value, dict):
        raise SpecError([f"{where}: holds no JSON object; name a config.json"])
    return value


def is_path(name: str) -> bool:
    """Whether a reference names a file rather than something shipped."""
    return "/" in name or name.endswith((".toml", ".json"))


def load(group: str, name: str) -> tuple[dict[str, Any], str]:
    """Contents and printable name of a shipped spec or a user's file.

    Raises:
        SpecError: nothing of that name is shipped, or the file can't be read.
    """
    if is_path(name):
        path = Path(name)
        text = read_text(path)
        parse = parse_json if path.suffix == ".json" else parse_toml
        return parse(text, name), name
    if name not in shipped(group):
        raise SpecError(
            [
                f"{group.removesuffix('s')} = {name!r}: not shipped; use one of"
                f" {', '.join(shipped(group))}, or a path that ends in .toml"
            ]
        )
    where = f"{name}.toml"
    return parse_toml((DATA / group / where).read_text("utf-8"), where), where


def finite(value: Any) -> bool:
    """Whether a parsed value is a number that is not NaN or infinite."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value)


def version(name: str) -> tuple[str, float]:
    """A key for caches of parsed files: it changes when a user's file does."""
    path = Path(name)
    return name, path.stat().st_mtime if is_path(name) and path.exists() else 0.0
