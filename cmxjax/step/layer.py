r"""One layer of a serving step: two streams of micro-batches, or two pools of devices.

Two micro-batches run side by side: beside the compute of one the communication of the
other; or, where the engine partitions the cores, attention beside the feed-forward half.
With experts on a pool of their own, n domains of attention devices keep m micro-batches
in flight, and a layer takes for all of them

$$ T = \max\bigl(m\,t_a,\; n\,m\,t_e,\; m\,t_\mathrm{port},\; t_a + t_\mathrm{A2E} + t_e
+ t_\mathrm{E2A}\bigr) $$

Reference: CloudMatrix-Infer, arXiv 2506.12708, section 4.2.3 (streams on partitioned
cores); xDeepServe, arXiv 2508.02520, section 3.3 (pools apart, and its sum of a step,
2 x 61 x t_a, the draft layer and the scheduler).
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import smooth
from .._types import PyTree, Scalar, Sharpness
from ..model.architecture import Architecture, Kind, added
from ..rates.collectives import collective_s
from ..rates.exchange import Ranks, begun_s, exchange_s
from ..rates.fabric import contended_s
from ..rates.roofline import roofline_s
from ..switch import Switch, either
from ..work.serving import Declarations, half_parts, mixer_part, parts_of
from ..work.table import select
from .costs import Costs
from .vision import TowerCounts

HIGHEST = jax.lax.Precision.HIGHEST


class Sharing(NamedTuple):
    """Numbers without dimension that say how components overlap and wait."""

    roofline: Scalar
    """Exposed share of the shorter of an operator's activities."""
    streams: Scalar
    """Likewise of the shorter of two streams."""
    host: Scalar
    """Likewise of the shorter of a step on the device and the scheduler's work."""
    protocol: Scalar
    """Likewise of a collective's protocol floor."""
    core_exponent: Scalar
    beside: Scalar
    """Slowdown of compute beside an exchange whose copies some cores drive."""
    wait: Scalar
    """Dispatch and combine in a step over their benchmark time."""
    tensor: Scalar
    """1 where a tp group has several ranks, 0 where it has one."""
    ranks: Ranks
    """That hold the experts."""
    joint: Scalar | None = None
    """1 where the experts lie on one tp group and a sum over it takes the place of both
    exchanges; None where they never do."""
    fused: Scalar | None = None
    """Exposed share of the shorter of the experts' compute and what their exchanges move,
    where one kernel does both; None where each has its own."""


class Counts(NamedTuple):
    """How often a step runs what."""

    layers: tuple[Scalar, ...]
    """Of each kind; drafts not counted."""
    drafts: Scalar
    stages: Scalar
    fullest: Scalar
    """Layers of the fullest pipeline stage over the mean."""
    domains: Scalar
    """Of attention devices that share the experts' pool."""
    overlaps: Switch
    """`Layout.overlaps`."""
    tower: TowerCounts | None = None
    """Of a batch's images, where there are such."""


class LayerKind(NamedTuple):
    """A kind of layer by the parts of its operators."""

    mixers: tuple[str, ...]
    halves: tuple[str, ...]
    """What feed-forward halves compute on a device's own tokens."""
    experts: tuple[str, ...]
    """What experts compute on the tokens sent to them."""
    sums: int
    """How often feed-forward halves add up their outputs on a tp group, besides the sum
    of each mixer; a layer whose halves run in parallel does so once in all."""

    @property
    def parts(self) -> tuple[str, ...]:
        return self.mixers + self.halves + self.experts

    @property
    def whole(self) -> bool:
        """Has both halves, which two micro-batches keep busy side by side."""
        return bool(self.mixers and self.halves)


def layer_kinds(a: Architecture) -> tuple[LayerKind, ...]:
    """The kinds of a model's layers, last that of its draft modules."""

    def named(kind: Kind) -> LayerKind:
        parts = [half_parts(a, i) for i in kind.feed_forwards]
        dense = [of for of in parts if len(of) == 1]
        return LayerKind(
            tuple(mixer_part(i) for i in kind.mixers),
            tuple(of[0] for of in parts),
            tuple(of[1] for of in parts if len(of) > 1),
            0 if kind.parallel and kind.mixers else len(dense),
        )

    return tuple(named(kind) for kind in (*a.kinds, a.draft))


