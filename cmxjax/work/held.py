r"""What a device holds in training: weights by layer and stage, activations of a layer.

Activations of a transformer layer with sequences of s tokens, batch b, width h, a heads
and tensor parallelism t take

$$ s b h \Bigl(10 + \frac{24}{t} + 5\frac{a s}{h t}\Bigr) $$

bytes in 16 bits with dropout; sequence parallelism divides the 10 by t too, selective
recompute drops the quadratic term. Here each term is taken from the shapes, so that
grouped queries, gated networks, latents and experts are right as well.

Reference: Korthikanti et al., arXiv 2205.05198, equations 1 to 6; Rajbhandari et al.,
arXiv 1910.02054 (ZeRO).
"""

from typing import NamedTuple

import jax.numpy as jnp

from .. import smooth
from .._types import Scalar, Sharpness
from ..job.layout import Layout, degree
from ..job.workload import ANY, Train, mirrored
from ..machine.runtimes import Spread
from ..model.architecture import Architecture, Halves, added, known_of
from ..model.feed_forwards import Experts
from .routing import ExpertLoad, expert_load
from .stages import PerStage, Span, spans_of
from .training import ELEMENT


class Held(NamedTuple):
    """Weights on one device: those that data-parallel ranks share, and experts."""

    shared: PerStage
    expert: PerStage


def layer_weights(a: Architecture, layout: Layout) -> tuple[Held, ...]:
    """Weights that one device holds of a layer of each kind; last of a draft module's."""
    mixers = [_mixer_weights(a, i, layout) for i in range(len(a.mixers))]
    halves = [_half_weights(a, i, layout) for i in range(len(a.feed_forwards))]
    weights = []
    for kind in (*a.kinds, a.draft):
        parts = [mixers[i] for i in kind.mixers] + [halves[i] for i in kind.feed_forwards]
        shared, expert = (jnp.asarray(added(x)) for x in zip(*parts, strict=True))
        weights.append(Held(shared, expert))
    return tuple(weights)


def _mixer_weights(a: Architecture, place: int, layout: Layout) -> Held:
    mixer = a.mixers[place]
    weights = known_of(a).halves.mixers[place]
    held = mixer.training_parameters(weights, a.hidden, degree(layout, "tp"))
    return Held(mixer.norm_parameters(a.hidden) + held, jnp.zeros(()))


def _half_weights(a: Architecture, place: int, layout: Layout) -> Held:
    half, network = a.feed_forwards[place], known_of(a).networks[place]
    norm = half.norm_parameters(a.hidden)
    if not isinstance(half, Experts):
        return Held(norm + network / degree(layout, "tp"), jnp.zeros(()))
    ranks = degree(layout, "ep") * degree(layout, "etp")
    held = (half.routed + layout.routing.redundant_experts) / ranks
    common = known_of(a).halves.feed_forwards[place] - half.routed * network
    # a tensor group copies the router and splits the shared ones like a dense layer
    router = half.routing_parameters(a.hidden)
    common = router + (common - router) / degree(layout, "tp")
    return Held(norm + common, held * network)


def stage_weights(
    a: Architecture, layout: Layout, span: Span, layers: tuple[Held, ...]
) -> Held:
    """Weights that a device of each stage holds, the fullest between the ends, (stage,).

    A tied head that is not on the embedding's stage is a copy of it.

    Args:
        layers: weights of a layer of each kind and of a draft module's.
    """
    *kinds, draft = layers
    tp = degree(layout, "tp")
    table = a.vocabulary * a.hidden / tp
    both = a.tied.on * span.embedding * span.head
    tables = table * (span.embedding + span.head - both)
    tables = tables + span.embedding * a.positions * a.hidden
    drafts = span.head * a.draft_layers
    shared = drafts * (draft.shared + 2.0 * a.hidden**2) + tables
    expert = drafts * draft.expert
    for count, layer in zip(span.most, kinds, strict=True):
        shared, expert = shared + count * layer.shared, expert + count * layer.expert
    return Held(shared, expert)


class Kept(NamedTuple):
    """Bytes of activations that a layer keeps for its backward pass."""

    whole: tuple[Scalar, ...]
    """By kind."""
    entry: Scalar
    """Its input alone, which is what recompute keeps."""


