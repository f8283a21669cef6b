"""Layers of a training step: compute beside collectives, and what each hides."""

from typing import NamedTuple

import jax.numpy as jnp

from .. import smooth
from .._types import Scalar
from ..job.layout import degree, splits
from ..job.workload import BYTES, Train
from ..model.architecture import Architecture, Latent, spread_kv_heads
from ..rates.algorithms import chain_s
from ..work.training import ELEMENT
from .cluster import nodes_of
from .gradients import Reduction, requests_of
from .line import Work, added, scaled
from .requests import Request
from .serving import Stage
from .train_ops import Compute, trainer_of
from .train_state import Plan, kept_of_layer


class Exchanges(NamedTuple):
    """Seconds of the collectives of one layer and micro-batch."""

    gather: Scalar
    """Of a tp group's activations: sequence parallelism gathers and scatters."""
    scatter: Scalar
    reduce: Scalar
    context_forward: Scalar
    context_backward: Scalar
    expert: Scalar
    """Dispatch and combine; backward they swap roles."""
    hop: Scalar
    """From a pipeline stage to the next."""


def collectives_of(
    stage: Stage, a: Architecture, w: Train, plan: Plan
) -> dict[str, list[Request]]:
    """All gathers, reductions and exchanges of a step, by kind.

    Inputs of GEMMs are gathered in the format that these read, which was quantized
    before; what they put out is summed in bf16 (Transformer Engine,
    transformer_engine/pytorch/module/linear.py: quantizers of its gathers).
    """
    layout, tokens = stage.layout, plan.tokens
    own, tp = tokens * a.hidden * ELEMENT, degree(layout, "tp")
    quantized = tokens * a.hidden * BYTES[w.serving.dtypes.activation]
    asked: dict[str, list[Request]] = {}

    def ask(kind: str, axis: str, prefix: str, payload: Scalar) -> None:
        found = Request(axis, prefix, splits(layout, axis), payload)
        asked.setdefault(kind, []).append(found)

    if layout.attention != "dp" and layout.sequence_parallel:
        ask("all_gather", "tp", "tensor_parallel", quantized)
        ask("reduce_scatter", "tp", "tensor_parallel", own)
    elif layout.attention != "dp":
        ask("all_reduce", "tp", "tensor_parallel", own * tp)
    pair, ends = _context_widths(stage, a, w)
    if w.context == "all_to_all":
        moved = tokens * (pair + ends) * ELEMENT
        ask("all_to_all", "cp", "context_parallel", moved)
    else:
        ask("all_gather", "cp", "context_parallel", tokens * pair * ELEMENT)
        ask("reduce_scatter", "cp", "context_parallel", tokens * pair * ELEMENT)
    for kind, requests in requests_of(a, w, layout, plan).items():
        asked.setdefault(kind, []).extend(requests)
    return asked


def _context_widths(stage: Stage, a: Architecture, w: Train) -> tuple[Scalar, Scalar]:
    """Elements of a token's keys and values, and of its queries and outputs, on the
    devices of a tp group together.

    A device holds at least one head of keys and values, so that few of them are copied:
    over tp in a ring, over tp and cp where all-to-all splits heads (Jacobs et al., arXiv
    2309.14509).
    """
    at = a.attention
    if isinstance(at, Latent):
        width = at.heads * (at.nope_dim + at.rope_dim + at.value_dim)
        return width, width
    holders = degree(stage.layout, "tp")
    if w.context == "all_to_all":
        holders = holders * degree(stage.layout, "cp")
    return 2.0 * spread_kv_heads(at, holders) * at.head_dim, 2.0 * at.heads * at.head_dim


