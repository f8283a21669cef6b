r"""MoE dispatch and combine, and the load of the busiest rank.

$$ t = \alpha + (n - 1)\,p + b + (J + \kappa\,b) \ln n + t_\mathrm{sum}, \qquad
b = \max\bigl(t_\mathrm{wire},\; \text{copies}\cdot t_\mathrm{copy} \bigr) $$

alpha is the library's start with the fabric's latency; p is what each of the n - 1
other ranks costs (counts, addresses, flags); (J + kappa b) ln n is the wait of a
dispatch for the slowest of n ranks whose delays have exponential tails (their expected
maximum is the harmonic number of n), after which combine finds the ranks in step; the
wire time splits by destination: the same device (a copy in its memory), the same
package, node, supernode, each on its plane; combine reads what has arrived and adds it
up, copy by copy.
"""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import smooth
from .._types import Leaf, Scalar, Sharpness
from ..machine.libraries import ExpertMode
from ..model.architecture import ANY_GROUP, GroupLimit
from .fabric import Group, peers, port_s, reach_s

SAMPLING_FLOOR = 1e-2  # keeps the square root smooth where there is one rank


def busiest_rank_load(
    balance: str, skew: Scalar, mean_copies: Scalar, ranks: Scalar, slots_per_rank: Scalar
) -> Scalar:
    r"""Load of the busiest rank over the mean.

    $$ \Bigl(1 + \sqrt{2 \ln n / \mu}\Bigr) \Bigl(1 + \frac{s}{1 + r}\Bigr) $$

    The first factor is sampling: the largest of n counts with mean mu (balls in bins,
    Raab & Steger, RANDOM 1998, for mu above ln n). The second is skew s of the experts'
    popularity, halved by one redundant slot per rank (r). Assumes that a balancer puts
    its r spare slots on the most loaded experts.

    Args:
        balance: `uniform` (1), `random` (sampling only) or `typical` (both).
    """
    if balance == "uniform":
        return jnp.ones(())
    spread = 2.0 * jnp.log(ranks) / mean_copies
    sampling = 1.0 + spread / jnp.sqrt(spread + SAMPLING_FLOOR**2)
    if balance == "random":
        return sampling
    return sampling * (1.0 + skew / (1.0 + slots_per_rank))


class Copies(NamedTuple):
    """Copies of tokens that a rank sends, dispatched or to be combined."""

    group: Group
    tokens: Scalar
    """Of this rank."""
    per_token: Scalar
    """Ranks that a token's copies reach, or its copies where each travels by itself."""
    load: Scalar
    """What the busiest rank handles over the mean."""
    tiers: Float[Array, " tier"]
    """Copies that the busiest rank sends through each tier."""


def copies_of(
    group: Group,
    mode: ExpertMode,
    tokens: Scalar,
    per_token: Scalar,
    load: Scalar,
    limit: GroupLimit = ANY_GROUP,
) -> Copies:
    """Copies spread evenly over the ranks.

    Args:
        limit: groups of experts that a token may use. They only matter where copies to
            one place travel once: without that each copy is sent wherever it goes.
        tokens: tokens of this rank, `per_token` copies of each sent.
        load: what the busiest rank handles over the mean.
    """
    most = tokens * load
    if mode.deduplicates:
        per_token, tiers = _deduplicated(group, most, per_token, limit)
    elif mode.plane:
        away = jnp.asarray(_outermost(group, mode.plane))
        tiers = most * per_token / group.ranks * (group.ranks - 1.0) * away
    else:
        tiers = most * per_token / group.ranks * peers(group)
    return Copies(group, tokens, per_token, load, tiers)


def visited(places: Leaf, copies_per_token: Scalar) -> Leaf:
    """Different ranks or nodes that a token with some copies reaches on average."""
    missed = smooth.larger((places - 1.0) / places, 1e-6)  # one place, by one copy
    return places * (1.0 - jnp.exp(copies_per_token * jnp.log(missed)))


