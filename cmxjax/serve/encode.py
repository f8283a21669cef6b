"""A pool of encode instances: images of a request, their queue, and the hand-over of
embeddings to the devices that compute prompts.

An instance works on one request at a time: the patches of an image fill the matrix units
by themselves, so that batches would gain little. Its devices share the request's tiles,
or the heads where its layout has tp.

Reference: Singh et al., EPD disaggregation, arXiv 2501.05460 (encode, prefill and decode
on pools of their own).
"""

from typing import NamedTuple

from .. import smooth
from .._types import Scalar, Sharpness
from ..job.layout import Pool, counted, degree, instances
from ..job.workload import Serve
from ..machine.machine import Machine
from ..memory.serving import Memory, encode_memory
from ..model.architecture import Architecture
from ..step.busy import Filled
from ..step.price import engine_of
from ..step.vision import Tower, price_tower, tower_filled, tower_s
from ..work.vision import Place, embedding_bytes, of_tower
from .prefill import Transfer, outer_port
from .queue import gap_variance


class EncodePool(NamedTuple):
    """What an encode pool does."""

    steady_s: Scalar
    """Of a request's images."""
    hand_over: Transfer
    """Of their embeddings."""
    filled: Filled
    """Of a device by one request."""
    memory: Memory
    full_requests_per_s: Scalar
    """At utilization 1."""
    variance: Scalar
    """Of the gaps between requests, see `gap_variance`."""

    @property
    def bare_s(self) -> Scalar:
        """Of a request that doesn't wait, hand-over included."""
        return self.steady_s + self.hand_over.seconds


def encode_place(w: Serve, pool: Pool) -> Place:
    """A request's images on an instance, those of its cached prefix left out."""
    images = w.images
    assert images is not None
    images = images.replace(splits_heads=pool.layout.attention == "tp")
    layout = counted(pool.layout)
    return Place(
        images=images,
        mean=images.per_prompt * (1.0 - w.cached_fraction),
        ways=degree(layout, "dp"),
        layout=of_tower(layout, images.splits_heads),
    )


def encode_pool(
    machine: Machine, a: Architecture, w: Serve, pool: Pool, sharpness: Sharpness
) -> EncodePool:
    """An encode pool: an instance takes requests in turn, new ones wait as at a server
    of constant speed."""
    v, place = a.vision, encode_place(w, pool)
    assert v is not None
    tower = Tower(v, place, gathers=False)
    priced = price_tower(machine, tower, sharpness)
    exposed = (
        machine.chip.roofline_exposed_fraction,
        machine.library.protocol_exposed_fraction,
    )
    seconds = tower_s(priced.counts, *exposed, priced.times, sharpness)
    often = smooth.smaller(place.mean, 1.0)
    encode_s = seconds + often * engine_of(machine).prefill_batch_s
    return EncodePool(
        steady_s=encode_s,
        hand_over=_hand_over(machine, a, place, sharpness),
        filled=Filled(*tower_filled(priced)),
        memory=encode_memory(a, place, sharpness),
        full_requests_per_s=instances(pool) / encode_s,
        variance=gap_variance(w, instances(pool)),
    )


def _hand_over(
    machine: Machine, a: Architecture, place: Place, sharpness: Sharpness
) -> Transfer:
    """Embeddings of a request over the outermost plane, as keys and values go; devices
    that encoded tiles send theirs side by side."""
    assert a.vision is not None
    port, images = outer_port(machine), place.images
    size = place.mean * embedding_bytes(a.vision, images)
    tiles = smooth.larger(place.mean, 1.0) * images.tiles
    senders = smooth.minimum(place.ways, tiles, sharpness)
    often = smooth.smaller(place.mean, 1.0)
    seconds = often * port.latency_s + size / (port.bytes_per_s * senders)
    return Transfer(seconds, port.bytes_per_s / size)
