"""One message for all mistakes of a file."""

from collections.abc import Callable, Iterable
from typing import TypeVar, overload

from pydantic import ValidationError

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")

LONGEST_VALUE = 80
"""Characters of a wrong value that a message repeats."""


class SpecError(ValueError):
    """Bad input: every mistake found, one a line, with file, key, value and remedy."""

    def __init__(self, mistakes: Iterable[str]):
        self.mistakes = list(dict.fromkeys(" ".join(m.splitlines()) for m in mistakes))
        super().__init__("\n".join(self.mistakes))


@overload
def all_of(one: Callable[[], A], other: Callable[[], B], /) -> tuple[A, B]: ...


@overload
def all_of(
    one: Callable[[], A], other: Callable[[], B], third: Callable[[], C], /
) -> tuple[A, B, C]: ...


@overload
def all_of(
    one: Callable[[], A],
    other: Callable[[], B],
    third: Callable[[], C],
    fourth: Callable[[], D],
    /,
) -> tuple[A, B, C, D]: ...


@overload
def all_of(
    one: Callable[[], A],
    other: Callable[[], B],
    third: Callable[[], C],
    fourth: Callable[[], D],
    fifth: Callable[[], E],
    /,
) -> tuple[A, B, C, D, E]: ...


@overload
def all_of(*checks: Callable[[], A]) -> tuple[A, ...]: ...


def all_of(*checks: Callable[[], object]) -> tuple[object, ...]:
    """Results of several checks. Raises `SpecError` with the mistakes of all of them,
    each once."""
    results, mistakes = [], []
    for check in checks:
        try:
            results.append(check())
        except SpecError as error:
            mistakes += [new for new in error.mistakes if new not in mistakes]
    if mistakes:
        raise SpecError(mistakes)
    return tuple(results)


_REMEDIES = {
    "extra_forbidden": "unknown key; remove it or correct its spelling",
    "missing": "required key is missing; add it",
    "finite_number": "must be a finite number",
    "model_type": "must be a table, such as { key = value }",
    "model_attributes_type": "must be a table, such as { key = value }",
    "dict_type": "must be a table, such as { key = value }",
    "list_type": "must be a list",
    "string_type": "must be a string",
    "string_too_short": "must not be empty",
    "too_short": "must not be empty",
    "int_type": "must be a whole number, without a point",
    "bool_type": "must be true or false",
    "string_pattern_mismatch": "must be made of letters, digits, - and _",
    "union_tag_not_found": "kind is missing; add it",
}


def shown(value: object) -> str:
    """A wrong value as a message repeats it: ` = value`, cut to a readable length."""
    if value is None or isinstance(value, dict | list):
        return ""
    try:
        text = repr(value)
    except ValueError:  # a whole number of thousands of digits
        text = "a number too long to print"
    if len(text) > LONGEST_VALUE:
        text = text[:LONGEST_VALUE] + "..."
    return f" = {text}"


def explain(
    error: ValidationError, where: str, known: Iterable[str] = (), under: str = ""
) -> list[str]:
    """Turn pydantic's errors into lines `where: key = value: what to do`.

    A validator that finds several mistakes puts each on a line of its own. `known` are
    names that pydantic adds to a location (union tags) and that a reader of the file
    would not recognize; `under` is the key that holds what was validated.
    """
    skip = {*known, "[key]"}
    above = (under,) if under else ()
    lines = []
    for item in error.errors():
        key = ".".join(str(p) for p in (*above, *item["loc"]) if str(p) not in skip)
        message = _REMEDIES.get(item["type"]) or item["msg"].removeprefix("Value error, ")
        if item["type"] == "union_tag_invalid":
            message = f"kind must be one of {item.get('ctx', {})['expected_tags']}"
        message = message.replace("Input should be", "must be")
        value = "" if item["type"] == "missing" else shown(item.get("input"))
        for line in message.splitlines():
            lines.append(f"{where}: {key or 'file'}{value}: {line}")
    return lines
