"""One training step: layers forward and backward, pipeline, gradients, optimizer."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from .. import smooth
from .._types import PyTree, Scalar, Sharpness
from ..job.layout import Layout, degree, devices
from ..job.workload import mirrored
from ..machine.runtimes import Trainer
from ..model.architecture import added
from ..rates.exchange import ranks_of
from ..work.buckets import exposed_of
from ..work.held import Holding, microbatches_of
from .costs import Composition, Costs
from .exchanges import expert_group
from .line import Line, PassTimes, in_turn, line_of_classes, line_of_stages, scaled
from .pipeline import chunks_filled, pipeline_s
from .requests import by_form, several_ranks
from .train_layers import (
    LayerPasses,
    Shape,
    Sharing,
    communication_of,
    passes_of,
)
from .train_price import Job, price, trainer_of

JITTER_FLOOR = 1e-2  # keeps the square root smooth where there is one rank


class TrainTimes(NamedTuple):
    """Seconds of one step and its parts."""

    step_s: Scalar
    layer: PassTimes
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


def stretch_of(trainer: Trainer, layout: Layout) -> Scalar:
    r"""Slowest of n ranks over the mean: $1 + \sigma\sqrt{2 \ln n}$.

    The expected largest of n normal variates, for large n (Cramer, Mathematical Methods
    of Statistics, 1946, section 28.6).
    """
    spread = 2.0 * jnp.log(devices(layout))
    return 1.0 + trainer.jitter_fraction * spread / jnp.sqrt(spread + JITTER_FLOOR**2)


def sharing_of(job: Job, sharpness: Sharpness) -> Sharing:
    """How the machine and its framework overlap and wait."""
    machine, trainer = job.machine, trainer_of(job.machine)
    group = expert_group(machine, job.layout, elsewhere=False)
    return Sharing(
        roofline=machine.chip.roofline_exposed_fraction,
        protocol=machine.library.protocol_exposed_fraction,
        tensor_forward=trainer.tensor_forward_exposed_fraction,
        tensor_backward=trainer.tensor_backward_exposed_fraction,
        context=trainer.context_exposed_fraction,
        expert=trainer.expert_exposed_fraction,
        pipeline=trainer.pipeline_exposed_fraction,
        data=exposed_of(job.w, job.holding, trainer.data_exposed_fraction),
        offload=trainer.offload_exposed_fraction,
        wait=trainer.wait_excess,
        several=several_ranks(job.requests, sharpness),
        ranks=ranks_of(group, machine.exchange, sharpness),
        stages=smooth.positive(degree(job.layout, "pp") - 1.0, sharpness),
        stretch=stretch_of(trainer, job.layout),
    )


def _line(shape: Shape, passes: LayerPasses, holding: Holding) -> Line:
    """The pipeline's stages: those listed, or the two ends and equal ones between."""
    span, ends = holding.span, (passes.embedding, passes.head, passes.hop)
    every = [jnp.stack(work) for work in (*passes.layers, *ends)]
    # each stage is made of these; the compiler would compute them for each anew
    every = (work[:, None] for work in jax.lax.optimization_barrier(every))
    *layers, embedding, head, hop = every
    work = added(layer * count for layer, count in zip(layers, span.layers, strict=True))
    work = work + embedding * span.embedding + head * span.head + hop
    if shape.w.stage_layers is not None:
        return line_of_stages(PassTimes(*jnp.unstack(work)))
    first, middle, last = (PassTimes(*jnp.unstack(x)) for x in jnp.unstack(work, axis=1))
    stages = degree(shape.layout, "pp")
    return line_of_classes(first, middle, last, stages, span.fullest)


