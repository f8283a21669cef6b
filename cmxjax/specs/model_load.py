"""From a model's name, TOML file or Hugging Face config to the Architecture pytree."""

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from pydantic import BaseModel, ValidationError

from .._numbers import scalar
from .._types import Leaf
from ..job.workload import BYTES
from ..model.architecture import (
    MOST_LAYERS,
    Architecture,
    Kind,
    known_of,
    total_parameters,
)
from ..model.compressed import Compressed
from ..model.feed_forwards import Dense, Experts
from ..model.grouped_query import GroupedQuery
from ..model.latent import Indexer, Latent
from ..model.recurrent import Recurrent
from ..switch import switch
from ..words import choose
from .errors import SpecError, explain, shown
from .figures import listing, number
from .files import load, version
from .huggingface import convert
from .model_file import (
    CompressedSpec,
    DenseSpec,
    ExpertsSpec,
    GroupedQuerySpec,
    IndexerSpec,
    LatentSpec,
    Layer,
    MixerSpec,
    ModelFile,
)
from .system_load import Reference
from .vision_file import vision_of

_KINDS = ("grouped_query", "latent", "compressed", "recurrent", "dense", "mixture")


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
    if where.endswith(".json"):
        raw = convert(raw, where)
    try:
        return ModelFile.model_validate(raw, context=listing(raw))
    except ValidationError as error:
        raise SpecError(explain(error, where, ModelFile, _KINDS)) from None


def model_leaves(file: ModelFile) -> dict[str, float]:
    """Every numeric leaf of a model by dotted path."""
    groups: dict[str, BaseModel] = {"": file}
    for path, spec in (file.mixer_specs | file.half_specs).items():
        if path:
            groups[path] = spec
        if isinstance(spec, LatentSpec | CompressedSpec) and spec.indexer is not None:
            groups[f"{path}.indexer"] = spec.indexer
    if file.vision is not None:
        groups["vision"] = file.vision
    return {
        f"{path}.{key}".lstrip("."): value
        for path, group in groups.items()
        for key, value in group
        if isinstance(value, float) and not isinstance(value, bool)
    }


def _with_changes(file: ModelFile, reference: Reference, where: str) -> ModelFile:
    """The file with single leaves changed, validated again as a whole."""
    raw = file.model_dump(exclude_none=True)
    known, mistakes = model_leaves(file), []
    for path, value in reference.changes:
        key = f"{where}: model.{path}{shown(value)}"
        if path not in known:
            options = choose(path, known)
            mistakes.append(f"{key}: {reference.base} has no such leaf; {options}")
            continue
        *parents, last = path.split(".")
        node = raw
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
        raise SpecError(explain(error, where, ModelFile, _KINDS, "model")) from None


def load_model(reference: Reference, where: str = "scenario") -> LoadedModel:
    """Build the Architecture that a reference names.

    Args:
        reference: a shipped name or a path, and changed leaves.
        where: how messages name the scenario that holds the reference.

    Raises:
        SpecError: the file is wrong, or a changed leaf does not exist.
    """
    key = version(reference.base), repr(reference.changes)
    if key not in _LOADED:
        if len(_LOADED) >= 512:
            _LOADED.clear()
        file = read_model_file(reference.base)
        if reference.changes:
            file = _with_changes(file, reference, where)
        _LOADED[key] = LoadedModel(architecture_of(file), file)
    return _LOADED[key]


_LOADED: dict[tuple, LoadedModel] = {}


def _leaves(spec: BaseModel) -> dict[str, Leaf]:
    return {key: scalar(value) for key, value in spec if isinstance(value, float)}


def _norms(spec: MixerSpec | DenseSpec | ExpertsSpec, biased: bool) -> dict[str, Leaf]:
    vectors = 1.0 + biased if spec.norm_vectors is None else spec.norm_vectors
    one = {"norms": scalar(spec.norms), "norm_vectors": scalar(vectors)}
    return one | {"stored": scalar(1.0)}


def _mixer(
    file: ModelFile, spec: MixerSpec
) -> GroupedQuery | Latent | Compressed | Recurrent:
    leaves: dict[str, Leaf] = _leaves(spec)
    if isinstance(spec, GroupedQuerySpec):
        biased = file.biased if spec.biased is None else spec.biased
        output = biased if spec.output_biased is None else spec.output_biased
        bound = spec.window or spec.chunk or 0.0
        leaves = {k: v for k, v in leaves.items() if k not in ("window", "chunk")}
        if "value_dim" in leaves:
            leaves["own_value_dim"] = leaves.pop("value_dim")
        return GroupedQuery(
            **leaves
            | _norms(spec, biased)
            | {
                "windowed": switch(spec.window is not None),
                "window": scalar(bound),
                "chunked": switch(spec.chunk is not None),
                "gated": switch(spec.gated),
                "own_cache": switch(spec.own_cache),
                "input_biased": switch(biased),
                "output_biased": switch(output),
                "projects_values": spec.projects_values,
            }
        )
    leaves |= _norms(spec, file.biased)
    if isinstance(spec, LatentSpec):
        leaves.setdefault("query_rank", scalar(0.0))
        indexer = None if spec.indexer is None else _indexer(spec.indexer)
        return Latent(indexer=indexer, **leaves)
    if isinstance(spec, CompressedSpec):
        ratio, indexer = leaves.pop("ratio", None), spec.indexer
        series = 0.0 if spec.ratio is None else 1.0 + spec.overlapping
        return Compressed(
            share=scalar(0.0) if ratio is None else 1.0 / ratio,
            series=scalar(series),
            indexer=None if indexer is None else _indexer(indexer),
            **leaves,
        )
    return Recurrent(delta=switch(spec.delta), scanned=switch(spec.scanned), **leaves)


