"""A Hugging Face `config.json` read as a model file, or refused where not understood."""

from dataclasses import replace

from ..errors import SpecError, shown
from .blocks import Names
from .compressed import compressed, last_stream, streams
from .config import SPELLINGS, Config, Table
from .families import ALIKE, FAMILIES
from .formats import integers_in, weights_of
from .halves import Family, dense, experts, grouped, latent, layer_input
from .layers import layers_of
from .recurrent import recurrent
from .vision import vision_of

NESTED = ("text_config", "llm_config", "language_config", "thinker_config")
"""Where multi-modal files keep their language model."""


def convert(config: Table, where: str) -> Table:
    """A model file's keys from a `config.json`.

    Raises:
        SpecError: a family is unknown, a key that the shape needs is missing or wrong, or
            one that speaks of the shape isn't understood.
    """
    text, inherited = _language(config)
    _no_other_kind(text | config, where)
    kind = str(text.get("model_type") or config.get("model_type") or "")
    family = FAMILIES.get(ALIKE.get(kind, kind))
    if family is None:
        problem = (
            "this family is not known, and its layers may be unlike any other's; write"
            " the model as TOML (`cmxjax show NAME` prints the keys of one)"
        )
        raise SpecError([f"{where}: model_type = {kind!r}: {problem}"])
    for key in family.flat:
        inner = text.get(key)
        text = {k: v for k, v in text.items() if k != key}
        text = (inner if isinstance(inner, dict) else {}) | text
    c = Config(text, where, family.defaults)
    for key, value in family.only.items():
        if c.raw.get(key, value) != value:
            c.refuse(key, f"only {value} is understood; write a TOML model")
        c.read.add(key)
    if c.has("attn_config"):
        _plain_attention(c)
    raw = _model(c, family, inherited, kind)
    for key in ("heads", "kv_heads", "head_dim"):
        c.read.update(SPELLINGS[key])
    c.read.update(_SILENT_HERE)
    if not c.mistakes:
        c.leftover(family.ignored)
    if c.mistakes:
        raise SpecError(c.mistakes)
    return raw


def _no_other_kind(config: Table, where: str) -> None:
    """Refuse files of what is no decoder of text, and say what they are."""
    problem = ""
    if config.get("peft_type") is not None:
        problem = (
            f"peft_type{shown(config['peft_type'])}: an adapter, and no model; use the"
            " config.json of the model that base_model_name_or_path names"
        )
    elif config.get("is_encoder_decoder") or {*config} >= {"encoder", "decoder"}:
        key = next(key for key in ("is_encoder_decoder", "encoder") if config.get(key))
        problem = (
            f"{key}{shown(config[key])}: models with an encoder and a decoder aren't"
            " modeled; use a decoder of text"
        )
    elif not config.get("model_type"):
        problem = (
            "model_type: required key is missing; add it, such as llama (a params.json"
            " of another kind isn't read)"
        )
    if problem:
        raise SpecError([f"{where}: {problem}"])


_SILENT_HERE = ("model_type", "architectures", "quantization_config")


def _plain_attention(c: Config) -> None:
    """Settings of attention in a table of their own (MPT), of which one is understood."""
    inner = c.table("attn_config")
    usual = {"attn_type": "multihead_attention", "qk_ln": False, "kv_n_heads": None}
    for key, value in usual.items():
        if inner.raw.get(key, value) != value:
            c.refuse("attn_config", f"{key} = {inner.raw[key]!r}: only {value!r} is read")


def _language(config: Table) -> tuple[Table, Table]:
    """The part of a file that is the language model, and the file around it."""
    for key in NESTED:
        inner = config.get(key)
        if isinstance(inner, dict):
            text, _ = _language(inner)
            return text, config
    return config, {}


