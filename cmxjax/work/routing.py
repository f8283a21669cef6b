"""How routed tokens fall on ranks and experts: statistics that know no machine."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from .. import smooth
from .._types import Leaf, Scalar
from ..job.layout import Layout, degree
from ..job.workload import Balance
from ..model.architecture import Architecture
from ..model.feed_forwards import COUNTLESS, MOST_GROUPS, GroupLimit
from ..switch import either

SAMPLING_FLOOR = 1e-2  # keeps the square root smooth where there is one rank


def busiest_rank_load(
    balance: Balance,
    skew: Scalar,
    mean_copies: Scalar,
    ranks: Scalar,
    slots_per_rank: Scalar,
) -> Scalar:
    r"""Load of the busiest rank over the mean.

    $$ \Bigl(1 + \sqrt{2 \ln n / \mu}\Bigr)
    \Bigl(1 + \frac{s}{1 + r} \bigl(1 - \tfrac1n\bigr)\Bigr) $$

    The first factor is sampling: the largest of n counts with mean mu (balls in bins,
    Raab & Steger, RANDOM 1998, for mu above ln n). The second is skew s of the experts'
    popularity, halved by one redundant slot per rank (r), and none on a single rank.
    Assumes that a balancer puts its r spare slots on the most loaded experts.

    Args:
        balance: which of the two factors there are.
        skew: the runtime's, unless the balance has its own.
    """
    spread = 2.0 * jnp.log(ranks) / mean_copies
    sampling = spread / jnp.sqrt(spread + SAMPLING_FLOOR**2)
    several = 1.0 - 1.0 / ranks
    popularity = balance.skewed.on * balance.skew_of(skew) / (1.0 + slots_per_rank)
    popularity = popularity * several
    return (1.0 + balance.sampled.on * sampling) * (1.0 + popularity)


class ExpertLoad(NamedTuple):
    """Tokens of a mixture layer on one device."""

    copies_per_token: Scalar
    busiest: Scalar
    rows: Scalar
    """Rows of each active expert on the busiest rank."""
    active: Scalar


LEAST_SPREAD = 1e-6  # below it experts are equally popular


def expert_load(
    a: Architecture,
    layout: Layout,
    balance: Balance,
    skew: Scalar,
    tokens: Scalar,
    spread: Leaf | None = None,
) -> ExpertLoad:
    r"""How routed tokens fall on a device's experts.

    Of the slots only those that get a token read their weights. If each gets r on
    average that is a share

    $$ 1 - (1 + r v)^{-1/v} \;\to\; 1 - e^{-r} \quad (v \to 0) $$

    of them: counts are Poisson, with means that follow a gamma distribution of relative
    variance v (Greenwood & Yule, J. R. Stat. Soc. 83, 1920). Where none differs, as
    benchmarks force it, tokens are dealt out in turn: $\min(r, 1)$.

    Args:
        spread: relative variance of the experts' popularity, v; None for none.
    """
    e, routing = a.experts, layout.routing
    if e is None:
        one = jnp.ones(())
        return ExpertLoad(one, one, one, one)
    ep, etp = degree(layout, "ep"), degree(layout, "etp")
    copies = e.topk + (1.0 if routing.dispatches_shared else 0.0)
    slots = (e.routed + routing.redundant_experts + routing.shared_replicas) / ep
    received = tokens * etp * copies
    spare = routing.redundant_experts / ep
    busiest = busiest_rank_load(balance, skew, received, ep, spare)
    per_slot = received / slots
    missed = -per_slot
    if spread is not None:
        varied = balance.skewed.on * spread + LEAST_SPREAD
        missed = -jnp.log1p(per_slot * varied) / varied
    dealt = smooth.smaller(per_slot, 1.0)
    share = balance.sampled.pick(-jnp.expm1(missed), dealt)
    return ExpertLoad(copies, busiest, per_slot / share * busiest, slots * share)


MOST_DRAWS = 16
"""Draws whose number of experts left is exact; further ones have that of the last."""

LEAST_MISSED = 1e-6
"""Chance of missing the only place there is, whose power has a slope."""


def visited(places: Leaf, copies_per_token: Scalar, experts: Leaf = COUNTLESS) -> Leaf:
    r"""Different ranks or nodes that a token with some copies reaches on average.

    Its k copies go to different experts of E, of which a place of n holds h = E / n:

    $$ n \Bigl(1 - \prod_{i<k} \bigl(1 - \frac{h}{E - i}\bigr)\Bigr)
       = n \Bigl(1 - \binom{E - h}{k} \Big/ \binom{E}{k}\Bigr) $$

    Each draw without replacement misses a place with the chance that is left; a fraction
    of a copy is a copy in that share of cases. Countless experts give
    $n (1 - (1 - 1/n)^k)$.
    """
    drawn = np.arange(float(MOST_DRAWS))
    left = smooth.larger(experts - drawn, 1.0)
    hit = smooth.smaller(experts / left / jnp.expand_dims(places, -1), 1.0)
    often = smooth.smaller(smooth.larger(copies_per_token - drawn, 0.0), 1.0)
    further = smooth.larger(copies_per_token - MOST_DRAWS, 0.0)
    missed = smooth.larger(1.0 - hit[..., -1], LEAST_MISSED) ** further
    return places * (1.0 - jnp.prod(1.0 - often * hit, axis=-1) * missed)


def open_places(places: Leaf, limit: GroupLimit) -> Leaf:
    r"""Ranks or nodes that hold experts of the groups that a token may use.

    $$ n \Bigl(1 - \prod_{i<t} \bigl(1 - \frac{h}{g - i}\bigr)\Bigr), \quad
       h = \max(g/n,\, 1) $$

    One of n places holds h of g groups, or a part of one, and misses all of the t that
    a token may use with the chance of t draws without replacement.
    """
    groups, used, _ = limit
    held = smooth.smaller(smooth.larger(groups / places, 1.0), groups - used + 1.0)
    drawn = np.arange(float(MOST_GROUPS))
    drawn = drawn.reshape(-1, *[1] * jnp.ndim(places))
    left = smooth.larger(groups - drawn, 1.0)
    missed = jnp.prod(either(drawn < used, 1.0 - held / left, 1.0), axis=0)
    return either(used < groups, places * (1.0 - missed), places)
