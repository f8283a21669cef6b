"""One training step: layers forward and backward, pipeline, gradients, optimizer."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .. import smooth
from .._types import Scalar, Sharpness
from ..architecture import Architecture, Latent
from ..collectives.algorithms import chain_s
from ..fabric import Fabric
from ..hardware import Chip, System, Trainer, ordered_tiers
from ..layout import Layout, degree, devices, splits
from ..ops.table import Op
from ..ops.training import ELEMENT, declared, tabulate_passes
from ..roofline import resources_s, roofline_s
from ..workload import BYTES, Train
from .gradients import Reduction, reduction_of, requests_of, update_s
from .pipeline import (
    Line,
    Work,
    added,
    line_of_classes,
    line_of_stages,
    pipeline_s,
    scaled,
)
from .requests import Request, times_of
from .serving import ExpertLoad, Stage, row_features, stage_of
from .shares import COLLECTIVE_PARTS, EXCHANGE_PARTS, MESH_PARTS, Scales
from .train_state import Plan, Span

PARTS = ("attention", "core", "dense", "experts", "embedding", "head", "draft")
JITTER_FLOOR = 1e-2  # keeps the square root smooth where there is one rank


class Compute(NamedTuple):
    """Seconds of each part on the cores, by name: the three passes."""

    forward: dict[str, Scalar]
    backward: dict[str, Scalar]
    weight: dict[str, Scalar]


class TrainTimes(NamedTuple):
    """Seconds of one step and its parts."""

    step_s: Scalar
    layer: Work
    """Mean transformer layer, one micro-batch, communication included."""
    pipeline_s: Scalar
    line: Line
    rest_s: Scalar
    """Gradients that are not hidden, optimizer, host, as the next three."""
    reduce_s: Scalar
    update_s: Scalar
    host_s: Scalar
    microbatches: Scalar
    bubble: Scalar
    """Share of the pipeline's time in which the mean stage idles."""
    stretch: Scalar
    """Factor of the slowest of all ranks over the mean one."""


def declarations(a: Architecture, w: Train) -> list[tuple[str, Op]]:
    """Forward operators with their parts; GEMMs first."""
    return declared(a, w.serving.dtypes, w.sequence_tokens, w.fused_attention)


def operator_blocks(a: Architecture, w: Train) -> tuple[str, ...]:
    """The block of each operator of the three passes, for the breakdown."""
    ops = [op for _, op in declarations(a, w)]
    gemms = [op for op in ops if op.kind == "gemm"]
    return tuple(op.block for op in [*ops, *ops, *gemms])


def train_components(a: Architecture, w: Train) -> tuple[str, ...]:
    """Names of the step's components that are not operators."""
    names = ["host.step", "host.layer", "optimizer.step"]
    names += ["pipeline.start", "pipeline.transfer"]
    axes = ["tensor_parallel", "context_parallel", "data_parallel"]
    if a.experts is not None:
        axes.append("expert_data_parallel")
        names += [
            f"{k}.{part}" for k in ("dispatch", "combine") for part in EXCHANGE_PARTS[k]
        ]
        names += [f"expert_tensor.{part}" for part in MESH_PARTS]
    names += [f"{axis}.{part}" for axis in axes for part in COLLECTIVE_PARTS]
    if w.offload_link:
        names.append("offload.transfer")
    return tuple(names)


def features_of(a: Architecture, w: Train, layout: Layout) -> dict[str, Scalar]:
    """Token counts of one micro-batch on one device.

    A tp group of t devices holds a sequence's cp share; each of them 1 / t of its
    tokens. Causal pairs are spread evenly over a cp group.
    """
    cp, tp = degree(layout, "cp"), degree(layout, "tp")
    tokens = w.micro_batch * w.sequence_tokens / (cp * tp)
    rows = row_features(a, layout, tokens)
    group = rows["head_rows"]
    return rows | {
        "up_rows": group,
        "pairs": group * 0.5 * (w.sequence_tokens + 1.0),
        "kv_read": group * cp * rows["per_kv"],
        "kv_expanded": 2.0 * tokens * cp,
        "query_rows": w.sequence_tokens / cp,
        "batch_heads": w.micro_batch * a.attention.heads / tp,
        "batch_tokens": rows["norm_rows"],
        "logit_rows": group,
    }


