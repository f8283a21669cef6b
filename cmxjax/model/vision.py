"""A vision tower: the encoder that turns an image into embeddings for a language model.

Its layers are attention in both directions and a dense network, as language models have
them, over the patches of one image (or of one tile of it). A projector merges patches
and brings them to the language model's width.
"""

from typing import NamedTuple

from flax import struct

from .._types import Leaf
from .feed_forwards import Dense
from .grouped_query import GroupedQuery


class Projection(NamedTuple):
    """A matrix of the projector, which works on merged patches."""

    inputs: Leaf
    outputs: Leaf


class Vision(struct.PyTreeNode, kw_only=True, frozen=True):
    """A vision transformer with its patch embedding and its projector.

    References: Dosovitskiy et al., arXiv 2010.11929 (patches); Qwen2.5-VL, arXiv
    2502.13923, section 2.1 (windows, merged patches, own resolution); Qwen3-VL, arXiv
    2511.21631 (embeddings of several depths).
    """

    hidden: Leaf
    mixers: tuple[GroupedQuery, ...]
    """Over the whole image; and within windows, where the tower has such."""
    layers: tuple[Leaf, ...]
    """With each of them."""
    feed_forward: Dense
    inputs: Leaf
    """Numbers of a patch: pixels of its frames, by color."""
    projections: tuple[Projection, ...]
    """One after another, all depths together."""
    embedding: Leaf
    """Elements that the language model gets for each of an image's tokens, all depths."""
    extra: Leaf
    """Other weights: positions, and biases and norms outside layers."""
    kind: str = struct.field(pytree_node=False, default="vision")

    @property
    def layer_parameters(self) -> Leaf:
        """Weights of all layers, norms included."""
        h, half = self.hidden, self.feed_forward
        dense = half.network_parameters(h) + half.norm_parameters(h)
        each = [m.parameters(h) + m.norm_parameters(h) + dense for m in self.mixers]
        return sum(n * of for n, of in zip(self.layers, each, strict=True))

    @property
    def outer_parameters(self) -> Leaf:
        """Weights of the patch embedding and the projector, and what stands beside."""
        matrices = [at.inputs * at.outputs for at in self.projections]
        return self.inputs * self.hidden + self.extra + sum(matrices)

    @property
    def parameters(self) -> Leaf:
        """Weights of the tower."""
        return self.layer_parameters + self.outer_parameters
