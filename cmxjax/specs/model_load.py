"""From a model's name, TOML file or Hugging Face config to the Architecture pytree."""

from functools import lru_cache
from typing import Any, NamedTuple

import jax.numpy as jnp
from pydantic import ValidationError

from ..model.architecture import Architecture, Experts, GroupedQuery, Latent
from ..switch import switch
from .errors import SpecError, explain, shown
from .figures import listing, number
from .files import load, version
from .huggingface import convert
from .model_file import LatentSpec, ModelFile
from .system_load import Reference

_KINDS = ("grouped_query", "latent")


class LoadedModel(NamedTuple):
    """An Architecture with the file it came from."""

    architecture: Architecture
    file: ModelFile


def read_model_file(name: str) -> ModelFile:
    """Read and validate a model file. Raises `SpecError` with every mistake."""
    return _read_model_file(version(name))


@lru_cache(maxsize=64)
def _read_model_file(key: tuple[str, float]) -> ModelFile:
    name = key[0]
    raw, where = load("models", name)
    if name.endswith(".json"):
        raw = convert(raw, where)
    try:
        return ModelFile.model_validate(raw, context=listing(raw))
    except ValidationError as error:
        raise SpecError(explain(error, where, _KINDS)) from None


def model_leaves(file: ModelFile) -> dict[str, float]:
    """Every numeric leaf of a model by dotted path."""
    leaves = {
        name: value
        for name, value in file
        if isinstance(value, float) and not isinstance(value, bool)
    }
    for group in ("attention", "experts"):
        node = getattr(file, group)
        if node is not None:
            leaves |= {f"{group}.{k}": v for k, v in node if isinstance(v, float)}
    return leaves


def _with_changes(file: ModelFile, reference: Reference, where: str) -> ModelFile:
    """The file with single leaves changed, validated again as a whole."""
    raw = file.model_dump(exclude_none=True)
    known, mistakes = model_leaves(file), []
    for path, value in reference.changes:
        key = f"{where}: model.{path}{shown(value)}"
        if path not in known:
            options = ", ".join(known)
            mistakes.append(
                f"{key}: {reference.base} has no such leaf; use one of {options}"
            )
            continue
        *parents, last = path.split(".")
        node: dict[str, Any] = raw
        for part in parents:
            node = node[part]
        try:
            node[last] = number(value)
        except ValueError as error:
            mistakes.append(f"{key}: {error}")
    if mistakes:
        raise SpecError(mistakes)
    try:
        return ModelFile.model_validate(raw)
    except ValidationError as error:
        raise SpecError(explain(error, where, _KINDS, "model")) from None


def load_model(reference: Reference, where: str = "scenario") -> LoadedModel:
    """Build the Architecture that a reference names.

    Args:
        reference: a shipped name or a path, and changed leaves.
        where: how messages name the scenario that holds the reference.

    Raises:
        SpecError: the file is wrong, or a changed leaf does not exist.
    """
    file = read_model_file(reference.base)
    if reference.changes:
        file = _with_changes(file, reference, where)

    def leaf(value: float):
        return jnp.asarray(value, float)

    fields: dict[str, Any] = {
        k: leaf(v) for k, v in file.attention if isinstance(v, float)
    }
    latent = isinstance(file.attention, LatentSpec)
    attention = Latent(**fields) if latent else GroupedQuery(**fields)
    experts = None
    if file.experts is not None:
        whole = ("groups", "topk_groups")
        sizes: dict[str, Any] = {
            k: int(v) if k in whole else leaf(v) for k, v in file.experts
        }
        experts = Experts(has_shared=file.experts.shared > 0, **sizes)
    architecture = Architecture(
        hidden=leaf(file.hidden),
        layers=leaf(file.layers),
        dense_layers=leaf(file.dense_layers),
        intermediate=leaf(file.intermediate),
        vocabulary=leaf(file.vocabulary),
        positions=leaf(file.positions),
        draft_layers=leaf(file.draft_layers),
        attention=attention,
        experts=experts,
        gated=switch(file.gated),
        tied=switch(file.tied),
        biased=switch(file.biased),
    )
    return LoadedModel(architecture, file)
