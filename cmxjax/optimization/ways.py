"""Ways of running a training step that may be tried: schedule, chunks, overlap.

Each combination is a family, a program of its own. The descent runs in the first family,
which is the scenario's own where that is among those tried; what it finds is rounded and
tried in all of them.
"""

from collections.abc import Mapping
from itertools import product

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._types import Scalar, Sharpness
from ..job.layout import Layout, degree
from ..job.workload import Decode, Prefill, Train
from ..model.architecture import Architecture
from ..specs.schedules import (
    DUALPIPE_EACH,
    MOST_CHUNKS,
    chunks_filled,
    program_of,
    schedule_of,
)
from ..step.pipeline import SCHEDULES
from ..work.held import microbatches_of
from .serving import Family

OVERLAPPED = "overlapped_microbatches"
WAYS = ("schedule", "vpp", OVERLAPPED)

MOST_VPP = 10**9
"""Of a scenario file."""


def checked(given: Mapping[str, tuple]) -> tuple[dict[str, tuple], list[str]]:
    """Values to try as families have them, and what is wrong with them."""
    accepted: dict[str, list] = {}
    mistakes = []
    known = ", ".join(SCHEDULES)
    for name in WAYS:
        for value in given.get(name, ()):
            if name == "schedule":
                parsed, remedy = value if value in SCHEDULES else None, f"one of {known}"
            elif name == "vpp":
                parsed, remedy = _whole(value, MOST_VPP), "whole numbers from 1"
            else:
                parsed, remedy = _whole(value, 2), "1 or 2"
            if parsed is None:
                mistakes.append(f"{name} = {value}: use {remedy}")
            else:
                accepted.setdefault(name, []).append(
                    str(parsed) if name == OVERLAPPED else parsed
                )
    return {name: tuple(values) for name, values in accepted.items()}, mistakes


def _whole(value: object, most: int) -> int | None:
    """A whole number from 1 to `most`, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer):
        return None
    # compared first: a whole number of 400 digits is no float
    return int(value) if 1 <= value <= most and float(value).is_integer() else None


def combined(w: Train, given: Family, tried: Mapping[str, tuple]) -> tuple[Family, ...]:
    """Every combination of what is to be tried, the scenario's own first if among them.

    A schedule gets as many of the chunks as it can have.
    """
    given = given._replace(chunks=int(w.chunks))
    if not tried:
        return (given,)
    ways = []
    for schedule, chunks, overlapped in product(
        tried.get("schedule", (w.schedule,)),
        tried.get("vpp", (given.chunks,)),
        tried.get(OVERLAPPED, (given.microbatches,)),
    ):
        ways.append(_way(given._replace(microbatches=overlapped), schedule, chunks))
    ways.sort(key=lambda way: way != _way(given, w.schedule, given.chunks))
    return tuple(dict.fromkeys(ways))


def _way(family: Family, schedule: str, chunks: int) -> Family:
    chunks = min(chunks, MOST_CHUNKS.get(schedule, chunks))
    return family._replace(schedule=schedule_of(schedule, chunks), chunks=chunks)


def on_way(w: Decode | Prefill | Train, family: Family) -> Decode | Prefill | Train:
    """The workload with the schedule of a family."""
    if not isinstance(w, Train) or family.schedule is None:
        return w
    chunks = jnp.full_like(w.chunks, family.chunks)
    return w.replace(schedule=program_of(family.schedule), chunks=chunks)


NEEDS = (
    "layers for all chunks (pp x vpp at most layers + 2)",
    "the stages and micro-batches that dualpipe needs (even, two for each stage)",
)
"""What a layout needs to run on its way, in the order of `violations`."""


def violations(
    a: Architecture,
    w: Decode | Prefill | Train,
    layout: Layout,
    family: Family,
    sharpness: Sharpness,
) -> Float[Array, " violation"]:
    """Positive where a layout can't be run this way; nothing for serving.

    Args:
        w: the workload on the way of this family.
    """
    if not isinstance(w, Train):
        return jnp.zeros(0)
    unfilled = short = -jnp.ones(())
    if family.chunks > 1:
        chunks = degree(layout, "pp") * family.chunks
        unfilled = jnp.log(chunks / chunks_filled(a.layers))
    if w.schedule == "dualpipe":
        short = _short(w, layout, sharpness)
    return jnp.stack([unfilled, short])


def _short(w: Train, layout: Layout, sharpness: Sharpness) -> Scalar:
    """Log of the micro-batches that DualPipe needs over those there are; in the exact
    model also positive where stages or micro-batches are odd in number.

    A single stage needs one micro-batch, others an even number: more than one less than
    what they need.
    """
    pp = degree(layout, "pp")
    count = microbatches_of(w, layout)
    least = jnp.log((DUALPIPE_EACH * pp - 1.0) / count)
    if sharpness is not None:
        return least
    odd = (jnp.mod(pp, 2.0) == 1.0) | (jnp.mod(count, 2.0) == 1.0)
    return jnp.where(odd & (pp > 1.0), jnp.maximum(least, 1.0), least)


def changes_of(family: Family, pp: int) -> dict[str, object]:
    """Dotted keys that turn a scenario with `pp` stages into one on this way."""
    # a single stage runs its chunks one after the other, as if they were one
    chunks = family.chunks if pp > 1 else 1
    if family.schedule is None:
        return {"layout.vpp": chunks} if family.chunks > 1 else {}
    interleaved = family.schedule == "interleaved"
    overlapped = family.microbatches
    return {
        "workload.schedule": "1f1b" if interleaved else family.schedule,
        "layout.vpp": chunks,
        f"layout.{OVERLAPPED}": overlapped if overlapped == "auto" else int(overlapped),
    }
