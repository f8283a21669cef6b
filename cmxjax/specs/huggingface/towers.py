"""How the vision tower of each multi-modal family differs from a plain one.

To add a family, add one to `TOWERS`, and a projector where it has one of its own;
`tests/models/towers.json` then holds the count of its parameters to what the
`transformers` library builds. How large an image may be stands in no `config.json`; the
limits here are those of the families' image processors (release 5.24 of that library).
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from .config import Config

Keys = dict[str, object]

WIDTH = ("intermediate_size", "vt_intermediate_size")
HIDDEN = ("hidden_size", "vt_hidden_size")


def count_of(c: Config, keys: tuple[str, ...], default: float | None = None) -> float:
    """The first of several keys that the file or the family has; 1 at least, so that
    what is missing is said once."""
    for source in (c.raw, c.defaults):
        for key in keys:
            if source.get(key) is not None:
                return c.count(key)
    return c.number(keys[0], default)


class Sizes(NamedTuple):
    """What a projector is made of."""

    hidden: float
    merged: float
    """Width of merged patches."""
    text: float
    """Width of the language model."""


class Projector(NamedTuple):
    """Matrices of a projector, and its weights besides."""

    matrices: list[list[float]]
    extra: float
    embeddings: float = 1.0


def _mlp(s: Sizes, out: float, norm: float) -> Projector:
    """A norm and two matrices with biases, the first as wide as merged patches."""
    matrices = [[s.merged, s.merged], [s.merged, out]]
    return Projector(matrices, norm + s.merged + out)


def _qwen(norm: float) -> Callable[[Config, Sizes], Projector]:
    def projector(c: Config, s: Sizes) -> Projector:
        out = count_of(c, ("out_hidden_size", "hidden_size"))
        first = _mlp(s, out, norm * s.hidden)
        deep = len(c.listed("deepstack_visual_indexes") or [])
        more = _mlp(s, out, norm * s.merged)
        matrices = first.matrices + deep * more.matrices
        return Projector(matrices, first.extra + deep * more.extra, 1.0 + deep)

    return projector


def _internvl(c: Config, s: Sizes) -> Projector:
    matrices = [[s.merged, s.text], [s.text, s.text]]
    return Projector(matrices, 2.0 * s.merged + 2.0 * s.text)


def _llama4(c: Config, s: Sizes) -> Projector:
    first, second = (
        count_of(c, (f"projector_{end}_dim",)) for end in ("input", "output")
    )
    matrices = [[s.merged, first], [first, second]]
    return Projector([*matrices, [count_of(c, ("vision_output_dim",)), s.text]], 0.0)


def _gemma(c: Config, s: Sizes) -> Projector:
    return Projector([[s.hidden, s.text]], s.hidden)


def _kimi(c: Config, s: Sizes) -> Projector:
    return _mlp(s, s.text, 2.0 * s.hidden)


def _glm(c: Config, s: Sizes) -> Projector:
    """A convolution, a matrix, and a gated network."""
    out, width = (count_of(c, (k,)) for k in ("out_hidden_size", "intermediate_size"))
    matrices = [[s.merged, out], [out, out], [out, 2.0 * width], [width, out]]
    return Projector(matrices, 3.0 * out)


@dataclass(frozen=True)
class Tower:
    """How a family's tower differs from one with biases and norms of two vectors."""

    projector: Callable[[Config, Sizes], Projector]
    hidden: tuple[str, ...] = HIDDEN
    width: tuple[str, ...] = WIDTH
    norm: float = 2.0
    gated: bool = False
    bias: str | bool = True
    """Of the projections to queries, keys and values, or the keys that may say so."""
    output_bias: bool = True
    network_bias: bool = True
    layer_vectors: float = 0.0
    """Weights of a layer besides, over the tower's width."""
    outer_vectors: float = 1.0
    """Outside layers, over the tower's width: a bias of the patch embedding, norms."""
    positions: tuple[str, ...] = ()
    """Keys whose product is the number of learned positions; `grid` is that of an image
    of `image_size`."""
    class_tokens: float = 0.0
    frames: tuple[str, ...] = ()
    merge: tuple[str, ...] = ("spatial_merge_size",)
    shrinks: tuple[str, ...] = ()
    """Of the file or of the tower: the ratio of sides after merging."""
    square: bool = False
    tiles: float = 1.0
    most_patches: float = 0.0
    """That an image is reduced to, in families whose processors count them."""
    sizing: Keys = field(default_factory=dict)
    """Further keys of `[vision]`."""
    defaults: Keys = field(default_factory=dict)
    """What the family's class has where a file says nothing."""
    ignored: tuple[str, ...] = ()


