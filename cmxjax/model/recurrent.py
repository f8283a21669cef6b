"""Recurrent mixers: a state of constant size instead of keys and values.

One class has them all, as sizes: Mamba-1 (a state of each channel), Mamba-2, lightning
attention, gated delta net, Kimi delta attention, and short convolutions (no state).
"""

from flax import struct

from .._types import Leaf
from ..switch import Switch
from .mixers import Mixer


class Recurrent(Mixer, struct.PyTreeNode, kw_only=True, frozen=True):
    """A linear recurrence over states of heads x key_dim x value_dim.

    Reference: Dao and Gu, arXiv 2405.21060 (Mamba-2); Yang et al., arXiv 2412.06464
    (gated delta net).
    """

    heads: Leaf
    key_dim: Leaf
    """0 of a convolution alone."""
    value_dim: Leaf
    columns: Leaf
    """Width of what the hidden state is projected to: queries, keys, values, gates."""
    inner: Leaf
    """Weights of further projections in front of the recurrence, such as of low rank."""
    inner_depth: Leaf
    """Their depth."""
    channels: Leaf
    """That a convolution along the sequence mixes."""
    kernel: Leaf
    """Tokens that it spans."""
    delta: Switch
    """What a key had stored is taken from the state before it stores anew."""
    scanned: Switch
    """Each state decays by itself, so that no product of matrices computes a chunk."""
    chunk: Leaf
    """Tokens that prefill computes at once."""
    vectors: Leaf
    """Weights that no projection has: of convolution, decay and norms."""
    norms: Leaf
    norm_vectors: Leaf
    stored: Leaf
    kind: str = struct.field(pytree_node=False, default="recurrent")

    caches = False

    @property
    def outputs(self) -> Leaf:
        """Width of what is projected back to the hidden state."""
        return self.heads * self.value_dim

    @property
    def memory(self) -> Leaf:
        """Elements of the states of all heads."""
        return self.heads * self.key_dim * self.value_dim

    @property
    def state(self) -> Leaf:
        return self.memory + self.channels * (self.kernel - 1.0)

    def parameters(self, hidden: Leaf) -> Leaf:
        return hidden * (self.columns + self.outputs) + self.inner + self.vectors

    def training_parameters(self, weights: Leaf, hidden: Leaf, ranks: Leaf) -> Leaf:
        return weights / ranks

    def serving_parameters(
        self, weights: Leaf, hidden: Leaf, ranks: Leaf, whole_output: bool
    ) -> Leaf:
        return weights / ranks

    def kv_share(self, ranks: Leaf) -> Leaf:
        return 1.0 / ranks

    @property
    def chunk_products(self) -> Leaf:
        """Multiply-adds of a token while chunks are computed: within a chunk scores and
        context, twice with the delta rule; a state written and read.

        Reference: Dao and Gu, arXiv 2405.21060, section 6; Yang et al., arXiv 2406.06484,
        section 3.2.
        """
        widths = self.heads * (self.key_dim + self.value_dim)
        within = (1.0 + self.delta.on) * self.chunk * widths
        return within + 2.0 * self.memory

    def products(self, tokens: Leaf) -> Leaf:
        """Of the recurrence token by token, which is how model FLOP count it."""
        return (2.0 + self.delta.on) * self.memory

    @property
    def value_width(self) -> Leaf:
        return self.outputs

    def decode_width(self, ranks: Leaf) -> Leaf:
        return self.columns + self.outputs

    def prefill_elements(
        self, new: Leaf, whole: Leaf, gathered: Leaf, ranks: Leaf
    ) -> Leaf:
        return new * (self.columns + self.outputs)

    def kept_width(self, ranks: Leaf) -> Leaf:
        return self.columns + self.channels + 2.0 * self.outputs

    def ring_elements(self, tokens: Leaf, sequences: Leaf, holders: Leaf) -> Leaf:
        """Each rank's state of each sequence (Sun et al., LASP-2, arXiv 2502.07563)."""
        return sequences * self.memory

    def split_elements(self, tokens: Leaf, sequences: Leaf, holders: Leaf) -> Leaf:
        return tokens * (self.columns + self.outputs)
