"""A decoder-only model: kinds of layers, how many of each, and in which order."""

from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array

from .._types import Leaf, Real, Scalar
from ..switch import Switch
from .compressed import Compressed
from .feed_forwards import Dense, Experts
from .grouped_query import GroupedQuery
from .latent import Latent
from .recurrent import Recurrent
from .vision import Vision

MOST_LAYERS = 256

Number = TypeVar("Number", bound=Real)


class Kind(NamedTuple):
    """A kind of layer: mixers and feed-forward halves by their places, mostly one of
    each; none where a layer has one half only."""

    mixers: tuple[int, ...]
    feed_forwards: tuple[int, ...]
    parallel: bool = False
    """All halves read the same input and their outputs are added up at once."""


class Halves(NamedTuple):
    """Numbers of each mixer and of each feed-forward half."""

    mixers: list[Scalar]
    feed_forwards: list[Scalar]


class Known(NamedTuple):
    """What is worked out of a model once for all who ask."""

    counts: tuple[Scalar, ...]
    """Layers of each kind; `layers` of all."""
    layers: Scalar
    halves: Halves
    """Weights of each half, norms left out and all experts counted."""
    networks: list[Scalar]
    """Weights of one network of each feed-forward half: of a mixture, of one expert."""


class Architecture(struct.PyTreeNode, kw_only=True, frozen=True):
    """A decoder-only model."""

    hidden: Leaf
    mixers: tuple[GroupedQuery | Latent | Compressed | Recurrent, ...]
    feed_forwards: tuple[Dense | Experts, ...]
    order: Leaf
    """How many layers of each kind there are among the first n, (kind, n): n runs from 0
    to `MOST_LAYERS`, and from the model's depth on nothing is added."""
    vocabulary: Leaf
    positions: Leaf
    """Learned position embeddings (0 with rotary positions)."""
    draft_layers: Leaf
    """Multi-token-prediction modules that the checkpoint holds."""
    tied: Switch
    """The output head shares the embedding's weights."""
    dropout: Switch
    """Trained with dropout, as older models were."""
    final_vectors: Leaf
    """Weights of the norm behind the layers, over the model's width."""
    extra: Leaf
    """Other weights outside layers, such as a bias of the head."""
    vision: Vision | None = None
    """The tower that a job with images runs; None where it has no images, or the model
    no tower."""
    known: Known | None = None
    """What `weighed` fills in; it stays when sizes are replaced, so weigh last."""
    kinds: tuple[Kind, ...] = struct.field(pytree_node=False)
    draft: Kind = struct.field(pytree_node=False)
    """What a multi-token-prediction module is, besides its projection and head."""
    kind: str = struct.field(pytree_node=False, default="architecture")

    @property
    def counts(self) -> tuple[Scalar, ...]:
        """Layers of each kind."""
        if self.known is not None:
            return self.known.counts
        return tuple(jnp.unstack(jnp.asarray(self.order)[..., -1], axis=-1))

    @property
    def layers(self) -> Scalar:
        """Layers, without multi-token-prediction modules."""
        return added(self.counts) if self.known is None else self.known.layers

    def counts_of(self, belongs: Callable[[Kind], bool]) -> Scalar:
        """Layers of the kinds that belong to something."""
        chosen = zip(self.kinds, self.counts, strict=True)
        return added(count for kind, count in chosen if belongs(kind))

    @property
    def expert_layers(self) -> Scalar:
        return self.counts_of(self.has_experts)

    @property
    def dense_layers(self) -> Scalar:
        return self.counts_of(lambda kind: not self.has_experts(kind))

    @property
    def experts(self) -> Experts | None:
        """The mixture, of which a model has one kind at most."""
        mixtures = [f for f in self.feed_forwards if isinstance(f, Experts)]
        return mixtures[0] if mixtures else None

    @property
    def attention(self) -> GroupedQuery | Latent | Compressed | Recurrent:
        """The mixer of most layers, as the model file says first."""
        return self.mixers[0]

    def has_experts(self, kind: Kind) -> bool:
        return any(self.feed_forwards[i] is self.experts for i in kind.feed_forwards)

    def of_halves(self, values: Halves, kind: Kind) -> Scalar:
        """Sum of the values of a kind's halves."""
        mixers = [values.mixers[i] for i in kind.mixers]
        return added([*mixers, *(values.feed_forwards[i] for i in kind.feed_forwards)])

    @property
    def half_counts(self) -> Halves:
        """Layers that have each half."""
        mixers, halves = range(len(self.mixers)), range(len(self.feed_forwards))
        return Halves(
            [self.counts_of(lambda kind, i=i: i in kind.mixers) for i in mixers],
            [self.counts_of(lambda kind, i=i: i in kind.feed_forwards) for i in halves],
        )


def added(values: Iterable[Number]) -> Number | Array:
    """Sum that adds no zero in front."""
    values = [*values]
    return sum(values[1:], values[0]) if values else jnp.zeros(())


def weighed(a: Architecture) -> Architecture:
    """The model with what is known of it worked out once for all who ask."""
    return a.replace(known=known_of(a))


def known_of(a: Architecture) -> Known:
    """What `weighed` keeps."""
    if a.known is not None:
        return a.known
    h = a.hidden
    networks = [f.network_parameters(h) for f in a.feed_forwards]
    halves = [
        f.parameters(h, network)
        for f, network in zip(a.feed_forwards, networks, strict=True)
    ]
    mixers = [m.parameters(h) for m in a.mixers]
    return Known(a.counts, a.layers, Halves(mixers, halves), networks)


def met_parameters(a: Architecture) -> Halves:
    """Weights of each half that one token meets, norms left out."""
    known = known_of(a)
    each = zip(a.feed_forwards, known.halves.feed_forwards, known.networks, strict=True)
    halves = [
        weights - (half.routed - half.topk) * network
        if isinstance(half, Experts)
        else weights
        for half, weights, network in each
    ]
    return Halves(known.halves.mixers, halves)


def norm_parameters(a: Architecture) -> Halves:
    """Weights of the norms of each half."""
    mixers = [m.norm_parameters(a.hidden) for m in a.mixers]
    halves = [f.norm_parameters(a.hidden) for f in a.feed_forwards]
    return Halves(mixers, halves)


def layer_parameters(a: Architecture, weights: Halves) -> Scalar:
    """Weights of all layers, norms included, from those of each half."""
    norms, counts = norm_parameters(a), a.half_counts
    return added(
        count * (half + norm)
        for group in zip(counts, weights, norms, strict=True)
        for count, half, norm in zip(*group, strict=True)
    )


def embedding_parameters(a: Architecture) -> Scalar:
    """Token and position embeddings, output head and final norm."""
    tables = (2.0 - a.tied.on) * a.vocabulary * a.hidden
    return tables + (a.positions + a.final_vectors) * a.hidden + a.extra


def total_parameters(a: Architecture) -> Scalar:
    """Weights of the language model: neither draft modules nor a vision tower.

    This is how model cards count: 671e9 for DeepSeek-V3, whose checkpoint holds
    another 14e9 for its multi-token-prediction module.
    """
    return layer_parameters(a, known_of(a).halves) + embedding_parameters(a)


def active_parameters(a: Architecture) -> Scalar:
    """Weights that take part in one token's forward pass through the language model."""
    return layer_parameters(a, met_parameters(a)) + embedding_parameters(a)
