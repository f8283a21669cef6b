"""A vision tower in a serving step: its images are encoded before the language model
begins, by operators one after another.

With heads split over tp each half of a layer adds up its outputs on the group. Where
tiles are spread instead, a group's devices gather each other's embeddings at the end.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._types import Real, Scalar, Sharpness
from ..job.layout import degree, splits
from ..machine.machine import Machine
from ..model.architecture import added
from ..model.vision import Vision
from ..rates.collectives import collective_s, mesh_costs, several_of
from ..rates.fabric import group_of
from ..rates.roofline import filled_s, resources_s, roofline_s
from ..work.vision import ELEMENT, Place, embedding_bytes, vision_work
from .costs import HIGHEST
from .requests import Request, price_collectives

Times = dict[str, dict[str, Real]]
"""Seconds by what takes them (operators, collectives), then by part."""


class Tower(NamedTuple):
    """What encodes the images of a batch, and where."""

    vision: Vision
    place: Place
    gathers: bool
    """The devices of a tp group need each other's embeddings."""


class TowerCounts(NamedTuple):
    """How often a batch runs what of a tower."""

    runs: Float[Array, " op"]
    sums: Scalar | None
    """Of the outputs of halves, over a tp group that splits heads."""
    gathers: Scalar | None
    """Of embeddings, over a tp group that spreads tiles."""


class PricedTower(NamedTuple):
    """Seconds of a tower's operators and collectives, each alone."""

    times: Times
    counts: TowerCounts
    filled_s: Float[Array, " op"]


def price_tower(machine: Machine, tower: Tower, sharpness: Sharpness) -> PricedTower:
    """Price the tower's run on the fullest device."""
    v, place, gathers = tower
    work = vision_work(v, place, sharpness)
    share, images = work.share, place.images
    times: Times = {"operators": {**resources_s(machine.chip, work.table, sharpness)}}
    tp, sums = splits(place.layout, "tp"), None
    if images.splits_heads:
        payload = share.tiles * images.patches * v.hidden * ELEMENT
        request = Request("sum", "vision", "all_reduce", tp, payload)
        priced = price_collectives(machine, [request], sharpness)["all_reduce"]
        times["sum"] = {part: x[0] for part, x in priced.items()}
        several = several_of(degree(place.layout, "tp"), sharpness)
        sums = 2.0 * work.layers * share.often * several
    if gathers:
        group = group_of(machine.fabric, tp)
        each = share.images / share.often * embedding_bytes(v, images) / group.ranks
        (gather,) = mesh_costs(group, machine.library, [each], sharpness)
        times["gather"] = {**gather}
    counts = TowerCounts(work.runs, sums, share.often if gathers else None)
    return PricedTower(times, counts, filled_s(machine.chip, work.table))


def tower_s(
    counts: TowerCounts,
    roofline: Scalar,
    protocol: Scalar,
    times: Times,
    sharpness: Sharpness,
) -> Scalar:
    """Time of a batch's images, the mean over batches with and without.

    Args:
        roofline: exposed share of the shorter of an operator's activities.
        protocol: likewise of a collective's protocol floor.
        times: as `PricedTower` has them.
    """
    each = roofline_s(times["operators"], roofline, 1.0, sharpness)
    seconds = jnp.dot(each, counts.runs, precision=HIGHEST)
    if counts.sums is not None:
        summed = collective_s(times["sum"], counts.sums, protocol, sharpness)
        seconds = seconds + summed
    if counts.gathers is not None:
        seconds = seconds + counts.gathers * added(times["gather"].values())
    return seconds


def tower_busy(counts: TowerCounts, times: Times) -> Times:
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