def exchanges_of(
    stage: Stage, a: Architecture, plan: Plan, times: dict[str, dict]
) -> Exchanges:
    """Collectives of one layer and micro-batch.

    In context parallelism a ring hands the keys and values of c - 1 other ranks
    through, backward with their gradients (Liu et al., arXiv 2310.01889); all-to-all
    changes from a split of the sequence to one of the heads and back (Jacobs et al.,
    arXiv 2309.14509).

    A pipeline hands over each device's share of the activations; without sequence
    parallelism the group behind gathers them (Narayanan et al., arXiv 2104.04473,
    section 4.1).
    """
    layout, zero = stage.layout, jnp.zeros(())

    def found(kind: str, axis: str) -> Scalar:
        return times.get(kind, {}).get(axis, zero)

    own = plan.tokens * a.hidden * ELEMENT
    expert = zero
    if a.experts is not None:
        expert = sum(stage.exchanges(a, plan.load, plan.tokens), zero)
    chain = chain_s(
        stage.group("pp"), stage.library, own, stage.scales.prefixed("pipeline")
    )
    hop = chain / smooth.larger(degree(layout, "pp") - 1.0, 1.0)
    forward = found("all_gather", "cp") + found("all_to_all", "cp")
    return Exchanges(
        gather=found("all_gather", "tp"),
        scatter=found("reduce_scatter", "tp"),
        reduce=found("all_reduce", "tp"),
        context_forward=forward,
        context_backward=forward + found("reduce_scatter", "cp"),
        expert=expert,
        # half of an all-reduce gathers the shares
        hop=hop + 0.5 * found("all_reduce", "tp"),
    )


class Model(NamedTuple):
    """Work of each sort of layer and of the ends of the model."""

    dense: Work
    expert: Work
    embedding: Work
    head: Work
    """With the multi-token-prediction layers."""
    hop: Work


def model_of(stage: Stage, a: Architecture, w: Train, c: Compute, x: Exchanges) -> Model:
    """Passes of a micro-batch through each sort of layer and the ends of the model."""
    trainer, s = trainer_of(stage), stage.sharpness
    ahead, behind = (
        trainer.tensor_forward_exposed_fraction,
        trainer.tensor_backward_exposed_fraction,
    )
    # attention starts when an all-to-all ends, but beside the ring's next block
    ring = 1.0 if w.context == "all_to_all" else trainer.context_exposed_fraction
    forward_tp = x.gather + x.scatter + x.reduce
    # with sequence parallelism the gradient of the weight needs its input gathered again
    backward_tp = forward_tp + x.gather

    def block(part: str) -> Work:
        forward = smooth.overlap_s(c.forward[part], forward_tp, ahead, s)
        weight = c.weight[part]
        hidden = smooth.overlap_s(weight, backward_tp, behind, s) - weight
        return Work(forward, c.backward[part] + hidden, weight)

    core = smooth.overlap_s(c.forward["core"], x.context_forward, ring, s)
    back = c.backward["core"] + c.weight["core"]
    back = smooth.overlap_s(back, x.context_backward, ring, s)
    again = core if w.selective else 0.0
    attention = added(block("attention"), Work(core, back + again, 0.0 * core))
    dense = _recomputed(w, added(attention, block("dense")))
    zero = scaled(dense, 0.0)
    expert = zero
    if a.experts is not None:
        own = Work(c.forward["experts"], c.backward["experts"], c.weight["experts"])
        expert = _recomputed(w, _exchanged(stage, added(attention, own), x.expert, w))
    apart = smooth.positive(nodes_of(stage.system, stage.layout) - 1.0, s)
    dense, expert = _issued(stage, dense, expert, apart)
    head = Work(
        c.forward["head"] + x.gather,
        c.backward["head"] + x.scatter + x.reduce,
        c.weight["head"],
    )
    draft = Work(c.forward["draft"], c.backward["draft"], c.weight["draft"])
    draft = added(draft, head, expert if a.experts is not None else dense)
    embedding = Work(
        c.forward["embedding"] + x.scatter + x.reduce,
        c.backward["embedding"] + x.gather,
        0.0 * x.gather,
    )
    several = smooth.positive(degree(stage.layout, "pp") - 1.0, s)
    exposed = several * trainer.pipeline_exposed_fraction * x.hop
    exposed = w.chunks * (exposed + _blocked(stage, apart))
    return Model(
        dense,
        expert,
        embedding,
        added(head, scaled(draft, a.draft_layers)),
        Work(exposed, exposed, 0.0 * exposed),
    )


