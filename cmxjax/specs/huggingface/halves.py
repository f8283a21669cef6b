"""Halves of layers as `config.json` files describe them, as keys of a model file."""

from dataclasses import dataclass, field
from typing import Literal

from .config import SPELLINGS, Config, Table

Key = bool | str
"""A setting of a family, or the key that a file sets it by."""

HeadNorm = Literal["", "head", "head biased", "heads", "all"]


@dataclass(frozen=True, kw_only=True)
class Family:
    """How a family of models differs from Llama."""

    input_bias: Key = "attention_bias"
    output_bias: Key = "attention_bias"
    mlp_bias: Key = "mlp_bias"
    gated: bool = True
    norm: int = 1
    """Weights of a norm over the model's width: 2 with a bias, 0 without weights."""
    norms: tuple[float, float] = (1.0, 1.0)
    """Around the mixer and around the feed-forward half."""
    sandwich: str = ""
    """The key of a norm more behind each of both."""
    head_norm: HeadNorm = ""
    """Norms of queries and keys: one of a head for all (with biases), one for each head,
    or one of all heads together."""
    head_norm_key: str = ""
    """The key that turns them on, where there is one."""
    gated_output: Key = False
    """Outputs of attention are multiplied by gates."""
    head_gate: Key = False
    """The same by one gate of a head, whose projections count as other weights."""
    sinks: Key = False
    window_sinks: Key | None = None
    """The same of layers with a window, where it is a setting of its own."""
    window_kv: float = 1.0
    """Times as many heads of keys and values in such layers, where a file doesn't say."""
    parallel: Key = False
    """Both halves read the same input."""
    parallel_norms: float | None = None
    """Norms in front of the feed-forward half then; None for as otherwise."""
    shortcut: bool = False
    """A layer is two of attention and a network, and experts read what the first network
    does (LongCat)."""
    beside: bool = False
    """Experts stand beside a dense network (Gemma 4)."""
    expert_norms: float | None = None
    """Norms around experts, where there are not as many as around dense networks."""
    streams: bool = False
    """Several residual streams side by side (DeepSeek-V4)."""
    layer_inputs: bool = False
    """Each layer adds an embedding of its own, gated by its hidden state (Gemma 3n)."""
    alone: bool = False
    """Layers have no feed-forward half."""
    expert_bias: bool = False
    tied: bool = False
    """Where the file doesn't say."""
    head_bias: Key = False
    embedding_norm: int = 0
    positions: int | None = None
    """Learned positions, with as many more rows; None for none."""
    pattern: int = 0
    """Every so many layers see all tokens, where a file has a window and says no more."""
    attention: Literal["grouped", "latent", "sparse", "compressed"] = "grouped"
    linear: str = ""
    """What layers without attention are."""
    every: str = "full"
    """What layers are of which the file says nothing."""
    router_bias: Key = False
    shared_gate: bool = False
    """A gate of the shared expert, or another vector as wide as the model."""
    shared: float = 0.0
    """Shared experts where the file doesn't say."""
    dense_first: float = 0.0
    defaults: Table = field(default_factory=dict)
    """What the family's own class has where the file says nothing."""
    flat: tuple[str, ...] = ()
    """Tables of the file whose keys are read as if they stood outside."""
    only: Table = field(default_factory=dict)
    """Keys of which one value is understood."""
    ignored: tuple[str, ...] = ()
    """Keys that mean nothing here."""


def norm_keys(family: Family, half: int) -> Table:
    return {"norms": family.norms[half], "norm_vectors": float(family.norm)}


def _head_norm(c: Config, family: Family, heads: float, kv: float, dim: float) -> float:
    """Weights of the norms of queries and keys.

    Args:
        kv: heads of keys, 0 where a layer has none of its own.
    """
    on = c.flag(family.head_norm_key) if family.head_norm_key else True
    normed = 1.0 + (kv > 0.0)
    weights = {
        "": 0.0,
        "head": normed * dim,
        "head biased": 2.0 * normed * dim,
        "heads": (heads + kv) * dim,
        "all": (heads + kv) * dim,
    }
    return weights[family.head_norm] if on else 0.0


