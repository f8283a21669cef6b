"""Memory of a vision tower: its weights, and what it works on."""

from typing import NamedTuple

from .. import smooth
from .._types import Scalar, Sharpness
from ..model.vision import Vision
from ..work.vision import ELEMENT, Place, embedding_bytes, ranks_of, share_of

WORKSPACE_ROWS = 4.0
"""Copies of the hidden states that are alive at once, as for a language model."""


class VisionMemory(NamedTuple):
    """Bytes on a device."""

    weights: Scalar
    activations: Scalar
    """Of the tiles that are being encoded, before the language model begins."""
    embeddings: Scalar
    """Of all images of a batch; they wait for the language model."""


def vision_memory(v: Vision, place: Place, sharpness: Sharpness) -> VisionMemory:
    """Memory of the fullest device in a batch with images, all encoded at once."""
    images, tp = place.images, ranks_of(place)
    share = share_of(images, place.mean, place.ways, sharpness)
    rows = share.tiles * images.patches
    half = v.feed_forward
    attention = smooth.larger_of(2.0 * m.query + m.pair for m in v.mixers)
    network = half.intermediate * (2.0 + half.gated.on)
    buffers = smooth.larger(attention, network) / tp
    return VisionMemory(
        weights=v.parameters * ELEMENT / tp,
        activations=rows * (WORKSPACE_ROWS * v.hidden + buffers) * ELEMENT,
        embeddings=share.images / share.often * embedding_bytes(v, images),
    )
