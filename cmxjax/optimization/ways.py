"""Ways of running a training step that may be tried: schedule, chunks, overlap.

Each combination is a family, a program of its own: the descent runs in the scenario's,
and what it finds is rounded and tried in all of them.
"""

from collections.abc import Mapping
from itertools import product
from typing import Any

import jax.numpy as jnp

from .._types import Scalar
from ..architecture import Architecture
from ..layout import Layout, degree
from ..step.pipeline import SCHEDULES
from ..workload import Decode, Prefill, Train
from .serving import Family

OVERLAPPED = "overlapped_microbatches"
WAYS = ("schedule", "vpp", OVERLAPPED)


def checked(given: Mapping[str, tuple]) -> tuple[dict[str, tuple], list[str]]:
    """Values to try as families have them, and what is wrong with them."""
    found, mistakes = {}, []
    for name in WAYS:
        for value in given.get(name, ()):
            whole = not isinstance(value, str) and value == int(value) >= 1
            if name == "schedule" and value not in SCHEDULES:
                known = ", ".join(SCHEDULES)
                mistakes.append(f"schedule = {value}: use one of {known}")
            elif name == OVERLAPPED and value not in (1, 2):
                mistakes.append(f"{OVERLAPPED} = {value}: use 1 or 2")
            elif name == "vpp" and not whole:
                mistakes.append(f"vpp = {value}: use whole numbers from 1")
            else:
                own = f"{value:g}" if name == OVERLAPPED else value
                found.setdefault(name, []).append(int(own) if name == "vpp" else own)
    return {name: tuple(values) for name, values in found.items()}, mistakes


def combined(w: Train, own: Family, tried: Mapping[str, tuple]) -> tuple[Family, ...]:
    """Every combination of what is to be tried, the scenario's own first if among them.

    1F1B with several chunks is the interleaved schedule, and that with one is 1F1B. The
    zero-bubble schedule is there for one chunk and for two (ZB-V), others for one.
    """
    own = own._replace(chunks=int(w.chunks))
    if not tried:
        return (own,)
    found = []
    for schedule, chunks, overlapped in product(
        tried.get("schedule", (w.schedule,)),
        tried.get("vpp", (own.chunks,)),
        tried.get(OVERLAPPED, (own.microbatches,)),
    ):
        found.append(_way(own._replace(microbatches=overlapped), schedule, chunks))
    found.sort(key=lambda way: way != _way(own, w.schedule, own.chunks))
    return tuple(dict.fromkeys(found))


MOST_CHUNKS = {"gpipe": 1, "zero_bubble": 2, "dualpipe": 1}


def _way(own: Family, schedule: str, chunks: int) -> Family:
    if schedule in ("1f1b", "interleaved"):
        schedule = "interleaved" if chunks > 1 else "1f1b"
    chunks = min(chunks, MOST_CHUNKS.get(schedule, chunks))
    return own._replace(schedule=schedule, chunks=chunks)


def on_way(w: Decode | Prefill | Train, family: Family) -> Decode | Prefill | Train:
    """The workload with the schedule of a family."""
    if not isinstance(w, Train) or family.schedule is None:
        return w
    chunks = jnp.full_like(w.chunks, family.chunks)
    return w.replace(schedule=family.schedule, chunks=chunks)


def unchunked(a: Architecture, layout: Layout, family: Family) -> Scalar:
    """Log of the chunks of all stages over what fills them: layers, embedding, head."""
    return jnp.log(degree(layout, "pp") * family.chunks / (a.layers + 2.0))


def too_few(w: Train, layout: Layout) -> Scalar:
    """Log of the micro-batches that DualPipe needs, two for each stage, over those
    there are."""
    count = w.global_batch / (w.micro_batch * degree(layout, "dp"))
    return jnp.log((2.0 * degree(layout, "pp") - 1.0) / count)


def changes_of(family: Family) -> dict[str, Any]:
    """Dotted keys that turn a scenario into one on this way."""
    if family.schedule is None:
        return {}
    interleaved = family.schedule == "interleaved"
    own = family.microbatches
    return {
        "workload.schedule": "1f1b" if interleaved else family.schedule,
        "layout.vpp": family.chunks,
        f"layout.{OVERLAPPED}": own if own == "auto" else int(own),
    }
