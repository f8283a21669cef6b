"""Phase `collective`: one collective on a group placed on the tiers."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from .._types import Leaf, Scalar, Sharpness
from ..job.layout import Layout, splits
from ..job.workload import BYTES, Collective
from ..machine.system import System
from ..rates.collectives import bus_bytes, collective_s, remote_access_s
from ..rates.exchange import busiest_rank_load, copies_of, exchange_s
from ..rates.fabric import Group, fabric_of, group_of
from .shares import COLLECTIVE_PARTS, EXCHANGE_PARTS, Scales


class CollectiveMetrics(struct.PyTreeNode, kw_only=True, frozen=True):
    """Metrics of one collective."""

    time_s: Leaf
    bytes_per_s: Leaf
    """Payload over time; for dispatch and combine all copies that a rank sends."""
    bus_bytes_per_s: Leaf
    """Bus bandwidth as nccl-tests define it."""
    breakdown: dict[str, Leaf]
    """Seconds by part, by Euler's theorem; they sum to the time."""
    kind: str = struct.field(pytree_node=False, default="collective_metrics")


def collective_metrics(
    system: System, w: Collective, layout: Layout, sharpness: Sharpness
) -> CollectiveMetrics:
    """Time and rates of one collective call on the mean rank.

    Sending to host memory (p2p on the npu-cpu path) is a remote write.
    """
    group = group_of(fabric_of(system), splits(layout, "ep"))
    exchange = w.collective in ("dispatch", "combine")
    time_of = _exchange_s if exchange else _collective_s

    def time_s(factors: dict[str, Any]) -> Scalar:
        return time_of(system, w, group, sharpness, Scales(factors))

    parts = EXCHANGE_PARTS.get(w.collective, COLLECTIVE_PARTS)
    time, shares = jax.value_and_grad(time_s)({part: jnp.ones(()) for part in parts})
    if exchange:
        copies = w.tokens_per_rank * w.topk
        sent = moved = copies * _copy_bytes(w)
    else:
        sent = w.payload_bytes
        moved = bus_bytes(w.collective, group, sent)
    return CollectiveMetrics(
        time_s=time,
        bytes_per_s=sent / time,
        bus_bytes_per_s=moved / time,
        breakdown=shares,
    )


def _collective_s(
    system: System, w: Collective, group: Group, sharpness: Sharpness, scale: Scales
) -> Scalar:
    kind, payload = w.collective, w.payload_bytes
    library, to_host = system.collectives[w.library], w.path == "npu-cpu"
    if kind in ("read", "write") or to_host:
        endpoint = system.endpoints["cpu" if to_host else "npu"]
        access = "write" if kind == "p2p" else kind
        if w.driver == "sdma":
            payload = payload * library.sdma_slowdown
        return remote_access_s(access, group, endpoint, payload, sharpness, scale)
    return collective_s(kind, group, library, payload, sharpness, scale, w.driver)


def _copy_bytes(w: Collective) -> Scalar:
    return w.hidden * BYTES[w.dtype] + w.scale_bytes


def _exchange_s(
    system: System, w: Collective, group: Group, sharpness: Sharpness, scale: Scales
) -> Scalar:
    """Dispatch or combine as a benchmark runs it: no wait in situ."""
    skew = system.engines[w.engine].routing_skew if w.skew is None else w.skew
    load = busiest_rank_load(
        w.balance, skew, w.tokens_per_rank * w.topk, group.ranks, jnp.zeros(())
    )
    chip = system.chip
    mode = system.expert_parallel[w.library][w.mode]
    return exchange_s(
        w.collective,
        copies_of(group, mode, w.tokens_per_rank, w.topk, load),
        mode,
        _copy_bytes(w),
        chip.memory_bytes_per_s * chip.memory_efficiency,
        sharpness,
        scale,
        w.driver,
    )
