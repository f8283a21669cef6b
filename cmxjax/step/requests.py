"""The collectives of a step on their groups, those of one form timed in one program."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._types import Scalar
from ..rates.collectives import collective_s
from ..rates.fabric import group_of
from .serving import Stage
from .shares import COLLECTIVE_PARTS


class Request(NamedTuple):
    """One collective that a step asks for."""

    name: str
    prefix: str
    """Its component in the breakdown."""
    splits: Any
    """How many ways its group splits within each tier, (tier,)."""
    payload_bytes: Scalar


def times_of(stage: Stage, asked: dict[str, list[Request]]) -> dict[str, dict[str, Any]]:
    """Seconds of each request, by kind and by name.

    The requests of one form run through one vmapped function: a step has up to a dozen
    collectives, and compiling each by itself would take most of its compile time.
    """
    forms: dict[str, list[tuple[str, Request]]] = {}
    for kind, requests in asked.items():
        # a reduce-scatter is an all-gather run backwards, at the rate of reductions
        form = "all_gather" if kind == "reduce_scatter" else kind
        forms.setdefault(form, []).extend((kind, request) for request in requests)
    found: dict[str, dict[str, Any]] = {kind: {} for kind in asked}
    for form, members in forms.items():
        for (kind, request), time in zip(members, _of_form(stage, form, members)):
            found[kind][request.name] = time
    return found


def _of_form(stage: Stage, form: str, members: list[tuple[str, Request]]) -> list:
    if not members:
        return []
    library = stage.library
    rates = {"reduce_scatter": library.reduce_efficiency}

    def one(splits: Any, payload: Any, rate: Any, scale: dict[str, Any]):
        slowed = library.replace(
            efficiency=library.efficiency * rate,
            small_efficiency=library.small_efficiency * rate,
        )
        group, ask = group_of(stage.fabric, splits), scale.__getitem__
        return collective_s(form, group, slowed, payload, stage.sharpness, ask)

    def stacked(values: Iterable[Any]) -> Any:
        return jnp.stack([jnp.asarray(x, float) for x in values])

    _, requests = zip(*members)
    scales = {
        part: stacked(stage.scales(f"{request.prefix}.{part}") for request in requests)
        for part in COLLECTIVE_PARTS
    }
    times: Any = jax.vmap(one)(
        stacked(request.splits for request in requests),
        stacked(request.payload_bytes for request in requests),
        stacked(rates.get(kind, 1.0) for kind, _ in members),
        scales,
    )
    return list(jnp.unstack(times))
