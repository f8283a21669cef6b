"""Layers of a training step: compute beside collectives, and what each hides."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from .. import smooth
from .._types import PyTree, Scalar, Sharpness
from ..job.layout import Layout, degree
from ..job.workload import Train, mirrored
from ..model.architecture import Architecture, Kind
from ..rates.collectives import collective_s
from ..rates.exchange import Ranks, exchange_s
from ..rates.roofline import roofline_s
from ..switch import either
from ..work.serving import parts_of
from ..work.table import Op, at_place
from .costs import HIGHEST
from .line import Line, PassTimes, in_turn, scaled
from .requests import Request, by_form


class Sharing(NamedTuple):
    """Numbers without dimension that say how components overlap and wait; but for the
    last five, the exposed share of the shorter of two activities."""

    roofline: Scalar
    protocol: Scalar
    tensor_forward: Scalar
    tensor_backward: Scalar
    context: Scalar
    expert: Scalar
    pipeline: Scalar
    data: Scalar
    offload: Scalar
    wait: Scalar
    """Dispatch and combine in a step over their benchmark time, less 1."""
    several: dict[str, list[Scalar]]
    """Whether the group of each collective has several ranks, by form."""
    ranks: Ranks
    """That hold the experts."""
    stages: Scalar
    """1 where there are several, 0 where there is one."""
    stretch: Scalar
    """The slowest of all ranks over the mean one."""


class Shape(NamedTuple):
    """What layers are made of besides seconds."""

    a: Architecture
    w: Train
    layout: Layout
    ops: list[tuple[str, Op]]
    requests: list[Request]

    @property
    def parts(self) -> tuple[str, ...]:
        return parts_of(self.ops)


class Exchanges(NamedTuple):
    """Seconds of the collectives of one layer and micro-batch."""

    gather: Scalar
    """Of a tp group's activations: sequence parallelism gathers and scatters."""
    scatter: Scalar
    reduce: Scalar
    context_forward: tuple[Scalar, ...]
    """By mixer, as the next."""
    context_backward: tuple[Scalar, ...]
    expert: Scalar
    """Dispatch and combine; backward they swap roles."""
    hop: Scalar
    """From a pipeline stage to the next."""


class Compute(NamedTuple):
    """Seconds of each part by name, its tensor group's collectives beside: the passes."""

    forward: Mapping[str, Scalar]
    backward: Mapping[str, Scalar]
    weight: Mapping[str, Scalar]


def compute_of(
    shape: Shape,
    times: dict[str, PyTree],
    sharing: Sharing,
    x: Exchanges,
    sharpness: Sharpness,
) -> Compute:
    """Operator times of one micro-batch, summed by part.

    Collectives of a tensor group run beside what it splits: projections of attention,
    dense networks and shared experts; backward beside the gradients of weights.
    """
    both = roofline_s(times["inputs"], sharing.roofline, 1.0, sharpness)
    weight = roofline_s(times["weights"], sharing.roofline, 1.0, sharpness)
    passes = [*jnp.unstack(both), weight]
    parts = shape.parts
    member = [[float(part == name) for name in parts] for part, _ in shape.ops]
    member = np.array(member)
    forward, backward, weight = (
        jnp.dot(x, member[: x.shape[-1]], precision=HIGHEST) for x in passes
    )
    split = np.array([float(part in _tensor_parts(shape.a)) for part in parts])
    collectives = x.gather + x.scatter + x.reduce
    # with sequence parallelism the gradient of the weight needs its input gathered again
    again = (collectives + x.gather) * split
    ahead = collectives * split
    forward = smooth.overlap_s(forward, ahead, sharing.tensor_forward, sharpness)
    beside = smooth.overlap_s(weight, again, sharing.tensor_backward, sharpness)
    passes = forward, backward + beside - weight, weight
    return Compute(*(dict(zip(parts, jnp.unstack(x), strict=True)) for x in passes))


def _tensor_parts(a: Architecture) -> list[str]:
    """Parts that a tensor group splits."""
    halves = ("shared" if half is a.experts else "half" for half in a.feed_forwards)
    split = [at_place("mixer", i) for i in range(len(a.mixers))]
    return split + [at_place(name, i) for i, name in enumerate(halves)]


class Reduction(NamedTuple):
    """Seconds of data-parallel traffic of a device."""

    all_reduce: Scalar
    """Of a step, as the next two."""
    all_gather: Scalar
    reduce_scatter: Scalar
    layer_gather: tuple[Scalar, ...]
    """For each micro-batch, by kind of layer, as the next."""
    layer_scatter: tuple[Scalar, ...]

    @property
    def step_s(self) -> Scalar:
        """All of a step, nothing hidden."""
        return self.all_reduce + self.all_gather + self.reduce_scatter

    def once_s(self, line: Line, exposed: Scalar, sharpness: Sharpness) -> Scalar:
        """What one step's traffic adds: it hides beside one pass of a micro-batch.

        Gradients run beside the last backward pass of the first stage, which ends last;
        weights beside its first forward pass.
        """
        behind, ahead = line.first.backward + line.first.weight, line.first.forward
        reduced = self.reduce_scatter + self.all_reduce
        scatter = smooth.overlap_s(behind, reduced, exposed, sharpness)
        gather = smooth.overlap_s(ahead, self.all_gather, exposed, sharpness)
        return scatter - behind + gather - ahead


