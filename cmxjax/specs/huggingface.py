"""Read a Hugging Face `config.json` as a model file."""

from typing import Any

from .errors import SpecError, shown
from .figures import number

_MAY_BE_ZERO = (
    "first_k_dense_replace",
    "n_shared_experts",
    "num_shared_experts",
    "num_nextn_predict_layers",
    "shared_expert_intermediate_size",
)
_UNGATED = ("gpt2", "gpt_neox", "opt", "bloom", "gpt_bigcode")


def convert(config: dict[str, Any], where: str) -> dict[str, Any]:
    """A model file's keys from a `config.json`.

    Raises:
        SpecError: a key that the shape needs is missing or not a number.
    """
    mistakes: list[str] = []

    def need(*names: str, default: float | None = None) -> float:
        for name in names:
            if config.get(name) is not None:
                try:
                    return _count(config[name], name in _MAY_BE_ZERO)
                except ValueError as error:
                    mistakes.append(f"{where}: {name}{shown(config[name])}: {error}")
                return 1.0
        if default is None:
            mistakes.append(f"{where}: {names[0]}: required key is missing; add it")
            return 1.0
        return default

    hidden = need("hidden_size", "n_embd", "d_model")
    layers = need("num_hidden_layers", "n_layer", "num_layers")
    heads = need("num_attention_heads", "n_head")
    family = str(config.get("model_type", "unknown"))
    intermediate = need("intermediate_size", "n_inner", default=4.0 * hidden)
    experts, dense_layers = _experts(config, need, layers, intermediate)
    tied = config.get("tie_word_embeddings", family == "gpt2")
    if not isinstance(tied, bool):
        problem = "must be true or false"
        mistakes.append(f"{where}: tie_word_embeddings{shown(tied)}: {problem}")
    raw = {
        "name": str(config.get("_name_or_path") or family),
        "title": f"{family} from {where}",
        "kind": "published",
        "source": "config",
        "locator": where,
        "sources": {"config": {"title": f"Hugging Face configuration {where}"}},
        "hidden": hidden,
        "layers": layers,
        "dense_layers": dense_layers,
        "intermediate": intermediate,
        "vocabulary": need("vocab_size"),
        "positions": need("n_positions", default=0.0) if family == "gpt2" else 0.0,
        "draft_layers": need("num_nextn_predict_layers", default=0.0),
        "gated": family not in _UNGATED,
        "tied": tied,
        "biased": family in _UNGATED,
        "attention": _attention(config, need, hidden, heads),
    }
    if experts is not None:
        raw["experts"] = experts
        for key in ("decoder_sparse_step", "moe_layer_freq"):
            if need(key, default=1.0) != 1.0:
                problem = "only 1 can be read; write a TOML file"
                mistakes.append(f"{where}: {key}{shown(config[key])}: {problem}")
    if mistakes:
        raise SpecError(mistakes)
    return raw


def _count(value: Any, zero: bool) -> float:
    """A count: positive, or zero where that is allowed. Raises `ValueError`."""
    count = number(value)
    if count < 0.0 or (count == 0.0 and not zero):
        raise ValueError("must not be negative" if zero else "must be greater than 0")
    return count


def _attention(config: dict[str, Any], need, hidden: float, heads: float) -> dict:
    if config.get("kv_lora_rank") is not None:
        return {
            "kind": "latent",
            "heads": heads,
            # without a query bottleneck the projection is as wide as the model
            "query_rank": need("q_lora_rank", default=hidden),
            "latent_dim": need("kv_lora_rank"),
            "rope_dim": need("qk_rope_head_dim"),
            "nope_dim": need("qk_nope_head_dim"),
            "value_dim": need("v_head_dim"),
        }
    return {
        "kind": "grouped_query",
        "heads": heads,
        "kv_heads": need("num_key_value_heads", default=heads),
        "head_dim": need("head_dim", default=hidden / heads),
    }


def _experts(config: dict[str, Any], need, layers: float, intermediate: float):
    routed_keys = ("n_routed_experts", "num_experts", "num_local_experts")
    if not any(config.get(key) for key in routed_keys):
        return None, layers
    width = need("moe_intermediate_size", default=intermediate)
    shared_width = need("shared_expert_intermediate_size", default=0.0)
    shared_keys = ("n_shared_experts", "num_shared_experts")
    experts = {
        "routed": need(*routed_keys),
        "topk": need("num_experts_per_tok"),
        "shared": need(*shared_keys, default=shared_width / width),
        "intermediate": width,
        "groups": need("n_group", default=1.0),
        "topk_groups": need("topk_group", default=1.0),
    }
    dense = config.get("mlp_only_layers")
    dense_layers = float(len(dense)) if isinstance(dense, list) else 0.0
    return experts, need("first_k_dense_replace", default=dense_layers)
