"""Memory of a device of each stage in training, by class.

Reference: Korthikanti et al., arXiv 2205.05198 (activations); Rajbhandari et al., arXiv
1910.02054 (ZeRO).
"""

from typing import NamedTuple

from .. import smooth
from .._types import Leaf, Scalar
from ..job.layout import Layout, degree
from ..job.workload import ANY, BYTES, PROGRAMS, Train
from ..machine.runtimes import Trainer
from ..model.architecture import Architecture, added
from ..switch import either, one_of
from ..work.buckets import FILLING, bucket_of
from ..work.held import Holding, data_ranks, kept_of_layer, microbatches_of
from ..work.stages import PerStage
from ..work.training import ELEMENT

QUANTIZED_COPIES = 2.0
"""8-bit training keeps each weight quantized twice, as it is and transposed."""

MOMENTS_BYTES = 8.0
"""Two moments of Adam in fp32, for each weight."""

PRESENT = 2.0
"""Layers whose sharded or offloaded state is on the device at once: the current one, and
the one that comes next or has just left."""


class TrainMemory(NamedTuple):
    """Bytes on a device of each stage, by class."""

    weights: PerStage
    gradients: PerStage
    optimizer: PerStage
    activations: PerStage
    communication: PerStage
    """Gathered weights, communicators, the process itself, fragments."""

    @property
    def total(self) -> PerStage:
        return added(self)


def in_flight(
    schedule: str,
    position: Leaf,
    stages: Scalar,
    microbatches: Scalar,
    chunks: Scalar,
    order: Leaf = 0.0,
) -> Leaf:
    """Micro-batches whose activations a stage holds at once, in whole stages' worth.

    Args:
        position: stages before this one.
        order: which one the schedule `any` is, a place among `PROGRAMS`.

    GPipe holds all; 1F1B and ZB-H1 as many as stages from here to the end; interleaved
    (p + (p - 1 - 2 i)/v ...) a share more (Korthikanti et al., arXiv 2205.05198, section
    4.2.3); DualPipe p + 1; ZB-V p on all (Qi et al., arXiv 2405.15362).
    """
    if schedule == ANY:
        args = position, stages, microbatches, chunks
        return one_of([in_flight(name, *args) for name in PROGRAMS], order)
    if schedule == "gpipe":
        return microbatches
    if schedule == "dualpipe":
        several = smooth.within(stages - 1.0, 0.0, 1.0)
        return smooth.smaller(stages + several, microbatches)
    held = stages - position
    if schedule == "zero_bubble":
        held = either(chunks > 1.0, stages, held)
    if schedule in ("1f1b", "interleaved"):
        behind = stages - 1.0 - position
        several = (2.0 * behind + (chunks - 1.0) * stages + 1.0) / chunks
        held = either(chunks > 1.0, several, held)
    return smooth.smaller(held, microbatches)


def train_memory(
    trainer: Trainer, a: Architecture, w: Train, layout: Layout, holding: Holding
) -> TrainMemory:
    """Memory of a device of each stage, offloaded parts left out.

    Mixed precision keeps 2 + 12 bytes of weights and states for a weight (Rajbhandari et
    al., section 3.1): a framework that casts weights for each pass 4 + 8, and without
    master weights 2 + 8.
    """
    weights = holding.weights
    sizes = w.software.sizes
    ranks, expert_ranks = data_ranks(w, layout)
    whole = weights.shared + weights.expert
    split = weights.shared / ranks + weights.expert / expert_ranks
    size, narrow = BYTES["bf16"], sizes.activation < BYTES["bf16"]
    size = size + either(narrow, QUANTIZED_COPIES * sizes.activation, 0.0)
    casts = either(sizes.master > 0.0, trainer.casts_weights.on, 0.0)
    held = either(w.zero >= 3.0, split, whole)
    largest = smooth.larger_of(map(added, holding.layer_weights))
    state = either(w.zero >= 1.0, split, whole)
    kept = either(w.zero >= 2.0, split, whole) * sizes.gradient
    beside = either(sizes.gradient > BYTES["bf16"], BYTES["bf16"], 0.0)
    kept = kept + trainer.keeps_working_gradients.on * whole * beside
    alive = _activations(trainer, a, w, layout, holding)
    overhead = trainer.memory_overhead_bytes + alive * trainer.activation_slack
    read = either(w.zero >= 3.0, 0.0, whole * BYTES["bf16"])
    overhead = overhead + _gathered(a, w, layout)
    here = either(casts > 0.0, state * sizes.master + read, held * size)
    optimizer = state * (MOMENTS_BYTES + (1.0 - casts) * sizes.master)
    unit = largest
    if w.zero_bucket is not None:
        unit = added(bucket_of(w, part) for part in weights)
        filling = smooth.smaller(FILLING * unit, whole) * sizes.gradient
        overhead = overhead + either(w.zero >= 2.0, filling, 0.0)
    present = PRESENT if w.zero_prefetch is None else 1.0 + w.zero_prefetch
    gathered = smooth.smaller(present * unit, whole) * size
    overhead = overhead + either(w.zero >= 3.0, gathered, 0.0)
    if w.offloads:
        away = here * w.offload_weights
        here, optimizer = here - away, optimizer * (1.0 - w.offload_optimizer)
        beside = smooth.smaller(largest * PRESENT * size, away)
        overhead = overhead + either(w.zero < 3.0, beside, 0.0)
    return TrainMemory(
        weights=here,
        gradients=kept,
        optimizer=optimizer,
        activations=alive,
        communication=overhead,
    )


def _gathered(a: Architecture, w: Train, layout: Layout) -> Scalar:
    """Parts of other ranks in what sequence parallelism gathers: the input of the layer
    at work and, backward, its gradient before that is summed and scattered."""
    tp, cp = degree(layout, "tp"), degree(layout, "cp")
    group = w.micro_batch * w.sequence_tokens / cp
    others = layout.sequence_parallel.on * (1.0 - 1.0 / tp)
    return 2.0 * group * others * a.hidden * ELEMENT


def _activations(
    trainer: Trainer, a: Architecture, w: Train, layout: Layout, holding: Holding
) -> PerStage:
    pp, tp, cp = (degree(layout, axis) for axis in ("pp", "tp", "cp"))
    microbatches = microbatches_of(w, layout)
    layer, span = holding.activations, holding.span
    flight = in_flight(w.schedule, span.position, pp, microbatches, w.chunks, w.order)
    layers = kept_of_layer(w, layer)
    every = zip(span.most, layers, strict=True)
    kept = flight * added(count * each for count, each in every)
    again = w.recompute_fraction * smooth.larger_of(layer.whole)
    group = w.micro_batch * w.sequence_tokens / cp
    logits = span.head * group * a.vocabulary / tp * trainer.logit_bytes
    if w.offloads:
        away = kept * w.offload_activations
        moving = smooth.smaller(PRESENT * smooth.larger_of(layers), away)
        kept = kept - away + moving
    return kept + again + logits
