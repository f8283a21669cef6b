"""The collectives of a step on their groups, those of one form priced in one program."""

from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._types import Leaf, Scalar, Sharpness
from ..machine.machine import Machine
from ..rates.collectives import collective_costs, several_of
from ..rates.fabric import group_of


class Request(NamedTuple):
    """One collective that a step asks for."""

    name: str
    component: str
    """What the breakdown counts it as."""
    kind: str
    splits: Float[Array, " tier"]
    """How many ways its group splits within each tier, (tier,)."""
    payload_bytes: Scalar
    runs: Scalar | None = None
    """How often it runs, one after another; None: once."""


def by_form(requests: Iterable[Request]) -> dict[str, list[Request]]:
    """Requests that one function prices: a reduce-scatter is an all-gather run backwards,
    at the rate of reductions."""
    forms: dict[str, list[Request]] = {}
    for request in requests:
        form = "all_gather" if request.kind == "reduce_scatter" else request.kind
        forms.setdefault(form, []).append(request)
    return forms


def several_ranks(
    requests: Iterable[Request], sharpness: Sharpness
) -> dict[str, list[Scalar]]:
    """Whether the group of each request has several ranks, by form."""
    several: dict[int, Scalar] = {}  # of one group, however many requests it has
    for request in (requests := [*requests]):
        if id(request.splits) not in several:
            ranks = jnp.prod(request.splits)
            several[id(request.splits)] = several_of(ranks, sharpness)
    return {
        form: [several[id(request.splits)] for request in members]
        for form, members in by_form(requests).items()
    }


def price_collectives(
    machine: Machine, requests: Iterable[Request], sharpness: Sharpness
) -> dict[str, dict[str, Leaf]]:
    """Seconds of the parts of each request: by form, with an entry for each of the form.

    The requests of one form run through one vmapped function: a training step has up to
    a dozen collectives, and compiling each by itself would take most of its compile time.
    """
    return {
        form: _of_form(machine, form, members, sharpness)
        for form, members in by_form(requests).items()
    }


def _of_form(
    machine: Machine, form: str, members: list[Request], sharpness: Sharpness
) -> dict[str, Leaf]:
    library = machine.library
    reduced = {"reduce_scatter": library.reduce_efficiency}

    def one(
        splits: Float[Array, " tier"], payload: Scalar, rate: Scalar
    ) -> dict[str, Scalar]:
        slowed = library.replace(
            efficiency=library.efficiency * rate,
            small_efficiency=library.small_efficiency * rate,
        )
        group = group_of(machine.fabric, splits)
        return collective_costs(form, group, slowed, payload, sharpness)

    asked = [(r.splits, r.payload_bytes, reduced.get(r.kind, 1.0)) for r in members]
    if len(asked) == 1:  # a lone one is not worth a `vmap`, which traces slowly
        times = {part: jnp.stack([x]) for part, x in one(*asked[0]).items()}
    else:
        stacked = (jnp.stack([jnp.asarray(x, float) for x in of]) for of in zip(*asked))
        # each part is made of these; the compiler would stack them for each anew
        times = jax.vmap(one)(*jax.lax.optimization_barrier([*stacked]))
    if all(request.runs is None for request in members):
        return times
    runs = [1.0 if r.runs is None else r.runs for r in members]
    runs = jnp.stack([jnp.asarray(x, float) for x in runs])
    return {part: seconds * runs for part, seconds in times.items()}
