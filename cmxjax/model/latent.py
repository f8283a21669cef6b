"""Multi-head latent attention (MLA): keys and values share a compressed latent."""

import jax.numpy as jnp
from flax import struct

from .. import smooth
from .._types import Leaf
from .mixers import Mixer, bounded_mean


class Indexer(struct.PyTreeNode, kw_only=True, frozen=True):
    """Chooses the tokens that a query of sparse attention meets, by scores of its own.

    Reference: DeepSeek-V3.2, arXiv 2512.02556, section 2.1.
    """

    heads: Leaf
    head_dim: Leaf
    topk: Leaf
    """Tokens that a query meets at most."""
    scans: bool = struct.field(pytree_node=False, default=True)
    """False where an earlier layer's has chosen: no keys, no scores, no weights."""
    kind: str = struct.field(pytree_node=False, default="indexer")

    def parameters(self, hidden: Leaf, query_rank: Leaf) -> Leaf:
        """Projections to queries, to the one key of a token with its norm, and to the
        weights of heads."""
        queries = query_rank * self.heads * self.head_dim
        return queries + hidden * (self.head_dim + self.heads) + 2.0 * self.head_dim


class Latent(Mixer, struct.PyTreeNode, kw_only=True, frozen=True):
    """Multi-head latent attention.

    Reference: DeepSeek-V2, arXiv 2405.04434, section 2.1 and appendix C.
    """

    heads: Leaf
    query_rank: Leaf
    """0 where queries come from the hidden state."""
    latent_dim: Leaf
    rope_dim: Leaf
    nope_dim: Leaf
    value_dim: Leaf
    indexer: Indexer | None = None
    """Of sparse attention; the heads then attend in the latent space in prefill too."""
    vectors: Leaf
    """Weights besides projections and the norms of latents."""
    norms: Leaf
    norm_vectors: Leaf
    stored: Leaf
    kind: str = struct.field(pytree_node=False, default="latent")

    shares_cache = True

    @property
    def sparse(self) -> bool:
        return self.indexer is not None

    @property
    def from_latent(self) -> Leaf:
        """1 where queries come from a latent too, 0 where from the hidden state."""
        return jnp.sign(self.query_rank)

    @property
    def key_dim(self) -> Leaf:
        return self.nope_dim + self.rope_dim

    @property
    def down_width(self) -> Leaf:
        """Of the fused projection down to latents."""
        return self.query_rank + self.latent_dim + self.rope_dim

    @property
    def expansion(self) -> Leaf:
        """Weights that expand the latent to keys and values."""
        return self.latent_dim * self.heads * (self.nope_dim + self.value_dim)

    def query_depth(self, hidden: Leaf) -> Leaf:
        """Depth of the projection to queries."""
        return hidden + self.from_latent * (self.query_rank - hidden)

    def parameters(self, hidden: Leaf) -> Leaf:
        return (
            hidden * self.down_width
            + self.query_rank
            + self.query_depth(hidden) * self.heads * self.key_dim
            + self.latent_dim
            + self.expansion
            + self.heads * self.value_dim * hidden
            + self.vectors
            + self._indexing(hidden)
        )

    def _indexing(self, hidden: Leaf) -> Leaf | float:
        """Weights of the indexer, which every rank holds."""
        if self.indexer is None or not self.indexer.scans:
            return 0.0
        return self.indexer.parameters(hidden, self.query_rank)

    def training_parameters(self, weights: Leaf, hidden: Leaf, ranks: Leaf) -> Leaf:
        whole = hidden * self.down_width + self._indexing(hidden)
        return whole + (weights - whole) / ranks

    def serving_parameters(
        self, weights: Leaf, hidden: Leaf, ranks: Leaf, whole_output: bool
    ) -> Leaf:
        whole = hidden * self.down_width + self._indexing(hidden)
        if whole_output:
            whole = whole + self.heads * self.value_dim * hidden
        return whole + (weights - whole) / ranks

    def wide_parameters(self, ranks: Leaf) -> Leaf:
        return self.expansion / ranks

    @property
    def latent_width(self) -> Leaf:
        """What the heads read of a token."""
        return self.latent_dim + self.rope_dim

    @property
    def kv_width(self) -> Leaf:
        """Of sparse attention the indexer's key too."""
        return self.latent_width + self.index_keys

    @property
    def index_keys(self) -> Leaf | float:
        if self.indexer is None or not self.indexer.scans:
            return 0.0
        return self.indexer.head_dim

    def seen(self, tokens: Leaf) -> Leaf:
        if self.indexer is None:
            return tokens
        return smooth.smaller(tokens, self.indexer.topk)

    def mean_seen(self, start: Leaf, end: Leaf) -> Leaf:
        if self.indexer is None:
            return super().mean_seen(start, end)
        return bounded_mean(start, end, self.seen(end), self.seen(end))

    def kv_share(self, ranks: Leaf) -> Leaf:
        return jnp.ones(())

    @property
    def pair_width(self) -> Leaf:
        """Keys and values of a token, expanded for all heads."""
        return self.heads * (self.key_dim + self.value_dim)

    def products(self, tokens: Leaf) -> Leaf:
        met = self.pair_width * self.seen(tokens)
        if self.indexer is None or not self.indexer.scans:
            return met
        return met + self.indexer.heads * self.indexer.head_dim * tokens

    @property
    def query_width(self) -> Leaf:
        return self.heads * self.latent_width

    @property
    def output_width(self) -> Leaf:
        return self.heads * self.latent_dim

    def gathered_width(self, hidden: Leaf) -> Leaf:
        return self.down_width + (1.0 - self.from_latent) * hidden

    @property
    def value_width(self) -> Leaf:
        return self.heads * self.value_dim

    def decode_width(self, ranks: Leaf) -> Leaf:
        return self.heads * (2.0 * self.latent_dim + self.rope_dim)

    def prefill_elements(
        self, new: Leaf, whole: Leaf, gathered: Leaf, ranks: Leaf
    ) -> Leaf:
        if self.indexer is not None:
            return new * (self.query_width + self.output_width)
        # one head's queries and outputs are as wide as its keys and values
        return (new + gathered) * self.pair_width

    def kept_width(self, ranks: Leaf) -> Leaf:
        return 2.0 * self.pair_width + self.down_width

    def ring_elements(self, tokens: Leaf, sequences: Leaf, holders: Leaf) -> Leaf:
        return tokens * self.pair_width

    def split_elements(self, tokens: Leaf, sequences: Leaf, holders: Leaf) -> Leaf:
        return 2.0 * tokens * self.pair_width
