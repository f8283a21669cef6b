"""How long each component of a serving step is busy, hidden or not.

Its time alone, times how often it runs, times its slowdown in place. Where nothing
overlaps these sum to the step; where components overlap they sum to more.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._types import Scalar
from ..work.serving import Parts
from .layer import HIGHEST, Counts, Shape, Sharing, Streams, by_part, slowdown_of


def runs_of(counts: Counts, streams: Streams) -> Parts:
    """How often a step runs each part."""
    count, drafts = streams.microbatches, counts.drafts
    mixed = (counts.expert_layers + drafts) * count
    return Parts(
        attention=mixed + counts.dense_layers * count,
        dense=counts.dense_layers * count,
        routing=mixed,
        experts=mixed,
        tail=jnp.ones(()),
        draft=drafts,
    )


class Filled(NamedTuple):
    """Seconds that a step's work would fill a device's matrix units and its memory."""

    compute_s: Scalar
    memory_s: Scalar


def filled(
    shape: Shape, counts: Counts, filled_s: Array, memory_s: Array, streams: Streams
) -> tuple[Filled, Filled]:
    """Of a device in a step; of one with the experts, where they are on a pool of their
    own.

    Args:
        filled_s: seconds that each operator would fill the matrix units; likewise memory.
    """
    parts = by_part(jnp.stack([filled_s, memory_s]), shape.ops)
    runs, far = jnp.stack(runs_of(counts, streams)), np.zeros(len(Parts._fields))
    if shape.streams == "pools":
        far[Parts._fields.index("experts")] = 1.0
    near = jnp.dot(parts, runs * (1.0 - far), precision=HIGHEST)
    other = jnp.dot(parts, counts.domains * runs * far, precision=HIGHEST)
    return Filled(*jnp.unstack(near)), Filled(*jnp.unstack(other))


def _each(part: dict[str, Any], factor: Scalar) -> dict[str, Any]:
    return jax.tree.map(lambda seconds: factor * seconds, part)


def busy_layer(
    shape: Shape,
    sharing: Sharing,
    counts: Counts,
    share: Scalar,
    times: dict[str, Any],
    streams: Streams,
) -> dict[str, Any]:
    """Busy times of layers and of the model's ends, in one way to overlap."""
    runs, slow = runs_of(counts, streams), slowdown_of(shape, sharing, streams, share)
    ends = ("tail", "draft")
    place = [counts.stages if part in ends else counts.fullest for part in Parts._fields]
    often = jnp.stack([jnp.asarray(r * p) for r, p in zip(runs, place)])
    slower = often * jnp.stack([jnp.asarray(s, float) for s in slow])
    member = np.array([[float(p == n) for n in Parts._fields] for p, _ in shape.ops])
    often, slower = jnp.unstack(
        jnp.dot(jnp.stack([often, slower]), member.T, precision=HIGHEST)
    )
    layers, dense = counts.fullest * runs.attention, counts.fullest * runs.dense
    if not shape.mixture:
        dense = layers
    mixed = counts.fullest * runs.experts
    tensor = {"all_reduce": sharing.tensor * (layers + dense)}
    found = {
        "operators": {
            resource: seconds * (slower if resource in ("matrix", "vector") else often)
            for resource, seconds in times["operators"].items()
        },
        "tensor_parallel": {
            form: _each(parts, tensor.get(form, sharing.tensor * layers))
            for form, parts in times["tensor_parallel"].items()
        },
        "context_parallel": _each(times["context_parallel"], layers),
    }
    if not shape.mixture:
        return found
    wait = mixed * sharing.ranks.several * (1.0 + sharing.wait)
    spread = dict.fromkeys(("transfer", "copies"), 1.0 + sharing.ranks.spread)
    return found | {
        "dispatch": {
            part: wait * spread.get(part, 1.0) * seconds
            for part, seconds in times["dispatch"].items()
        },
        "combine": _each(times["combine"], wait),
        "expert_tensor": _each(times["expert_tensor"], mixed),
    }
