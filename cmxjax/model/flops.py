"""Model FLOP of training by convention: sources count differently.

megatron    6 N + 12 L h s a token, the head in N and the embedding not, attention
            on the full square (Narayanan et al., arXiv 2104.04473, equation 3, with
            no recompute; NeMo 24.07; dgxc-benchmarking)
causal      the same with attention halved (Megatron-Bridge)
bloom       megatron x 4/3: the recomputed forward pass counts (BLOOM chronicles)
mosaic      all weights in N, full attention (llm-foundry)
parameters  6 N with all weights, no attention
"""

from .._types import Scalar
from .architecture import (
    Architecture,
    Latent,
    active_parameters,
    attention_parameters,
    embedding_parameters,
    expert_layer_parameters,
    feed_forward_parameters,
)

CONVENTIONS = ("megatron", "causal", "bloom", "mosaic", "parameters")
ALIASES = {
    "model": "megatron",
    "korthikanti": "megatron",
    "nemo": "megatron",
    "dgxc": "megatron",
    "megatron-bridge": "causal",
    "hardware": "bloom",
}


def convention_named(name: str) -> str:
    """The convention of a name or alias. Raises `ValueError` if there is none."""
    found = ALIASES.get(name, name)
    if found not in CONVENTIONS:
        known = ", ".join([*CONVENTIONS, *ALIASES])
        raise ValueError(f"unknown; use one of {known}")
    return found


def matrix_parameters(a: Architecture) -> Scalar:
    """Weights that multiply a token forward: layers, drafts and head, no norms.

    A multi-token-prediction module is a layer, its projection and the head once more.
    """
    attention, head = attention_parameters(a), a.vocabulary * a.hidden
    dense = feed_forward_parameters(a, a.intermediate)
    other = dense
    if a.experts is not None:
        other = expert_layer_parameters(a, a.experts.topk)
    layers = a.layers * attention + a.dense_layers * dense
    layers = layers + (a.layers - a.dense_layers) * other
    draft = attention + other + 2.0 * a.hidden**2 + head
    return layers + head + a.draft_layers * draft


def pair_width(a: Architecture) -> Scalar:
    """Multiply-adds of one query-key pair in one layer: scores and context."""
    at = a.attention
    if isinstance(at, Latent):
        return at.heads * (at.nope_dim + at.rope_dim + at.value_dim)
    return 2.0 * at.heads * at.head_dim


FLOP_PER_WEIGHT = 6.0
"""Two each forward, for the gradient of the input and for that of the weight."""


def flop_per_weight(convention: str) -> float:
    """FLOP that a convention counts for a weight and token."""
    return 8.0 if convention == "bloom" else FLOP_PER_WEIGHT


def attention_flop_per_token(
    a: Architecture, sequence_tokens: Scalar, convention: str
) -> Scalar:
    """The part of `flop_per_token` that scores and contexts are."""
    if convention == "parameters":
        return 0.0 * sequence_tokens
    square = 0.5 if convention == "causal" else 1.0
    pairs = (a.layers + a.draft_layers) * pair_width(a) * sequence_tokens
    return square * flop_per_weight(convention) * pairs


def flop_per_token(a: Architecture, sequence_tokens: Scalar, convention: str) -> Scalar:
    """FLOP of forward and backward for one token under a convention.

    Args:
        convention: one of `CONVENTIONS`.
    """
    if convention in ("mosaic", "parameters"):
        weights = active_parameters(a)
    else:
        weights = matrix_parameters(a)
    attention = attention_flop_per_token(a, sequence_tokens, convention)
    return flop_per_weight(convention) * weights + attention


def outside_flop_per_token(a: Architecture, convention: str) -> Scalar:
    """The part of `flop_per_token` that is outside the layers: the head, where drafts
    use it too, and the embedding where it counts."""
    if convention in ("mosaic", "parameters"):
        return flop_per_weight(convention) * embedding_parameters(a)
    heads = (1.0 + a.draft_layers) * a.vocabulary * a.hidden
    projections = a.draft_layers * 2.0 * a.hidden**2
    return flop_per_weight(convention) * (heads + projections)