class Shape(NamedTuple):
    """What of a step is no number."""

    ops: Declarations
    kinds: tuple[LayerKind, ...]
    """Last that of draft modules."""
    streams: str
    """What two micro-batches keep busy at once: `links` beside compute, `cores` in two
    partitions, or `pools` of devices for attention and for experts."""
    microbatches: str
    """`1`, `2` or `auto`, the faster of the two."""
    mixture: bool
    """Some layers have experts."""
    fills: bool
    """Each batch fills and drains the pipeline."""

    @property
    def parts(self) -> tuple[str, ...]:
        return parts_of(self.ops)

    @property
    def typical(self) -> tuple[int, ...]:
        """Places of the kinds that a mean layer is taken over: whole ones with experts
        where there are such."""
        places = [i for i, kind in enumerate(self.kinds[:-1]) if kind.whole]
        mixed = [i for i in places if self.kinds[i].experts]
        return tuple(mixed or places or range(len(self.kinds) - 1))


class Streams(NamedTuple):
    """How micro-batches overlap; a leading axis where two ways are weighed."""

    microbatches: Scalar
    overlapped: Scalar
    """1 where two micro-batches run side by side, else 0."""


ByPart = Mapping[str, Scalar]
"""One value for each part of a step."""


class Layer(NamedTuple):
    """Seconds of the typical layer for all micro-batches, and of its parts for one."""

    kinds_s: tuple[Scalar, ...]
    """Of a layer of each kind, last of a draft module's."""
    halves_s: Scalar
    """Of all layers with one half, which pair with each other."""
    layer_s: Scalar
    attention_s: Scalar
    """Attention and its collectives; with pools apart all that its devices do."""
    feed_forward_s: Scalar
    dispatch_s: Scalar
    combine_s: Scalar
    tail_s: Scalar
    """Embedding and head of one pass over the whole batch, likewise the draft part."""
    draft_s: Scalar


def by_part(values: Float[Array, "*sort op"], ops: Declarations) -> Array:
    """Sums over the operators of each part, in the order of `parts_of`.

    A product with a constant matrix, not a sum for each part: the compiler would
    compute the whole table again for every sum.
    """
    parts = parts_of(ops)
    member = [[float(part == name) for name in parts] for part, _ in ops]
    return jnp.dot(values, np.array(member), precision=HIGHEST)


def slowdown_of(
    shape: Shape, sharing: Sharing, streams: Streams, share: Scalar
) -> ByPart:
    """Slowdown of the compute of each part.

    Where the engine partitions the cores, a stream with a share f of them slows by f to
    the power of minus the chip's core exponent. Otherwise compute and communication are
    the streams, and the cores that drive the communication are missing from compute.
    """
    slow = dict.fromkeys(shape.parts, 1.0)
    if shape.microbatches == "1" or shape.streams == "pools":
        return slow
    first = second = sharing.beside if shape.mixture else 1.0
    if shape.streams == "cores":
        first = share**-sharing.core_exponent
        second = (1.0 - share) ** -sharing.core_exponent
    first = 1.0 + streams.overlapped * (first - 1.0)
    second = 1.0 + streams.overlapped * (second - 1.0)
    for kind in shape.kinds:
        slow |= dict.fromkeys(kind.mixers, first)
        slow |= dict.fromkeys(kind.halves + kind.experts, second)
    return slow