def communication_of(
    shape: Shape, times: dict[str, PyTree], sharing: Sharing, sharpness: Sharpness
) -> tuple[Exchanges, Reduction]:
    """Collectives of one layer and micro-batch, and those of data parallelism.

    In context parallelism a ring hands the keys and values of c - 1 other ranks
    through, backward with their gradients (Liu et al., arXiv 2310.01889); all-to-all
    changes from a split of the sequence to one of the heads and back (Jacobs et al.,
    arXiv 2309.14509).

    A pipeline hands over each device's share of the activations; without sequence
    parallelism the group behind gathers them (Narayanan et al., arXiv 2104.04473,
    section 4.1).
    """
    zero = jnp.zeros(())
    totals: dict[tuple[str, str], Scalar] = {}
    for form, members in by_form(shape.requests).items():
        costs, several = times["collectives"][form], jnp.stack(sharing.several[form])
        seconds = collective_s(costs, several, sharing.protocol, sharpness)
        for request, x in zip(members, jnp.unstack(seconds), strict=True):
            key = request.kind, request.name
            totals[key] = totals[key] + x if key in totals else x

    def of(kind: str, name: str) -> Scalar:
        return totals.get((kind, name), zero)

    expert = zero
    if shape.a.experts is not None:
        sent = exchange_s(times["dispatch"], sharing.ranks, sharpness)
        sent = sent + exchange_s(times["combine"], sharing.ranks, sharpness)
        split = [sum(mesh.values()) for mesh in times["expert_tensor"].values()]
        expert = sent * (1.0 + sharing.wait) + sum(split)
    mixers = [at_place("cp", i) for i in range(len(shape.a.mixers))]
    forward = [of("all_gather", cp) + of("all_to_all", cp) for cp in mixers]
    back = [x + of("reduce_scatter", cp) for x, cp in zip(forward, mixers, strict=True)]
    hops = smooth.larger(degree(shape.layout, "pp") - 1.0, 1.0)
    along = shape.layout.sequence_parallel
    reduce = along.pick(0.0, of("all_reduce", "tp"))
    exchanges = Exchanges(
        gather=along.on * of("all_gather", "tp"),
        scatter=along.on * of("reduce_scatter", "tp"),
        reduce=reduce,
        context_forward=tuple(forward),
        context_backward=tuple(back),
        expert=expert,
        # half of an all-reduce gathers the shares
        hop=sum(times["pipeline"].values()) / hops + 0.5 * reduce,
    )
    return exchanges, _reduction(shape, of)


def _reduction(shape: Shape, of: Callable[[str, str], Scalar]) -> Reduction:
    """What the stage of ZeRO has of the traffic that was asked for."""
    w, layers = shape.w, [at_place("layer", i) for i in range(len(shape.a.kinds))]
    splits, each, whole = (w.zero >= stage for stage in (1.0, 2.0, 3.0))
    gathers = (of("all_gather", layer) for layer in layers)

    def scattered(name: str) -> Scalar:
        inside = of("reduce_scatter", name)
        return inside if w.zero_group is None else inside + of("all_reduce", name)

    scatters = (scattered(layer) for layer in layers)
    return Reduction(
        all_reduce=either(splits, 0.0, of("all_reduce", "whole")),
        all_gather=either(splits & ~whole, of("all_gather", "once"), 0.0),
        reduce_scatter=either(splits & ~each, scattered("once"), 0.0),
        layer_gather=tuple(either(whole, x, 0.0) for x in gathers),
        layer_scatter=tuple(either(each, x, 0.0) for x in scatters),
    )


class LayerPasses(NamedTuple):
    """Pass times of a layer of each kind and of the ends of the model."""

    layers: tuple[PassTimes, ...]
    embedding: PassTimes
    head: PassTimes
    """With the multi-token-prediction layers."""
    hop: PassTimes


