"""Compressed attention (DeepSeek-V4): a window of tokens, and blocks of all before."""

import jax.numpy as jnp
from flax import struct

from .. import smooth
from .._types import Leaf
from .latent import Indexer
from .mixers import Mixer, bounded_mean


class Compressed(Mixer, struct.PyTreeNode, kw_only=True, frozen=True):
    """Multi-query attention whose keys are its values. A query sees the last tokens as
    they are, and of all tokens one entry for each block: every entry, or those that an
    indexer chooses. A learned mean over a block, or over it and the one before, makes an
    entry of it.

    Reference: DeepSeek-V4 technical report, sections 2.3.1 (chosen entries) and 2.3.2
    (all of them); sizes as in the `deepseek_v4` class of `transformers` 5.24.
    """

    heads: Leaf
    head_dim: Leaf
    """Of queries, and of the one key that is the value too."""
    query_rank: Leaf
    output_groups: Leaf
    """Of heads, whose outputs are projected down each by itself."""
    output_rank: Leaf
    """Width of what that gives for a group."""
    window: Leaf
    share: Leaf
    """Entries for each token: one over the tokens of a block, 0 without blocks."""
    series: Leaf
    """Blocks that an entry is a mean of: 2 where they overlap, 0 without blocks."""
    indexer: Indexer | None = None
    """Chooses among entries, from entries of its own."""
    vectors: Leaf
    """Weights besides projections: of norms, sinks and places within a block."""
    norms: Leaf
    norm_vectors: Leaf
    stored: Leaf
    kind: str = struct.field(pytree_node=False, default="compressed")

    shares_cache = True

    @property
    def sparse(self) -> bool:
        return self.indexer is not None

    @property
    def key_dim(self) -> Leaf:
        return self.head_dim

    @property
    def value_dim(self) -> Leaf:
        return self.head_dim

    @property
    def query(self) -> Leaf:
        """Width of the queries of all heads, and of their outputs."""
        return self.heads * self.head_dim

    @property
    def block_width(self) -> Leaf:
        """Of what a block's mean is made of: values and their weights."""
        return 2.0 * self.series * self.head_dim

    @property
    def down_width(self) -> Leaf:
        """Of the fused projection to the latent of queries, the key, and blocks."""
        return self.query_rank + self.head_dim + self.block_width

    @property
    def index_width(self) -> Leaf | float:
        """Columns of the indexer's projections of the hidden state."""
        if self.indexer is None:
            return 0.0
        return 2.0 * self.series * self.indexer.head_dim + self.indexer.heads

    @property
    def _index_query(self) -> Leaf | float:
        if self.indexer is None:
            return 0.0
        return self.query_rank * self.indexer.heads * self.indexer.head_dim

    def _whole(self, hidden: Leaf) -> Leaf:
        """Weights that every rank holds which splits the heads."""
        return hidden * (self.down_width + self.index_width) + self._index_query

    def parameters(self, hidden: Leaf) -> Leaf:
        outputs = self.output_rank * (self.query + self.output_groups * hidden)
        return self._whole(hidden) + self.query_rank * self.query + outputs + self.vectors

    def training_parameters(self, weights: Leaf, hidden: Leaf, ranks: Leaf) -> Leaf:
        whole = self._whole(hidden)
        return whole + (weights - whole) / ranks

    def serving_parameters(
        self, weights: Leaf, hidden: Leaf, ranks: Leaf, whole_output: bool
    ) -> Leaf:
        whole = self._whole(hidden)
        if whole_output:
            whole = whole + self.output_rank * self.output_groups * hidden
        return whole + (weights - whole) / ranks

    @property
    def kv_width(self) -> Leaf:
        return self.head_dim

    @property
    def grown(self) -> Leaf:
        """Entries of blocks, and the indexer's of the same."""
        return self.share * self.head_dim + self.index_keys

    @property
    def index_keys(self) -> Leaf | float:
        return 0.0 if self.indexer is None else self.share * self.indexer.head_dim

    def kv_share(self, ranks: Leaf) -> Leaf:
        return jnp.ones(())

    def kept(self, tokens: Leaf) -> Leaf:
        """In keys of a token: the window, and the entries of blocks."""
        return smooth.smaller(tokens, self.window) + tokens * self.grown / self.head_dim

    def seen(self, tokens: Leaf) -> Leaf:
        entries = self.share * tokens
        if self.indexer is not None:
            entries = smooth.smaller(entries, self.indexer.topk)
        return smooth.smaller(tokens, self.window) + entries

    def mean_seen(self, start: Leaf, end: Leaf) -> Leaf:
        most = smooth.smaller(end, self.window)
        near = bounded_mean(start, end, most, most)
        if self.indexer is None:
            return near + self.share * 0.5 * (start + end + 1.0)
        most = smooth.smaller(end, self.indexer.topk / self.share)
        return near + self.share * bounded_mean(start, end, most, most)

    def products(self, tokens: Leaf) -> Leaf:
        met = 2.0 * self.query * self.seen(tokens)
        if self.indexer is None:
            return met
        scored = self.indexer.heads * self.indexer.head_dim * self.share
        return met + scored * tokens

    @property
    def query_width(self) -> Leaf:
        return self.query

    @property
    def output_width(self) -> Leaf:
        return self.query

    def gathered_width(self, hidden: Leaf) -> Leaf:
        return self.query_rank + self.head_dim

    @property
    def value_width(self) -> Leaf:
        return self.query

    def decode_width(self, ranks: Leaf) -> Leaf:
        return 2.0 * self.query

    def prefill_elements(
        self, new: Leaf, whole: Leaf, gathered: Leaf, ranks: Leaf
    ) -> Leaf:
        return new * 2.0 * self.query

    def kept_width(self, ranks: Leaf) -> Leaf:
        return 2.0 * self.query + self.down_width

    def ring_elements(self, tokens: Leaf, sequences: Leaf, holders: Leaf) -> Leaf:
        return tokens * self.head_dim

    def split_elements(self, tokens: Leaf, sequences: Leaf, holders: Leaf) -> Leaf:
        return tokens * (2.0 * self.query + self.head_dim)