class Links(NamedTuple):
    """Communication of one layer and micro-batch, and what both streams share."""

    mixers_s: Mapping[str, Scalar]
    """By mixer."""
    reduced_s: Scalar
    """Sum over a tp group of what a dense half puts out."""
    exchanged_s: Sequence[Scalar]
    """Dispatch and combine."""
    moved_s: Scalar
    """Of both, while tokens move."""
    port_s: Scalar
    """Of exchanges on the busiest plane, where pools are apart."""
    loads: "Loads | None"
    """What the halves of a layer share, where an engine partitions the cores."""

    def near_s(self, kind: LayerKind) -> Scalar:
        """Of a layer's mixers."""
        return added(self.mixers_s[mixer] for mixer in kind.mixers)

    def far_s(self, kind: LayerKind) -> Scalar:
        """Of its feed-forward halves."""
        exchanged = [*self.exchanged_s] if kind.experts else []
        return added([self.reduced_s] * kind.sums + exchanged)


def links_of(shape: Shape, sharing: Sharing, costs: Costs, sharpness: Sharpness) -> Links:
    times, loads = costs
    tensor = {
        name: collective_s(parts, sharing.tensor, sharing.protocol, sharpness)
        for name, parts in times["tensor_parallel"].items()
    }
    mixers = {}
    for mixer in dict.fromkeys(mixer for kind in shape.kinds for mixer in kind.mixers):
        place = mixer.split(".")[-1]
        terms = [x for name, x in tensor.items() if name.split(".")[-1] == place]
        terms += [tensor["all_reduce"]] if "all_reduce" in tensor else []
        exchanges = times["context_parallel"].get(mixer, {}).values()
        terms += [added(parts.values()) for parts in exchanges]
        mixers[mixer] = added(terms)
    exchanged, moved = [jnp.zeros(()), jnp.zeros(())], jnp.zeros(())
    if shape.mixture:
        meshes = times["expert_tensor"]
        exchanged = [
            exchange_s(times[kind], sharing.ranks, sharpness) * (1.0 + sharing.wait)
            + sum(meshes.get(kind, {}).values())
            for kind in ("dispatch", "combine")
        ]
        if sharing.fused is not None:
            both = (times[kind] for kind in ("dispatch", "combine"))
            begun = added(begun_s(of, sharing.ranks) for of in both)
            moved = added(exchanged) - begun * (1.0 + sharing.wait)
    reduced = tensor.get("all_reduce", jnp.zeros(()))
    if shape.mixture and sharing.joint is not None:
        dispatched, combined = exchanged
        apart = 1.0 - sharing.joint
        exchanged = [apart * dispatched, apart * combined + sharing.joint * reduced]
        moved = apart * moved
    ports = [loads[kind]["transfer"] for kind in ("dispatch", "combine") if kind in loads]
    return Links(
        mixers,
        reduced,
        exchanged,
        moved,
        smooth.maximum_of([x for port in ports for x in port], sharpness)
        if shape.streams == "pools"
        else jnp.zeros(()),
        _loads(shape, loads) if shape.streams == "cores" else None,
    )


class Loads(NamedTuple):
    """Seconds that the bytes of one layer occupy the memory and each plane."""

    memory_s: ByPart
    reduced_s: list[Scalar]
    """By plane: a sum over a tp group."""
    mixers_s: Mapping[str, list[Scalar]]
    """By mixer: exchanges over a cp group."""
    exchanged_s: list[list[Scalar]]
    """Dispatch and combine."""


def _loads(shape: Shape, loads: dict[str, PyTree]) -> Loads:
    values = jnp.unstack(by_part(loads["operators"]["memory"], shape.ops))

    def planes(*keys: str) -> list[Scalar]:
        branch: PyTree = loads
        for key in keys:
            branch = branch.get(key, {})
        return branch.get("transfer", [])

    mixers = dict.fromkeys(part for kind in shape.kinds for part in kind.mixers)
    return Loads(
        dict(zip(shape.parts, values, strict=True)),
        planes("tensor_parallel", "all_reduce"),
        {mixer: planes("context_parallel", mixer) for mixer in mixers},
        [planes("dispatch"), planes("combine")],
    )


