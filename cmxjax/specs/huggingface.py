"""Read a Hugging Face `config.json` as a model file."""

from typing import Any

from .errors import SpecError
from .files import finite

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
                if finite(config[name]):
                    return float(config[name])
                mistakes.append(f"{where}: {name} = {config[name]!r}: must be a number")
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
        "tied": bool(config.get("tie_word_embeddings", family == "gpt2")),
        "biased": family in _UNGATED,
        "attention": _attention(config, need, hidden, heads),
    }
    if experts is not None:
        raw["experts"] = experts
    if mistakes:
        raise SpecError(mistakes)
    return raw


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
    experts = {
        "routed": need(*routed_keys),
        "topk": need("num_experts_per_tok"),
        "shared": need("n_shared_experts", "num_shared_experts", default=0.0),
        "intermediate": width,
    }
    return experts, need("first_k_dense_replace", default=0.0)
