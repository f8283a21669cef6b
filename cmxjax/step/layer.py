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
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import smooth
from .._types import Scalar, Sharpness
from ..rates.collectives import collective_s
from ..rates.exchange import Ranks, exchange_s
from ..rates.fabric import contended_s
from ..rates.roofline import roofline_s
from ..work.serving import Declarations, Parts
from ..work.table import select
from .costs import Costs

HIGHEST = jax.lax.Precision.HIGHEST


class Sharing(NamedTuple):
    """Numbers without dimension that say how components overlap and wait."""

    roofline: Scalar
    """Exposed share of the shorter of an operator's activities."""
    streams: Scalar
    """Likewise of the shorter of two streams."""
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


class Counts(NamedTuple):
    """How often a step runs what."""

    expert_layers: Scalar
    """Layers of the kind that most are; drafts not counted."""
    dense_layers: Scalar
    drafts: Scalar
    stages: Scalar
    fullest: Scalar
    """Layers of the fullest pipeline stage over the mean."""
    domains: Scalar
    """Of attention devices that share the experts' pool."""


class Shape(NamedTuple):
    """What of a step is no number."""

    ops: Declarations
    streams: str
    """What two micro-batches keep busy at once: `links` beside compute, `cores` in two
    partitions, or `pools` of devices for attention and for experts."""
    microbatches: str
    """`1`, `2` or `auto`, the faster of the two."""
    mixture: bool
    fills: bool
    """Each batch fills and drains the pipeline."""

    @property
    def kind(self) -> str:
        """The half beside attention that most layers have."""
        return "experts" if self.mixture else "dense"


class Streams(NamedTuple):
    """How micro-batches overlap; a leading axis where two ways are weighed."""

    microbatches: Scalar
    overlapped: Scalar
    """1 where two micro-batches run side by side, else 0."""


class Layer(NamedTuple):
    """Seconds of one layer for all micro-batches, and of its parts for one."""

    expert_s: Scalar
    dense_s: Scalar
    attention_s: Scalar
    """Attention and its collectives; with pools apart all that its devices do."""
    feed_forward_s: Scalar
    dispatch_s: Scalar
    combine_s: Scalar
    tail_s: Scalar
    """Embedding and head of one pass over the whole batch, likewise the draft part."""
    draft_s: Scalar


def by_part(values: Float[Array, "*sort op"], ops: Declarations) -> Array:
    """Sums over the operators of each part.

    A product with a constant matrix, not a sum for each part: the compiler would
    compute the whole table again for every sum.
    """
    member = [[float(part == name) for name in Parts._fields] for part, _ in ops]
    return jnp.dot(values, np.array(member), precision=HIGHEST)


def slowdown_of(shape: Shape, sharing: Sharing, streams: Streams, share: Scalar) -> Parts:
    """Slowdown of the compute of each part.

    Where the engine partitions the cores, a stream with a share f of them slows by f to
    the power of minus the chip's core exponent. Otherwise compute and communication are
    the streams, and the cores that drive the communication are missing from compute.
    """
    if shape.microbatches == "1" or shape.streams == "pools":
        return Parts(*[1.0] * len(Parts._fields))
    first = second = sharing.beside if shape.mixture else 1.0
    if shape.streams == "cores":
        first = share**-sharing.core_exponent
        second = (1.0 - share) ** -sharing.core_exponent
    first = 1.0 + streams.overlapped * (first - 1.0)
    second = 1.0 + streams.overlapped * (second - 1.0)
    return Parts(first, second, second, second, 1.0, 1.0)


class Links(NamedTuple):
    """Communication of one layer and micro-batch, and what both streams share."""

    attention_s: Scalar
    halves_s: Mapping[str, Scalar]
    """By the layer's feed-forward half; likewise the next."""
    floors_s: Mapping[str, Scalar]
    """Busy time of the memory or of the busiest plane of links, for attention and a half;
    of exchanges alone where pools are apart."""
    exchanged_s: Sequence[Scalar]
    """Dispatch and combine."""


def links_of(shape: Shape, sharing: Sharing, costs: Costs, sharpness: Sharpness) -> Links:
    times, loads = costs
    tensor = {
        form: collective_s(parts, sharing.tensor, sharing.protocol, sharpness)
        for form, parts in times["tensor_parallel"].items()
    }
    context = [sum(parts.values()) for parts in times["context_parallel"].values()]
    halves: dict[str, Scalar] = {"dense": tensor.get("all_reduce", jnp.zeros(()))}
    exchanged = [jnp.zeros(()), jnp.zeros(())]
    if shape.mixture:
        meshes = times["expert_tensor"]
        exchanged = [
            exchange_s(times[kind], sharing.ranks, sharpness) * (1.0 + sharing.wait)
            + sum(meshes.get(kind, {}).values())
            for kind in ("dispatch", "combine")
        ]
        halves["experts"] = exchanged[0] + exchanged[1]
    attention = sum([*tensor.values(), *context], jnp.zeros(()))
    return Links(attention, halves, _floors(shape, loads, sharpness), exchanged)