def _floor_s(
    loads: Loads, layers: Sequence[tuple[LayerKind, Scalar | None]], sharpness: Sharpness
) -> Scalar:
    """Least time of some layers of each kind together, None for one, from what their
    halves load."""
    read, nears, fars = [], [], []
    for kind, count in layers:
        read += _often(count, [loads.memory_s[part] for part in kind.parts])
        near = [loads.reduced_s] * len(kind.mixers)
        near += [loads.mixers_s[mixer] for mixer in kind.mixers]
        far = [loads.reduced_s] * kind.sums
        far += loads.exchanged_s if kind.experts else []
        nears.append(_often(count, _sums(*near)))
        fars.append(_often(count, _sums(*far)))
    near, far = _sums(*nears), _sums(*fars)
    if not near and not far:  # such as of layers that have nothing but a dense network
        return added(read)
    return smooth.maximum(
        added(read), contended_s(*_alike(near, far), sharpness), sharpness
    )


def _often(count: Scalar | None, values: list[Scalar]) -> list[Scalar]:
    return values if count is None else [count * x for x in values]


def _sums(*planes: list[Scalar]) -> list[Scalar]:
    """Sums over what loads each plane; what loads none is left out."""
    return [added(each) for each in zip(*(of for of in planes if of), strict=True)]


def _alike(near: list[Scalar], far: list[Scalar]) -> tuple[list[Scalar], list[Scalar]]:
    none: list[Scalar] = [jnp.zeros(())] * max(len(near), len(far))
    return near or none, far or none


def parts_s(
    shape: Shape,
    sharing: Sharing,
    costs: Costs,
    streams: Streams,
    share: Scalar,
    sharpness: Sharpness,
) -> ByPart:
    """Time of each part of one micro-batch, its compute slowed for want of cores."""
    slowdown = slowdown_of(shape, sharing, streams, share)
    slow = select(slowdown, [part for part, _ in shape.ops])
    time = roofline_s(costs.times["operators"], sharing.roofline, slow, sharpness)
    return dict(zip(shape.parts, jnp.unstack(by_part(time, shape.ops)), strict=True))


def _far(
    sharing: Sharing, parts: ByPart, links: Links, kind: LayerKind, sharpness: Sharpness
) -> tuple[Scalar, Scalar]:
    """What a layer's feed-forward halves compute, and what they send. One kernel in which
    tokens come and go while experts compute is compute, once tokens move."""
    apart = added(parts[part] for part in kind.halves + kind.experts)
    if sharing.fused is None or not kind.experts:
        return apart, links.far_s(kind)
    experts = added(parts[part] for part in kind.experts)
    kernel = smooth.overlap_s(experts, links.moved_s, sharing.fused, sharpness)
    kernel = kernel + added(links.exchanged_s) - links.moved_s
    half = added([*(parts[part] for part in kind.halves), kernel])
    sums = added([links.reduced_s] * kind.sums)
    # one that hides nothing is no such kernel: its exchanges are another stream's
    none = sharing.fused >= 1.0
    return either(none, apart, half), either(none, links.far_s(kind), sums)


def _sides(
    shape: Shape,
    sharing: Sharing,
    parts: ByPart,
    links: Links,
    kind: LayerKind,
    sharpness: Sharpness,
) -> tuple[Scalar, Scalar]:
    """What of a layer's work two streams do: compute and communication, or a mixer and a
    feed-forward half."""
    mixer = added(parts[part] for part in kind.mixers)
    half, far = _far(sharing, parts, links, kind, sharpness)
    near = links.near_s(kind)
    if shape.streams == "cores":
        return mixer + near, half + far
    return mixer + half, near + far


def _exposed(shape: Shape, sharing: Sharing, streams: Streams) -> Scalar:
    if shape.microbatches == "1" or shape.streams == "pools":
        return 1.0
    return 1.0 + streams.overlapped * (sharing.streams - 1.0)


