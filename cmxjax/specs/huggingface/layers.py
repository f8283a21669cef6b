"""Which layer of a `config.json` is what: lists, patterns, intervals and counts."""

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

Names = tuple[str, str]
"""Mixer and feed-forward half of a layer; empty where it has none, and several of a sort
joined by `+`."""


def layers_of(c: Config, family: Family) -> list[Names]:
    """The layers of a model by the names of their halves."""
    pattern = c.value("hybrid_override_pattern")
    words = c.raw.get("layers_block_type")
    if pattern is None and isinstance(words, list) and {"moe", "mlp"} & {*words}:
        c.read.add("layers_block_type")
        pattern = "".join(WORDS.get(str(word), "?") for word in words)
    if pattern is not None:
        return _lettered(c, str(pattern))
    if family.shortcut:
        c.value("num_hidden_layers")
        return [("full", "dense+experts"), ("full", "dense")] * int(c.count("num_layers"))
    count = int(c.count("layers"))
    blocks = c.listed("block_configs", count)
    if blocks is not None:
        return [_block(c, block) for block in blocks]
    if family.attention == "compressed":
        mixers = sorts_of(c, count)
    else:
        mixers = _mixers(c, family, count)
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


def _block(c: Config, block: Json) -> Names:
    """A layer of a model that was searched block by block (Puzzle, arXiv 2411.19146): how
    many heads share keys and values, and how wide the network is; or neither."""
    mixer, half = "", ""
    attention, network = block.get("attention", {}), block.get("ffn", {})
    for part, name in ((attention, "attention"), (network, "ffn")):
        known = ("no_op", "n_heads_in_group", "ffn_mult", "num_sink_tokens")
        odd = [k for k, v in part.items() if k not in known and v not in (None, False)]
        if odd:
            c.refuse("block_configs", f"{name}.{odd[0]}: not understood")
    if not attention.get("no_op"):
        shared_by = float(attention.get("n_heads_in_group") or 1)
        mixer = f"full num_key_value_heads={c.count('heads') / shared_by:g}"
    if not network.get("no_op"):
        # two thirds of the factor, rounded up to 256, as the family's own code does
        width = int(2.0 * float(network["ffn_mult"]) * c.number("hidden") / 3.0)
        half = f"width {256 * -(-width // 256)}"
    return mixer, half


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
            full = c.listed(key) or []
            return ["full" if i in full else "linear" for i in range(count)]
    if c.has("attn_type_list"):
        full = c.listed("attn_type_list", count) or []
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


def _windows(c: Config, family: Family, count: int) -> list[str]:
    """Which layers slide over a window or attend within chunks."""
    if c.has("attention_chunk_size"):
        every = c.listed("no_rope_layers") or [(i + 1) % 4 for i in range(count)]
        step = int(c.number("no_rope_layer_interval", 0.0))
        if step:
            every = [(i + 1) % step for i in range(count)]
        return ["chunk" if rotary else "full" for rotary in every]
    c.value("no_rope_layers", "no_rope_layer_interval")
    patterns = ("sliding_window_pattern", "_sliding_window_pattern")
    pattern = c.value(*patterns, "global_attn_every_n_layers")
    window, first = c.has("sliding_window"), int(c.number("max_window_layers", 0.0))
    c.value("sliding_window_size")
    if not window or not c.flag("use_sliding_window", True):
        c.read.add("use_sliding_window")
        return ["full"] * count
    if isinstance(pattern, str):
        letters = {"L": "window", "G": "full"}
        return [letters.get(pattern[i % len(pattern)], "full") for i in range(count)]
    if pattern is not None and (not isinstance(pattern, int) or pattern < 1):
        c.refuse("sliding_window_pattern", "must be a whole number of layers")
        return ["full"] * count
    step = pattern or family.pattern
    if step:
        return ["window" if (i + 1) % step else "full" for i in range(count)]
    if "use_sliding_window" in c.raw:
        return ["window" if i >= first else "full" for i in range(count)]
    return ["window"] * count


def _halves(c: Config, family: Family, count: int) -> list[str]:
    """Which layers have experts: all but those that a key makes dense."""
    mixes = not family.beside or c.flag("enable_moe_block")
    if not c.number("routed", 0.0) or not mixes:
        return ["dense"] * count
    listed = c.listed("mlp_layer_types", count)
    if listed is not None:
        c.value("first_k_dense_replace", "mlp_only_layers", "decoder_sparse_step")
        return ["dense" if kind == "dense" else "experts" for kind in listed]
    mixed = [True] * count
    first = int(c.number("dense_first", family.dense_first))
    start = int(c.number("moe_layer_start_index", 0.0))
    end = int(c.number("moe_layer_end_index", count - 1.0))
    for i in range(count):
        mixed[i] = max(first, start) <= i <= end
    if c.has("moe_layers"):
        chosen = c.listed("moe_layers") or []
        mixed = [i in chosen for i in range(count)]
        c.value("interleave_moe_layer_step")
    for key in EXPERTS_EVERY:
        chosen = _every(c, key, count) or mixed
        mixed = [m and bool(x) for m, x in zip(mixed, chosen, strict=True)]
    dense = c.listed("mlp_only_layers") or []
    return ["experts" if m and i not in dense else "dense" for i, m in enumerate(mixed)]
