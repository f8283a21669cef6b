r"""Groups of ranks on a torus: what links carry where no switch joins all.

A device of a torus of k dimensions has 2 k links, two on each. A group of n ranks is a
block of neighbors with e_1, ..., e_k of them along the dimensions, which double in turn
as it grows: 2 x 1 x 1, 2 x 2 x 1, 2 x 2 x 2, 4 x 2 x 2, the slices in which TPUs are
let. A line of them closes to a ring where the torus goes around or optical switches join
its ends (c_i = 1, else 0).

* Gathers and scatters run in rings along all dimensions at once, each of which carries
  its part of the data last. A device at a corner of the block takes in over 1 + c_i
  links on each dimension, so the share of its links is

  $$ \frac{1}{2 k} \sum_{i:\, e_i > 1} (1 + c_i) $$

  and there are as many steps as along one dimension after another: half a ring, since it
  runs both ways, or a whole line.
* Where each sends to every other, a message goes along one dimension after the other. Of
  all n m bytes of a rank half cross the middle of each dimension, which 1 + c_i links for
  each of its n / e_i lines cut: per link of rate b that is

  $$ t = \max_i \frac{n\, m\, h(e_i)}{(1 + c_i)\, b}, \qquad
     h(e) = \frac{\lfloor e/2 \rfloor \lceil e/2 \rceil}{e} $$

  the bisection bound. On a ring it equals the mean hops, e / 4, over two links.

References: Dally & Towles, Principles and Practices of Interconnection Networks, 2004,
chapter 5 (bisection and mean hops of k-ary n-cubes); Sack & Gropp, ACM Transactions on
Parallel Computing 1(2), 2015 (collectives on multiported tori); Jouppi et al., ISCA 2023
(TPU v4: blocks of 4 x 4 x 4 and optical switches).
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .. import smooth
from ..machine.tiers import Torus
from ..switch import either

LONGEST = 2**10
"""Units along a dimension that a file may give."""

_DOUBLED = np.exp2(np.arange(LONGEST.bit_length())).reshape(-1, 1)


class Block(NamedTuple):
    """What a group meets of each tier that is a torus, (tier,); of others 1."""

    there: Bool[Array, " tier"]
    """It is one."""
    rings: Float[Array, " tier"]
    """Share of a device's links that rings use."""
    pairs: Float[Array, " tier"]
    """Share of the rate that is left where each rank sends to every other."""
    link: Float[Array, " tier"]
    """Share of one link."""
    hops: Float[Array, " tier"]
    """Links on the longest of the shortest ways, and steps of its rings."""


def extents(
    torus: Torus, splits: Float[Array, " tier"]
) -> Float[Array, "tier dimension"]:
    """Ranks of a group along each dimension; their product is the group, as far as the
    torus reaches."""
    lengths = smooth.smaller(torus.shape[:, None, :], _DOUBLED)
    before, after = lengths[:, :-1], lengths[:, 1:]
    grows = after / before
    # ranks at which a dimension doubles: those before it have done so in this round
    held = before.prod(-1, keepdims=True) * jnp.cumprod(grows, -1) / grows
    grown = smooth.within(splits[:, None, None] / held, 1.0, grows)
    return grown.prod(1)


def block_of(torus: Torus, splits: Float[Array, " tier"]) -> Block:
    """The block of neighbors that a group is on each torus."""
    along = extents(torus, splits)
    more = smooth.smaller(along - 1.0, 1.0)
    closed = smooth.within(along - torus.closes + 1.0, 0.0, 1.0)
    odd = jnp.sin(0.5 * jnp.pi * along) ** 2
    # of whole numbers floor(e/2) ceil(e/2) / e, and smooth between them
    crossing = 0.25 * (along - odd / along) / (1.0 + closed)
    worst = crossing[:, 0]
    for other in jnp.unstack(crossing[:, 1:], axis=1):
        worst = smooth.larger(worst, other)
    half = 0.5 * (along - odd)
    hops = (half + (1.0 - closed) * (along - 1.0 - half)).sum(-1)
    dimensions = smooth.smaller(torus.shape - 1.0, 1.0).sum(-1)
    there, several = dimensions > 0.5, splits > 1.0
    link = 0.5 / smooth.larger(dimensions, 1.0)
    rings = link * smooth.larger(((1.0 + closed) * more).sum(-1), 1.0)
    reached = (splits - 1.0) / (splits * either(several, worst, 1.0))
    pairs = link * either(several, reached, 1.0)
    one = (either(there, share, 1.0) for share in (rings, pairs, link, hops))
    return Block(there, *one)