_FRAMES = ("temporal_patch_size",)
_MERGED: Keys = {"patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2}

_QWEN3 = Tower(
    _qwen(2.0),
    positions=("num_position_embeddings",),
    frames=_FRAMES,
    sizing={"least_pixels": 256.0**2, "most_pixels": 4096.0**2},
    defaults=_MERGED
    | {"patch_size": 16, "num_position_embeddings": 2304, "depth": 27}
    | {"deepstack_visual_indexes": [8, 16, 24]},
)
_QWEN35 = replace(_QWEN3, defaults={**_QWEN3.defaults, "deepstack_visual_indexes": []})
_INTERN = Tower(
    _internvl,
    bias="qkv_bias attention_bias",
    layer_vectors=2.0,
    positions=("grid",),
    class_tokens=1.0,
    shrinks=("downsample_ratio",),
    square=True,
    tiles=12.0,
    ignored=("qk_normalization", "use_qk_norm", "num_channels"),
    defaults={"downsample_ratio": 0.5, "patch_size": 14, "image_size": 448},
)
_KIMI = Tower(
    _kimi,
    outer_vectors=3.0,
    positions=("init_pos_emb_height", "init_pos_emb_width"),
    merge=("merge_kernel_size",),
    defaults={
        "patch_size": 14,
        "merge_kernel_size": 2,
        "num_attention_heads": 16,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "init_pos_emb_height": 64,
        "init_pos_emb_width": 64,
    },
    most_patches=4096.0,
    sizing={"padded": True},
)
_GLM = Tower(
    _glm,
    width=("out_hidden_size",),
    norm=1.0,
    gated=True,
    bias="attention_bias",
    output_bias=False,
    network_bias=False,
    outer_vectors=3.0,
    positions=("grid",),
    frames=_FRAMES,
    sizing={"least_pixels": 112.0**2 / 2.0, "most_pixels": 28.0**2 * 7500.0},
    defaults=_MERGED | {"image_size": 336, "attention_bias": False},
)

TOWERS: dict[str, Tower] = {
    "qwen2_vl": Tower(
        _qwen(2.0),
        hidden=("embed_dim",),
        outer_vectors=0.0,
        frames=_FRAMES,
        sizing={"least_pixels": 56.0**2, "most_pixels": 28.0**2 * 16384.0},
        defaults=_MERGED | {"embed_dim": 1280, "depth": 32, "num_heads": 16},
    ),
    "qwen2_5_vl": Tower(
        _qwen(1.0),
        norm=1.0,
        gated=True,
        outer_vectors=0.0,
        frames=_FRAMES,
        sizing={"least_pixels": 56.0**2, "most_pixels": 28.0**2 * 16384.0},
        defaults=_MERGED | {"num_heads": 16, "depth": 32, "intermediate_size": 3420},
    ),
    "qwen3_vl": _QWEN3,
    "qwen3_vl_moe": _QWEN3,
    "qwen3_5": _QWEN35,
    "qwen3_5_moe": _QWEN35,
    "internvl": _INTERN,
    "internvl_chat": _INTERN,
    "llama4": Tower(
        _llama4,
        outer_vectors=4.0,
        positions=("grid",),
        class_tokens=1.0,
        shrinks=("pixel_shuffle_ratio",),
        square=True,
        tiles=16.0,
        sizing={"tiled_by": "scale"},
        defaults={"pixel_shuffle_ratio": 0.5, "patch_size": 14},
    ),
    "gemma3": Tower(
        _gemma,
        outer_vectors=3.0,
        positions=("grid",),
        merge=(),
        square=True,
        defaults={"mm_tokens_per_image": 256},
        ignored=("vision_use_head",),
    ),
    "kimi_vl": _KIMI,
    "kimi_k25": replace(_KIMI, most_patches=16384.0),
    "glm4v": _GLM,
    "glm4v_moe": _GLM,
}
"""By `model_type` of the file around the language model."""
