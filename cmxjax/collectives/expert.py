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

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import smooth
from .._types import Scalar, Sharpness
from ..fabric import Group, peers, port_s, reach_s
from ..hardware import ExpertMode

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


def tier_bytes(
    group: Group, mode: ExpertMode, tokens: Scalar, copies: Scalar, copy_bytes: Scalar
) -> Float[Array, " tier"]:
    """Bytes that a rank sends through each tier, copies spread evenly over the ranks."""
    each = copies * copy_bytes / group.ranks
    if mode.plane:
        away = jnp.asarray(_outermost(group, mode.plane))
        return each * (group.ranks - 1.0) * away
    sent = each * peers(group)
    if mode.deduplicates:
        sent = _deduplicated(group, sent, tokens, copies, copy_bytes)
    return sent


def _outermost(group: Group, plane: str) -> np.ndarray:
    """Mask of the outermost tier on a plane."""
    mask = group.fabric.on(plane)
    mask[: int(np.flatnonzero(mask)[-1])] = 0.0
    return mask


def _deduplicated(
    group: Group,
    sent: Float[Array, " tier"],
    tokens: Scalar,
    copies: Scalar,
    copy_bytes: Scalar,
) -> Float[Array, " tier"]:
    r"""A token crosses the outer plane once per unit it visits and spreads inside.

    A token with k copies visits $G (1 - (1 - 1/G)^k)$ of G units. What would have
    crossed beyond that travels on the inner plane instead. Source: DeepEP's
    forwarding from RDMA to NVLink.
    """
    units, inside = group.splits[-1], group.units[-1]
    missed = jnp.maximum((units - 1.0) / units, 1e-6)  # of one unit, by one copy
    visited = units * (1.0 - jnp.exp(copies / tokens * jnp.log(missed)))
    crossing = tokens * copy_bytes * visited * (units - 1.0) / units
    crossing = jnp.minimum(crossing, sent[-1])
    forwarded = sent[-2] + sent[-1] * (inside - 1.0) / inside
    return jnp.concatenate([sent[:-2], jnp.stack([forwarded, crossing])])


def exchange_s(
    kind: str,
    group: Group,
    mode: ExpertMode,
    tokens: Scalar,
    copies_per_token: Scalar,
    copy_bytes: Scalar,
    memory_bytes_per_s: Scalar,
    load: Scalar,
    sharpness: Sharpness,
    scale=lambda name: 1.0,
    driver: str = "vector_cores",
) -> Scalar:
    """Time of one dispatch or combine.

    Args:
        kind: `dispatch` or `combine`.
        tokens: tokens of this rank, `copies_per_token` of each sent.
        copy_bytes: bytes of one copy, scales included.
        memory_bytes_per_s: rate at which a rank copies to itself.
        load: what the busiest rank handles over the mean.
    """
    copies = tokens * copies_per_token * load
    sent = tier_bytes(group, mode, tokens * load, copies, copy_bytes)
    wire = port_s(group.fabric, sent, mode.efficiency, sharpness)
    to_self = 2.0 * copies * copy_bytes / group.ranks / memory_bytes_per_s
    wire = smooth.maximum(wire, to_self, sharpness) * scale("transfer")
    dispatch = kind == "dispatch"
    start = mode.dispatch_start_s if dispatch else mode.combine_start_s
    peer_s = mode.dispatch_peer_s if dispatch else mode.combine_peer_s
    # every rank posts and adds up as many copies; the busiest one moves more
    posted = tokens * copies_per_token * scale("copies")
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
        delay = mode.jitter_s + mode.spread * busy
        after = delay * jnp.log(group.ranks) * scale("wait")
    else:
        summed = tokens * (copies_per_token + 1.0) * copy_bytes
        after = summed / memory_bytes_per_s * scale("sum")
        after = after + posted * mode.combine_copy_s
    several = smooth.positive(group.ranks - 1.0, sharpness)
    return several * (start + busy + after)
