"""How long each component of a serving step is busy, hidden or not.

Its time alone, times how often it runs, times its slowdown in place. Where nothing
overlaps these sum to the step; where components overlap they sum to more.
"""

from collections.abc import Mapping
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._types import PyTree, Scalar
from ..model.architecture import added
from ..work.serving import mixer_part
from .layer import HIGHEST, Counts, Shape, Sharing, Streams, by_part, slowdown_of

Tree = TypeVar("Tree")


def runs_of(shape: Shape, counts: Counts, streams: Streams) -> Mapping[str, Scalar]:
    """How often a step runs each part."""
    layers_of: dict[str, list[Scalar]] = {}
    for kind, layers in zip(shape.kinds, (*counts.layers, counts.drafts), strict=True):
        for part in kind.parts:
            layers_of.setdefault(part, []).append(layers)
    runs = {part: streams.microbatches * added(of) for part, of in layers_of.items()}
    ends = {"tail": jnp.ones(()), "draft": counts.drafts}
    return runs | {part: often for part, often in ends.items() if part in shape.parts}


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
    often = runs_of(shape, counts, streams)
    runs = jnp.stack([jnp.asarray(often[part], float) for part in shape.parts])
    apart = [part for kind in shape.kinds for part in kind.experts]
    pools = shape.streams == "pools"
    far = np.array([float(pools and part in apart) for part in shape.parts])
    near = jnp.dot(parts, runs * (1.0 - far), precision=HIGHEST)
    other = jnp.dot(parts, counts.domains * runs * far, precision=HIGHEST)
    return Filled(*jnp.unstack(near)), Filled(*jnp.unstack(other))


def _each(part: Tree, factor: Scalar) -> Tree:
    return jax.tree.map(lambda seconds: factor * seconds, part)


def busy_layer(
    shape: Shape,
    sharing: Sharing,
    counts: Counts,
    share: Scalar,
    times: dict[str, PyTree],
    streams: Streams,
) -> dict[str, PyTree]:
    """Busy times of layers and of the model's ends, in one way to overlap."""
    runs, slow = (
        runs_of(shape, counts, streams),
        slowdown_of(shape, sharing, streams, share),
    )
    ends, full = ("tail", "draft"), counts.fullest
    place = {part: counts.stages if part in ends else full for part in shape.parts}
    often = jnp.stack([jnp.asarray(runs[part] * place[part]) for part in shape.parts])
    slower = often * jnp.stack([jnp.asarray(slow[part], float) for part in shape.parts])
    parts = shape.parts
    member = np.array([[float(p == n) for n in parts] for p, _ in shape.ops])
    often, slower = jnp.unstack(
        jnp.dot(jnp.stack([often, slower]), member.T, precision=HIGHEST)
    )
    layers = {part: full * often for part, often in runs.items()}
    every = zip(shape.kinds, (*counts.layers, counts.drafts), strict=True)
    reduced = streams.microbatches * added(
        full * often * (len(kind.mixers) + kind.sums) for kind, often in every
    )
    mixed = added(layers[part] for part in {p: 0 for k in shape.kinds for p in k.experts})
    if shape.mixture and sharing.joint is not None:
        reduced = reduced + sharing.joint * mixed
        mixed = (1.0 - sharing.joint) * mixed

    def tensor(name: str) -> Scalar:
        if name == "all_reduce":
            return sharing.tensor * reduced
        return sharing.tensor * layers[mixer_part(int(name.split(".")[-1]))]

    busy = {
        "operators": {
            resource: seconds * (slower if resource in ("matrix", "vector") else often)
            for resource, seconds in times["operators"].items()
        },
        "tensor_parallel": {
            name: _each(parts, tensor(name))
            for name, parts in times["tensor_parallel"].items()
        },
        "context_parallel": {
            mixer: _each(parts, layers[mixer])
            for mixer, parts in times["context_parallel"].items()
        },
    }
    if not shape.mixture:
        return busy
    wait = mixed * sharing.ranks.several * (1.0 + sharing.wait)
    spread = dict.fromkeys(("transfer", "copies"), 1.0 + sharing.ranks.spread)
    return busy | {
        "dispatch": {
            part: wait * spread.get(part, 1.0) * seconds
            for part, seconds in times["dispatch"].items()
        },
        "combine": _each(times["combine"], wait),
        "expert_tensor": _each(times["expert_tensor"], mixed),
    }