def _floors(shape: Shape, loads: dict[str, Any], sharpness: Sharpness) -> dict:
    """Least time of attention and each half together, from what they load."""
    if shape.streams == "links":
        return {}
    planes = {name: of["transfer"] for name, of in loads.items() if "transfer" in of}
    exchanges = [*zip(planes.get("dispatch", []), planes.get("combine", []), strict=True)]
    if shape.streams == "pools":
        ports = [port for pair in exchanges for port in pair]
        return {"experts": smooth.maximum_of(ports, sharpness)}
    memory = Parts(*jnp.unstack(by_part(loads["operators"]["memory"], shape.ops)))
    none = [jnp.zeros(())] * len(planes["context_parallel"])
    tensor = planes.get("tensor_parallel", none)
    attention = [a + b for a, b in zip(tensor, planes["context_parallel"], strict=True)]
    halves = {"dense": (memory.dense, tensor)}
    if shape.mixture:
        both = [a + b for a, b in exchanges]
        halves["experts"] = (memory.routing + memory.experts, both)
    return {
        kind: smooth.maximum(
            memory.attention + read, contended_s(attention, own, sharpness), sharpness
        )
        for kind, (read, own) in halves.items()
    }


def parts_s(
    shape: Shape,
    sharing: Sharing,
    costs: Costs,
    streams: Streams,
    share: Scalar,
    sharpness: Sharpness,
) -> Parts:
    """Time of each part of one micro-batch, its compute slowed for want of cores."""
    slowdown = slowdown_of(shape, sharing, streams, share)._asdict()
    slow = select(slowdown, [part for part, _ in shape.ops])
    time = roofline_s(costs.times["operators"], sharing.roofline, slow, sharpness)
    return Parts(*jnp.unstack(by_part(time, shape.ops)))


def layer_s(
    shape: Shape,
    sharing: Sharing,
    domains: Scalar,
    parts: Parts,
    links: Links,
    streams: Streams,
    kind: str,
    sharpness: Sharpness,
) -> Scalar:
    """A layer whose feed-forward half is of this kind, for all micro-batches.

    In the steady state one micro-batch is in each stream. Whatever the streams share
    can't be busy for longer than the layer.
    """
    count, mixed = streams.microbatches, kind == "experts"
    half = parts.routing + parts.experts if mixed else parts.dense
    own, other = links.attention_s, links.halves_s[kind]
    if shape.streams == "pools" and mixed:
        near = parts.attention + parts.routing + own
        away = near + links.exchanged_s[0] + parts.experts + links.exchanged_s[1]
        far, port = domains * count * parts.experts, count * links.floors_s[kind]
        return smooth.maximum_of([count * near, far, port, away], sharpness)
    first, second = parts.attention + half, own + other
    if shape.streams == "cores":
        first, second = parts.attention + own, half + other
    exposed: Scalar = 1.0
    if shape.microbatches != "1" and shape.streams != "pools":
        exposed = 1.0 + streams.overlapped * (sharing.streams - 1.0)
    time = count * smooth.overlap_s(first, second, exposed, sharpness)
    if shape.streams == "cores":
        time = smooth.maximum(time, count * links.floors_s[kind], sharpness)
    return time


def layer_of(
    shape: Shape,
    sharing: Sharing,
    domains: Scalar,
    share: Scalar,
    sharpness: Sharpness,
    costs: Costs,
    streams: Streams,
) -> Layer:
    """Layers under one mode of overlap and one split of the cores."""
    parts = parts_s(shape, sharing, costs, streams, share, sharpness)
    links = links_of(shape, sharing, costs, sharpness)
    args = shape, sharing, domains, parts, links, streams
    dense = layer_s(*args, "dense", sharpness)
    mixed = layer_s(*args, "experts", sharpness) if shape.mixture else dense
    far = parts.experts if shape.mixture else parts.dense
    near = parts.attention + links.attention_s
    if shape.streams == "pools":
        near = near + parts.routing
    else:
        far = far + links.halves_s[shape.kind] + (parts.routing if shape.mixture else 0.0)
    sent, summed = links.exchanged_s
    return Layer(mixed, dense, near, far, sent, summed, parts.tail, parts.draft)
