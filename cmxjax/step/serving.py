"""One serving step: decode, prefill, chunks beside decode, attention and experts apart.

They differ in what a micro-batch asks for (`asks`) and in a few settings of one
composition.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .. import smooth
from .._types import PyTree, Scalar, Sharpness
from ..job.layout import degree
from ..model.architecture import added
from .busy import Filled, busy_layer, filled
from .costs import Composition, Costs
from .layer import (
    HIGHEST,
    Counts,
    Layer,
    Shape,
    Sharing,
    Streams,
    halves_s,
    layer_of,
    layer_s,
    links_of,
    parts_s,
    typical,
)
from .price import Job, price, price_once, shape_of, sharing_of
from .vision import PricedTower, price_tower, tower_busy, tower_filled, tower_s

Mode = TypeVar("Mode")

SPLITS = tuple(cores / 12.0 for cores in range(3, 11))
"""Shares of the cores that an engine considers for its attention stream."""


class ServingTimes(NamedTuple):
    """Seconds of one serving step and its parts."""

    step_s: Scalar
    """Of a prefill batch, from admission to the last token's logits."""
    steady_s: Scalar
    """Between one step and the next when they follow each other."""
    layer: Layer
    rest_s: Scalar
    """Of the step, without repeated layers."""
    first: Array | None
    """Whether the first of two ways to overlap is the faster; None if one is weighed."""
    vision_s: Scalar | None = None
    """Of the step, for its images; None where there are none."""


def streams_of(microbatches: str) -> Streams:
    """One micro-batch in sequence, two overlapped, or both along a leading axis."""
    count = {"1": 1.0, "2": 2.0, "auto": np.array([1.0, 2.0])}[microbatches]
    return Streams(jnp.asarray(count), jnp.asarray(count - 1.0))


def in_each(microbatches: str, function: Callable[..., PyTree], *modes: PyTree) -> PyTree:
    """`function` of each way to overlap that is weighed."""
    return jax.vmap(function)(*modes) if microbatches == "auto" else function(*modes)


def slowest_stage(layers: Scalar, pp: Scalar, sharpness: Sharpness) -> Scalar:
    """Layers of the fullest pipeline stage over the mean: 1 where pp divides them."""
    excess = smooth.ceil(layers / pp, sharpness) * pp / layers - 1.0
    return 1.0 + excess * smooth.positive(pp - 1.0, sharpness)


def choose(
    shape: Shape, sharing: Sharing, counts: Counts, costs: Costs, sharpness: Sharpness
) -> Scalar:
    """Share of the cores that attention gets where two micro-batches overlap.

    An engine that partitions the cores takes the split that makes a layer shortest. The
    published one, 16 of 24 for a context of 4096 tokens, is what this gives; a shorter
    context leaves more cores to the experts. Relaxed, the share is the mean over the
    splits, weighed by their times to the power of minus 8 times the sharpness. Exactly it
    is piecewise constant, so it has no derivative.
    """
    if shape.microbatches == "1" or shape.streams != "cores":
        return jnp.asarray(0.5)
    if shape.microbatches == "auto":
        costs = jax.tree.map(lambda x: x[-1], costs)
    if sharpness is None:
        sharing, costs = jax.lax.stop_gradient((sharing, costs))
    streams = Streams(jnp.asarray(2.0), jnp.asarray(1.0))
    links = links_of(shape, sharing, costs, sharpness)

    def visit(_: None, share: Scalar) -> tuple[None, Scalar]:
        parts = parts_s(shape, sharing, costs, streams, share, sharpness)
        rest = parts, links, streams
        if not any(kind.whole for kind in shape.kinds):
            return None, halves_s(shape, sharing, counts, *rest, sharpness)
        args = shape, sharing, counts.domains, *rest
        layers = {i: layer_s(*args, i, sharpness) for i in shape.typical}
        values = [layers.get(i, jnp.zeros(())) for i in range(len(shape.kinds))]
        return None, typical(shape, counts, values)

    # a loop keeps the compiler from pricing the operators again for every split
    splits = jnp.asarray(SPLITS)
    _, times = jax.lax.scan(visit, None, splits, unroll=4)
    if sharpness is None:
        weights = (jnp.arange(len(SPLITS)) == jnp.argmin(times)) * 1.0
    else:
        weights = jax.nn.softmax(-8.0 * sharpness * jnp.log(times))
    return jnp.dot(weights, splits, precision=HIGHEST)


