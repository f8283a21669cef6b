"""Vision towers of multi-modal `config.json` files, by family.

To add a family, add one entry to `TOWERS`, and a projector where it has one of its own.
A tower that isn't understood is no mistake of the file, whose language model can still be
used: the model keeps the reason, and a job that asks for images is refused with it.
How large an image may be stands in no `config.json`; the limits here are those of the
families' image processors (release 5.24 of the transformers library).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from .config import Config

Keys = dict[str, object]

LAYERS = ("depth", "num_hidden_layers", "vt_num_hidden_layers")
HEADS = ("num_heads", "num_attention_heads", "vt_num_attention_heads")
WIDTH = ("intermediate_size", "vt_intermediate_size")
HIDDEN = ("hidden_size", "vt_hidden_size")


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
        out = _number(c, ("out_hidden_size", "hidden_size"))
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
    first, second = (_number(c, (f"projector_{end}_dim",)) for end in ("input", "output"))
    matrices = [[s.merged, first], [first, second]]
    return Projector([*matrices, [_number(c, ("vision_output_dim",)), s.text]], 0.0)


def _gemma(c: Config, s: Sizes) -> Projector:
    return Projector([[s.hidden, s.text]], s.hidden)


def _kimi(c: Config, s: Sizes) -> Projector:
    return _mlp(s, s.text, 2.0 * s.hidden)


def _glm(c: Config, s: Sizes) -> Projector:
    """A convolution, a matrix, and a gated network."""
    out, width = (_number(c, (k,)) for k in ("out_hidden_size", "intermediate_size"))
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
        ignored=("vision_use_head",),
    ),
    "kimi_vl": _KIMI,
    "kimi_k25": replace(_KIMI, most_patches=16384.0),
    "glm4v": _GLM,
    "glm4v_moe": _GLM,
}
"""By `model_type` of the file around the language model."""


class Read(NamedTuple):
    """A tower as it was read."""

    keys: Keys | None
    """Of `[vision]`; None where there is no tower or it wasn't understood."""
    problem: str = ""
    """Why it wasn't."""


def vision_of(around: Keys, where: str, text_hidden: float) -> Read:
    """The vision tower of a multi-modal file.

    Args:
        around: the file around the language model.
        text_hidden: width of the language model.
    """
    raw = around.get("vision_config")
    if not isinstance(raw, dict) or not raw:
        return Read(None)
    kind = str(around.get("model_type") or "")
    tower = TOWERS.get(kind)
    if tower is None:
        return Read(None, f"{where}: vision_config: towers of {kind!r} aren't known")
    flat = {key: value for key, value in around.items() if key in _AROUND}
    c = Config(flat | raw, f"{where}: vision_config", dict(tower.defaults))
    keys = _keys(c, tower, text_hidden)
    c.read.update((*_SILENT, *tower.ignored))
    if not c.mistakes:
        c.leftover()
    return Read(None, "; ".join(c.mistakes)) if c.mistakes else Read(keys)


_AROUND = (
    *("downsample_ratio", "mm_tokens_per_image", "max_dynamic_patch"),
    *("use_thumbnail", "force_image_size"),
)
"""Keys of the file around that its tower needs."""

_SILENT = (
    *("model_type", "merge_type", "video_attn_type", "window_size", "mm_hidden_size"),
    *("text_hidden_size", "layer_norm_eps", "layer_scale_init_value", "attn_type"),
    *("vision_feature_layer", "use_mean_pooling", "drop_path_rate", "hidden_size"),
)


def _number(c: Config, keys: tuple[str, ...], default: float | None = None) -> float:
    """The first of several keys that the file or the family has; 1 at least, so that
    what is missing is said once."""
    for source in (c.raw, c.defaults):
        for key in keys:
            if source.get(key) is not None:
                return c.count(key)
    return c.number(keys[0], default)


def _keys(c: Config, tower: Tower, text_hidden: float) -> Keys:
    """Keys of `[vision]`."""
    hidden, patch = _number(c, tower.hidden), _number(c, ("patch_size",))
    image = 0.0
    if tower.square or "grid" in tower.positions:
        image = _number(c, ("force_image_size", "image_size"))
    merge = _merge(c, tower, image / patch)
    projector = tower.projector(c, Sizes(hidden, merge**2 * hidden, text_hidden))
    layers, grid = _number(c, LAYERS), (image // patch) ** 2 + tower.class_tokens
    positions = [grid if key == "grid" else _number(c, (key,)) for key in tower.positions]
    outer = tower.outer_vectors + tower.class_tokens
    outer += math.prod(positions) if positions else 0.0
    normed = c.flag("qk_normalization") or c.flag("use_qk_norm")
    keys: Keys = {
        "layers": layers,
        "hidden": hidden,
        "heads": _number(c, HEADS),
        "intermediate": _width(c, tower, hidden),
        "gated": tower.gated,
        "biased": _biased(c, tower),
        "output_biased": tower.output_bias,
        "network_biased": tower.network_bias,
        "norm_vectors": 1.0 if c.value("norm_type") == "rms_norm" else tower.norm,
        "vectors": (tower.layer_vectors + 2.0 * normed) * hidden,
        "patch": patch,
        "frames": _number(c, tower.frames) if tower.frames else 1.0,
        "merge": merge,
        "class_tokens": tower.class_tokens,
        "projections": projector.matrices,
        "embeddings": projector.embeddings,
        "extra": outer * hidden + projector.extra,
    }
    return keys | _windows(c, patch, layers) | _sizing(c, tower, patch, image)


def _biased(c: Config, tower: Tower) -> bool:
    if isinstance(tower.bias, bool):
        return tower.bias
    return c.flag(next((key for key in tower.bias.split() if c.has(key)), False))


def _width(c: Config, tower: Tower, hidden: float) -> float:
    """Of the network: given, or a multiple of the tower's."""
    if c.has("mlp_ratio"):
        return float(c.value("mlp_ratio")) * hidden
    return _number(c, tower.width)


def _merge(c: Config, tower: Tower, grid: float) -> float:
    """Patches along the side of a token.

    Args:
        grid: patches along the side of an image of a given size.
    """
    for key in tower.shrinks:
        return float(round(1.0 / float(c.value(key))))
    if c.has("mm_tokens_per_image"):
        return grid / math.sqrt(_number(c, ("mm_tokens_per_image",)))
    return _number(c, tower.merge)


def _windows(c: Config, patch: float, layers: float) -> Keys:
    """Layers that see windows of so many pixels, but for some that see all."""
    full = c.listed("fullatt_block_indexes")
    if full is None:
        return {}
    side = _number(c, ("window_size",)) // patch
    return {"window": side**2, "full_layers": float(len([i for i in full if i < layers]))}


def _sizing(c: Config, tower: Tower, patch: float, image: float) -> Keys:
    """How images are brought to patches."""
    if not tower.square:
        most = (
            {"most_pixels": tower.most_patches * patch**2} if tower.most_patches else {}
        )
        return tower.sizing | most
    tiles = _number(c, ("max_dynamic_patch",), tower.tiles)
    thumbnail = c.flag("use_thumbnail", True)
    keys: Keys = {"square": image, "tiles": tiles, "thumbnail": thumbnail}
    return tower.sizing | keys