def compose(
    shape: Shape, sharing: Sharing, holding: Holding, sharpness: Sharpness, costs: Costs
) -> tuple[Scalar, TrainTimes]:
    """Time of one training step.

    The pipeline works through the micro-batches of a data-parallel rank; then come the
    gradients and weights that did not hide beside it, the optimizer and the host. All
    ranks wait for the slowest.
    """
    w, a, times = shape.w, shape.a, costs.times["step"]
    exchanges, reduction = communication_of(shape, times, sharing, sharpness)
    passes = passes_of(shape, times, sharing, exchanges, reduction, sharpness)
    line = _line(shape, passes, holding)
    microbatches = microbatches_of(w, shape.layout)
    pipe = pipeline_s(
        w.schedule,
        line,
        microbatches,
        w.chunks,
        sharpness,
        w.order,
        chunks_filled(a.layers) / line.stages,
    )
    once = reduction.once_s(line, sharing.data, sharpness)
    update, host = _update_s(times), _host_s(times)
    rest, stretch = once + update + host, sharing.stretch
    shares = [count / a.layers for count in a.counts]
    every = zip(passes.layers, shares, strict=True)
    mean = in_turn(*(scaled(layer, share) for layer, share in every))
    step_times = TrainTimes(
        step_s=(pipe + rest) * stretch,
        layer=scaled(mean, stretch),
        pipeline_s=pipe * stretch,
        line=line,
        rest_s=rest * stretch,
        reduce_s=once * stretch,
        update_s=update * stretch,
        host_s=host * stretch,
        microbatches=microbatches,
        bubble=1.0 - microbatches * line.whole.total / line.stages / pipe,
        stretch=stretch,
    )
    return step_times.step_s, step_times


def _host_s(times: dict[str, PyTree]) -> Scalar:
    """Once a step: the host's own, and messages that all ranks wait for in turn."""
    return sum(times["host"].get("owners", {}).values(), times["host"]["step"])


def _update_s(times: dict[str, PyTree]) -> Scalar:
    """The optimizer, and its state over the host link."""
    moved = times.get("offload", {}).get("optimizer", {})
    return sum(moved.values(), times["optimizer"]["step"])


def busy(
    shape: Shape, sharing: Sharing, holding: Holding, costs: Costs, step_times: TrainTimes
) -> dict[str, PyTree]:
    """What each component takes of the critical stage's work, hidden or not.

    At a sharpness of 1 nothing overlaps, so this work is linear in its components, with
    their runs as slopes; but for what a ring or a pipeline's hops expose.
    """
    serial = sharing._replace(context=1.0, pipeline=1.0)
    microbatches = step_times.microbatches
    stage_s = step_times.line.work.total * step_times.line.present
    # a device may hold a stage and its mirror image
    both = 0.5 * mirrored(shape.w)
    stage_s = (1.0 - both) * stage_s + both * stage_s[::-1]
    critical = (jnp.arange(len(stage_s)) == jnp.argmax(stage_s)) * 1.0

    def work_s(times: dict[str, PyTree]) -> Scalar:
        exchanges, reduction = communication_of(shape, times, serial, 1.0)
        passes = passes_of(shape, times, serial, exchanges, reduction, 1.0)
        each = _line(shape, passes, holding).work.total
        each = (1.0 - both) * each + both * each[::-1]
        once = reduction.step_s + _host_s(times) + _update_s(times)
        return (microbatches * jnp.dot(critical, each) + once) * sharing.stretch

    times = costs.times["step"]
    (runs,) = jax.linear_transpose(work_s, times)(jnp.ones(()))
    return {"step": jax.tree.map(jnp.multiply, times, runs)}


def trained(job: Job, sharpness: Sharpness) -> Composition[TrainTimes]:
    """Price a training step and say how it composes."""
    sharing, costs = sharing_of(job, sharpness), price(job, sharpness)
    shape = Shape(job.a, job.w, job.layout, job.ops, job.requests)
    blocks = [op.block for _, op in job.ops]
    gemms = [op.block for _, op in job.ops if op.kind == "gemm"]
    forms = by_form(job.requests).items()
    entries = {
        "operators.inputs": tuple(blocks),
        "operators.weights": tuple(gemms),
        "collectives": ("tensor_parallel", "context_parallel", "data_parallel"),
        **{f"collectives.{form}": tuple(r.component for r in of) for form, of in forms},
    }
    return Composition(
        costs=costs,
        compose=partial(compose, shape, sharing, job.holding, sharpness),
        busy=partial(busy, shape, sharing, job.holding, costs),
        entries=entries,
    )
