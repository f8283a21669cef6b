r"""MoE dispatch and combine.

$$ t = \alpha + (n - 1)\,p + b + (J + \kappa\,b) \ln n + t_\mathrm{sum}, \qquad
b = \max\Bigl(t_\mathrm{wire},\; t_\mathrm{least},\; \text{copies}\cdot
t_\mathrm{copy},\; \frac{\text{copies}}{\text{cores}} \bigl(t_\mathrm{core} +
\frac{\text{bytes}}{r}\bigr) \Bigr) $$

alpha is the library's start with the fabric's latency; p is what each of the n - 1
other ranks costs (counts, addresses, flags); (J + kappa b) ln n is the wait of a
dispatch for the slowest of n ranks whose delays have exponential tails (their expected
maximum is the harmonic number of n), after which combine finds the ranks in step; the
wire time splits by destination: the same device (a copy in its memory), the same
package, node, supernode, each on its plane; however few the tokens, moving them takes
t_least; each of a kernel's cores spends t_core on a copy and moves r bytes a second;
combine reads what has arrived and adds it up, copy by copy.

Without an exchange by expert all ranks gather all tokens, and their sums are reduced
and scattered: each token crosses to each unit of a tier once, both ways.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import smooth
from .._types import Leaf, Scalar, Sharpness
from ..machine.libraries import ExpertMode
from ..model.feed_forwards import ANY_GROUP, GroupLimit
from ..switch import Switch, either
from ..work.routing import open_places, visited
from .collectives import several_of
from .fabric import Group, peers, port_s, reach_s, scattered


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
    spread: Scalar | None = None
    """Copies of a token that others spread in their node, of those dispatched."""
    joined: Scalar | None = None
    """Copies of a token that others add up in their node, of those to be combined."""


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
    others = _one_way(mode, (group.ranks - 1.0) * mode.only, peers(group))
    tiers = most * per_token / group.ranks * others
    sent = Copies(group, tokens, per_token, load, tiers)
    if mode.deduplicates is not None and len(tiers) > 1:
        sent = _picked(mode.deduplicates, _deduplicated(sent, mode, limit), sent)
    if mode.gathers is not None:
        sent = _picked(mode.gathers, _gathered(sent), sent)
    return sent


def _picked(one: Switch, these: Copies, those: Copies) -> Copies:
    """One of two ways to send the same tokens."""
    zero = jnp.zeros(())
    spread, joined = (
        None
        if here is None and there is None
        else one.pick(zero if here is None else here, zero if there is None else there)
        for here, there in zip(these[-2:], those[-2:], strict=True)
    )
    return Copies(
        these.group,
        these.tokens,
        one.pick(these.per_token, those.per_token),
        one.pick(these.load, those.load),
        one.pick(these.tiers, those.tiers),
        spread,
        joined,
    )


def _gathered(sent: Copies) -> Copies:
    """Copies where all ranks get all tokens, as many from each: n - 1 others, each token
    through a tier to each of its units once, from where it spreads inside."""
    group, one = sent.group, jnp.ones(())
    others = (group.splits - 1.0) * group.ranks / (group.units * group.splits)
    return sent._replace(per_token=group.ranks, load=one, tiers=sent.tokens * others)


def _one_way(mode: ExpertMode, only: Leaf, any_way: Leaf) -> Leaf:
    """What holds where all traffic takes one tier, or else where it takes any."""
    return either(mode.only.sum() > 0.5, only, any_way)


def _deduplicated(copies: Copies, mode: ExpertMode, limit: GroupLimit) -> Copies:
    """Copies where a token goes to each rank once.

    A token crosses the outer plane once per unit it visits (`visited`) and spreads
    inside: it goes to each rank once, however many of its experts are there. What would
    have crossed beyond that travels on the inner plane instead. Sums of a unit's copies
    come back the same way. Source: DeepEP's forwarding from RDMA to NVLink.
    """
    group, tokens = copies.group, copies.tokens * copies.load
    across, below = mode.across, jnp.append(mode.across[1:], 0.0)
    units, inside = ((x * across).sum() for x in (group.splits, group.units))
    places = open_places(jnp.stack([group.ranks, units]), limit)
    experts = limit.experts * limit.topk_groups / limit.groups
    held, reached = jnp.unstack(visited(places, copies.per_token, experts))
    sent = tokens * held / group.ranks * peers(group)
    far = (sent * across).sum()
    away = (units - 1.0) / units
    crossing = smooth.smaller(tokens * reached * away, far)
    forwarded = far * (inside - 1.0) / inside
    tiers = sent * (1.0 - across) + crossing * across + forwarded * below
    parts = {"spread": crossing / tokens, "joined": held * away}
    return copies._replace(per_token=held, tiers=tiers, **parts)


def exchange_costs(
    kind: str,
    copies: Copies,
    mode: ExpertMode,
    copy_bytes: Scalar,
    memory_bytes_per_s: Scalar,
    sharpness: Sharpness,
    driver: str = "vector_cores",
    cores: Scalar | None = None,
) -> dict[str, Scalar]:
    """Seconds of the parts of one dispatch or combine between several ranks.

    Args:
        kind: `dispatch` or `combine`.
        copy_bytes: bytes of one copy, scales included.
        memory_bytes_per_s: rate at which a rank copies to itself.
        cores: that drive the kernel, if not as many as it takes by itself.
    """
    group, held = copies.group, copies.tokens * copies.per_token
    dispatches = kind == "dispatch"
    fabric = scattered(group)
    wire = port_s(fabric, copies.tiers * copy_bytes, mode.efficiency, sharpness)
    kept = held * copies.load / group.ranks
    to_self = 2.0 * kept * copy_bytes / memory_bytes_per_s
    least = mode.dispatch_least_s if dispatches else mode.combine_least_s
    core_s = mode.dispatch_core_s if dispatches else mode.combine_core_s
    each = core_s + copy_bytes / mode.core_bytes_per_s
    forwarded = copies.spread if dispatches else copies.joined
    handled = held if forwarded is None else held + copies.tokens * forwarded
    driven = handled * each / (mode.cores if cores is None else cores)
    moved = smooth.larger(smooth.larger(wire, driven), least)
    # every rank posts and adds up as many copies; the busiest one moves more
    costs = {
        "start": _start_s(dispatches, group, mode, sharpness),
        "transfer": smooth.maximum(moved, to_self, sharpness),
        "copies": held * (mode.dispatch_copy_s if dispatches else mode.combine_copy_s),
    }
    if driver == "sdma":
        moved = ("transfer", "copies") if dispatches else ("transfer",)
        costs |= {part: costs[part] * mode.sdma_slowdown for part in moved}
    if dispatches:
        costs["wait"] = mode.jitter_s * jnp.log(group.ranks)
    else:
        costs["sum"] = (held + copies.tokens) * copy_bytes / memory_bytes_per_s
    return costs


def _start_s(
    dispatches: bool, group: Group, mode: ExpertMode, sharpness: Sharpness
) -> Scalar:
    """The library's start, the latency to the farthest rank, and what each peer costs."""
    start_s = mode.dispatch_start_s if dispatches else mode.combine_start_s
    peer_s = mode.dispatch_peer_s if dispatches else mode.combine_peer_s
    only = (group.fabric.latency_s * mode.only).sum()
    reach = _one_way(mode, only, reach_s(group, sharpness))
    return start_s + reach + (group.ranks - 1.0) * peer_s


class Ranks(NamedTuple):
    """What of the ranks an exchange feels besides the seconds of its parts."""

    several: Scalar
    """1 where there are several, 0 where there is one."""
    spread: Scalar
    """kappa ln n: what the random part of sending adds to its time."""


def ranks_of(group: Group, mode: ExpertMode, sharpness: Sharpness) -> Ranks:
    several = several_of(group.ranks, sharpness)
    return Ranks(several, mode.spread * jnp.log(group.ranks))


def begun_s(costs: Mapping[str, Scalar], ranks: Ranks) -> Scalar:
    """Of the time of a dispatch or combine, what passes before tokens move."""
    return ranks.several * (costs["start"] + costs.get("wait", 0.0))


def exchange_s(costs: Mapping[str, Scalar], ranks: Ranks, sharpness: Sharpness) -> Scalar:
    """Time of one dispatch or combine, from the seconds of its parts; none where one rank
    has all experts."""
    start, moved, copied = costs["start"], costs["transfer"], costs["copies"]
    if "sum" in costs:
        return ranks.several * (start + moved + copied + costs["sum"])
    busy = smooth.maximum(moved, copied, sharpness)
    return ranks.several * (start + costs["wait"] + busy * (1.0 + ranks.spread))