def compose(
    shape: Shape,
    sharing: Sharing,
    counts: Counts,
    share: Scalar,
    sharpness: Sharpness,
    costs: Costs,
) -> tuple[Scalar, ServingTimes]:
    """Time of one step: layers, one more of a kind for each draft, embedding, heads,
    and the host.

    With pp stages, pp micro-batches of this size are in flight: a step takes as long as
    the whole model takes for one, and the last stage's tail holds up all pp. Batches that
    fill and drain the pipeline take as much longer.
    """
    streams = streams_of(shape.microbatches)
    each = Costs(costs.times["layer"], costs.loads["layer"])
    args = shape, sharing, counts, share, sharpness
    modes = in_each(shape.microbatches, partial(layer_of, *args), each, streams)
    whole = [
        count * seconds
        for kind, count, seconds in zip(shape.kinds, counts.layers, modes.kinds_s)
        if kind.whole
    ]
    if len(whole) < len(counts.layers):
        whole.append(modes.halves_s)
    repeated = added(whole)
    total = repeated + counts.drafts * modes.kinds_s[-1]
    best, first = total, None
    if shape.microbatches == "auto":
        faster = smooth.minimum(total[0], total[1], sharpness)
        best = counts.overlaps.pick(total[1], faster)
        first = (total[0] <= total[1]) & (counts.overlaps.on < 0.5)
    layer, repeated = _of_faster(first, (modes, repeated))
    once = costs.times["once"]
    tail = layer.tail_s + counts.drafts * layer.draft_s
    best = best * counts.fullest
    tail = tail + sum(once.get("logits", {}).values())
    vision = None
    if counts.tower is not None:  # the first stage's, which hold up all batches
        exposed = sharing.roofline, sharing.protocol
        each = tower_s(counts.tower, *exposed, once["vision"], sharpness)
        vision = counts.stages * each
    steady = best + counts.stages * tail + sum(once.get("cache", {}).values())
    steady = steady if vision is None else steady + vision
    # the host launches ahead of the device, and schedules in front of it or beside it
    steady = smooth.maximum(steady, once["host"]["layer"], sharpness)
    schedule = counts.stages * once["host"]["step"]
    steady = smooth.overlap_s(steady, schedule, sharing.host, sharpness)
    step = steady + sum(once.get("pipeline", {}).values())
    if shape.fills:
        step = step + (1.0 - 1.0 / counts.stages) * best
    rest = step - repeated * counts.fullest
    times = ServingTimes(step, steady, layer, rest, first, vision)
    return step, times


class Served(NamedTuple):
    """A serving step, priced and chosen."""

    step: Composition[ServingTimes]
    filled: Callable[[ServingTimes], tuple[Filled, Filled]]
    """From its times how long a device's matrix units and memory are filled; and one's
    with the experts, where they are on a pool of their own."""


def counts_of(job: Job, sharpness: Sharpness) -> Counts:
    """How often a step runs what."""
    a, one = job.a, jnp.ones(())
    stages = degree(job.layout, "pp") if job.pools is None else one
    return Counts(
        layers=a.counts,
        drafts=job.drafts,
        stages=stages,
        fullest=slowest_stage(a.layers, stages, sharpness),
        domains=one if job.pools is None else job.pools.domains,
        overlaps=job.layout.overlaps,
    )


def served(job: Job, sharpness: Sharpness) -> Served:
    """Price a serving step, choose the split of the cores, and say how it composes."""
    shape, sharing = shape_of(job), sharing_of(job, sharpness)
    counts, tower = counts_of(job, sharpness), None
    if job.tower is not None:
        tower = price_tower(job.machine, job.tower, sharpness)
        counts = counts._replace(tower=tower.counts)
    streams = streams_of(shape.microbatches)
    weighed = partial(in_each, shape.microbatches)
    priced = weighed(lambda mode: price(job, mode, sharpness), streams)
    times, once = priced.costs.times, price_once(job, sharpness)
    once = once if tower is None else once | {"vision": tower.times}
    costs = Costs({"layer": times, "once": once}, {"layer": priced.costs.loads})
    share = choose(shape, sharing, counts, priced.costs, sharpness)

    def busy(step_times: ServingTimes) -> dict[str, PyTree]:
        each = partial(busy_layer, shape, sharing, counts, share)
        layer = _of_faster(step_times.first, weighed(each, times, streams))
        host = {"step": counts.stages * job.schedule_s, "layer": job.launch_s}
        ends = once | {"host": host}
        if "logits" in once:
            shared = once["logits"]
            ends["logits"] = jax.tree.map(lambda x: counts.stages * x, shared)
        if tower is not None:
            seen = tower_busy(tower.counts, tower.times)
            ends["vision"] = jax.tree.map(lambda x: counts.stages * x, seen)
        return {"layer": layer, "once": ends}

    def fills(step_times: ServingTimes) -> tuple[Filled, Filled]:
        seconds = priced.filled_s, times["operators"]["memory"]
        each = weighed(partial(filled, shape, counts), *seconds, streams)
        near, far = _of_faster(step_times.first, each)
        return near if tower is None else _beside(near, tower), far

    composition = Composition(
        costs=costs,
        compose=partial(compose, shape, sharing, counts, share, sharpness),
        busy=busy,
        entries={"operators": tuple(op.block for _, op in job.ops)},
    )
    return Served(composition, fills)


def _beside(layers: Filled, tower: PricedTower) -> Filled:
    """What layers and a tower fill on the mean device of a pipeline."""
    pairs = zip(layers, tower_filled(tower), strict=True)
    return Filled(*(seconds + encoding for seconds, encoding in pairs))


def times_of(
    job: Job, sharpness: Sharpness
) -> tuple[ServingTimes, tuple[Filled, Filled]]:
    """Times of a step, and how long devices are filled in it."""
    made = served(job, sharpness)
    _, times = made.step.compose(made.step.costs)
    return times, made.filled(times)


def _of_faster(first: Array | None, modes: Mode) -> Mode:
    """Of two ways to overlap along a leading axis the faster, or the only one."""
    if first is None:
        return modes
    return jax.tree.map(lambda x: jnp.where(first, x[0], x[1]), modes)
