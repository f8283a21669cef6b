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
    active_parameters,
    added,
    embedding_parameters,
    met_parameters,
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
    convention = ALIASES.get(name, name)
    if convention not in CONVENTIONS:
        known = ", ".join([*CONVENTIONS, *ALIASES])
        raise ValueError(f"unknown; use one of {known}")
    return convention


def matrix_parameters(a: Architecture) -> Scalar:
    """Weights that multiply a token forward: layers, drafts and head, no norms.

    A multi-token-prediction module is a layer, its projection and the head once more.
    """
    met, head = met_parameters(a), a.vocabulary * a.hidden
    counts = zip(a.counts, a.kinds, strict=True)
    layers = added(count * a.of_halves(met, kind) for count, kind in counts)
    draft = a.of_halves(met, a.draft) + 2.0 * a.hidden**2 + head
    return layers + head + a.draft_layers * draft


def pair_products(a: Architecture, tokens: Scalar) -> Scalar:
    """Multiply-adds of scores and contexts for a token that sees so many, in all layers
    and draft modules."""
    products = []
    for i, (count, mixer) in enumerate(zip(a.half_counts.mixers, a.mixers, strict=True)):
        often = count + a.draft_layers if i in a.draft.mixers else count
        products.append(often * mixer.products(tokens))
    return added(products)


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
    return square * flop_per_weight(convention) * pair_products(a, sequence_tokens)


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
