"""Layers that use what an earlier one has, and layers with heads of their own."""

from .config import Config

SHARED = " shared"
"""Behind the name of a mixer that reads the cache, or the choice of tokens, of an earlier
layer; what is otherwise follows as keys and values."""


def sharing_caches(c: Config, mixers: list[str]) -> list[str]:
    """The last layers read the cache of the last one of their sort before them (Gemma);
    or of some layers that follow each other all read the first one's (CLA, arXiv
    2405.12981)."""
    count, last = len(mixers), int(c.number("num_kv_shared_layers", 0.0))
    step = int(c.count("cla_share_factor", 1.0))
    step = step if c.flag("use_cla") else 1
    keep = mixers[: count - last]
    if set(mixers) - set(keep):
        c.refuse("num_kv_shared_layers", "a sort of layers has no cache to share")
    shared = [i >= len(keep) or i % step > 0 for i in range(count)]
    return [m + SHARED * s for m, s in zip(mixers, shared, strict=True)]


def sharing_indexers(c: Config, mixers: list[str]) -> list[str]:
    """Layers that use what the last indexer before them has chosen."""
    count, letters = len(mixers), {"F": "full", "S": "shared"}
    kinds = c.listed("indexer_types", count)
    pattern = c.value("index_topk_pattern")
    step = int(c.count("index_topk_freq", 1.0))
    first = int(c.number("index_skip_topk_offset", 2.0))
    if kinds is None and pattern is not None:
        kinds = [letters.get(one, one) for one in pattern]
    if kinds is None:
        each = (max(i - first + 1, 0) % step for i in range(count))
        kinds = ["shared" if skips else "full" for skips in each]
    if len(kinds) != count or {*kinds} - {*letters.values()} or kinds[0] != "full":
        c.refuse("indexer_types", "use full and shared, one for each layer, first full")
        return mixers
    shared = [kind == "shared" for kind in kinds]
    return [m + SHARED * s for m, s in zip(mixers, shared, strict=True)]


PER_LAYER = ("num_attention_heads", "num_key_value_heads", "head_dim", "v_head_dim")
"""Keys that may differ between layers."""


def of_single_layers(c: Config, mixers: list[str]) -> list[str]:
    """Mixers whose layers have heads of their own, with those behind their names."""
    changes: dict[int, dict[str, float]] = {}
    for layer, said in c.table("per_layer_config").raw.items():
        place = int(layer) if layer.isdecimal() and len(layer) < 9 else len(mixers)
        if place >= len(mixers):
            c.refuse("per_layer_config", f"{layer!r}: there is no such layer")
        elif not isinstance(said, dict) or {*said} - {*PER_LAYER}:
            c.refuse("per_layer_config", f"use {', '.join(PER_LAYER)} of each layer")
        else:
            one = c.of("per_layer_config", said)
            own = (key for key, value in said.items() if value is not None)
            changes[place] = {key: one.count(key) for key in own}
    wide = c.number("global_head_dim", 0.0)
    many = c.number("num_global_key_value_heads", 0.0)
    if "per_layer_config" not in c.raw:  # as Gemma 4 says it
        said = {"head_dim": wide}
        said |= {"num_key_value_heads": many} if c.flag("attention_k_eq_v") else {}
        said = {key: value for key, value in said.items() if value}
        changes = {i: said for i, m in enumerate(mixers) if m.startswith("full") and said}
    key = "num_attention_heads_per_layer"
    for layer, many in enumerate(c.listed(key, len(mixers)) or []):
        heads = c.of(key, {f"layer {layer}": many}).count(f"layer {layer}")
        changes.setdefault(layer, {})["num_attention_heads"] = heads
    for i, said in changes.items():
        words = [
            f"{key}={value}" for key, value in said.items() if c.raw.get(key) != value
        ]
        mixers = [*mixers[:i], " ".join([mixers[i], *words]), *mixers[i + 1 :]]
    return mixers