def _blocked(stage: Stage, apart: Scalar) -> Scalar:
    """Time that the busiest stage spends in the messages of one pass, in and out.

    Args:
        apart: 1 in jobs on several nodes, 0 on one.
    """
    messages = smooth.smaller(degree(stage.layout, "pp") - 1.0, 2.0)
    each = trainer_of(stage).message_host_s * stage.scales("host.layer")
    return messages * each * apart


def _issued(stage: Stage, dense: Work, expert: Work, apart: Scalar) -> list[Work]:
    """Layers no shorter than the host needs to issue them.

    Asynchronous tensor parallelism cuts a GEMM into as many pieces as the group has
    ranks. The forward pass has a third of the kernels.

    Args:
        apart: 1 in jobs on several nodes, 0 on one.
    """
    trainer, s = trainer_of(stage), stage.sharpness
    least = trainer.tensor_host_s * degree(stage.layout, "tp") * apart
    least = least * stage.scales("host.layer") / 3.0
    forward = jnp.stack([dense.forward, expert.forward])
    backward = jnp.stack([dense.backward, expert.backward])
    weight = jnp.stack([dense.weight, expert.weight])
    forward = smooth.maximum(forward, least, s)
    backward = smooth.maximum(backward + weight, 2.0 * least, s) - weight
    layers = (jnp.unstack(value) for value in (forward, backward, weight))
    return [Work(*passes) for passes in zip(*layers, strict=True)]


def _recomputed(w: Train, layer: Work) -> Work:
    """A layer of which a share runs forward again before its backward pass."""
    again = w.recompute_fraction * layer.forward
    return Work(layer.forward, layer.backward + again, layer.weight)


def _exchanged(stage: Stage, layer: Work, exchange: Scalar, w: Train) -> Work:
    """Dispatch and combine of a layer, beside compute where micro-batches overlap."""
    exposed: Scalar = jnp.ones(())
    if stage.layout.microbatches != "1" or w.schedule == "dualpipe":
        exposed = trainer_of(stage).expert_exposed_fraction
    s = stage.sharpness
    forward = smooth.overlap_s(layer.forward, exchange, exposed, s)
    whole = layer.backward + layer.weight
    backward = smooth.overlap_s(whole, exchange, exposed, s) - layer.weight
    return Work(forward, backward, layer.weight)


def _offloaded(stage: Stage, w: Train, layer: Work, plan: Plan, sort: int) -> Work:
    """A layer beside which a share of its activations goes to the host and back, and a
    share of its weights comes from there for each pass."""
    if not w.offload_link:
        return layer
    link = stage.system.links[w.offload_link]
    moved = kept_of_layer(w, plan.activations)[sort] * w.offload_activations
    weights = sum(plan.layer_weights[sort]) * BYTES["bf16"]
    moved = (moved + weights * w.offload_weights) / (link.bytes_per_s * link.efficiency)
    moved = moved * stage.scales("offload.transfer")
    exposed, s = trainer_of(stage).offload_exposed_fraction, stage.sharpness
    forward = smooth.overlap_s(layer.forward, moved, exposed, s)
    backward = smooth.overlap_s(layer.backward, moved, exposed, s)
    return Work(forward, backward, layer.weight)


def beside(
    stage: Stage, w: Train, layer: Work, plan: Plan, reduction: Reduction, sort: int
) -> Work:
    """A layer with what moves beside each of its micro-batches: ZeRO and offload."""
    layer = _offloaded(stage, w, layer, plan, sort)
    exposed, s = trainer_of(stage).data_exposed_fraction, stage.sharpness
    forward, backward = layer.forward, layer.backward
    if w.zero >= 3:
        forward = smooth.overlap_s(forward, reduction.gather_layer[sort], exposed, s)
    if w.zero >= 2:
        moved = reduction.scatter_layer[sort]
        if w.zero >= 3:
            moved = moved + reduction.gather_layer[sort]
        backward = smooth.overlap_s(backward, moved, exposed, s)
    return Work(forward, backward, layer.weight)
