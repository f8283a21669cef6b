r"""Work of a vision tower: the operators of a language model's layers, over patches.

A query meets all patches of its own tile, or of its window; nothing is cached. The tower
computes in 16 bits whatever the language model has, as engines leave it.

A tp x cp group that holds m images on average gets whole ones, of t tiles each. With w
ways to spread tiles, the fullest device encodes

$$ r(m) = (1 - f) \Bigl\lceil \frac{\lfloor m \rfloor t}{w} \Bigr\rceil
   + f \Bigl\lceil \frac{(\lfloor m \rfloor + 1)\, t}{w} \Bigr\rceil, \qquad
   f = m - \lfloor m \rfloor $$

tiles: the mean over batches with one image fewer or more.

Features beside those of `attention` and `feed_forward`:
    merged: tokens of the language model that this device makes
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import smooth
from .._types import Scalar, Sharpness
from ..job.layout import Layout, degree
from ..job.workload import BYTES, Images, Prefill, Sizes
from ..model.architecture import Architecture, Kind, added
from ..model.vision import Vision
from ..switch import switch
from .attention import mixer_ops
from .feed_forward import ACTIVATION_FLOP, half_ops
from .serving import split_rows
from .table import Op, OpTable, at_place, gemm, sizes_by_name, tabulate

FORMAT = "bf16"
"""Of the tower's weights, products and embeddings."""

ELEMENT = BYTES[FORMAT]

FEWEST = 1e-9
"""Images of a batch that has none, which then takes no time."""


class Share(NamedTuple):
    """Images of a group, and how they fall on its devices."""

    images: Scalar
    """That the group encodes for a batch, on average."""
    tiles: Scalar
    """Of the fullest device (or tp group that splits heads) in a batch with images."""
    often: Scalar
    """Share of the batches that have an image."""


def share_of(images: Images, count: Scalar, ways: Scalar, sharpness: Sharpness) -> Share:
    """How some images fall on `ways` devices (or groups)."""
    count = smooth.larger(count, FEWEST)
    whole = jnp.floor(count)
    fewer, more = (
        smooth.ceil((whole + step) * images.tiles / ways, sharpness) for step in (0, 1)
    )
    often = smooth.smaller(count, 1.0)
    return Share(count, (fewer + (count - whole) * (more - fewer)) / often, often)


class Place(NamedTuple):
    """Where a tower runs and on how many images at once."""

    images: Images
    mean: Scalar
    """Images of the group, on average."""
    ways: Scalar
    """Devices, or tp groups that split heads, over which its tiles spread."""
    layout: Layout
    """Its tp axis splits the tower's heads."""


def with_prompts(w: Prefill, layout: Layout) -> Place:
    """A tower on the devices that compute the prompts. Those of a cached prefix were
    encoded before."""
    images = w.images
    assert images is not None
    group = degree(layout, "tp") * degree(layout, "cp")
    prompts = w.tokens_per_device * group / w.prompt_tokens
    return Place(
        images=images,
        mean=prompts * (1.0 - w.cached_fraction) * images.per_prompt,
        ways=degree(layout, "cp") if images.splits_heads else group,
        layout=of_tower(layout, images.splits_heads),
    )


def of_tower(layout: Layout, splits_heads: bool) -> Layout:
    """A layout as a tower has it, which runs by itself on whole tokens."""
    attention = "tp" if splits_heads else "dp"
    return layout.replace(
        attention=attention, sequence_parallel=switch(False), microbatches="1"
    )


def encoder_of(v: Vision) -> Architecture:
    """The tower's layers as those of a language model without words."""
    zero, off = jnp.zeros(()), switch(False)
    kinds = tuple(Kind((i,), (0,)) for i in range(len(v.mixers)))
    return Architecture(
        hidden=v.hidden,
        mixers=v.mixers,
        feed_forwards=(v.feed_forward,),
        order=jnp.stack([jnp.asarray(n, float) for n in v.layers])[:, None],
        vocabulary=zero,
        positions=zero,
        draft_layers=zero,
        tied=off,
        dropout=off,
        final_vectors=zero,
        extra=zero,
        kinds=kinds,
        draft=kinds[-1],
    )


def ranks_of(place: Place) -> Scalar | float:
    """That split the tower's heads."""
    return degree(place.layout, "tp") if place.images.splits_heads else 1.0


class TowerWork(NamedTuple):
    """Operators of a tower on a device."""

    table: OpTable
    runs: Float[Array, " op"]
    """How often each runs for the tiles of a batch."""
    share: Share
    layers: Scalar


def vision_work(v: Vision, place: Place, sharpness: Sharpness) -> TowerWork:
    """Operators that encode the tiles of a batch on the fullest device."""
    a, images = encoder_of(v), place.images
    sizes = Sizes(*(jnp.asarray(ELEMENT) for _ in Sizes._fields))
    ops: list[Op] = []
    runs: list[Scalar] = []
    for i, layers in enumerate(v.layers):
        mixer = [op for op in mixer_ops(a, sizes, i, False) if op.role != "cache"]
        ops += mixer
        runs += [layers] * len(mixer)
    half = half_ops(a, 0, shared_here=True)
    outer = _outer_ops(v)
    ops = [op._replace(dtype=FORMAT) for op in (*ops, *half, *outer)]
    every = added(v.layers)
    runs += [every] * len(half) + [jnp.ones(())] * len(outer)
    share = share_of(images, place.mean, place.ways, sharpness)
    rows = _rows(a, place, share)
    table = tabulate(ops, rows, sizes_by_name(a, sizes))
    often = share.often * jnp.stack([jnp.asarray(n, float) for n in runs])
    return TowerWork(table, often, share, every)


def _outer_ops(v: Vision) -> list[Op]:
    """Patch embedding and projector; the latter's columns split over tp."""
    patches = gemm("patch embedding", "ffn_rows", v.hidden, v.inputs)
    return [
        patches,
        *(
            gemm(
                "projector",
                "merged",
                at.outputs,
                at.inputs,
                split_columns="per_ffn",
                vector_flop=ACTIVATION_FLOP,
            )
            for at in v.projections
        ),
    ]


def _rows(a: Architecture, place: Place, share: Share) -> dict[str, Scalar]:
    """Token counts of the tiles of one device, or of a tp group that splits heads."""
    images, patches = place.images, share.tiles * place.images.patches
    rows = split_rows(a, place.layout, patches / ranks_of(place))
    for i, mixer in enumerate(a.mixers):
        rows[at_place("pairs", i)] = patches * mixer.kept(images.patches)
        rows[at_place("kv_read", i)] = patches * rows[at_place("per_kv", i)]
    merged = share.tiles * images.tokens / images.tiles
    return rows | {"merged": merged}


def embedding_bytes(v: Vision, images: Images) -> Scalar:
    """What an image hands to the language model."""
    return images.tokens * v.embedding * ELEMENT
