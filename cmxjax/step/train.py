"""One training step: layers forward and backward, pipeline, gradients, optimizer."""

from typing import NamedTuple

import jax.numpy as jnp

from .._types import Scalar, Sharpness
from ..job.layout import Layout, degree, devices
from ..job.workload import Train
from ..machine.runtimes import Trainer
from ..machine.system import System
from ..model.architecture import Architecture
from .cluster import fabric_for
from .gradients import reduction_of, update_s
from .line import Line, Work, added, line_of_classes, line_of_stages, scaled
from .pipeline import pipeline_s
from .requests import times_of
from .serving import stage_of
from .shares import COLLECTIVE_PARTS, EXCHANGE_PARTS, MESH_PARTS, Scales
from .train_layers import Model, beside, collectives_of, exchanges_of, model_of
from .train_ops import compute_of, trainer_of
from .train_state import Plan, Span, microbatches_of

JITTER_FLOOR = 1e-2  # keeps the square root smooth where there is one rank


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


def _line(w: Train, layout: Layout, model: Model, span: Span) -> Line:
    """The pipeline's stages: those listed, or the two ends and equal ones between."""
    dense, expert, embedding, head, hop = (jnp.stack(part)[:, None] for part in model)
    passes = dense * span.dense + expert * span.expert
    passes = passes + embedding * span.embedding + head * span.head + hop
    if w.stage_layers is not None:
        return line_of_stages(Work(*jnp.unstack(passes)))
    first, middle, last = (Work(*jnp.unstack(x)) for x in jnp.unstack(passes, axis=1))
    return line_of_classes(first, middle, last, degree(layout, "pp"))


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
    stage = stage._replace(fabric=fabric_for(system, w, layout, stage.fabric))
    trainer = trainer_of(stage)
    times = times_of(stage, collectives_of(stage, a, w, plan))
    exchanges = exchanges_of(stage, a, plan, times)
    model = model_of(stage, a, w, compute_of(stage, a, w, plan.load), exchanges)
    reduction = reduction_of(a, w, times)
    model = model._replace(
        dense=beside(stage, w, model.dense, plan, reduction, 0),
        expert=beside(stage, w, model.expert, plan, reduction, 1),
    )
    line = _line(w, layout, model, plan.span)
    microbatches = microbatches_of(w, layout)
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
