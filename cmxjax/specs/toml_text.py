"""Tables as the text of a TOML file: figures on one line, tables under headers."""

import re
from collections.abc import Mapping, Sequence

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_ESCAPED = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
_LARGEST_WHOLE = 2.0**53


def toml_value(value: object) -> str:
    """A value as inline TOML: text, a number, a list or a table.

    Raises:
        TypeError: of another type.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        whole = value.is_integer() and abs(value) < _LARGEST_WHOLE
        return str(int(value)) if whole else repr(value)
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Mapping):
        rows = ", ".join(f"{_key(k)} = {toml_value(v)}" for k, v in value.items())
        return f"{{ {rows} }}" if rows else "{}"
    if isinstance(value, Sequence):
        return f"[{', '.join(map(toml_value, value))}]"
    raise TypeError(f"{type(value).__name__} is no value of TOML")


def toml_text(tables: Mapping[str, object]) -> str:
    """A file with these keys. Tables with a `value`, which are figures, and those in
    lists of others stand on one line.

    Raises:
        TypeError: a value has no form in TOML.
    """
    return "\n".join(_lines(tables, ())).strip("\n") + "\n"


def _lines(table: Mapping[str, object], path: tuple[str, ...]) -> list[str]:
    """A table's own lines, then those of the tables in it."""
    own, below = [], []
    for key, value in table.items():
        if isinstance(value, Mapping) and "value" not in value:
            inner = _lines(value, (*path, key))
            header = [] if value and all(map(_is_table, value.values())) else [key]
            below += _header(path, header, "[{}]") + inner
        elif tables := _tables(value):
            for each in tables:
                below += _header(path, [key], "[[{}]]") + _lines(each, (*path, key))
        else:
            own.append(f"{_key(key)} = {toml_value(value)}")
    return own + below


def _header(path: tuple[str, ...], key: list[str], form: str) -> list[str]:
    return ["", form.format(".".join(map(_key, (*path, *key))))] if key else []


def _is_table(value: object) -> bool:
    return isinstance(value, Mapping) and "value" not in value


def _tables(value: object) -> list[Mapping[str, object]]:
    """The tables of a list that have headers of their own; none of any other value."""
    listed = list(value) if isinstance(value, list | tuple) else []
    tables = [item for item in listed if isinstance(item, Mapping)]
    return tables if len(tables) == len(listed) else []


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _text(key)


def _text(text: str) -> str:
    """A basic string; what a terminal would not show is written out."""
    return '"' + "".join(map(_character, text)) + '"'


def _character(one: str) -> str:
    if one in _ESCAPED:
        return _ESCAPED[one]
    if one.isprintable():
        return one
    alone = 0xD800 <= ord(one) < 0xE000  # half of a pair, which JSON lets through
    return "\\ufffd" if alone else f"\\U{ord(one):08x}"
