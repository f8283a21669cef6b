"""A model as it was understood: its layers by kind, with what they weigh and keep."""

from typing import TypedDict

from rich.table import Table

from ..model.architecture import (
    Architecture,
    active_parameters,
    known_of,
    norm_parameters,
    total_parameters,
)
from ..model.grouped_query import GroupedQuery
from ..model.mixers import Mixer
from ..specs.model_file import (
    CompressedSpec,
    DenseSpec,
    ExpertsSpec,
    GroupedQuerySpec,
    LatentSpec,
    Layer,
    MixerSpec,
    ModelFile,
)
from ..specs.model_load import architecture_of, checkpoint_bytes, read_model_file
from .tables import make_table

BF16 = 2.0


def _mixer(spec: MixerSpec) -> str:
    if isinstance(spec, GroupedQuerySpec):
        sort = "attention" if spec.kv_heads < spec.heads else "multi-head attention"
        bound = "" if spec.window is None else f", window {spec.window:g}"
        bound += "" if spec.chunk is None else f", chunks of {spec.chunk:g}"
        shared = "" if spec.own_cache else ", another layer's cache"
        heads = f"{spec.heads:g}/{spec.kv_heads:g} heads of {spec.head_dim:g}"
        heads += "" if spec.value_dim is None else f", values of {spec.value_dim:g}"
        return f"{sort} {heads}{bound}{shared}"
    if isinstance(spec, LatentSpec):
        sparse = "" if spec.indexer is None else f", top {spec.indexer.topk:g} tokens"
        latent = f"{spec.latent_dim:g}+{spec.rope_dim:g}"
        return f"latent attention {spec.heads:g} heads, latent {latent}{sparse}"
    if isinstance(spec, CompressedSpec):
        blocks = "" if spec.ratio is None else f", blocks of {spec.ratio:g}"
        chosen = "" if spec.indexer is None else f", top {spec.indexer.topk:g} of them"
        heads = f"{spec.heads:g} heads of {spec.head_dim:g}"
        return f"compressed attention {heads}, window {spec.window:g}{blocks}{chosen}"
    if not spec.key_dim:
        return f"convolution over {spec.kernel:g} tokens"
    state = f"{spec.heads:g} states of {spec.key_dim:g}x{spec.value_dim:g}"
    return f"recurrence {state}{', delta rule' if spec.delta else ''}"


def _half(spec: DenseSpec | ExpertsSpec) -> str:
    if isinstance(spec, DenseSpec):
        return f"{'gated' if spec.gated else 'plain'} network {spec.intermediate:g}"
    shared = f" + {spec.shared:g} shared" if spec.shared else ""
    latent = f" on a latent of {spec.latent:g}" if spec.latent else ""
    zero = f" and {spec.zero:g} that compute nothing" if spec.zero else ""
    return (
        f"{spec.topk:g} of {spec.routed:g}{shared} experts {spec.intermediate:g}{latent}"
        f"{zero}"
    )


def _places(layers: list[Layer], kind: Layer) -> str:
    """Which layers are of a kind, in runs: 0-2, 4."""
    spans: list[list[int]] = []
    for i, layer in enumerate(layers):
        if layer == kind:
            if spans and spans[-1][1] == i - 1:
                spans[-1][1] = i
            else:
                spans.append([i, i])
    runs = [str(a) if a == b else f"{a}-{b}" for a, b in spans]
    return ", ".join(runs if len(runs) <= 6 else [*runs[:5], "...", runs[-1]])


class _Kind(TypedDict):
    layers: str
    count: int
    halves: list[str]
    parameters: float
    cache_bytes_per_token: float
    state_bytes: float


def _kinds(a: Architecture, file: ModelFile) -> list[_Kind]:
    layers, known, norms = file.depth, known_of(a).halves, norm_parameters(a)
    mixers, halves = [*file.mixer_specs], [*file.half_specs]
    rows: list[_Kind] = []
    for kind in dict.fromkeys(layers):
        mixed = [mixers.index(name) for name in kind.mixers]
        others = [halves.index(name) for name in kind.feed_forwards]
        weights = sum(float(known.mixers[i] + norms.mixers[i]) for i in mixed)
        weights += sum(float(known.feed_forwards[i]) for i in others)
        weights += sum(float(norms.feed_forwards[i]) for i in others)
        texts = [_mixer(file.mixer_specs[name]) for name in kind.mixers]
        texts += [_half(file.half_specs[name]) for name in kind.feed_forwards]
        grows = [a.mixers[i] for i in mixed if a.mixers[i].caches]
        rows.append(
            {
                "layers": _places(layers, kind),
                "count": layers.count(kind),
                "halves": texts,
                "parameters": weights,
                "cache_bytes_per_token": sum(float(m.grown) for m in grows) * BF16,
                "state_bytes": sum(float(a.mixers[i].state) for i in mixed) * BF16,
            }
        )
    return rows