def _model(c: Config, family: Family, around: Table, kind: str) -> Table:
    hidden = c.count("hidden")
    if c.number("word_embed_proj_dim", hidden) != hidden:
        c.refuse("word_embed_proj_dim", "other than hidden_size; write a TOML model")
    layers = layers_of(c, family)
    parallel = c.flag(family.parallel)
    two = c.number("num_ln_in_parallel_attn", 0.0) == 2.0
    two = two or c.flag("new_decoder_architecture")
    if parallel and family.parallel_norms is not None and not two:
        family = replace(family, norms=(family.norms[0], family.parallel_norms))
    if family.sandwich and c.flag(family.sandwich):
        family = replace(family, norms=(family.norms[0] + 1.0, family.norms[1] + 1.0))
    mixers, halves = _halves_of(c, family, layers)
    tied = _tied(c, family, around)
    extra = c.number("vocabulary") if c.flag(family.head_bias) else 0.0
    raw: Table = {
        **_about(c.raw | around, c.where, kind),
        "hidden": hidden,
        "layers": len(layers),
        "vocabulary": c.count("vocabulary"),
        "draft_layers": c.number("drafts", 0.0),
        "tied": tied,
        "final_vectors": float(family.norm),
        "extra": extra
        + family.embedding_norm * hidden
        + _outside(c, family, len(layers)),
    }
    q = c.raw.get("quantization_config") or around.get("quantization_config")
    raw["weights"] = weights_of(c, q, layers)
    raw["integers"] = integers_in(q)
    raw["dtype"] = _computed_in(c, around)
    tower = vision_of(around, c.where, hidden)
    raw |= {} if tower.keys is None else {"vision": tower.keys}
    raw |= {"vision_unread": tower.problem} if tower.problem else {}
    if family.positions is not None:
        raw["positions"] = c.count("positions") + family.positions
    width = c.number("intermediate", 0.0)
    return raw | _laid_out(mixers, halves, layers, parallel, width)


def _outside(c: Config, family: Family, layers: int) -> float:
    """Weights of the embeddings that layers have for themselves, and of their norm; or of
    what makes one stream of several."""
    if family.streams:
        return last_stream(c)
    if not family.layer_inputs:
        return 0.0
    width = c.number("hidden_size_per_layer_input", 0.0)
    rows = c.number("vocab_size_per_layer_input", c.number("vocabulary"))
    return width * (layers * rows + (width > 0.0))


def _about(config: Table, where: str, kind: str) -> Table:
    """Name and source of a model; shipped files say them, with published counts."""
    said, plain = config.get("_about"), f"Hugging Face configuration {where}"
    about = said if isinstance(said, dict) else {}
    keys: Table = {
        "name": str(about.get("name") or config.get("_name_or_path") or kind),
        "title": about.get("title", f"{kind} from {where}"),
        "kind": "published",
        "source": "config",
        "locator": where,
        "sources": {"config": {"title": about.get("source", plain)}},
    }
    counts = ("total_parameters", "active_parameters")
    published = {key: about[key] for key in counts if key in about}
    return keys | ({"published": published} if "total_parameters" in published else {})


def _computed_in(c: Config, around: Table) -> str:
    """The format of activations: 16 bits, also of weights that are stored in 32."""
    both = (c.raw.get(key, around.get(key)) for key in ("dtype", "torch_dtype"))
    said = next((value for value in both if value is not None), "bfloat16")
    if str(said) not in DTYPES:
        key = "dtype" if "dtype" in c.raw else "torch_dtype"
        c.refuse(key, f"use one of {', '.join(DTYPES)}")
    return DTYPES.get(str(said), "bf16")


DTYPES = {"bfloat16": "bf16", "float16": "fp16", "float32": "bf16", "auto": "bf16"}
"""By the name that PyTorch gives it."""


def _tied(c: Config, family: Family, around: Table) -> bool:
    for source in (c.raw, around):
        if source.get("tie_word_embeddings") is not None:
            outer = Config(source, c.where, {})
            tied = outer.flag("tie_word_embeddings")
            c.mistakes += outer.mistakes
            return tied
    return family.tied


