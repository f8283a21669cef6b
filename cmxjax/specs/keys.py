"""The keys that a file may have, read off the models that validate it."""

from functools import cache
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ..words import near

ANY = "*"
"""In a key: any name, or any number of a list's item."""


@cache
def keys_of(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Every dotted key that a model of a file allows, tables included."""
    keys: dict[str, FieldInfo] = {}

    def visit(above: str, model: type[BaseModel]) -> None:
        for name, field in model.model_fields.items():
            keys[above + name] = field
            for stars, table in _tables(field.annotation):
                visit(f"{above}{name}.{f'{ANY}.' * stars}", table)

    visit("", model)
    return keys


def _tables(annotation: Any, stars: int = 0) -> list[tuple[int, type[BaseModel]]]:
    """The tables that a field may hold, each with how many names or numbers deep."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [(stars, annotation)]
    stars += get_origin(annotation) in (dict, list)
    return [found for part in get_args(annotation) for found in _tables(part, stars)]


def nearest_keys(model: type[BaseModel], parts: list[str]) -> list[str]:
    """The keys of a model that a wrong one may stand for: of the same table, of its name
    elsewhere, or spelt alike."""
    if not parts:
        return []
    *above, last = parts
    known = [key.split(".") for key in keys_of(model)]
    beside = [key[-1] for key in known if _fits(key[:-1], above)]
    if found := near(last, beside):
        return [".".join([*above, name]) for name in found]
    if elsewhere := [".".join(key) for key in known if key[-1] == last]:
        return elsewhere[:3]
    return near(".".join(parts), keys_of(model))


def _fits(key: list[str], parts: list[str]) -> bool:
    return len(key) == len(parts) and all(
        ours in (theirs, ANY) for ours, theirs in zip(key, parts)
    )
