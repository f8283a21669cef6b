"""Several collectives of one kind on different groups, timed in one program."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._types import Scalar
from ..collectives.library import collective_s
from ..fabric import group_of
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

    The requests of a kind run through one vmapped function: a step has up to a dozen
    collectives, and compiling each by itself would take most of its compile time.
    """
    return {kind: _of_kind(stage, kind, requests) for kind, requests in asked.items()}


def _of_kind(stage: Stage, kind: str, requests: list[Request]) -> dict[str, Any]:
    if not requests:
        return {}

    def one(splits: Any, payload: Any, scale: dict[str, Any]):
        group = group_of(stage.fabric, splits)
        return collective_s(
            kind, group, stage.library, payload, stage.sharpness, scale.__getitem__
        )

    splits = jnp.stack([request.splits for request in requests])
    payloads = jnp.stack([jnp.asarray(request.payload_bytes) for request in requests])
    scales = {
        part: jnp.stack(
            [jnp.asarray(stage.scales(f"{r.prefix}.{part}"), float) for r in requests]
        )
        for part in COLLECTIVE_PARTS
    }
    found: Any = jax.vmap(one)(splits, payloads, scales)
    return {request.name: found[i] for i, request in enumerate(requests)}