def training_chip(chip: Chip, trainer: Trainer) -> Chip:
    """The device as a training framework drives it: its kernels and eager launches."""
    peaks = {
        dtype: peak * (trainer.narrow_efficiency if BYTES[dtype] == 1.0 else 1.0)
        for dtype, peak in chip.matrix_flop_per_s.items()
    }
    return chip.replace(
        matrix_flop_per_s=peaks,
        gemm_efficiency=chip.gemm_efficiency * trainer.matrix_rate_factor,
        attention_efficiency=chip.attention_efficiency * trainer.attention_rate_factor,
        memory_efficiency=chip.memory_efficiency * trainer.vector_rate_factor,
        matrix_launch_s=trainer.launch_s,
        vector_launch_s=trainer.launch_s,
    )


def _trainer(stage: Stage) -> Trainer:
    return stage.system.trainers[stage.serving.engine]


def _compute(stage: Stage, a: Architecture, w: Train, load: ExpertLoad) -> Compute:
    """Operator times of one micro-batch, summed by part."""
    features = features_of(a, w, stage.layout)
    features |= {
        "expert_rows": load.rows,
        "experts": load.active,
        "copies": load.rows * load.active,
    }
    found = declarations(a, w)
    ops = [op for _, op in found]
    gradient = BYTES[w.serving.dtypes.gradient]
    passes = tabulate_passes(ops, features, gradient)
    trainer = _trainer(stage)
    chip = training_chip(stage.system.chip, trainer)
    slow = chip.attention_efficiency * trainer.backward_attention_efficiency
    chips = (chip, chip.replace(attention_efficiency=slow), chip)
    scale, start, times = stage.scales("operators"), 0, []
    for table, own in zip(passes, chips):
        count = len(table.names)
        rows = None if scale is None else scale[start : start + count]
        used = resources_s(own, table, rows, stage.sharpness)
        total = roofline_s(own, used, 1.0, stage.sharpness)
        times.append(_by_part(total, [part for part, _ in found[:count]]))
        start += count
    return Compute(*times)


def _by_part(values, parts: list[str]) -> dict[str, Scalar]:
    member = np.array([[float(p == name) for name in PARTS] for p in parts])
    sums = jnp.dot(values, member, precision=jax.lax.Precision.HIGHEST)
    return {name: sums[..., i] for i, name in enumerate(PARTS)}


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


def _requests(
    stage: Stage, a: Architecture, w: Train, plan: Plan
) -> dict[str, list[Request]]:
    """All gathers, reductions and exchanges of a step, by kind."""
    layout, tokens = stage.layout, plan.tokens
    own, tp = tokens * a.hidden * ELEMENT, degree(layout, "tp")
    asked: dict[str, list[Request]] = {}

    def ask(kind: str, axis: str, prefix: str, payload: Scalar) -> None:
        found = Request(axis, prefix, splits(layout, axis), payload)
        asked.setdefault(kind, []).append(found)

    if layout.attention != "dp" and layout.sequence_parallel:
        ask("all_gather", "tp", "tensor_parallel", own)
        ask("reduce_scatter", "tp", "tensor_parallel", own)
    elif layout.attention != "dp":
        ask("all_reduce", "tp", "tensor_parallel", own * tp)
    pair, ends = _context_widths(stage, a)
    if _trainer(stage).context == "all_to_all":
        moved = tokens * (pair + ends) * ELEMENT
        ask("all_to_all", "cp", "context_parallel", moved)
    else:
        ask("all_gather", "cp", "context_parallel", tokens * pair * ELEMENT)
        ask("reduce_scatter", "cp", "context_parallel", tokens * pair * ELEMENT)
    for kind, requests in requests_of(a, w, layout, plan).items():
        asked.setdefault(kind, []).extend(requests)
    return asked


def _context_widths(stage: Stage, a: Architecture) -> tuple[Scalar, Scalar]:
    """Elements of a token's keys and values, and of its queries and outputs, on the
    devices of a tp group together."""
    at = a.attention
    if isinstance(at, Latent):
        width = at.heads * (at.nope_dim + at.rope_dim + at.value_dim)
        return width, width
    shared = jnp.maximum(at.kv_heads, degree(stage.layout, "tp"))
    return 2.0 * shared * at.head_dim, 2.0 * at.heads * at.head_dim


