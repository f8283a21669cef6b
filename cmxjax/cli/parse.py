"""From words of the command line to a command, or a message that says what is wrong."""

import re
from collections.abc import Mapping
from contextlib import redirect_stderr
from dataclasses import fields
from io import StringIO
from typing import Any

import tyro

from ..words import LONGEST_WORD, choose, cut, hint, message, plain
from .arguments import gathered

_FRAME = "│╭╮╰╯─ "
_CHOICE = re.compile(r"invalid choice '(.*)' for argument .*? of \((.*)\)", re.DOTALL)


def parse(arguments: list[str], commands: Any, names: Mapping[str, type], about: str):
    """The command that the words name, with its options.

    Args:
        commands: the union of the classes of all commands.
        names: those by name.
        about: what `--help` says of the program.

    Raises:
        ValueError: the words are wrong; one message says how.
        SystemExit: help was asked for and printed.
    """
    given = gathered(arguments)
    first = given[0] if given else ""
    if first not in names and first not in ("-h", "--help"):
        shown = plain(cut(first, LONGEST_WORD)) or "cmxjax"
        said = "no such command" if first else "no command"
        raise ValueError(f"{shown}: {said}; {choose(first, names)}, or --help")
    if command := names.get(first):
        _check_options(first, command, given[1:])
    said = StringIO()
    try:
        with redirect_stderr(said):
            return tyro.cli(commands, prog="cmxjax", description=about, args=given)
    except SystemExit as end:
        if end.code in (0, None):
            raise
        raise ValueError(_without_frame(said.getvalue())) from None


def _check_options(name: str, command: type, words: list[str]) -> None:
    """Refuse an option that the command doesn't have, with the nearest that it has."""
    known = ["--help"]
    for field in fields(command):  # pyright: ignore[reportArgumentType]
        option = _OTHER_NAMES.get(field.name, field.name)
        known.append(f"--{option.replace('_', '-')}")
    for word in words:
        option = word.partition("=")[0].replace("_", "-")
        if option.startswith("--") and option.replace("--no-", "--") not in known:
            shown = plain(cut(option, LONGEST_WORD))
            said = f"no such option of {name}; {choose(option, known)}"
            raise ValueError(f"{shown}: {said}")


_OTHER_NAMES = {"origin": "from", "target": "for", "try_": "try"}


def _without_frame(text: str) -> str:
    """What the parser says, as plain lines."""
    lines = [line.strip(_FRAME) for line in plain(text).splitlines()]
    kept = [line for line in lines if line]
    if wrong := _CHOICE.search(" ".join(kept)):
        options = re.findall(r"'([^']+)'", wrong[2])
        kept.insert(0, f"{cut(wrong[1], LONGEST_WORD)}: {hint(wrong[1], options)}")
    return message(kept)
