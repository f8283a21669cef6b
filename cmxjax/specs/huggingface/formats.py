"""How a `config.json` says that weights are stored: bytes of an element by module."""

import fnmatch
import re
from collections.abc import Callable, Sequence

from .blocks import Names
from .config import Config, Json, Table

MODULES = {
    "attention": "layers.{layer}.self_attn.q_proj",
    "dense": "layers.{layer}.mlp.up_proj",
    "experts": "layers.{layer}.mlp.experts.0.up_proj",
    "shared": "layers.{layer}.mlp.shared_experts.up_proj",
    "head": "lm_head",
}
"""A module of each sort in a layer; lists of what stays as it was name such."""

FULL = 2.0
"""Bytes of what isn't quantized."""

WIDEST = 4.0
"""Bytes of the widest weights that are read: more, or none, is a mistake of the file."""


def _grouped(bits: float, group: float, scale: float, zero: float = 0.0) -> float:
    """Bytes of an element whose groups share a scale, and a zero point."""
    return bits / 8.0 + (scale + zero) / group


def _fp8(q: Table) -> float:
    block = q.get("weight_block_size")
    scale = 1.0 if q.get("scale_fmt") == "ue8m0" else 4.0
    return 1.0 if not block else _grouped(8.0, float(block[0] * block[1]), scale)


def _integer(q: Table) -> float:
    bits, group = float(q.get("bits", 4)), float(q.get("group_size", 128) or 128)
    return bits / 8.0 if group < 0 else _grouped(bits, group, 2.0, bits / 8.0)


def _by_groups(q: Table) -> float:
    """Compressed-tensors and modelopt: one group of settings for all linear layers."""
    groups = q.get("config_groups") or {}
    settings = [g.get("weights") or {} for g in groups.values()]
    weights = settings[0] if settings else {}
    sizes = {(w.get("num_bits"), w.get("group_size")) for w in settings}
    if len(sizes) > 1:
        raise ValueError("modules of several formats")
    bits, group = weights.get("num_bits"), weights.get("group_size")
    if bits is None:
        known = {"NVFP4": _grouped(4.0, 16.0, 1.0), "FP8": 1.0}
        return known[str(q.get("quant_algo", "")).upper()]
    if weights.get("strategy") == "block" and weights.get("block_structure"):
        first, second = weights["block_structure"]
        return _grouped(float(bits), float(first * second), 4.0)
    if not group:
        return float(bits) / 8.0
    return _grouped(float(bits), float(group), 1.0 if weights["type"] == "float" else 2.0)


def _bits_and_bytes(q: Table) -> float:
    if q.get("load_in_4bit"):
        return _grouped(4.0, 64.0, 1.0 if q.get("bnb_4bit_use_double_quant") else 4.0)
    return 1.0


METHODS: dict[str, Callable[[Table], float]] = {
    "fp8": _fp8,
    "fbgemm_fp8": _fp8,
    "awq": _integer,
    "gptq": _integer,
    "compressed-tensors": _by_groups,
    "modelopt": _by_groups,
    "modelopt_fp4": _by_groups,
    "mxfp4": lambda q: _grouped(4.0, 32.0, 1.0),
    "bitsandbytes": _bits_and_bytes,
}
"""Bytes of a quantized weight by method; each with what its format keeps beside it."""


EXPERT_FORMATS = {"fp4": _grouped(4.0, 32.0, 1.0)}
"""Bytes of a weight of routed experts in a format of their own: of DeepSeek-V4, with an
exponent for each 32 (its reference code, `inference/kernel.py`)."""


def weights_of(c: Config, q: Json, layers: Sequence[Names]) -> dict[str, float]:
    """Bytes of an element by module: of layers, some of which may stay as they were, the
    mean. An unknown method is refused.

    Args:
        q: `quantization_config`, of the language model or of the file around it.
        layers: the names of each layer's halves.
    """
    if not isinstance(q, dict):
        return {}
    method = str(q.get("quant_method") or q.get("quant_algo") or "").lower()
    inner = c.of("quantization_config", q)
    try:
        size = METHODS[method](q)
    except (KeyError, TypeError, ValueError, ArithmeticError, IndexError, AttributeError):
        size = 0.0
    if not 0.0 < size <= WIDEST:
        c.mistakes.append(
            f"{inner.where}.quant_method = {method!r}: not understood;"
            " take quantization_config out and set dtypes.weight in the scenario"
        )
        return {}
    kept = [str(x) for key in KEPT for x in inner.listed(key) or []]
    rules = inner.table("dynamic").raw
    kept += [f"re:{rule[2:]}" for rule in rules if rule[:2] == "-:"]
    try:
        stay = {sort: _staying(sort, kept, layers) for sort in MODULES}
    except re.error as error:
        c.mistakes.append(
            f"{inner.where}: a module's name is no regular expression: {error}"
        )
        return {}
    if method in ("awq", "gptq", "bitsandbytes", "fp8"):
        stay["head"] = 1.0
    sizes = {sort: share * FULL + (1.0 - share) * size for sort, share in stay.items()}
    experts = c.value("expert_dtype") or q.get("expert_dtype")
    if experts is not None and str(experts) not in EXPERT_FORMATS:
        c.refuse("expert_dtype", f"use one of {', '.join(EXPERT_FORMATS)}")
    elif experts is not None:
        sizes["experts"] = EXPERT_FORMATS[str(experts)]
    return sizes


HALVES = {"dense": ("dense", "width"), "experts": ("experts",), "shared": ("experts",)}
"""The feed-forward halves that a sort of modules is in."""


def _staying(sort: str, kept: list[str], layers: Sequence[Names]) -> float:
    """The share of a sort's modules that stay as they were."""
    module, halves = MODULES[sort], HALVES.get(sort, ("",))
    inside = [i for i, (_, half) in enumerate(layers) if any(h in half for h in halves)]
    names = dict.fromkeys(module.format(layer=i) for i in inside or [0])
    stay = [any(_names(pattern, name) for pattern in kept) for name in names]
    return sum(stay) / len(stay)


def integers_in(q: Json) -> bool:
    """Whether quantized weights are integers."""
    if not isinstance(q, dict):
        return False
    groups = q.get("config_groups")
    settings = groups.values() if isinstance(groups, dict) else ()
    weights = [g.get("weights") for g in settings if isinstance(g, dict)]
    kinds = [w.get("type") for w in weights if isinstance(w, dict)]
    return q.get("quant_method") in ("awq", "gptq") or "int" in kinds


KEPT = (
    *("modules_to_not_convert", "ignore", "ignored_layers", "exclude_modules"),
    "llm_int8_skip_modules",
)


def _names(pattern: str, module: str) -> bool:
    """Whether an entry means a module, under whatever name its model stands: by its whole
    name, that of what holds it (`self_attn`), or a pattern."""
    if pattern.startswith("re:"):
        return re.match(pattern[3:], f"model.{module}") is not None
    bare = re.sub(r"^(language_model\.)?(model\.)?", "", pattern)
    if "*" in bare:
        return fnmatch.fnmatch(module, bare + ("" if bare.endswith("*") else "*"))
    return f".{bare}." in f".{module}."
