"""Output files: refused before the work, or written whole or not at all."""

import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from .errors import SpecError
from .files import is_path, load

PICTURES = (".png", ".svg", ".pdf", ".jpg", ".jpeg", ".webp")
"""Suffixes of pictures, all of which can be drawn without a program of the system's."""


def _beside(path: Path) -> Path:
    """A name that nobody else uses, in the folder of a file and with its suffix."""
    return path.with_name(f".{secrets.token_hex(8)}{path.suffix[:16]}")


@contextmanager
def replacing(path: str | Path, option: str = "--out") -> Iterator[Path]:
    """Where to write a file that takes the place of `path` once it is whole.

    What isn't a plain file, such as /dev/stdout, is written to directly. After a mistake
    nothing is left behind.

    Args:
        option: how messages name the path.

    Raises:
        SpecError: the file can't be written.
    """
    target = Path(path)
    try:
        target = target.resolve()  # a link stays one
        part = target if target.exists() and not target.is_file() else _beside(target)
        try:
            yield part
            if part != target:
                os.replace(part, target)
        finally:
            if part != target:
                part.unlink(missing_ok=True)
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, SpecError):
            raise
        raise SpecError([f"{option} {path}: {_why(error)}; use another path"]) from None


def _why(error: Exception) -> str:
    said = error.strerror if isinstance(error, OSError) else str(error)
    return f"can't be written ({said})"


def make_folder(path: str | Path, option: str = "--out") -> None:
    """Make a folder for output files. Raises `SpecError` if it can't be."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise SpecError([f"{option} {path}: {_why(error)}; use another path"]) from None


def write_text(path: str | Path, text: str, option: str = "--out") -> None:
    """Write a file whole or not at all. Raises `SpecError` if it can't be."""
    with replacing(path, option) as part:
        part.write_text(text, "utf-8")


def inputs_of(*names: object) -> list[str]:
    """The user's files that a command reads: those named, and those that they name.

    Args:
        names: names of shipped things, paths, or values that hold some.
    """
    seen: dict[str, None] = {}
    todo = [name for given in names for name in _texts(given)]
    while todo:
        name = todo.pop()
        if name in seen or not is_path(name):
            continue
        seen[name] = None
        try:
            raw, _ = load("", name)
        except SpecError:
            continue  # where it is used its mistakes are told
        todo += _texts(raw)
    return list(seen)


def _texts(value: object) -> Iterator[str]:
    """Every text in tables and lists."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


def check_outputs(outputs: Mapping[str, str | None], inputs: Iterable[str]) -> None:
    """Refuse what couldn't be written, before the work that it should hold.

    Args:
        outputs: the path that each option was given; None where it wasn't.
        inputs: files that the command reads.

    Raises:
        SpecError: naming each option: a folder that isn't there or can't be written to,
            a picture of another kind, an input, or the same file as another option's.
    """
    given = {option: path for option, path in outputs.items() if path is not None}
    read, mistakes = list(inputs), []
    for option, path in given.items():
        others = [o for o, p in given.items() if o < option and _same(p, path)]
        if problem := _problem(option, path, read):
            mistakes.append(f"{option} {path}: {problem}; use another path")
        elif others:
            mistakes.append(f"{option} {path}: {others[0]} writes it too; use another")
    if mistakes:
        raise SpecError(mistakes)


def _problem(option: str, path: str, read: list[str]) -> str | None:
    if "\0" in path or not path:
        return "not a path"
    target = Path(path)
    if option == "--picture" and target.suffix.lower() not in PICTURES:
        return f"no picture of this suffix can be drawn, only {', '.join(PICTURES)}"
    try:
        if inputs := [name for name in read if _same(name, path)]:
            return f"this command reads it ({inputs[0]})"
        if target.is_dir():
            return "a folder"
        if not target.resolve().parent.is_dir():
            return f"there is no folder {target.parent}"
        if target.exists():
            return None if os.access(target, os.W_OK) else "it may not be changed"
        part = _beside(target.resolve())
        part.touch(exist_ok=False)
        part.unlink()
    except (OSError, RuntimeError) as error:
        return _why(error)
    return None


def _same(one: str, other: str) -> bool:
    """Whether two paths are one file, by whatever name or link."""
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):
        return os.path.realpath(one) == os.path.realpath(other)
