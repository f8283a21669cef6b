"""Phase `collective`: one collective on a group placed on the tiers."""

import jax.numpy as jnp
from flax import struct

from .._types import Leaf, Sharpness
from ..collectives.expert import busiest_rank_load, exchange_s
from ..collectives.library import bus_bytes, collective_s, remote_access_s
from ..fabric import fabric_of, group_of
from ..hardware import System
from ..layout import Layout, splits
from ..workload import BYTES, Collective


class CollectiveMetrics(struct.PyTreeNode, kw_only=True, frozen=True):
    """Metrics of one collective."""

    time_s: Leaf
    bytes_per_s: Leaf
    """Payload over time; for dispatch and combine all copies that a rank sends."""
    bus_bytes_per_s: Leaf
    """Bus bandwidth as nccl-tests define it."""
    kind: str = struct.field(pytree_node=False, default="collective_metrics")


def collective_metrics(
    system: System, w: Collective, layout: Layout, sharpness: Sharpness
) -> CollectiveMetrics:
    """Time and rates of one collective call on the mean rank."""
    group = group_of(fabric_of(system), splits(layout, "ep"))
    if w.collective in ("dispatch", "combine"):
        return _exchange(system, w, group, sharpness)
    payload = w.payload_bytes
    if w.collective in ("read", "write"):
        endpoint = system.endpoints["cpu" if w.path == "npu-cpu" else "npu"]
        time = remote_access_s(w.collective, group, endpoint, payload, sharpness)
    else:
        library = system.collectives[w.library]
        time = collective_s(
            w.collective, group, library, payload, sharpness, driver=w.driver
        )
    return CollectiveMetrics(
        time_s=time,
        bytes_per_s=payload / time,
        bus_bytes_per_s=bus_bytes(w.collective, group, payload) / time,
    )


def _exchange(
    system: System, w: Collective, group, sharpness: Sharpness
) -> CollectiveMetrics:
    """Dispatch or combine as a benchmark runs it: no wait in situ."""
    copy_bytes = w.hidden * BYTES[w.dtype] + w.scale_bytes
    skew = system.engines[w.engine].routing_skew if w.skew is None else w.skew
    load = busiest_rank_load(
        w.balance, skew, w.tokens_per_rank * w.topk, group.ranks, jnp.zeros(())
    )
    chip = system.chip
    time = exchange_s(
        w.collective,
        group,
        system.expert_parallel[w.library][w.mode],
        w.tokens_per_rank,
        w.topk,
        copy_bytes,
        chip.memory_bytes_per_s * chip.memory_efficiency,
        load,
        sharpness,
        driver=w.driver,
    )
    rate = w.tokens_per_rank * w.topk * copy_bytes / time
    return CollectiveMetrics(time_s=time, bytes_per_s=rate, bus_bytes_per_s=rate)