def passes_of(
    shape: Shape,
    times: dict[str, PyTree],
    sharing: Sharing,
    x: Exchanges,
    reduction: Reduction,
    sharpness: Sharpness,
) -> LayerPasses:
    """Passes of a micro-batch through a layer of each kind and the model's ends."""
    a, w, s = shape.a, shape.w, sharpness
    c = compute_of(shape, times["operators"], sharing, x, s)

    def whole(part: str) -> PassTimes:
        return PassTimes(c.forward[part], c.backward[part], c.weight[part])

    def mixed(place: int) -> PassTimes:
        # attention starts when an all-to-all ends, but beside the ring's next block
        ring = 1.0 if w.context == "all_to_all" else sharing.context
        part = at_place("core", place)
        core = smooth.overlap_s(c.forward[part], x.context_forward[place], ring, s)
        back = c.backward[part] + c.weight[part]
        back = smooth.overlap_s(back, x.context_backward[place], ring, s)
        again = w.selective.on * core
        projections = whole(at_place("mixer", place))
        return in_turn(projections, PassTimes(core, back + again, 0.0 * core))

    def worked(place: int) -> PassTimes:
        parts = [at_place(name, place) for name in ("half", "shared")]
        return in_turn(*(whole(part) for part in parts if part in c.forward))

    mixers = [mixed(i) for i in range(len(a.mixers))]
    halves = [worked(i) for i in range(len(a.feed_forwards))]
    made: dict[Kind, PassTimes] = {}
    for kind in dict.fromkeys((*a.kinds, a.draft)):
        parts = [mixers[i] for i in kind.mixers]
        layer = in_turn(*parts, *(halves[i] for i in kind.feed_forwards))
        if a.has_experts(kind):
            layer = _exchanged(shape, sharing, layer, x.expert, s)
        made[kind] = layer
    least = times["host"]["issued"]["layer"] / 3.0
    issued = (_recomputed(w, x) for x in _issued([*made.values()], least, s))
    made = dict(zip(made, issued, strict=True))
    head = in_turn(
        whole("head"), PassTimes(x.gather, x.scatter + x.reduce, 0.0 * x.gather)
    )
    draft = in_turn(whole("draft"), head, made[a.draft])
    embedding = PassTimes(
        c.forward["embedding"] + x.scatter + x.reduce,
        c.backward["embedding"] + x.gather,
        0.0 * x.gather,
    )
    exposed = sharing.stages * sharing.pipeline * x.hop
    exposed = w.chunks * (exposed + times["host"]["blocked"]["layer"])
    moved = times.get("offload", {})
    layers = (
        _beside(
            shape,
            sharing,
            made[kind],
            moved.get(at_place("layer", i), {}),
            reduction,
            i,
            s,
        )
        for i, kind in enumerate(a.kinds)
    )
    return LayerPasses(
        tuple(layers),
        embedding,
        in_turn(head, scaled(draft, a.draft_layers)),
        PassTimes(exposed, exposed, 0.0 * exposed),
    )


def _issued(
    layers: list[PassTimes], least: Scalar, sharpness: Sharpness
) -> list[PassTimes]:
    """Layers no shorter than the host needs to issue them.

    The forward pass has a third of the kernels, of which `least` is the time; one that
    runs again is issued again.
    """
    forward, backward, weight = (jnp.stack(passes) for passes in zip(*layers))
    forward = smooth.maximum(forward, least, sharpness)
    backward = smooth.maximum(backward + weight, 2.0 * least, sharpness) - weight
    bounded = (jnp.unstack(value) for value in (forward, backward, weight))
    return [PassTimes(*passes) for passes in zip(*bounded, strict=True)]


def _recomputed(w: Train, layer: PassTimes) -> PassTimes:
    """A layer of which a share runs forward again before its backward pass."""
    again = w.recompute_fraction * layer.forward
    return PassTimes(layer.forward, layer.backward + again, layer.weight)


def _exchanged(
    shape: Shape,
    sharing: Sharing,
    layer: PassTimes,
    exchange: Scalar,
    sharpness: Sharpness,
) -> PassTimes:
    """Dispatch and combine of a layer, beside compute where micro-batches overlap."""
    beside = shape.w.overlaps.on + mirrored(shape.w)
    exposed = either(beside > 0.5, sharing.expert, 1.0)
    forward = smooth.overlap_s(layer.forward, exchange, exposed, sharpness)
    whole = layer.backward + layer.weight
    backward = smooth.overlap_s(whole, exchange, exposed, sharpness) - layer.weight
    return PassTimes(forward, backward, layer.weight)


def _beside(
    shape: Shape,
    sharing: Sharing,
    layer: PassTimes,
    moved: dict[str, Scalar],
    reduction: Reduction,
    place: int,
    sharpness: Sharpness,
) -> PassTimes:
    """A layer with what moves beside each of its micro-batches: offload and ZeRO, whose
    gathers hide behind the layer before if they start so early."""
    forward, backward = layer.forward, layer.backward
    for seconds in moved.values():  # to the host and back
        forward = smooth.overlap_s(forward, seconds, sharing.offload, sharpness)
        backward = smooth.overlap_s(backward, seconds, sharing.offload, sharpness)
    gather, depth = reduction.layer_gather[place], shape.w.zero_prefetch
    late = None if depth is None else (1.0 - smooth.smaller(depth, 1.0)) * gather
    gather = gather if late is None else gather - late
    both = reduction.layer_scatter[place] + gather
    forward = smooth.overlap_s(forward, gather, sharing.data, sharpness)
    backward = smooth.overlap_s(backward, both, sharing.data, sharpness)
    if late is not None:
        forward, backward = forward + late, backward + late
    return PassTimes(forward, backward, layer.weight)