def open_places(places: Scalar, limit: GroupLimit) -> Scalar:
    r"""Ranks or nodes that hold experts of the groups that a token may use.

    $$ n \Bigl(1 - \prod_{i<t} \bigl(1 - \frac{h}{g - i}\bigr)\Bigr), \quad
       h = \max(g/n,\, 1) $$

    One of n places holds h of g groups, or a part of one, and misses all of the t that
    a token may use with the chance of t draws without replacement.
    """
    groups, used = limit
    if used >= groups:
        return places
    held = smooth.smaller(smooth.larger(groups / places, 1.0), groups - used + 1.0)
    missed = math.prod(1.0 - held / (groups - drawn) for drawn in range(used))
    return places * (1.0 - missed)


def _outermost(group: Group, plane: str) -> np.ndarray:
    """Mask of the outermost tier on a plane."""
    mask = group.fabric.on(plane)
    mask[: int(np.flatnonzero(mask)[-1])] = 0.0
    return mask


def _deduplicated(
    group: Group, tokens: Scalar, copies_per_token: Scalar, limit: GroupLimit
) -> tuple[Scalar, Float[Array, " tier"]]:
    r"""Ranks that a token reaches, and copies through each tier.

    A token crosses the outer plane once per unit it visits and spreads inside: one with
    k copies visits $G (1 - (1 - 1/G)^k)$ of G units, and goes to each rank once, however
    many of its experts are there. What would have crossed beyond that travels on the
    inner plane instead. Source: DeepEP's forwarding from RDMA to NVLink.
    """
    units, inside = group.splits[-1], group.units[-1]
    places = (open_places(n, limit) for n in (group.ranks, units))
    held, reached = (visited(n, copies_per_token) for n in places)
    sent = tokens * held / group.ranks * peers(group)
    *inner, last, across = jnp.unstack(sent)
    crossing = smooth.smaller(tokens * reached * (units - 1.0) / units, across)
    forwarded = last + across * (inside - 1.0) / inside
    return held, jnp.stack([*inner, forwarded, crossing])


def exchange_s(
    kind: str,
    copies: Copies,
    mode: ExpertMode,
    copy_bytes: Scalar,
    memory_bytes_per_s: Scalar,
    sharpness: Sharpness,
    scale=lambda name: 1.0,
    driver: str = "vector_cores",
) -> Scalar:
    """Time of one dispatch or combine.

    Args:
        kind: `dispatch` or `combine`.
        copy_bytes: bytes of one copy, scales included.
        memory_bytes_per_s: rate at which a rank copies to itself.
    """
    group, held = copies.group, copies.tokens * copies.per_token
    sent = copies.tiers * copy_bytes
    wire = port_s(group.fabric, sent, mode.efficiency, sharpness)
    own = held * copies.load / group.ranks
    to_self = 2.0 * own * copy_bytes / memory_bytes_per_s
    wire = smooth.maximum(wire, to_self, sharpness) * scale("transfer")
    dispatch = kind == "dispatch"
    start = mode.dispatch_start_s if dispatch else mode.combine_start_s
    peer_s = mode.dispatch_peer_s if dispatch else mode.combine_peer_s
    # every rank posts and adds up as many copies; the busiest one moves more
    posted = held * scale("copies")
    busy = wire
    if dispatch:
        busy = smooth.maximum(wire, posted * mode.dispatch_copy_s, sharpness)
    if driver == "sdma":
        busy = busy * mode.sdma_slowdown
    if mode.plane:
        reach = (group.fabric.latency_s * _outermost(group, mode.plane)).sum()
    else:
        reach = reach_s(group, sharpness)
    start = (start + reach + (group.ranks - 1.0) * peer_s) * scale("start")
    if dispatch:
        # the random part of sending scales with it, so it is no component of its own
        delay = mode.jitter_s * scale("wait") + mode.spread * busy
        after = delay * jnp.log(group.ranks)
    else:
        summed = (held + copies.tokens) * copy_bytes
        after = summed / memory_bytes_per_s * scale("sum")
        after = after + posted * mode.combine_copy_s
    several = smooth.positive(group.ranks - 1.0, sharpness)
    return several * (start + busy + after)