def _exchanges(
    stage: Stage, a: Architecture, plan: Plan, times: dict[str, dict]
) -> Exchanges:
    """Collectives of one layer and micro-batch.

    In context parallelism a ring hands the keys and values of c - 1 other ranks
    through, backward with their gradients (Liu et al., arXiv 2310.01889); all-to-all
    changes from a split of the sequence to one of the heads and back (Jacobs et al.,
    arXiv 2309.14509).
    """
    layout, zero = stage.layout, jnp.zeros(())

    def found(kind: str, axis: str) -> Scalar:
        return times.get(kind, {}).get(axis, zero)

    own = plan.tokens * a.hidden * ELEMENT
    expert = zero
    if a.experts is not None:
        expert = sum(stage.exchanges(a, plan.load, plan.tokens), zero)
    sent = own if layout.sequence_parallel else own * degree(layout, "tp")
    chain = chain_s(
        stage.group("pp"), stage.library, sent, stage.scales.prefixed("pipeline")
    )
    forward = found("all_gather", "cp") + found("all_to_all", "cp")
    return Exchanges(
        gather=found("all_gather", "tp"),
        scatter=found("reduce_scatter", "tp"),
        reduce=found("all_reduce", "tp"),
        context_forward=forward,
        context_backward=forward + found("reduce_scatter", "cp"),
        expert=expert,
        hop=chain / jnp.maximum(degree(layout, "pp") - 1.0, 1.0),
    )


class Model(NamedTuple):
    """Work of each sort of layer and of the ends of the model."""

    dense: Work
    expert: Work
    embedding: Work
    head: Work
    """With the multi-token-prediction layers."""
    hop: Work


def _layers(stage: Stage, a: Architecture, w: Train, c: Compute, x: Exchanges) -> Model:
    trainer, s = _trainer(stage), stage.sharpness
    ahead, behind = (
        trainer.tensor_forward_exposed_fraction,
        trainer.tensor_backward_exposed_fraction,
    )
    ring = trainer.context_exposed_fraction
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
    dense, expert = _issued(stage, dense, expert)
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
    exposed = several * trainer.pipeline_exposed_fraction * w.chunks * x.hop
    return Model(
        dense,
        expert,
        embedding,
        added(head, scaled(draft, a.draft_layers)),
        Work(exposed, exposed, 0.0 * exposed),
    )


def _issued(stage: Stage, dense: Work, expert: Work) -> list[Work]:
    """Layers no shorter than the host needs to issue them.

    Asynchronous tensor parallelism cuts a GEMM into as many pieces as the group has
    ranks. The forward pass has a third of the kernels.
    """
    trainer, s = _trainer(stage), stage.sharpness
    apart = smooth.positive(_nodes(stage.system, stage.layout) - 1.0, s)
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
        exposed = _trainer(stage).expert_exposed_fraction
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
    moved = plan.activations[sort] * w.offload_activations
    weights = sum(plan.layer_weights[sort]) * BYTES["bf16"]
    moved = (moved + weights * w.offload_weights) / (link.bytes_per_s * link.efficiency)
    moved = moved * stage.scales("offload.transfer")
    exposed, s = _trainer(stage).offload_exposed_fraction, stage.sharpness
    forward = smooth.overlap_s(layer.forward, moved, exposed, s)
    backward = smooth.overlap_s(layer.backward, moved, exposed, s)
    return Work(forward, backward, layer.weight)


def _line(w: Train, layout: Layout, model: Model, span: Span) -> Line:
    """The pipeline's stages: those listed, or the two ends and equal ones between."""
    held = Work(
        *(
            d * span.dense + e * span.expert + i * span.embedding + h * span.head
            for d, e, i, h in zip(model.dense, model.expert, model.embedding, model.head)
        )
    )
    stages = added(held, model.hop)
    if w.stage_layers is not None:
        return line_of_stages(Work(*(x * jnp.ones_like(span.dense) for x in stages)))
    first, middle, last = (Work(*(x[i] for x in stages)) for i in range(3))
    return line_of_classes(first, middle, last, degree(layout, "pp"))


