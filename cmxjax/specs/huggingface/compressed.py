"""Compressed attention as DeepSeek-V4 publishes it, and its several residual streams."""

from .config import Config, Table
from .halves import Family, norm_keys

RATIOS = {0: "window", 4: "chosen", 128: "blocks"}
"""What a layer is by its entry of `compress_ratios`, as the family's own class has it."""

SORTS = {
    "sliding_attention": "window",
    "compressed_sparse_attention": "chosen",
    "heavily_compressed_attention": "blocks",
}
"""The same in `layer_types`."""


def sorts_of(c: Config, count: int) -> list[str]:
    """Layers that see a window alone, also blocks that an indexer has chosen, or also all
    blocks; draft modules may follow in the list."""
    c.value("num_hash_layers")  # experts by a table of tokens, otherwise alike
    types = c.listed("layer_types", count)
    ratios = c.listed("compress_ratios")
    if types is not None:
        sorts = [SORTS.get(str(kind), "") for kind in types]
    elif ratios is not None and len(ratios) >= count:
        named = {str(ratio): sort for ratio, sort in RATIOS.items()}
        sorts = [named.get(str(ratio), "") for ratio in ratios[:count]]
    else:
        sorts = [""] * count
    if not all(sorts):
        key = "layer_types" if types is not None else "compress_ratios"
        known = [*SORTS] if types is not None else [*RATIOS]
        c.refuse(key, f"use one of {known} for each layer")
        return ["window"] * count
    return sorts


def _ratio(c: Config, sort: str) -> float:
    """Tokens of a block."""
    names = {own: name for name, own in SORTS.items()}
    rates = c.table("compress_rates")
    usual = next(ratio for ratio, name in RATIOS.items() if name == sort)
    return rates.count(names[sort], float(usual))


def compressed(c: Config, family: Family, sort: str) -> Table:
    """A mixer of a `window`, with all `blocks` or with `chosen` ones."""
    heads, width = c.count("heads"), c.count("head_dim")
    rank = c.count("query_rank")
    c.value("num_key_value_heads", "qk_rope_head_dim")
    mixer: Table = {
        "kind": "compressed",
        "heads": heads,
        "head_dim": width,
        "query_rank": rank,
        "output_groups": c.count("o_groups"),
        "output_rank": c.count("o_lora_rank"),
        "window": c.count("window"),
        "vectors": rank + width + heads,
        **norm_keys(family, 0),
    }
    c.value("index_n_heads", "index_head_dim", "index_topk")
    c.value("compress_rates", "compress_ratios")
    if sort == "window":
        return mixer
    ratio = _ratio(c, sort)
    mixer["ratio"] = ratio
    mixer["overlapping"] = sort == "chosen"
    widths = width
    if sort == "chosen":
        index = c.count("index_head_dim")
        mixer["indexer"] = {
            "heads": c.count("index_n_heads"),
            "head_dim": index,
            "topk": c.count("index_topk"),
        }
        widths += index
    mixer["vectors"] += widths * (1.0 + ratio * (1.0 + mixer["overlapping"]))
    return mixer


def streams(c: Config) -> dict[str, float]:
    """Residual streams side by side: a half reads and writes all of them, with weights
    that a projection of all gives (manifold-constrained hyper-connections, arXiv
    2512.24880). They count as norms, of which there is one for each stream."""
    many, hidden = c.count("hc_mult"), c.count("hidden")
    mixed = (2.0 + many) * many
    weights = hidden + mixed * (many * hidden + 1.0) + 3.0
    return {"norms": many, "norm_vectors": weights / (many * hidden)}


def last_stream(c: Config) -> float:
    """Weights that make one stream of all behind the layers."""
    many = c.count("hc_mult")
    return many * (many * c.number("hidden") + 1.0) + 1.0
