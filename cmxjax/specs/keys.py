"""The keys that a file may have, read off the models that validate it."""

import ast
import inspect
from functools import cache
from textwrap import dedent
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ..units import dimension_of
from ..words import near

ANY = "*"
"""In a key: any name, or any number of a list's item."""


class Key(NamedTuple):
    """What a user may write at a dotted key."""

    key: str
    takes: str
    """Kind of value, or the words to choose from."""
    unit: str
    """Of a bare number; 1 for a plain one."""
    default: object
    """None where it is derived or must be given."""
    required: bool
    about: str


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


def described(model: type[BaseModel]) -> list[Key]:
    """Every key of a model that holds no table of keys, as its fields declare it."""
    keys = keys_of(model)
    return [
        Key(
            key,
            " or ".join(dict.fromkeys(_takes(field.annotation))),
            _unit(key, field),
            None if field.is_required() else field.default,
            field.is_required(),
            about(model, key),
        )
        for key, field in keys.items()
        if not _tables(field.annotation) or "list" in _takes(field.annotation)
    ]


_KINDS = {int: "whole number", float: "number", str: "text", bool: "true or false"}


def _takes(annotation: Any) -> list[str]:
    """Kinds of values that a field takes."""
    kind = get_origin(annotation) or annotation
    if kind is Annotated:
        return _takes(get_args(annotation)[0])
    if kind is Literal:
        return [str(word) for word in get_args(annotation)]
    if kind in (list, dict):
        return ["list" if kind is list else "table"]
    if get_args(annotation):
        return [found for part in get_args(annotation) for found in _takes(part)]
    return [] if kind is type(None) else [_KINDS.get(kind, "name")]


def _unit(key: str, field: FieldInfo) -> str:
    if not {"number", "whole number"} & {*_takes(field.annotation)}:
        return ""
    marks = [*field.metadata, *_marks(field.annotation)]
    said = [mark.unit for mark in marks if hasattr(mark, "unit")]
    name = key.rpartition(".")[2]
    dimension = "bytes" if name == "bytes" else dimension_of(name)
    if said or dimension != "number":
        return said[0] if said else {"bytes": "B"}.get(dimension, dimension)
    return "tokens" if "tokens" in name.split("_") else "1"


def _marks(annotation: Any) -> list[Any]:
    own = list(getattr(annotation, "__metadata__", ()))
    return own + [mark for part in get_args(annotation) for mark in _marks(part)]


def about(model: type[BaseModel], key: str) -> str:
    """What the docstring under a field says."""
    *above, name = key.split(".")
    tables = [model]
    for part in above:
        if part != ANY:
            found = [_tables(table.model_fields[part].annotation) for table in tables]
            tables = [table for each in found for _, table in each]
    said = [_docstrings(c).get(name, "") for table in tables for c in table.__mro__]
    return next(filter(None, said), "")


@cache
def _docstrings(kind: type) -> dict[str, str]:
    """The text under each annotated name of a class, on one line."""
    if not kind.__module__.startswith(__package__ or ""):
        return {}
    (tree,) = ast.parse(dedent(inspect.getsource(kind))).body
    body = tree.body if isinstance(tree, ast.ClassDef) else []
    return {
        field.target.id: " ".join(text.value.value.split())
        for field, text in zip(body, body[1:])
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }


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