def layer_s(
    shape: Shape,
    sharing: Sharing,
    domains: Scalar,
    parts: ByPart,
    links: Links,
    streams: Streams,
    place: int,
    sharpness: Sharpness,
) -> Scalar:
    """A layer of one kind, for all micro-batches.

    In the steady state one micro-batch is in each stream. Whatever the streams share
    can't be busy for longer than the layer.
    """
    count, kind = streams.microbatches, shape.kinds[place]
    if shape.streams == "pools" and kind.experts:
        experts = added(parts[part] for part in kind.experts)
        computed = added(parts[part] for part in kind.mixers + kind.halves)
        near = computed + links.near_s(kind)
        away = near + links.exchanged_s[0] + experts + links.exchanged_s[1]
        far, port = domains * count * experts, count * links.port_s
        return smooth.maximum_of([count * near, far, port, away], sharpness)
    first, second = _sides(shape, sharing, parts, links, kind, sharpness)
    exposed = _exposed(shape, sharing, streams)
    time = count * smooth.overlap_s(first, second, exposed, sharpness)
    if links.loads is not None:
        floor = _floor_s(links.loads, [(kind, None)], sharpness)
        time = smooth.maximum(time, count * floor, sharpness)
    return time


def halves_s(
    shape: Shape,
    sharing: Sharing,
    counts: Counts,
    parts: ByPart,
    links: Links,
    streams: Streams,
    sharpness: Sharpness,
) -> Scalar:
    """All layers of one half, for all micro-batches: consecutive ones pair, so that one
    hides the communication of the other. Assumes that they alternate evenly."""
    halves = [
        (kind, count) for kind, count in zip(shape.kinds, counts.layers) if not kind.whole
    ]
    if not halves:
        return jnp.zeros(())
    args = shape, sharing, parts, links
    sides = [_sides(*args, kind, sharpness) for kind, _ in halves]
    first, second = (
        added(count * side[i] for (_, count), side in zip(halves, sides, strict=True))
        for i in range(2)
    )
    exposed = _exposed(shape, sharing, streams)
    time = smooth.overlap_s(first, second, exposed, sharpness)
    if links.loads is not None:
        floor = _floor_s(links.loads, halves, sharpness)
        time = smooth.maximum(time, floor, sharpness)
    return streams.microbatches * time


def typical(shape: Shape, counts: Counts, values: Sequence[Scalar]) -> Scalar:
    """Mean over the typical layers of values by kind."""
    places = shape.typical
    if len(places) == 1:
        return values[places[0]]
    often = added(counts.layers[i] for i in places)
    return added(counts.layers[i] * values[i] for i in places) / often


def layer_of(
    shape: Shape,
    sharing: Sharing,
    counts: Counts,
    share: Scalar,
    sharpness: Sharpness,
    costs: Costs,
    streams: Streams,
) -> Layer:
    """Layers under one mode of overlap and one split of the cores."""
    parts = parts_s(shape, sharing, costs, streams, share, sharpness)
    links = links_of(shape, sharing, costs, sharpness)
    args = shape, sharing, counts.domains, parts, links, streams
    times: dict[LayerKind, Scalar] = {}
    for i, kind in enumerate(shape.kinds):
        if kind not in times:
            times[kind] = layer_s(*args, i, sharpness)
    near, far = [], []
    for kind in shape.kinds:
        mixers, halves = kind.mixers, kind.halves + kind.experts
        if shape.streams == "pools":
            if kind.experts:
                mixers, halves = kind.mixers + kind.halves, kind.experts
            far.append(added(parts[part] for part in halves))
        else:
            far.append(added(_far(sharing, parts, links, kind, sharpness)))
        near.append(added(parts[part] for part in mixers) + links.near_s(kind))
    each = [times[kind] for kind in shape.kinds]
    sent, summed = links.exchanged_s
    tail, draft = (parts.get(name, jnp.zeros(())) for name in ("tail", "draft"))
    typical_s = typical(shape, counts, near), typical(shape, counts, far)
    one = typical(shape, counts, each)
    one_half = halves_s(*args[:2], counts, *args[3:], sharpness)
    return Layer(tuple(each), one_half, one, *typical_s, sent, summed, tail, draft)