def _halves_of(c: Config, family: Family, layers: list[Names]) -> tuple[Table, Table]:
    """The mixers and feed-forward halves that layers name."""
    mixers: Table = {}
    sorts = dict.fromkeys(sort for mixer, _ in layers for sort in _parts(mixer))
    for sort in sorts:
        if sort == "linear":
            mixers[sort] = recurrent(c, family)
            if len(sorts) > 1 and family.every == "full+linear":  # reads the same norm
                mixers[sort]["norms"] = 0.0
        elif family.attention == "grouped":
            mixers[sort] = grouped(c, family, sort)
        elif family.attention == "compressed":
            mixers[sort] = compressed(c, family, sort)
        else:
            mixers[sort] = latent(c, family, sort)
    if family.linear and "linear" not in sorts:  # keys of what no layer is say nothing
        recurrent(c.unheard(), family)
    halves: Table = {}
    used = dict.fromkeys(sort for _, half in layers for sort in _parts(half))
    if "experts" not in used:
        for meaning in ("routed", "topk", "expert_width", "shared", "shared_width"):
            c.read.update(SPELLINGS[meaning])
    if "inputs" in used:
        halves["inputs"] = layer_input(c, family)
    for name in used:
        if name.startswith("width "):
            halves[name] = dense(c, family, float(name.split()[1]))
    if "dense" in used:
        halves["dense"] = dense(c, family, _width(c))
    if "experts" in used:
        halves["experts"] = experts(c, family)
        c.read.update(SPELLINGS["intermediate"])
    if family.streams:
        for half in (*mixers.values(), *halves.values()):
            half |= streams(c)
    return mixers, halves


def _parts(half: str) -> list[str]:
    """The mixers, or feed-forward halves, of a layer: mostly one."""
    return [sort for sort in half.split("+") if sort]


def _width(c: Config) -> float:
    """Width of dense networks: given, or four times the model's."""
    factor = c.number("expansion_ratio", 4.0)
    width = c.number("intermediate_size_mlp", 0.0) or c.number("block_ff_dim", 0.0)
    if not c.number("routed", 0.0):  # a mixture's shared part is what is left of it
        width = width or c.number("shared_width", 0.0)
    if c.flag("block_auto_adjust_ff_dim"):  # LFM2: two thirds, rounded up
        step = c.count("block_multiple_of", 256.0)
        width = int(2.0 * (width or c.number("intermediate")) / 3.0)
        width = int(c.real("block_ffn_dim_multiplier", 1.0) * width)
        return step * -(-width // step)
    return width or c.number("intermediate", 0.0) or factor * c.number("hidden")


def _laid_out(
    mixers: Table,
    halves: Table,
    layers: list[Names],
    parallel: bool,
    width: float,
) -> Table:
    """Layers alike but for dense ones in front, or listed."""
    dense = sum(half == "dense" for _, half in layers)
    in_front = all(half == "dense" for _, half in layers[:dense])
    whole = all(mixer and half in ("dense", "experts") for mixer, half in layers)
    mixture, network = halves.get("experts"), halves.get("dense")
    same = not (mixture and network) or all(
        mixture[key] == network[key] for key in ("gated", "norms", "norm_vectors")
    )
    plain = mixture if network is None else network
    if not (len(mixers) == 1 and in_front and whole and not parallel and same and plain):
        return {
            "mixers": mixers,
            "feed_forwards": halves,
            "pattern": _runs(layers, parallel),
        }
    (attention,) = mixers.values()
    return {
        "dense_layers": float(dense),
        "attention": attention,
        **{key: plain[key] for key in ("gated", "norms", "norm_vectors")},
        "biased": plain["biased"] if network else False,
        "intermediate": network["intermediate"] if network else width or 1.0,
        **({} if mixture is None else {"experts": mixture}),
    }


def _runs(layers: list[Names], parallel: bool) -> list[Table]:
    """Layers of one kind that follow each other, as one entry each."""
    runs: list[Table] = []
    for mixer, half in layers:
        entry: Table = {"parallel": parallel}
        entry |= {"mixer": _parts(mixer)} if mixer else {}
        entry |= {"feed_forward": _parts(half)} if half else {}
        if runs and runs[-1] == entry | {"count": runs[-1]["count"]}:
            runs[-1]["count"] += 1
        else:
            runs.append(entry | {"count": 1})
    return runs
