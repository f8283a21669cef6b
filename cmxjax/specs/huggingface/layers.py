"""Which layer of a `config.json` is what: lists, patterns, intervals and counts."""

from ...model.architecture import MOST_LAYERS
from .blocks import Names, layer_of
from .compressed import sorts_of
from .config import SPELLINGS, Config, Json
from .halves import Family
from .sharing import SHARED, of_single_layers, sharing_caches, sharing_indexers

SORTS = {
    "full_attention": "full",
    "attention": "full",
    "sliding_attention": "window",
    "sliding_window": "window",
    "chunked_attention": "chunk",
    "linear_attention": "linear",
    "mamba": "linear",
    "conv": "linear",
    "indexed_attention": "full",
    "recurrent": "linear",
    "global": "full",
    "local": "window",
}
"""Entries of `layer_types` and its like."""

LETTERS = {
    "M": ("linear", ""),
    "*": ("full", ""),
    "E": ("", "experts"),
    "-": ("", "dense"),
}
"""Of `hybrid_override_pattern`: a mixer or a feed-forward half alone."""

WORDS = {
    "mamba": "M",
    "linear_attention": "M",
    "attention": "*",
    "full_attention": "*",
    "moe": "E",
    "mlp": "-",
}
"""The same in `layers_block_type`."""


def layers_of(c: Config, family: Family) -> list[Names]:
    """The layers of a model by the names of their halves."""
    pattern = c.value("hybrid_override_pattern") if family.linear else None
    words = c.raw.get("layers_block_type")
    if pattern is None and isinstance(words, list) and {"moe", "mlp"} & {*words}:
        c.read.add("layers_block_type")
        pattern = "".join(WORDS.get(str(word), "?") for word in words)
    if pattern is not None:
        return _lettered(c, str(pattern))
    if family.shortcut:
        c.value("num_hidden_layers")
        return [("full", "dense+experts"), ("full", "dense")] * _depth(c)
    count = _depth(c)
    blocks = c.listed("block_configs", count)
    if blocks is not None:
        return [names for block in blocks if any(names := layer_of(c, block))]
    if family.attention == "compressed":
        mixers = sorts_of(c, count)
    else:
        mixers = _mixers(c, family, count)
        _no_recurrence(c, family, mixers)
    if family.attention == "sparse":
        mixers = sharing_indexers(c, mixers)
    if family.attention == "grouped":
        mixers = sharing_caches(c, mixers)
    mixers = of_single_layers(c, mixers)
    if family.alone:
        return [(mixer, "") for mixer in mixers]
    halves = _halves(c, family, count)
    if c.flag("use_double_wide_mlp"):
        wide = f"width {2.0 * c.count('intermediate'):g}"
        shares = [SHARED in mixer for mixer in mixers]
        halves = [wide if s else half for s, half in zip(shares, halves, strict=True)]
    if family.beside:
        halves = [half.replace("experts", "dense+experts") for half in halves]
    if family.layer_inputs and c.number("hidden_size_per_layer_input", 0.0):
        halves = [f"{half}+inputs" for half in halves]
    return list(zip(mixers, halves, strict=True))


def _depth(c: Config) -> int:
    """How many layers; of more than a model can have one, as lists of them are made."""
    count = c.count("layers")
    if count <= MOST_LAYERS:
        return int(count)
    c.refuse(c.spelled("layers"), f"must be a whole number of at most {MOST_LAYERS}")
    return 1


def _no_recurrence(c: Config, family: Family, mixers: list[str]) -> None:
    """Refuse layers without attention of a family that has none."""
    if "linear" in mixers and not family.linear:
        key = next(key for key in RECURRENT if c.raw.get(key) is not None)
        problem = "layers without attention aren't understood for this family"
        c.refuse(key, f"{problem}; write a TOML model")
        mixers[:] = ["full"] * len(mixers)


