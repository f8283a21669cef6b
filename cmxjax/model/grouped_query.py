"""Multi-head, grouped-query and multi-query attention, over all tokens or a window."""

from flax import struct

from .. import smooth
from .._types import Leaf
from ..switch import Switch
from .mixers import Mixer, bounded_mean


class GroupedQuery(Mixer, struct.PyTreeNode, kw_only=True, frozen=True):
    """Multi-head (`kv_heads = heads`), grouped-query or multi-query attention.

    Reference: Ainslie et al., arXiv 2305.13245.
    """

    heads: Leaf
    kv_heads: Leaf
    head_dim: Leaf
    """Of queries and keys."""
    own_value_dim: Leaf | None = None
    """Of values, where they differ."""
    windowed: Switch
    """A token sees the last `window` tokens only."""
    window: Leaf
    """Without meaning unless windowed or chunked."""
    chunked: Switch
    """A token sees those of its own chunk of `window` tokens that precede it."""
    gated: Switch
    """Each output is multiplied by a gate, which a wider query projection computes."""
    own_cache: Switch
    """Has keys and values of its own, rather than those of an earlier layer."""
    input_biased: Switch
    """Projections to queries, keys and values carry biases."""
    output_biased: Switch
    vectors: Leaf
    """Weights that no projection has: norms of queries and keys, sinks."""
    norms: Leaf
    norm_vectors: Leaf
    stored: Leaf
    projects_values: bool = struct.field(pytree_node=False, default=True)
    """False where values are the keys, normed and not rotated; both are cached."""
    kind: str = struct.field(pytree_node=False, default="grouped_query")

    @property
    def query(self) -> Leaf:
        """Width of the queries of all heads."""
        return self.heads * self.head_dim

    @property
    def key_dim(self) -> Leaf:
        return self.head_dim

    @property
    def value_dim(self) -> Leaf:
        return self.head_dim if self.own_value_dim is None else self.own_value_dim

    @property
    def pair_dim(self) -> Leaf:
        """Width of a head's key and value together."""
        return self.head_dim + self.value_dim

    @property
    def pair(self) -> Leaf:
        """Width of keys and values together."""
        return self.kv_heads * self.pair_dim

    @property
    def projected_pair(self) -> Leaf:
        """Columns of the projection to keys and values."""
        if self.projects_values:
            return self.own_cache.on * self.pair
        return self.own_cache.on * self.kv_heads * self.head_dim

    @property
    def met(self) -> Leaf:
        """Multiply-adds of a query and a key that meet: score and context of all heads;
        and as many elements are its queries and outputs."""
        return self.heads * self.pair_dim

    @property
    def query_columns(self) -> Leaf:
        """Of the projection to queries, and to gates where there are such."""
        return self.heads * (self.head_dim + self.gated.on * self.value_dim)

    def parameters(self, hidden: Leaf) -> Leaf:
        inputs = self.query_columns + self.projected_pair
        biases = self.input_biased.on * inputs + self.output_biased.on * hidden
        return hidden * (inputs + self.value_width) + biases + self.vectors

    def training_parameters(self, weights: Leaf, hidden: Leaf, ranks: Leaf) -> Leaf:
        copies = self.own_cache.on * (self._spread(ranks) - self.kv_heads)
        width = self.pair_dim if self.projects_values else self.head_dim
        more = copies * width * hidden
        return (weights + more) / ranks

    def serving_parameters(
        self, weights: Leaf, hidden: Leaf, ranks: Leaf, whole_output: bool
    ) -> Leaf:
        return self.training_parameters(weights, hidden, ranks)

    def _spread(self, ranks: Leaf) -> Leaf:
        """Heads of keys and values on all ranks that split them: each holds one at
        least."""
        return smooth.larger(self.kv_heads, ranks)

    @property
    def kv_width(self) -> Leaf:
        return self.own_cache.on * self.pair

    def kv_share(self, ranks: Leaf) -> Leaf:
        return smooth.larger(1.0 / ranks, 1.0 / self.kv_heads)

    def _most(self, tokens: Leaf) -> Leaf:
        bound = smooth.smaller(tokens, self.window)
        return tokens + (self.windowed.on + self.chunked.on) * (bound - tokens)

    def kept(self, tokens: Leaf) -> Leaf:
        return self._most(tokens)

    def seen(self, tokens: Leaf) -> Leaf:
        """Within chunks the mean over the places in one."""
        most = self._most(tokens)
        over = smooth.within(tokens - most, 0.0, 1.0)
        return most + self.chunked.on * over * (0.5 * (most + 1.0) - most)

    def mean_seen(self, start: Leaf, end: Leaf) -> Leaf:
        """Up to the window a query sees all before it, then the window; or half a chunk
        on average."""
        most = self._most(end)
        late = most - 0.5 * self.chunked.on * (most - 1.0)
        return bounded_mean(start, end, most, late)

    def products(self, tokens: Leaf) -> Leaf:
        return self.met * self.kept(tokens)

    @property
    def query_width(self) -> Leaf:
        return self.query

    @property
    def output_width(self) -> Leaf:
        return self.value_width

    @property
    def value_width(self) -> Leaf:
        return self.heads * self.value_dim

    def decode_width(self, ranks: Leaf) -> Leaf:
        return self.met + ranks * self.kv_share(ranks) * self.pair

    def prefill_elements(
        self, new: Leaf, whole: Leaf, gathered: Leaf, ranks: Leaf
    ) -> Leaf:
        kv = new + gathered - whole
        return new * self.met + kv * ranks * self.kv_share(ranks) * self.pair

    def kept_width(self, ranks: Leaf) -> Leaf:
        return (self.heads + self._spread(ranks)) * self.pair_dim

    def ring_elements(self, tokens: Leaf, sequences: Leaf, holders: Leaf) -> Leaf:
        return tokens * self._spread(holders) * self.pair_dim

    def split_elements(self, tokens: Leaf, sequences: Leaf, holders: Leaf) -> Leaf:
        moved = self.ring_elements(tokens, sequences, holders)
        return moved + tokens * self.met