def _indexer(spec: IndexerSpec) -> Indexer:
    leaves: dict[str, Leaf] = {"heads": scalar(0.0), "head_dim": scalar(0.0)}
    leaves |= _leaves(spec)
    return Indexer(scans=spec.heads is not None, **leaves)


def _half(file: ModelFile, spec: DenseSpec | ExpertsSpec) -> Dense | Experts:
    biased = file.biased if spec.biased is None else spec.biased
    gated = file.gated if spec.gated is None else spec.gated
    leaves: dict[str, Leaf] = _leaves(spec) | _norms(spec, biased)
    leaves |= {"gated": switch(gated), "biased": switch(biased)}
    if isinstance(spec, DenseSpec):
        return Dense(**leaves)
    narrowing = 0.0 if spec.latent is None else file.hidden - spec.latent
    for key in ("latent", "router_vectors", "zero"):
        leaves.pop(key, None)
    leaves |= {
        "narrowing": scalar(narrowing),
        "topk": scalar(spec.computing),
        "projected": scalar(2.0 * (spec.latent or 0.0) + (spec.zero or 0.0)),
        "extra": scalar(spec.extra + spec.router_vectors * spec.choices),
    }
    leaves["shared_stored"] = scalar(1.0)
    half = Experts(has_shared=spec.shared > 0, **leaves)
    return half.replace(extra=half.extra + half.shared * half.wider_parameters)


def _kinds(file: ModelFile) -> tuple[list[Kind], list[Kind]]:
    """The kinds of a model's layers, and the kind of each layer. Layers that are alike
    but for dense ones in front have both kinds, so that such models share programs."""
    mixers, halves = [*file.mixer_specs], [*file.half_specs]

    def kind(layer: Layer) -> Kind:
        return Kind(
            tuple(mixers.index(name) for name in layer.mixers),
            tuple(halves.index(name) for name in layer.feed_forwards),
            layer.parallel,
        )

    each = [kind(layer) for layer in file.depth]
    if file.pattern:
        return [*dict.fromkeys(each)], each
    return [Kind((0,), (i,)) for i in range(len(halves))], each


def stored_in(a: Architecture, stored: Mapping[str, float], size: float) -> Architecture:
    """The model with the formats that its modules' weights have.

    Args:
        stored: bytes of a weight by module.
        size: bytes of an element in the job's weight format, which the others have.
    """
    if not stored:
        return a

    def ratio(*modules: str) -> Array:
        given = [stored[m] for m in modules if m in stored]
        return scalar(given[0] / size if given else 1.0)

    def half(f: Dense | Experts) -> Dense | Experts:
        if isinstance(f, Dense):
            return f.replace(stored=ratio("dense"))
        shared = ratio("shared", "experts")
        return f.replace(stored=ratio("experts"), shared_stored=shared)

    mixers = tuple(m.replace(stored=ratio("attention")) for m in a.mixers)
    return a.replace(mixers=mixers, feed_forwards=tuple(map(half, a.feed_forwards)))


def checkpoint_bytes(a: Architecture, file: ModelFile) -> float:
    """Size of the language model's checkpoint, whose modules have the file's formats, 16
    bits without."""
    size, counts, known = BYTES["bf16"], a.half_counts, known_of(a)
    stored = {str(module): of for module, of in file.weights.items()}
    a = stored_in(a, stored, size)
    total = float(total_parameters(a)) * size
    for count, mixer, weights in zip(counts.mixers, a.mixers, known.halves.mixers):
        matrices = weights - mixer.vectors
        total += float(count * matrices * (mixer.stored - 1.0)) * size
    for count, half, network in zip(
        counts.feed_forwards, a.feed_forwards, known.networks, strict=True
    ):
        each = half.stored - 1.0
        if isinstance(half, Experts):
            each = half.routed * each + half.shared * (half.shared_stored - 1.0)
        total += float(count * each * network) * size
    tables = {"head": float(a.tied.on == 0.0), "table": 1.0}
    for module, many in tables.items():
        more = stored.get(module, size) - size
        total += many * float(a.vocabulary * a.hidden) * more
    return total


def architecture_of(file: ModelFile) -> Architecture:
    """The pytree of a model file."""
    halves = [_half(file, spec) for spec in file.half_specs.values()]
    kinds, each = _kinds(file)
    layer = np.array([[float(name == kind) for name in each] for kind in kinds])
    order = np.zeros((len(kinds), MOST_LAYERS + 1))
    order[:, 1 : len(each) + 1] = layer
    mixed = [k for k in kinds if any(isinstance(halves[i], Experts) for i in k[1])]
    last = 1.0 + file.biased if file.final_vectors is None else file.final_vectors
    return Architecture(
        hidden=scalar(file.hidden),
        mixers=tuple(_mixer(file, spec) for spec in file.mixer_specs.values()),
        feed_forwards=tuple(halves),
        order=jnp.asarray(np.cumsum(order, axis=1), float),
        vocabulary=scalar(file.vocabulary),
        positions=scalar(file.positions),
        draft_layers=scalar(file.draft_layers),
        tied=switch(file.tied),
        dropout=switch(file.biased),
        final_vectors=scalar(last),
        extra=scalar(file.extra),
        vision=None if file.vision is None else vision_of(file.vision),
        kinds=tuple(kinds),
        draft=[*kinds, *mixed][-1],
    )
