"""The vision tower of a multi-modal `config.json`.

A tower that isn't understood is no mistake of the file, whose language model can still be
used: the model keeps the reason, and a job that asks for images is refused with it.
"""

import math
from typing import NamedTuple

from pydantic import ValidationError

from ..errors import explain
from ..vision_file import VisionSpec
from .config import Config
from .towers import TOWERS, Keys, Sizes, Tower, count_of

LAYERS = ("depth", "num_hidden_layers", "vt_num_hidden_layers")
HEADS = ("num_heads", "num_attention_heads", "vt_num_attention_heads")


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
    keys: Keys = {}
    try:
        keys = _keys(c, tower, text_hidden)
        VisionSpec.model_validate(keys)
    except ValidationError as error:
        c.mistakes += explain(error, c.where, VisionSpec)
    except (TypeError, ValueError, ArithmeticError):
        c.mistakes.append(f"{c.where}: a value is of another kind than it should be")
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


def _keys(c: Config, tower: Tower, text_hidden: float) -> Keys:
    """Keys of `[vision]`."""
    hidden, patch = count_of(c, tower.hidden), count_of(c, ("patch_size",))
    image = 0.0
    if tower.square or "grid" in tower.positions:
        image = count_of(c, ("force_image_size", "image_size"))
    merge = _merge(c, tower, image / patch)
    projector = tower.projector(c, Sizes(hidden, merge**2 * hidden, text_hidden))
    layers, grid = count_of(c, LAYERS), (image // patch) ** 2 + tower.class_tokens
    positions = [
        grid if key == "grid" else count_of(c, (key,)) for key in tower.positions
    ]
    outer = tower.outer_vectors + tower.class_tokens
    outer += math.prod(positions) if positions else 0.0
    normed = c.flag("qk_normalization") or c.flag("use_qk_norm")
    keys: Keys = {
        "layers": layers,
        "hidden": hidden,
        "heads": count_of(c, HEADS),
        "intermediate": _width(c, tower, hidden),
        "gated": tower.gated,
        "biased": _biased(c, tower),
        "output_biased": tower.output_bias,
        "network_biased": tower.network_bias,
        "norm_vectors": 1.0 if c.value("norm_type") == "rms_norm" else tower.norm,
        "vectors": (tower.layer_vectors + 2.0 * normed) * hidden,
        "patch": patch,
        "frames": count_of(c, tower.frames) if tower.frames else 1.0,
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
    return count_of(c, tower.width)


def _merge(c: Config, tower: Tower, grid: float) -> float:
    """Patches along the side of a token.

    Args:
        grid: patches along the side of an image of a given size.
    """
    for key in tower.shrinks:
        return float(round(1.0 / float(c.value(key))))
    if c.has("mm_tokens_per_image"):
        return grid / math.sqrt(count_of(c, ("mm_tokens_per_image",)))
    return count_of(c, tower.merge)


def _windows(c: Config, patch: float, layers: float) -> Keys:
    """Layers that see windows of so many pixels, but for some that see all."""
    full = c.listed("fullatt_block_indexes")
    if full is None:
        return {}
    side = count_of(c, ("window_size",)) // patch
    return {"window": side**2, "full_layers": float(len([i for i in full if i < layers]))}


def _sizing(c: Config, tower: Tower, patch: float, image: float) -> Keys:
    """How images are brought to patches."""
    if not tower.square:
        most = (
            {"most_pixels": tower.most_patches * patch**2} if tower.most_patches else {}
        )
        return tower.sizing | most
    tiles = count_of(c, ("max_dynamic_patch",), tower.tiles)
    thumbnail = c.flag("use_thumbnail", True)
    keys: Keys = {"square": image, "tiles": tiles, "thumbnail": thumbnail}
    return tower.sizing | keys