RECURRENT = (
    *("full_attention_interval", "attn_layer_period", "attn_layer_indices"),
    *("full_attn_idxs", "attn_type_list", "linear_attn_config"),
)
"""Keys that say which layers have no attention, besides lists of their kinds."""


def _lettered(c: Config, pattern: Json) -> list[Names]:
    count = c.number("layers", float(len(pattern)))
    strange = sorted({letter for letter in pattern if letter not in LETTERS})
    if strange or count != len(pattern):
        problem = f"unknown letters {strange}" if strange else f"is no {count:g} layers"
        c.refuse("hybrid_override_pattern", f"{problem}; use M, *, E and -")
        return [("full", "dense")]
    return [LETTERS[letter] for letter in pattern]


INTERVALS: dict[str, tuple[str, int]] = {
    "full_attention_interval": ("", -1),
    "attn_layer_period": ("attn_layer_offset", 0),
    "decoder_sparse_step": ("", -1),
    "interleave_moe_layer_step": ("", -1),
    "expert_layer_period": ("expert_layer_offset", 0),
    "moe_layer_interval": ("", -1),
    "moe_layer_freq": ("", 0),
}
"""Keys that mean one layer of so many: which of them, by another key or else counted
from 0, the last one as -1."""

EXPERTS_EVERY = [*INTERVALS][2:]
"""Those of layers with experts; the others are of layers that see all tokens."""


def _every(c: Config, key: str, count: int) -> list[bool] | None:
    """The layers that an interval means, or that a list in its place says one by one;
    None where the file says nothing."""
    if isinstance(c.value(key), list):
        return [bool(chosen) for chosen in c.listed(key, count) or [True] * count]
    step = int(c.number(key, 0.0))
    if not step:
        return None
    offset, place = INTERVALS[key]
    place = int(c.number(offset, float(place))) if offset else place
    return [i % step == place % step for i in range(count)]


def _mixers(c: Config, family: Family, count: int) -> list[str]:
    for key in ("layer_types", "layers_block_type", "attention_layers"):
        listed = c.listed(key, count)
        if listed:
            return _typed(c, family, listed)
    for key in ("full_attention_interval", "attn_layer_period"):
        sees_all = _every(c, key, count)
        if sees_all is not None:
            return ["full" if full else "linear" for full in sees_all]
    for key in ("attn_layer_indices", "full_attn_idxs"):
        if c.has(key):
            return ["full" if full else "linear" for full in c.chosen(key, count)]
    if c.has("attn_type_list"):
        full = c.listed("attn_type_list", count) or [1] * count
        return ["full" if kind else "linear" for kind in full]
    if c.has("hybrid_layer_pattern"):
        slides = c.listed("hybrid_layer_pattern", count) or [0] * count
        if any(slide not in (0, 1) for slide in slides):
            c.refuse("hybrid_layer_pattern", "use 1 for layers with a window, else 0")
        _window_keys(c)
        return ["window" if slide else "full" for slide in slides]
    if c.has("linear_attn_config"):
        inner = c.table("linear_attn_config")  # counts layers from 1
        full = inner.listed("full_attn_layers") or []
        if any(isinstance(i, bool) or i not in range(1, count + 1) for i in full):
            inner.refuse("full_attn_layers", f"must be places from 1 to {count}")
        return ["full" if i + 1 in full else "linear" for i in range(count)]
    if family.every == "full":
        return _windows(c, family, count)
    return [family.every] * count


def _typed(c: Config, family: Family, listed: list[Json]) -> list[str]:
    sorts = []
    for kind in listed:
        sort = SORTS.get(kind if isinstance(kind, str) else "")
        if sort is None or (sort == "linear" and not family.linear):
            problem = (
                f"entry {kind!r}: not understood for this family; write a TOML model"
            )
            c.refuse("layer_types", problem)
            return ["full"] * len(listed)
        sorts.append(sort)
    _window_keys(c)
    if "window" in sorts and not c.number("window", 0.0):
        c.refuse("sliding_window", "layers slide over a window; say how long it is")
        return ["full"] * len(sorts)
    return sorts


