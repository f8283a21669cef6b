r"""What a placement of experts costs: the slowest device, and traffic between nodes.

A slot table `slots[device, slot]` names the expert in every slot. An expert with r
replicas gives each of them 1/r of its tokens. A step lasts as long as its slowest
device, so loads are compared at each time and then averaged:

$$ \text{slowest} = \frac{\overline{\max_d \ell_d(t)}}{\overline{\ell}} \ge 1 $$

Tokens come evenly from all nodes. As even shares allow, a token takes a replica in its
own node, so of an expert's tokens a share $\sum_n \min(1/N, k_n/r)$ stays in its node,
where node n of N holds $k_n$ of its replicas; the rest is traffic.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int


class Cost(NamedTuple):
    """Cost of one layer's placement, without units."""

    slowest: float
    """Load of the slowest device over the mean load, averaged over time."""
    traffic: float
    """Share of tokens that leave their node."""


def replicas(slots: Int[np.ndarray, "device slot"], experts: int) -> np.ndarray:
    """Number of slots that hold each expert."""
    return np.bincount(slots.ravel(), minlength=experts)


def device_loads(
    slots: Int[np.ndarray, "device slot"], loads: Float[np.ndarray, "expert time"]
) -> Float[np.ndarray, "device time"]:
    """Load of each device at each time."""
    counts = replicas(slots, len(loads))
    each = loads / np.maximum(counts, 1)[:, None]
    return each[slots].sum(axis=1)


def slowest(busy: Float[np.ndarray, "device time"]) -> float:
    """Load of the slowest device, averaged over time."""
    return float(busy.max(axis=0).mean())


def held_by_node(
    slots: Int[np.ndarray, "device slot"], experts: int, nodes: int
) -> Float[np.ndarray, "node expert"]:
    """Replicas of each expert in each node."""
    held = np.zeros((nodes, experts))
    node = np.repeat(np.arange(nodes), slots.size // nodes)
    np.add.at(held, (node, slots.ravel()), 1.0)
    return held


def stays(
    held: Float[np.ndarray, "node expert"], counts: Int[np.ndarray, " expert"]
) -> Float[np.ndarray, "node expert"]:
    """Share of each expert's tokens that come from a node and stay there."""
    return np.minimum(1.0 / len(held), held / np.maximum(counts, 1))


def cost_of(
    slots: Int[np.ndarray, "device slot"],
    loads: Float[np.ndarray, "expert time"],
    nodes: int = 1,
) -> Cost:
    """Slowest device and traffic of one layer.

    Raises:
        ValueError: an expert has no replica.
    """
    counts = replicas(slots, len(loads))
    if (missing := np.flatnonzero(counts == 0)).size:
        raise ValueError(f"experts without a replica: {missing.tolist()}")
    busy = device_loads(slots, loads)
    if not busy.any():
        return Cost(1.0, 0.0)
    shares = loads.sum(axis=1) / loads.sum()
    staying = stays(held_by_node(slots, len(loads), nodes), counts).sum(axis=0)
    return Cost(
        slowest(busy) / float(busy.mean()), max(float(shares @ (1.0 - staying)), 0.0)
    )
