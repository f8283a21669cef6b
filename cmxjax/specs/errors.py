"""One message for all mistakes of a file."""

from collections.abc import Iterable

from pydantic import ValidationError


class SpecError(ValueError):
    """Bad input: every mistake found, one a line, with file, key, value and remedy."""

    def __init__(self, mistakes: Iterable[str]):
        self.mistakes = list(dict.fromkeys(mistakes))
        super().__init__("\n".join(self.mistakes))


_REMEDIES = {
    "extra_forbidden": "unknown key; remove it or correct its spelling",
    "missing": "required key is missing; add it",
    "finite_number": "must be a finite number",
}


def explain(error: ValidationError, where: str, known: Iterable[str] = ()) -> list[str]:
    """Turn pydantic's errors into lines `where: key = value: what to do`.

    `known` are names that pydantic adds to a location (union tags) and that a reader
    of the file would not recognize.
    """
    skip = set(known)
    lines = []
    for item in error.errors():
        key = ".".join(str(p) for p in item["loc"] if str(p) not in skip)
        message = _REMEDIES.get(item["type"]) or item["msg"].removeprefix("Value error, ")
        shown = item.get("input")
        value = "" if isinstance(shown, dict | list) or shown is None else f" = {shown!r}"
        if item["type"] == "missing":
            value = ""
        lines.append(f"{where}: {key or 'file'}{value}: {message}")
    return lines
