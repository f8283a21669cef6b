"""What every mixer of tokens says of itself: the half of a layer that lets tokens meet.

A new kind of mixer is a class of its own in a file beside this one, its operators in
`work`, and its keys in the reader.
"""

from .. import smooth
from .._types import Leaf


class Mixer:
    """Half of a layer in which tokens meet: attention or a recurrence.

    Widths are elements of one token in one layer, all heads together.
    """

    heads: Leaf
    norms: Leaf
    """Norms around it, each as wide as the model."""
    norm_vectors: Leaf
    """Weights of each of them over the model's width: 1, or 2 with a bias."""
    stored: Leaf
    """Bytes of a weight over those of the job's weight format: other than 1 where the
    file keeps some modules in formats of their own."""

    caches = True
    """Tokens leave keys and values (or a latent) behind that later tokens read."""
    sparse = False
    """An indexer scans all earlier tokens and chooses those that a query meets."""
    shares_cache = False
    """All heads read the same cache, so that ranks which split heads each hold it."""

    def parameters(self, hidden: Leaf) -> Leaf:
        """Weights, those of the norms around it left out."""
        raise NotImplementedError

    def norm_parameters(self, hidden: Leaf) -> Leaf:
        """Weights of the norms around it."""
        return self.norms * self.norm_vectors * hidden

    def training_parameters(self, weights: Leaf, hidden: Leaf, ranks: Leaf) -> Leaf:
        """Of all its weights, those that each of some ranks holds which split the heads
        in training."""
        raise NotImplementedError

    def serving_parameters(
        self, weights: Leaf, hidden: Leaf, ranks: Leaf, whole_output: bool
    ) -> Leaf:
        """Likewise while serving.

        Args:
            whole_output: the projection of the outputs isn't split.
        """
        raise NotImplementedError

    def wide_parameters(self, ranks: Leaf) -> Leaf | float:
        """Of those, weights that a decoding engine keeps in the format in which they
        multiply queries and outputs."""
        return 0.0

    @property
    def kv_width(self) -> Leaf | float:
        """Cache that a token leaves."""
        return 0.0

    @property
    def grown(self) -> Leaf | float:
        """Of that, what stays of it while the context grows."""
        return self.kv_width

    @property
    def index_keys(self) -> Leaf | float:
        """Of that, the keys of an indexer, which have a format of their own."""
        return 0.0

    def kv_share(self, ranks: Leaf) -> Leaf:
        """Share of the cache that each of some ranks holds which split the heads."""
        raise NotImplementedError

    def kept(self, tokens: Leaf) -> Leaf:
        """Tokens of a context that the cache keeps."""
        return tokens

    def seen(self, tokens: Leaf) -> Leaf:
        """Tokens of a context that a query at its end meets."""
        return self.kept(tokens)

    def mean_seen(self, start: Leaf, end: Leaf) -> Leaf:
        """The same, the mean over queries at all places after `start` up to `end`."""
        return 0.5 * (start + end + 1.0)

    @property
    def state(self) -> Leaf | float:
        """Elements that a sequence keeps whatever its length."""
        return 0.0

    def products(self, tokens: Leaf) -> Leaf:
        """Multiply-adds of a token that meets a context of some tokens, besides those of
        weights: scores and context, or a state."""
        raise NotImplementedError

    @property
    def query_width(self) -> Leaf:
        """Queries while decoding, in the latent space where there is one."""
        raise NotImplementedError

    @property
    def output_width(self) -> Leaf:
        """Outputs of the heads while decoding, likewise."""
        raise NotImplementedError

    def gathered_width(self, hidden: Leaf) -> Leaf:
        """What a token-parallel prefill gathers before heads are split."""
        return hidden

    @property
    def value_width(self) -> Leaf:
        """Outputs of the heads in prefill."""
        raise NotImplementedError

    def decode_width(self, ranks: Leaf) -> Leaf:
        """What a decoding kernel holds of a new token, on all of some ranks."""
        raise NotImplementedError

    def prefill_elements(
        self, new: Leaf, whole: Leaf, gathered: Leaf, ranks: Leaf
    ) -> Leaf:
        """What a prefill kernel holds, on all of some ranks.

        Args:
            new: tokens that are computed on a device; likewise `whole` with cached ones,
                and `gathered` with those of the other ranks of a cp group.
        """
        raise NotImplementedError

    def kept_width(self, ranks: Leaf) -> Leaf:
        """What training keeps of a token for the backward pass, on a tp group."""
        raise NotImplementedError

    def ring_elements(self, tokens: Leaf, sequences: Leaf, holders: Leaf) -> Leaf:
        """What context parallelism moves in a ring for tokens of some sequences: keys and
        values on the ranks that hold heads, or a state."""
        raise NotImplementedError

    def split_elements(self, tokens: Leaf, sequences: Leaf, holders: Leaf) -> Leaf:
        """What it moves where heads are split: keys, values, queries and outputs."""
        raise NotImplementedError


def bounded_mean(start: Leaf, end: Leaf, most: Leaf, late: Leaf) -> Leaf:
    """Mean number of tokens that queries meet at all places after `start` up to `end`.

    Args:
        most: a query meets all tokens before it up to so many;
        late: and of a longer context so many.
    """
    grown = smooth.larger(most, start)
    early = 0.5 * (start + grown + 1.0)
    share = (end - grown) / smooth.larger(end - start, 1.0)
    return early + share * (late - early)
