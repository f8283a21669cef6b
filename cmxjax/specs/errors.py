"""One message for all mistakes of a file."""

import re
from collections.abc import Callable, Iterable
from typing import TypeVar, overload

from pydantic import BaseModel, ValidationError

from ..words import LONGEST_WORD, MOST_LINES, cut, hint, message, plain
from .keys import nearest_keys

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")


class SpecError(ValueError):
    """Bad input: every mistake found, with file, key, value and remedy.

    As text the first of them, one a line, and how many more there are.
    """

    def __init__(self, mistakes: Iterable[str]):
        lines = (plain(" ".join(m.splitlines())) for m in mistakes)
        self.mistakes = list(dict.fromkeys(lines))
        super().__init__(message(self.mistakes))


class AnsweredError(SpecError):
    """What was asked is answered, but some of it couldn't be written."""

    def __init__(self, answer: object, mistakes: Iterable[str]):
        self.answer = answer
        super().__init__(mistakes)


class NoAnswerError(SpecError):
    """The question is understood, and no value answers it."""


def afterwards(answer: A, *writes: Callable[[], object]) -> A:
    """The answer, after the files that hold it are written.

    Raises:
        AnsweredError: with the answer, if some can't be; the others are.
    """
    mistakes = []
    for write in writes:
        try:
            write()
        except SpecError as error:
            mistakes += error.mistakes
    if mistakes:
        raise AnsweredError(answer, mistakes)
    return answer


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


_QUOTED = re.compile(r"'([^']*)'")


def shown(value: object) -> str:
    """A wrong value as a message repeats it: ` = value`, cut to a readable length."""
    if value is None or isinstance(value, dict | list):
        return ""
    try:
        text = repr(value)
    except ValueError:  # a whole number of thousands of digits
        text = "a number too long to print"
    if len(text) > LONGEST_WORD:
        text = text[:LONGEST_WORD] + "..."
    return f" = {text}"


def explain(
    error: ValidationError,
    where: str,
    model: type[BaseModel],
    tags: Iterable[str] = (),
    under: str = "",
) -> list[str]:
    """Turn pydantic's errors into lines `where: key = value: what to do`.

    A validator that finds several mistakes puts each on a line of its own.

    Args:
        model: what was validated; the nearest of its keys is offered for an unknown one.
        tags: names that pydantic adds to a location (of unions) and that a reader of the
            file would not recognize.
        under: the key that holds what was validated.
    """
    skip = {*tags, "[key]"}
    above = (under,) if under else ()
    lines = []
    for i, item in enumerate(error.errors(include_url=False)):
        parts = [str(p) for p in (*above, *item["loc"]) if str(p) not in skip]
        key = cut(".".join(cut(part, LONGEST_WORD) for part in parts), 2 * LONGEST_WORD)
        said = _REMEDIES.get(item["type"]) or item["msg"].removeprefix("Value error, ")
        if item["type"] == "union_tag_invalid":
            said = f"kind must be one of {item.get('ctx', {})['expected_tags']}"
        if item["type"] == "extra_forbidden":
            # of thousands of mistakes only the first are read
            known = nearest_keys(model, parts[len(above) :]) if i < MOST_LINES else []
            meant = f"; did you mean {' or '.join(known)}?" if known else ""
            said = f"unknown key{meant or '; remove it or correct its spelling'}"
        if item["type"] == "literal_error" and isinstance(word := item["input"], str):
            known = _QUOTED.findall(item.get("ctx", {})["expected"])
            said = hint(word, known) + said
        said = said.replace("Input should be", "must be")
        value = "" if item["type"] == "missing" else shown(item.get("input"))
        for line in said.splitlines():
            lines.append(f"{where}: {key or 'file'}{value}: {line}")
    return lines
