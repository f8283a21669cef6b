"""What the releases of trainers and engines have no layers for, and which heads split."""

from collections.abc import Iterator

from ..specs.build import Problem
from ..specs.model_file import (
    CompressedSpec,
    DenseSpec,
    ExpertsSpec,
    GroupedQuerySpec,
    LatentSpec,
    MixerSpec,
    ModelFile,
    RecurrentSpec,
)
from ..specs.model_load import load_model


def file_of(problem: Problem) -> ModelFile:
    """The model file of a job that has a model."""
    return load_model(problem.scenario.model).file  # pyright: ignore


def uneven_heads(file: ModelFile, tp: int) -> list[str]:
    """Reasons why no tool splits the heads of keys and values over ranks of tp: they
    give each rank as many, or each head to as many ranks."""
    return [
        f"layout.tp = {tp}: neither divides model.{path}.kv_heads = {spec.kv_heads:g} nor"
        " is a multiple of them; pin another tp"
        for path, spec in file.mixer_specs.items()
        if isinstance(spec, GroupedQuerySpec)
        and spec.kv_heads % tp
        and tp % spec.kv_heads
    ]


def is_mamba(spec: MixerSpec) -> bool:
    """Mamba-2: a convolution, and a state that no delta rule corrects."""
    if not isinstance(spec, RecurrentSpec) or spec.delta or spec.scanned:
        return False
    return spec.key_dim > 0.0 and spec.kernel > 1.0


def is_uneven(file: ModelFile) -> bool:
    """Whether layers of one sort differ in heads or widths, or some lack a half."""
    specs = file.mixer_specs.values()
    grouped = [m for m in specs if isinstance(m, GroupedQuerySpec)]
    networks = [f for f in file.half_specs.values() if isinstance(f, DenseSpec)]
    return (
        len({(m.heads, m.kv_heads, m.head_dim) for m in grouped}) > 1
        or len({f.intermediate for f in networks}) > 1
        or any(not (layer.mixers and layer.feed_forwards) for layer in file.depth)
    )


def untrainable(file: ModelFile, recent: bool) -> list[str]:
    """Keys of the model that Megatron-LM's layers can't express, with the reason.

    Source: the configuration classes of megatron-core 0.12.1 and 0.16.1: the later has
    sparse attention with an indexer, the gated delta net and experts on a latent.

    Args:
        recent: of 0.16.1.
    """
    mistakes = []
    for path, spec in (file.mixer_specs | file.half_specs).items():
        if isinstance(spec, ExpertsSpec):
            reasons = _missing_of_experts(spec, recent)
        elif isinstance(spec, GroupedQuerySpec):
            reasons = _missing_of_heads(spec)
        elif isinstance(spec, LatentSpec):
            reasons = _missing_of_latents(spec, recent)
        elif isinstance(spec, RecurrentSpec):
            reasons = _missing_of_states(spec, recent)
        else:
            compressed = isinstance(spec, CompressedSpec)
            reasons = iter([("kind", "compressed attention")] if compressed else [])
        mistakes += [
            f"model.{f'{path}.{key}'.lstrip('.')}: it has no {what}"
            for key, what in reasons
        ]
    if not recent and len(bounds := _windows(file)) > 1 and any(bounds.values()):
        path = next(path for path, window in bounds.items() if window)
        mistakes.append(f"model.{path}.window: it has no windows on some layers only")
    return mistakes


def _windows(file: ModelFile) -> dict[str, float | None]:
    """Windows by mixer, where those differ."""
    grouped = {
        path: spec.window
        for path, spec in file.mixer_specs.items()
        if isinstance(spec, GroupedQuerySpec)
    }
    return grouped if len({*grouped.values()}) > 1 else {}


def _missing_of_experts(spec: ExpertsSpec, recent: bool) -> Iterator[tuple[str, str]]:
    if spec.zero:
        yield "zero", "experts that compute nothing"
    if spec.latent and not recent:
        yield "latent", "experts on a latent"


def _missing_of_heads(spec: GroupedQuerySpec) -> Iterator[tuple[str, str]]:
    if spec.chunk is not None:
        yield "chunk", "attention within chunks"
    if spec.value_dim not in (None, spec.head_dim):
        yield "value_dim", "values of another width than keys"
    if not spec.projects_values:
        yield "projects_values", "values that are the keys"
    if not spec.own_cache:
        yield "own_cache", "layers that use another layer's keys and values"


def _missing_of_latents(spec: LatentSpec, recent: bool) -> Iterator[tuple[str, str]]:
    if spec.indexer is None:
        return
    if not recent:
        yield "indexer", "sparse attention"
    elif spec.indexer.heads is None:
        yield "indexer", "layers that use what another layer's indexer chose"


def _missing_of_states(spec: RecurrentSpec, recent: bool) -> Iterator[tuple[str, str]]:
    if is_mamba(spec):
        return
    if spec.scanned or not spec.key_dim:
        yield "kind", "Mamba-1" if spec.scanned else "convolutions without a state"
    elif not spec.delta:
        yield "kind", "linear attention without a delta rule"
    elif spec.inner:
        yield "inner", "decays of low rank"
    elif not recent:
        yield "delta", "gated delta net"
