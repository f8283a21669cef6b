"""Recurrent mixers as `config.json` files describe them, as keys of a model file."""

import math
from collections.abc import Callable

from .config import SPELLINGS, Config, Table
from .halves import Family, norm_keys


def _gated_delta(c: Config) -> Table:
    """Gated delta net (Qwen3-Next): queries and keys of some heads, values of more."""
    key_heads, heads = c.count("linear_num_key_heads"), c.count("linear_num_value_heads")
    key_dim, value_dim = c.count("linear_key_head_dim"), c.count("linear_value_head_dim")
    kernel = c.count("linear_conv_kernel_dim")
    keys, values = key_heads * key_dim, heads * value_dim
    channels = 2.0 * keys + values
    return {
        "heads": heads,
        "key_dim": key_dim,
        "value_dim": value_dim,
        "columns": channels + values + 2.0 * heads,
        "channels": channels,
        "kernel": kernel,
        "delta": True,
        "chunk": 64.0,
        "vectors": channels * kernel + 2.0 * heads + value_dim,
    }


def _mamba2(c: Config) -> Table:
    """Mamba-2 (Dao and Gu, arXiv 2405.21060): states of heads, shared keys of groups."""
    heads = c.number("state_heads", 0.0) or c.count("num_heads")
    width = c.number("state_head_dim", 0.0) or c.count("head_dim")
    size, groups = c.count("state_size"), c.count("state_groups")
    kernel, inner = c.count("state_kernel"), c.count("mamba_d_ssm", heads * width)
    c.value("mamba_expand", "expand", "mamba_dt_rank", "time_step_rank")
    normed = c.flag("mamba_rms_norm", True)
    c.value("mamba_norm_before_gate")
    channels = inner + 2.0 * groups * size
    columns = inner + channels + heads
    bias = c.flag("mamba_conv_bias", True) and c.flag("use_conv_bias", True)
    more = 0.0
    biased = "mamba_proj_bias" if "mamba_proj_bias" in c.raw else "use_bias"
    if c.flag(biased):
        more = columns + c.number("hidden")
    return {
        "heads": heads,
        "key_dim": size,
        "value_dim": inner / heads,
        "columns": columns,
        "channels": channels,
        "kernel": kernel,
        "chunk": c.count("state_chunk", 128.0),
        "vectors": channels * (kernel + bias) + 3.0 * heads + normed * inner + more,
    }


def _mamba1(c: Config) -> Table:
    """Mamba (Gu and Dao, arXiv 2312.00752): each channel has states of its own."""
    hidden, size = c.number("hidden"), c.count("state_size")
    width = c.count("state_expand", 2.0) * hidden
    auto = c.value(*SPELLINGS["state_rank"]) in (None, "auto")
    rank = float(math.ceil(hidden / 16.0)) if auto else c.count("state_rank")
    kernel = c.count("state_kernel")
    bias = c.flag("mamba_conv_bias", True) and c.flag("use_conv_bias", True)
    low = rank + 2.0 * size
    # convolution, step with its bias, decay, skip, norms of what the low ranks give
    vectors = width * (kernel + bias) + 2.0 * width + width * size
    more = low if c.raw.get("model_type") == "jamba" else 0.0
    biased = "mamba_proj_bias" if "mamba_proj_bias" in c.raw else "use_bias"
    more += (2.0 * width + hidden) * c.flag(biased)
    return {
        "heads": width,
        "key_dim": size,
        "value_dim": 1.0,
        "columns": 2.0 * width,
        "inner": width * (low + rank),
        "inner_depth": width,
        "channels": width,
        "kernel": kernel,
        "scanned": True,
        "vectors": vectors + more,
    }


def _convolution(c: Config) -> Table:
    """Short convolution between two gates (LFM2)."""
    hidden, kernel = c.number("hidden"), c.count("conv_L_cache")
    bias = c.flag("conv_bias")
    return {
        "heads": hidden,
        "key_dim": 0.0,
        "value_dim": 1.0,
        "columns": 3.0 * hidden,
        "channels": hidden,
        "kernel": kernel,
        "vectors": hidden * kernel + bias * (3.0 + 1.0 + 1.0) * hidden,
    }


def _lightning(c: Config) -> Table:
    """Lightning attention (MiniMax-01, arXiv 2501.08313): gated, with a norm."""
    heads = c.count("heads")
    width = c.number("head_dim", 0.0) or c.number("hidden") / heads
    return {
        "heads": heads,
        "key_dim": width,
        "value_dim": width,
        "columns": 4.0 * heads * width,
        "chunk": c.count("block_size", 256.0),
        "vectors": heads * width,
    }


def _kimi_delta(c: Config) -> Table:
    """Kimi delta attention (arXiv 2510.26692): decay and gate by low ranks."""
    keys = ("linear_num_heads", "linear_head_dim", "linear_conv_kernel_dim")
    if c.has("linear_num_heads"):  # as newer files say it
        c.value("linear_attn_config")
        heads, width, kernel = (c.count(key) for key in keys)
    else:
        inner = c.table("linear_attn_config")
        heads, width = inner.count("num_heads"), inner.count("head_dim")
        kernel = inner.count("short_conv_kernel_size", 4.0)
    whole = heads * width
    return {
        "heads": heads,
        "key_dim": width,
        "value_dim": width,
        "columns": 3.0 * whole + 2.0 * width + heads,
        "inner": 2.0 * width * whole,
        "inner_depth": width,
        "channels": 3.0 * whole,
        "kernel": kernel,
        "delta": True,
        "chunk": 64.0,
        "vectors": 3.0 * whole * kernel + whole + heads + width,
    }


SORTS: dict[str, Callable[[Config], Table]] = {
    "gated delta": _gated_delta,
    "mamba": _mamba1,
    "mamba-2": _mamba2,
    "convolution": _convolution,
    "lightning": _lightning,
    "kimi delta": _kimi_delta,
}


def recurrent(c: Config, family: Family) -> Table:
    """The mixer of layers without attention."""
    return {"kind": "recurrent", **norm_keys(family, 0), **SORTS[family.linear](c)}