def _window_keys(c: Config) -> None:
    """Keys that say which layers slide, where a list says so already."""
    c.value("sliding_window", "sliding_window_size", "sliding_window_pattern")
    c.value("use_sliding_window", "max_window_layers", "layer_types")
    c.value("full_attention_interval", "no_rope_layers", "no_rope_layer_interval")
    c.value("_sliding_window_pattern", "global_attn_every_n_layers", "full_attn_idxs")
    c.read.update(SPELLINGS["window"])


SLIDES = {"L": "window", "G": "full"}
PATTERN = "global_attn_every_n_layers"


def _windows(c: Config, family: Family, count: int) -> list[str]:
    """Which layers slide over a window or attend within chunks."""
    if c.has("attention_chunk_size"):
        every = c.listed("no_rope_layers", count) or [(i + 1) % 4 for i in range(count)]
        step = int(c.number("no_rope_layer_interval", 0.0))
        if step:
            every = [(i + 1) % step for i in range(count)]
        return ["chunk" if rotary else "full" for rotary in every]
    c.value("no_rope_layers", "no_rope_layer_interval")
    patterns = ("sliding_window_pattern", "_sliding_window_pattern")
    pattern = c.value(*patterns, PATTERN)
    window, first = c.has("sliding_window"), int(c.number("max_window_layers", 0.0))
    c.value("sliding_window_size")
    if not window or not c.flag("use_sliding_window", True):
        c.read.add("use_sliding_window")
        return ["full"] * count
    if isinstance(pattern, str) and pattern and not {*pattern} - {*SLIDES}:
        return [SLIDES[pattern[i % len(pattern)]] for i in range(count)]
    if pattern is not None and (not isinstance(pattern, int) or pattern < 1):
        key = next(key for key in (*patterns, PATTERN) if c.raw.get(key) is not None)
        c.refuse(key, "must be a whole number of layers, or letters L and G")
        return ["full"] * count
    step = pattern or family.pattern
    if step:
        return ["window" if (i + 1) % step else "full" for i in range(count)]
    if "use_sliding_window" in c.raw:
        return ["window" if i >= first else "full" for i in range(count)]
    return ["window"] * count


FEED_FORWARDS = ("dense", "sparse", "moe", "hash_moe")
"""Entries of `mlp_layer_types`: a network, or experts, also by a table of tokens."""


def _halves(c: Config, family: Family, count: int) -> list[str]:
    """Which layers have experts: all but those that a key makes dense."""
    mixes = not family.beside or c.flag("enable_moe_block")
    if not c.number("routed", 0.0) or not mixes:
        return ["dense"] * count
    listed = c.listed("mlp_layer_types", count)
    if listed is not None:
        c.value("first_k_dense_replace", "mlp_only_layers", "decoder_sparse_step")
        if any(kind not in FEED_FORWARDS for kind in listed):
            c.refuse("mlp_layer_types", f"use one of {', '.join(FEED_FORWARDS)}")
        return ["dense" if kind == "dense" else "experts" for kind in listed]
    mixed = [True] * count
    first = int(c.number("dense_first", family.dense_first))
    start = int(c.number("moe_layer_start_index", 0.0))
    end = int(c.number("moe_layer_end_index", count - 1.0))
    for i in range(count):
        mixed[i] = max(first, start) <= i <= end
    if c.has("moe_layers"):
        mixed = c.chosen("moe_layers", count)
        c.value("interleave_moe_layer_step")
    for key in EXPERTS_EVERY:
        chosen = _every(c, key, count) or mixed
        mixed = [m and bool(x) for m, x in zip(mixed, chosen, strict=True)]
    dense = c.chosen("mlp_only_layers", count)
    each = zip(mixed, dense, strict=True)
    return ["experts" if m and not d else "dense" for m, d in each]