def _fabric(system: System, w: Train, layout: Layout, fabric: Fabric) -> Fabric:
    """The tiers beyond the scale-up system at the rate of a published cluster."""
    if not w.fabric:
        return fabric
    published = system.fabrics[w.fabric]
    factor = published.rate_factor
    factor = factor * _nodes(system, layout) ** -published.node_exponent
    outside = np.arange(len(system.tier_order)) >= _scale_up_tiers(system)
    return fabric._replace(rate=fabric.rate * jnp.where(outside, factor, 1.0))


def _scale_up_tiers(system: System) -> int:
    return system.tier_order.index(system.scale_up_tier) + 1


def _nodes(system: System, layout: Layout) -> Scalar:
    """Scale-up systems that a job fills, at least one."""
    size = 1.0
    for tier in ordered_tiers(system)[: _scale_up_tiers(system)]:
        size = size * tier.size
    return jnp.maximum(devices(layout) / size, 1.0)


def _stretch(trainer: Trainer, layout: Layout) -> Scalar:
    r"""Slowest of n ranks over the mean: $1 + \sigma\sqrt{2 \ln n}$.

    The expected largest of n normal variates, for large n (Cramer, Mathematical Methods
    of Statistics, 1946, section 28.6).
    """
    spread = 2.0 * jnp.log(devices(layout))
    return 1.0 + trainer.jitter_fraction * spread / jnp.sqrt(spread + JITTER_FLOOR**2)


def train_times(
    system: System,
    a: Architecture,
    w: Train,
    layout: Layout,
    plan: Plan,
    scales: Scales,
    sharpness: Sharpness,
) -> TrainTimes:
    """Time of one training step.

    The pipeline works through the micro-batches of a data-parallel rank; then come the
    gradients and weights that did not hide beside it, the optimizer and the host. All
    ranks wait for the slowest.
    """
    stage = stage_of(system, layout, w.serving, scales, sharpness)
    stage = stage._replace(fabric=_fabric(system, w, layout, stage.fabric))
    trainer = _trainer(stage)
    times = times_of(stage, _requests(stage, a, w, plan))
    exchanges = _exchanges(stage, a, plan, times)
    model = _layers(stage, a, w, _compute(stage, a, w, plan.load), exchanges)
    reduction = reduction_of(a, w, times)
    model = model._replace(
        dense=_hidden(stage, w, model.dense, plan, reduction, 0),
        expert=_hidden(stage, w, model.expert, plan, reduction, 1),
    )
    line = _line(w, layout, model, plan.span)
    microbatches = w.global_batch / (w.micro_batch * degree(layout, "dp"))
    pipe = pipeline_s(w.schedule, line, microbatches, w.chunks, sharpness)
    once = reduction.once_s(line, trainer, sharpness)
    host = trainer.step_s * scales("host.step")
    update = update_s(stage, a, w, plan)
    rest = once + update + host
    stretch = _stretch(trainer, layout)
    expert_layers = a.layers - a.dense_layers
    shares = a.dense_layers / a.layers, expert_layers / a.layers
    mean = added(scaled(model.dense, shares[0]), scaled(model.expert, shares[1]))
    busy = microbatches * line.whole.total / line.stages
    return TrainTimes(
        step_s=(pipe + rest) * stretch,
        layer=scaled(mean, stretch),
        pipeline_s=pipe * stretch,
        line=line,
        rest_s=rest * stretch,
        reduce_s=once * stretch,
        update_s=update * stretch,
        host_s=host * stretch,
        microbatches=microbatches,
        bubble=1.0 - busy / pipe,
        stretch=stretch,
    )


def _hidden(
    stage: Stage, w: Train, layer: Work, plan: Plan, reduction: Reduction, sort: int
) -> Work:
    """A layer with what moves beside each of its micro-batches: ZeRO and offload."""
    layer = _offloaded(stage, w, layer, plan, sort)
    exposed, s = _trainer(stage).data_exposed_fraction, stage.sharpness
    forward, backward = layer.forward, layer.backward
    if w.zero >= 3:
        forward = smooth.overlap_s(forward, reduction.gather_layer[sort], exposed, s)
    if w.zero >= 2:
        moved = reduction.scatter_layer[sort]
        if w.zero >= 3:
            moved = moved + reduction.gather_layer[sort]
        backward = smooth.overlap_s(backward, moved, exposed, s)
    return Work(forward, backward, layer.weight)
