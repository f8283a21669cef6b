"""A vision tower in a serving step: its images are encoded before the language model
begins, by operators one after another.

With heads split over tp each half of a layer adds up its outputs on the group. Where
tiles are spread instead, a group's devices gather each other's embeddings at the end.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._types import Scalar, Sharpness
from ..job.layout import degree, splits
from ..machine.machine import Machine
from ..model.vision import Vision
from ..rates.collectives import collective_s, several_of
from ..rates.roofline import filled_s, resources_s, roofline_s
from ..work.vision import ELEMENT, Place, embedding_bytes, vision_work
from .costs import HIGHEST
from .requests import Request, price_collectives


class Tower(NamedTuple):
    """What encodes the images of a batch, and where."""

    vision: Vision
    place: Place
    group: Any
    """How the devices that share the embeddings split over the tiers, (tier,)."""


class TowerCounts(NamedTuple):
    """How often a batch runs what of a tower."""

    runs: Float[Array, " op"]
    sums: Scalar
    """Of the outputs of halves, over a tp group that splits heads."""
    gathers: Scalar


class PricedTower(NamedTuple):
    """Seconds of a tower's operators and collectives, each alone."""

    times: dict[str, Any]
    counts: TowerCounts
    filled_s: Float[Array, " op"]


def price_tower(machine: Machine, tower: Tower, sharpness: Sharpness) -> PricedTower:
    """Price the tower's run on the fullest device."""
    v, place, _ = tower
    work = vision_work(v, place, sharpness)
    share, images = work.share, place.images
    rows = share.tiles * images.patches
    embeddings = share.images / share.often * embedding_bytes(v, images)
    tp = splits(place.layout, "tp")
    ranks = jnp.prod(jnp.asarray(tower.group))
    requests = [
        Request("sum", "vision", "all_reduce", tp, rows * v.hidden * ELEMENT),
        Request("gather", "vision", "all_gather", tower.group, embeddings / ranks),
    ]
    priced = price_collectives(machine, requests, sharpness)
    found = {
        request.name: {part: x[0] for part, x in priced[request.kind].items()}
        for request in requests
    }
    counts = TowerCounts(
        work.runs,
        2.0 * work.layers * share.often * several_of(degree(place.layout, "tp"), sharpness),
        share.often * place.gathers * several_of(ranks, sharpness),
    )
    used = resources_s(machine.chip, work.table, sharpness)
    return PricedTower(
        {"operators": used, **found}, counts, filled_s(machine.chip, work.table)
    )


def tower_s(
    counts: TowerCounts,
    roofline: Scalar,
    protocol: Scalar,
    times: dict[str, Any],
    sharpness: Sharpness,
) -> Scalar:
    """Time of a batch's images, the mean over batches with and without.

    Args:
        roofline: exposed share of the shorter of an operator's activities.
        protocol: likewise of a collective's protocol floor.
        times: as `PricedTower` has them.
    """
    each = roofline_s(times["operators"], roofline, 1.0, sharpness)
    operators = jnp.dot(each, counts.runs, precision=HIGHEST)
    summed = collective_s(times["sum"], counts.sums, protocol, sharpness)
    gathered = collective_s(times["gather"], counts.gathers, protocol, sharpness)
    return operators + summed + gathered


def tower_busy(counts: TowerCounts, times: dict[str, Any]) -> dict[str, Any]:
    """Seconds that each part of a tower is busy for a batch."""
    often = {"operators": counts.runs, "sum": counts.sums, "gather": counts.gathers}
    return {
        name: {part: often[name] * seconds for part, seconds in parts.items()}
        for name, parts in times.items()
    }


def tower_filled(priced: PricedTower) -> tuple[Scalar, Scalar]:
    """Seconds that a batch's images would fill a device's matrix units and memory."""
    runs = priced.counts.runs
    compute, memory = (
        jnp.dot(seconds, runs, precision=HIGHEST)
        for seconds in (priced.filled_s, priced.times["operators"]["memory"])
    )
    return compute, memory
