"""Systems and models as whole tables: what a file says, and all that it leaves out."""

from pydantic import BaseModel

from .model_file import ModelFile
from .system_file import SystemFile, TierSpec

_EMPTY = ("note", "url", "vision_unread", "serving_collective", "package_tier")
"""Keys that say nothing where they are empty."""


def whole_system(file: SystemFile) -> dict[str, object]:
    """A system with every leaf, which takes nothing from another machine. It loads to the
    same system."""
    return {key: value for key, value in _table(file).items() if key != "base"}


def whole_model(file: ModelFile) -> dict[str, object]:
    """A model with every number, also one read from a `config.json`. It loads to the same
    model."""
    return _table(file)


def _table(node: BaseModel) -> dict[str, object]:
    """The keys of a file with their values, none left out but what is empty."""
    usual = {k: f.default for k, f in type(node).model_fields.items()}
    by_itself = isinstance(node, TierSpec)  # defaults.toml holds only its figures
    return {
        key: _plain(value)
        for key, value in node
        if value is not None
        and not (value == "" and key in _EMPTY)
        and not (by_itself and value == usual[key])
    }


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return _table(value)
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value