def head_dim(c: Config, heads: float) -> float:
    """Width of a head; a model's width that heads don't divide is refused."""
    hidden = c.number("hidden")
    said = c.number("head_dim", 0.0)
    if said:
        return said
    if hidden % heads and not c.mistakes:
        c.refuse("hidden_size", f"does not divide by {heads:g} heads; add head_dim")
    return max(1.0, hidden // heads)


def grouped(c: Config, family: Family, sort: str) -> Table:
    """Grouped-query attention over all tokens (`full`), a `window` or a `chunk`."""
    sort, *words = sort.split()
    shared = "shared" in words
    c = _of_layers(c, sort, words)
    heads = c.count("heads")
    kv, dim = kv_heads(c, heads), head_dim(c, heads)
    value = c.number("value_dim", dim)
    sinks = family.sinks
    if sort == "window":
        sinks = sinks if family.window_sinks is None else family.window_sinks
        kv *= 1.0 if "swa_num_key_value_heads" in c.raw else family.window_kv
    if heads % kv and not c.mistakes:
        problem = f"does not divide {heads:g} heads; use one that does"
        c.refuse(c.spelled("kv_heads"), problem)
    mixer: Table = {
        "kind": "grouped_query",
        "heads": heads,
        "kv_heads": kv,
        "head_dim": dim,
        "biased": c.flag(family.input_bias),
        "output_biased": c.flag(family.output_bias),
        "vectors": _head_norm(c, family, heads, kv * (not shared), dim)
        + heads * c.flag(sinks),
        "gated": c.flag(family.gated_output),
        **norm_keys(family, 0),
    }
    if c.flag(family.head_gate):
        mixer["vectors"] += heads * c.number("hidden")
    if shared:
        mixer["own_cache"] = False
    if sort == "full" and c.flag("attention_k_eq_v"):
        mixer["projects_values"] = False
    if value != dim:
        mixer["value_dim"] = value
    if sort == "window":
        mixer["window"] = c.count("window")
    if sort == "chunk":
        mixer["chunk"] = c.count("attention_chunk_size")
    return mixer


WINDOWED = {
    "swa_num_attention_heads": "num_attention_heads",
    "swa_num_key_value_heads": "num_key_value_heads",
    "swa_head_dim": "head_dim",
    "swa_v_head_dim": "v_head_dim",
}
"""What layers with a window have instead of what the others have."""


def _of_layers(c: Config, sort: str, words: list[str]) -> Config:
    """The file as layers of one sort have it.

    Args:
        words: that stand behind the sort in the name of a mixer, such as key=value.
    """
    c.read.update(WINDOWED)
    pairs = (word.split("=") for word in words if "=" in word)
    said: Table = {key: float(value) for key, value in pairs}
    if sort == "window":
        given = {k: c.raw[key] for key, k in WINDOWED.items() if c.raw.get(key)}
        said = given | said
    return c.changed(said)


def kv_heads(c: Config, heads: float) -> float:
    """Heads of keys and values: `multi_query` says one; otherwise each head has its own
    where nothing is said, and in a Falcon of the older architecture whatever is said."""
    if c.has("new_decoder_architecture"):
        if c.flag("new_decoder_architecture"):
            c.value("multi_query")
            return c.count("kv_heads", heads)
        c.value("num_kv_heads")
        return 1.0 if c.flag("multi_query") else heads
    if c.has("multi_query_attention"):
        return c.count("kv_heads") if c.flag("multi_query_attention") else heads
    if c.has("multi_query"):
        c.read.update(SPELLINGS["kv_heads"])
        return 1.0 if c.flag("multi_query") else heads
    return c.count("kv_heads", heads)


def latent(c: Config, family: Family, sort: str) -> Table:
    """Multi-head latent attention; biases of its projections count as other weights."""
    sparse, words = family.attention == "sparse", sort.split()[1:]
    heads = c.count("heads")
    c.value("num_key_value_heads", "head_dim", "qk_head_dim")
    rank, hidden = c.number("query_rank", 0.0), c.number("hidden")
    mixer: Table = {
        "kind": "latent",
        "heads": heads,
        "latent_dim": c.count("latent_dim"),
        "rope_dim": c.count("rope_dim"),
        "nope_dim": c.count("nope_dim"),
        "value_dim": c.count("value_dim"),
        **norm_keys(family, 0),
    }
    if rank:
        mixer["query_rank"] = rank
    if sparse and not rank:
        c.refuse("q_lora_rank", "the indexer reads compressed queries; add their width")
    if c.flag(family.input_bias):
        down = mixer["latent_dim"] + mixer["rope_dim"]
        mixer["vectors"] = down + rank + hidden
    if sparse:
        heads, width = c.count("index_n_heads"), c.count("index_head_dim")
        index = {} if "shared" in words else {"heads": heads, "head_dim": width}
        mixer["indexer"] = {"topk": c.count("index_topk"), **index}
    return mixer


def dense(c: Config, family: Family, width: float) -> Table:
    return {
        "kind": "dense",
        "intermediate": width,
        "gated": family.gated,
        "biased": c.flag(family.mlp_bias),
        **norm_keys(family, 1),
    }


def layer_input(c: Config, family: Family) -> Table:
    """An embedding of each token for each layer, gated by the hidden state and projected
    to it: the width of a gated network, whose gate and product are the hidden state's and
    the embedding's with its projection from the first hidden state."""
    return {
        "kind": "dense",
        "intermediate": c.count("hidden_size_per_layer_input"),
        "gated": True,
        "biased": False,
        "norms": 1.0,
        "norm_vectors": float(family.norm),
    }


def experts(c: Config, family: Family) -> Table:
    """Routed and shared experts; shared ones of another width count as a share."""
    width = c.number("expert_width", 0.0) or c.count("intermediate")
    shared_width = c.number("shared_width", 0.0)
    shared = c.number("shared", family.shared)
    if shared_width:
        shared = shared_width / width
    mixture = {
        "kind": "mixture",
        "routed": c.count("routed"),
        "topk": c.count("topk"),
        "shared": shared,
        "intermediate": width,
        "gated": family.gated,
        "biased": family.expert_bias,
        "router_vectors": float(c.flag(family.router_bias)),
        "extra": c.number("hidden") if family.shared_gate else 0.0,
        **norm_keys(family, 1),
    }
    if c.number("zero_expert_num", 0.0):
        mixture["zero"] = c.number("zero_expert_num")
    if family.expert_norms is not None:
        mixture["norms"] = family.expert_norms
    if c.number("moe_latent_size", 0.0):
        mixture["latent"] = c.count("moe_latent_size")
    groups, used = c.number("groups", 1.0), c.number("topk_group", 1.0)
    routed = mixture["routed"]
    if mixture["topk"] > routed:
        c.refuse(c.spelled("topk"), f"there are {routed:g} experts; use no more")
    if groups > 1.0 and (routed % groups or used > groups):
        problem = f"must divide {routed:g} experts, and be topk_group or more"
        c.refuse(c.spelled("groups"), problem)
    if groups > 1.0:
        mixture |= {"groups": groups, "topk_groups": used}
    return mixture