def layer_activations(
    a: Architecture, w: Train, layout: Layout, load: ExpertLoad
) -> Kept:
    """Bytes that one micro-batch leaves in a layer, nothing recomputed in full."""
    tp, cp = degree(layout, "tp"), degree(layout, "cp")
    group = w.micro_batch * w.sequence_tokens / cp
    tokens = group / tp
    stream = layout.sequence_parallel.pick(tokens, group)
    linear = w.software.sizes.activation
    mask = a.dropout.on
    # norm inputs, linear inputs, dropout masks: split only along the sequence
    block = stream * a.hidden * (ELEMENT + linear + mask)
    mixers = []
    for mixer in a.mixers:
        kept = block + group / tp * mixer.kept_width(tp) * ELEMENT
        if mixer.caches and not w.fused_attention:
            score = (1.0 - w.selective.on) * (2.0 * ELEMENT + mask)
            kept = kept + group * mixer.heads / tp * w.sequence_tokens * score
        mixers.append(kept)
    halves = []
    for half in a.feed_forwards:
        wide = (1.0 + half.gated.on) * ELEMENT + linear
        if not isinstance(half, Experts):
            halves.append(block + group * half.intermediate / tp * wide)
            continue
        # an etp group gathers its tokens and splits the width of each expert
        copies, width = load.rows * load.active, half.intermediate / degree(layout, "etp")
        outer = half.token_width(a.hidden)
        routed = copies * (outer * (linear + ELEMENT) + width * wide)
        shared = tokens * half.shared * half.intermediate * wide
        halves.append(block + routed + shared)
    whole = [a.of_halves(Halves(mixers, halves), kind) for kind in a.kinds]
    return Kept(tuple(whole), stream * a.hidden * ELEMENT)


def kept_of_layer(w: Train, kept: Kept) -> list[Scalar]:
    """Bytes that a micro-batch leaves in a layer of each kind: all of its activations,
    but of the share of layers that run again the input alone."""
    entry, share = w.recompute_fraction * kept.entry, 1.0 - w.recompute_fraction
    return [entry + share * whole for whole in kept.whole]


class Holding(NamedTuple):
    """What a device holds and handles, worked out once for times and memory."""

    tokens: Scalar
    """Of one micro-batch on one device."""
    load: ExpertLoad
    span: Span
    weights: Held
    """Of each stage."""
    layer_weights: tuple[Held, ...]
    """Of a layer of each kind."""
    activations: Kept


def holding_of(
    a: Architecture,
    w: Train,
    layout: Layout,
    skew: Scalar,
    stages: Spread,
    sharpness: Sharpness,
) -> Holding:
    """The state of a job on its devices.

    Args:
        skew: of the experts' load, as the runtime has it.
        stages: how the runtime spreads layers.
    """
    split = degree(layout, "cp") * degree(layout, "tp")
    tokens = w.micro_batch * w.sequence_tokens / split
    load = expert_load(a, layout, w.software.balance, skew, tokens)
    span = spans_of(stages, a, w, layout, sharpness)
    layers = layer_weights(a, layout)
    weights = stage_weights(a, layout, span, layers)
    if w.schedule in ("dualpipe", ANY):  # a device holds a stage and its mirror image
        more = mirrored(w) * smooth.within(degree(layout, "pp") - 1.0, 0.0, 1.0)
        weights = Held(*(x + more * x[::-1] for x in weights))
    activations = layer_activations(a, w, layout, load)
    return Holding(tokens, load, span, weights, layers[:-1], activations)


def microbatches_of(w: Train, layout: Layout) -> Scalar:
    """Micro-batches of a data-parallel rank in a step; whole in a layout that can run."""
    return w.global_batch / (w.micro_batch * degree(layout, "dp"))


def data_ranks(w: Train, layout: Layout) -> tuple[Scalar, Scalar]:
    """Ranks that share the state of common weights, and of experts; those of a group, if
    there are any."""
    ranks, experts = degree(layout, "dp") * degree(layout, "cp"), degree(layout, "edp")
    if w.zero_group is None:
        return ranks, experts
    group = smooth.smaller(w.zero_group, ranks)
    return group, smooth.larger(experts * group / ranks, 1.0)