def _tower(a: Architecture, file: ModelFile) -> _Kind:
    """The vision tower as data: a row beside those of layers."""
    spec, v = file.vision, a.vision
    assert spec is not None
    assert v is not None
    some = f", {spec.layers - (spec.full_layers or 0.0):g} layers with windows of"
    windows = "" if spec.window is None else f"{some} {spec.window:g}"
    size = f"patches of {spec.patch:g}, {spec.merge:g}x{spec.merge:g} a token"
    halves = [
        f"multi-head attention {spec.heads:g} heads{windows}",
        f"{'gated' if spec.gated else 'plain'} network {spec.intermediate:g}",
        f"projector of {len(spec.projections)} matrices ({size})",
    ]
    return {
        "layers": "vision tower",
        "count": int(spec.layers),
        "halves": halves,
        "parameters": float(v.parameters),
        "cache_bytes_per_token": 0.0,
        "state_bytes": 0.0,
    }


def understood(file: ModelFile) -> tuple[list[str], dict[str, object]]:
    """A model's layers with their sums in lines, and the same as data; caches and states
    in 16 bits."""
    a = architecture_of(file)
    rows = _kinds(a, file)
    if a.vision is not None:
        rows.append(_tower(a, file))
    total, active = float(total_parameters(a)), float(active_parameters(a))
    stored = checkpoint_bytes(a, file)
    lines = []
    for row in rows:
        kept = [f"{row['parameters']:.5g} parameters"]
        if cache := row["cache_bytes_per_token"]:
            kept.append(f"{cache:g} B of cache a token")
        if state := row["state_bytes"]:
            kept.append(f"{state:g} B of state")
        what = f"{row['count']} x {' + '.join(row['halves'])}"
        lines.append(f"layers {row['layers']}: {what}: {', '.join(kept)}")
    lines.append(
        f"{total:,.0f} parameters, {active:,.0f} active; checkpoint {stored / 1e9:.4g} GB"
        f"{_formats(file)}{_tower_note(a, file)}"
    )
    data: dict[str, object] = {
        "layers": rows,
        "parameters": total,
        "active_parameters": active,
        "vision_parameters": 0.0 if a.vision is None else float(a.vision.parameters),
        "vision_unread": file.vision_unread,
        "checkpoint_bytes": stored,
        "weights": {str(key): value for key, value in file.weights.items()},
    }
    return lines, data


def _tower_note(a: Architecture, file: ModelFile) -> str:
    """What a caption says of the vision tower."""
    if a.vision is not None:
        each = "the row of the tower is for all its layers"
        more = f"{float(a.vision.parameters):,.0f} more of the vision tower"
        return f"; {more}, which jobs without images don't load ({each})"
    if file.vision_unread:
        return f"; without its vision tower, so no images: {file.vision_unread}"
    return ""


def _formats(file: ModelFile) -> str:
    """Bytes of a weight by module, where they differ from 16 bits."""
    said = [f"{module} {size:.4g}" for module, size in file.weights.items()]
    return f" (bytes a weight: {', '.join(said)})" if said else ""


def models_table(names: list[str]) -> Table:
    """Shipped models with their parameters, active ones and cache, in 16 bits."""
    columns = ("model", "parameters", "vision", "active", "cache B/token", "layers")
    table = make_table("models", *columns)
    for name in names:
        a = architecture_of(file := read_model_file(name))
        counts = zip(a.half_counts.mixers, a.mixers, strict=True)
        cache = sum(float(n * m.grown) for n, m in counts if grows(m)) * BF16
        sums = float(active_parameters(a)), cache
        tower = "-" if a.vision is None else f"{float(a.vision.parameters):.3g}"
        cells = (f"{x:.4g}" for x in sums)
        total = f"{float(total_parameters(a)):.4g}"
        table.add_row(name, total, tower, *cells, f"{file.layers:g}")
    table.caption = (
        "parameters of the language model, and of its vision tower; cache that grows with"
        " the context: no windows, chunks or states"
    )
    return table


def grows(mixer: Mixer) -> bool:
    """Whether a mixer's cache grows with the context without bound."""
    if isinstance(mixer, GroupedQuery):
        return not float(mixer.windowed.on + mixer.chunked.on)
    return mixer.caches
