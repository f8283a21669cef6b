"""Arguments of commands: names of files, changes, numbers, limits."""

from collections.abc import Callable
from typing import Annotated, Literal, TypeVar, overload

import tyro

N = TypeVar("N", bound=int | float | str)

METAVAR = tyro.conf.arg(metavar="NAME|FILE")
Name = Annotated[str, tyro.conf.Positional, METAVAR]
Names = Annotated[tuple[str, ...], tyro.conf.Positional, METAVAR]


VERSION = "engine_version"


def parse_changes(pairs: tuple[str, ...]) -> dict[str, object]:
    """`key=value` pairs with TOML values; what is no TOML value is a string, and so is a
    version such as 0.10, which as a number would be another.

    Raises:
        SpecError: a pair has no equals sign or no key.
    """
    from ..specs.errors import SpecError
    from ..specs.files import parse_toml

    changes, mistakes = {}, []
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.strip() or "\n" in pair:
            mistakes.append(f"--set {pair!r}: write KEY=VALUE on one line")
            continue
        if key.strip() == VERSION:
            changes[VERSION] = text.strip().strip("\"'")
            continue
        try:
            changes[key.strip()] = parse_toml(f"value = {text}", "--set")["value"]
        except SpecError:
            changes[key.strip()] = text
    if mistakes:
        raise SpecError(mistakes)
    return changes


def serve_limits(texts: tuple[str, ...]) -> dict[str, str]:
    """`ttft=2s` and `tpot=50ms` as keys of a serving scenario.

    Raises:
        SpecError: another quantity is limited.
    """
    from ..answers.limits import parse_limit
    from ..specs.errors import SpecError

    limits = [parse_limit(text) for text in texts]
    wrong = [limit.quantity for limit in limits if limit.quantity not in ("ttft", "tpot")]
    if wrong:
        raise SpecError(
            [f"--limit {name}: phase serve has limits on ttft and tpot" for name in wrong]
        )
    return {f"workload.{limit.quantity}_limit": f"{limit.value!r} s" for limit in limits}


def number_or_word(text: str) -> float | str:
    """A number where the text is one. Raises `ValueError` for an empty text."""
    if not text:
        raise ValueError("nothing is given")
    try:
        return float(text)
    except ValueError:
        return text


@overload
def parse_numbers(
    pairs: tuple[str, ...],
    option: str,
    kind: Callable[[str], N],
    *,
    several: Literal[True],
) -> dict[str, tuple[N, ...]]: ...


@overload
def parse_numbers(
    pairs: tuple[str, ...],
    option: str,
    kind: Callable[[str], N],
    *,
    several: Literal[False],
) -> dict[str, N]: ...


def parse_numbers(
    pairs: tuple[str, ...], option: str, kind: Callable[[str], N], *, several: bool
) -> dict[str, tuple[N, ...]] | dict[str, N]:
    """`key=number` pairs, or `key=number,number,...` as tuples; words where `kind` lets
    them.

    Raises:
        SpecError: a pair has another form, a number is below 0 (where there is one alone,
            below 1) or above 1e9, or a key is given twice.
    """
    from ..specs.errors import SpecError

    parsed, mistakes = {}, []
    for pair in pairs:
        key, _, text = pair.partition("=")
        if key in parsed:
            remedy = "its values in one list" if several else "it once"
            mistakes.append(f"{option} {pair!r}: {key} is given twice; write {remedy}")
            continue
        try:
            values = [kind(part) for part in text.split(",")]
            numbers = [value for value in values if not isinstance(value, str)]
            single = several or (len(numbers) == 1 and min(numbers) >= 1)
            if not single or not all(0 <= number <= 1e9 for number in numbers):
                raise ValueError(pair)
        except ValueError:
            example = "KEY=NUMBER,NUMBER" if several else "AXIS=NUMBER"
            mistakes.append(f"{option} {pair!r}: write {example}")
            continue
        parsed[key] = tuple(values) if several else values[0]
    if mistakes:
        raise SpecError(mistakes)
    return parsed


def gathered(arguments: list[str]) -> list[str]:
    """Several `--set a --set b` as one `--set a b`, wherever they stand."""
    several, rest = {"--set": [], "--limit": [], "--pin": [], "--try": []}, []
    several[ONE_EACH] = []
    current, first = None, False
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if current == ONE_EACH:
            several[ONE_EACH].append(argument)
            current = None
        elif name == ONE_EACH and not equals:
            current = name
        elif name in several:
            current, first = name, not equals
            if equals:
                several[name].append(value)
        elif current is not None and argument[:1] != "-" and ("=" in argument or first):
            several[current].append(argument)  # without a sign it is refused there
            first = False
        else:
            current = None
            rest.append(argument)
    if current == ONE_EACH:  # its word is missing, which is said later
        several[ONE_EACH].append("")
    for name, values in several.items():
        if values:
            rest += [name, *values]
    return rest


ONE_EACH = "--objective"
"""Takes one word each time that it is given, so that a name may follow."""
