"""Model architectures: shapes as float leaves, kinds as classes."""

from typing import NamedTuple

import jax.numpy as jnp
from flax import struct

from .. import smooth
from .._types import Leaf
from ..switch import Switch


class GroupedQuery(struct.PyTreeNode, kw_only=True, frozen=True):
    """Multi-head (`kv_heads = heads`), grouped-query or multi-query attention."""

    heads: Leaf
    kv_heads: Leaf
    head_dim: Leaf
    kind: str = struct.field(pytree_node=False, default="grouped_query")


class Latent(struct.PyTreeNode, kw_only=True, frozen=True):
    """Multi-head latent attention (MLA): keys and values share a compressed latent."""

    heads: Leaf
    query_rank: Leaf
    latent_dim: Leaf
    rope_dim: Leaf
    nope_dim: Leaf
    value_dim: Leaf
    kind: str = struct.field(pytree_node=False, default="latent")


def kv_share(at: GroupedQuery | Latent, ranks: Leaf) -> Leaf:
    """Share of the keys and values that each of some ranks holds which split the heads:
    at least one head; of a latent, which all heads share, the whole."""
    if isinstance(at, GroupedQuery):
        return smooth.larger(1.0 / ranks, 1.0 / at.kv_heads)
    return jnp.ones(())


def spread_kv_heads(at: GroupedQuery, ranks: Leaf) -> Leaf:
    """Heads of keys and values on all ranks that split them, copies included."""
    return smooth.larger(at.kv_heads, ranks)


class GroupLimit(NamedTuple):
    """Of how many groups of experts a token may use how many."""

    groups: int = 1
    topk_groups: int = 1


ANY_GROUP = GroupLimit()


class Experts(struct.PyTreeNode, kw_only=True, frozen=True):
    """The routed and shared experts of a mixture-of-experts layer."""

    routed: Leaf
    topk: Leaf
    shared: Leaf
    """Shared experts, each of the routed experts' intermediate size."""
    intermediate: Leaf
    has_shared: bool = struct.field(pytree_node=False, default=True)
    """False where `shared` is 0, so that no kernels are launched for it."""
    groups: int = struct.field(pytree_node=False, default=1)
    topk_groups: int = struct.field(pytree_node=False, default=1)
    """Of as many groups of experts, one after another on the devices, those that a token
    may use: node-limited routing (DeepSeek-V3, arXiv 2412.19437, section 2.1.2)."""
    kind: str = struct.field(pytree_node=False, default="experts")

    @property
    def limit(self) -> GroupLimit:
        return GroupLimit(self.groups, self.topk_groups)


class Weights(NamedTuple):
    """How many weights layers have."""

    attention: Leaf
    """Of an attention block."""
    per_width: Leaf
    """Of a feed-forward network or expert, for each element of its width."""
    per_network: Leaf
    """And whatever its width."""


class Architecture(struct.PyTreeNode, kw_only=True, frozen=True):
    """A decoder-only transformer."""

    hidden: Leaf
    layers: Leaf
    """Transformer layers, without multi-token-prediction modules."""
    dense_layers: Leaf
    """Layers with a dense feed-forward network; the others hold experts."""
    intermediate: Leaf
    """Width of the dense feed-forward network (not used where no layer is dense)."""
    vocabulary: Leaf
    positions: Leaf
    """Learned position embeddings (0 with rotary positions)."""
    draft_layers: Leaf
    """Multi-token-prediction modules that the checkpoint holds."""
    attention: GroupedQuery | Latent
    experts: Experts | None
    gated: Switch
    """Gate, up and down projections (SwiGLU) instead of up and down."""
    tied: Switch
    """The output head shares the embedding's weights."""
    biased: Switch
    """Linear layers and norms carry biases."""
    weights: Weights | None = None
    """What `weighed` fills in; it stays when sizes are replaced, so weigh last."""
    kind: str = struct.field(pytree_node=False, default="architecture")


def weighed(a: Architecture) -> Architecture:
    """The model with the weights of its layers worked out once for all who ask."""
    return a.replace(weights=_weights(a))


def _weights(a: Architecture) -> Weights:
    matrices = 2.0 + a.gated.on
    return Weights(
        attention=_attention(a),
        per_width=matrices * a.hidden + a.biased.on * (matrices - 1.0),
        per_network=a.biased.on * a.hidden,
    )


def attention_parameters(a: Architecture):
    """Weights of one attention block, norms of the block included."""
    return _attention(a) if a.weights is None else a.weights.attention


def _attention(a: Architecture):
    h, at = a.hidden, a.attention
    if isinstance(at, Latent):
        query_dim = at.nope_dim + at.rope_dim
        return (
            h * at.query_rank
            + at.query_rank
            + at.query_rank * at.heads * query_dim
            + h * (at.latent_dim + at.rope_dim)
            + at.latent_dim
            + at.latent_dim * at.heads * (at.nope_dim + at.value_dim)
            + at.heads * at.value_dim * h
        )
    query, pair = at.heads * at.head_dim, 2.0 * at.kv_heads * at.head_dim
    joined = query + pair
    return h * (joined + query) + a.biased.on * (joined + h)


def feed_forward_parameters(a: Architecture, intermediate):
    """Weights of one feed-forward network or expert of the given width."""
    own = _weights(a) if a.weights is None else a.weights
    return own.per_width * intermediate + own.per_network


def norm_parameters(a: Architecture):
    """Weights of the two norms of a layer."""
    return (2.0 + 2.0 * a.biased.on) * a.hidden


def expert_layer_parameters(a: Architecture, routed):
    """Weights of one mixture layer's router and experts, `routed` of them counted."""
    e = a.experts
    if e is None:
        return 0.0
    expert = feed_forward_parameters(a, e.intermediate)
    return (routed + e.shared) * expert + a.hidden * e.routed + e.routed


def layer_parameters(a: Architecture, routed):
    """Weights of all layers, with `routed` experts counted in each mixture layer."""
    moe_layers = a.layers - a.dense_layers
    common = attention_parameters(a) + norm_parameters(a)
    dense = a.dense_layers * feed_forward_parameters(a, a.intermediate)
    return a.layers * common + dense + moe_layers * expert_layer_parameters(a, routed)


def embedding_parameters(a: Architecture):
    """Token and position embeddings, output head and final norm."""
    tables = (2.0 - a.tied.on) * a.vocabulary * a.hidden
    return tables + a.positions * a.hidden + (1.0 + a.biased.on) * a.hidden


def total_parameters(a: Architecture):
    """Weights of the model, draft modules not counted.

    This is how model cards count: 671e9 for DeepSeek-V3, whose checkpoint holds
    another 14e9 for its multi-token-prediction module.
    """
    routed = 0.0 if a.experts is None else a.experts.routed
    return layer_parameters(a, routed) + embedding_parameters(a)


def active_parameters(a: Architecture):
    """Weights that take part in one token's forward pass."""
    topk = 0.0 if a.experts is None else a.experts.topk
    return layer_parameters(a, topk) + embedding_parameters(a)


def kv_width(a: Architecture):
    """Elements of key-value cache that one token leaves in one layer."""
    at = a.attention
    if isinstance(at, Latent):
        return at.latent_dim + at.rope_dim
    return 2.0 * at.kv_heads * at.head_dim
