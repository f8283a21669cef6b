"""Where a placement starts: replicas for the busiest, each to the least loaded device."""

import heapq

import numpy as np
from jaxtyping import Float, Int


def replica_counts(
    load: Float[np.ndarray, " expert"], slots: int
) -> Int[np.ndarray, " expert"]:
    """Replicas of each expert: spare slots go one by one to the busiest replica.

    No other counts have a smaller busiest replica. Source: the replication step of
    DeepSeek's expert parallelism load balancer, own implementation.
    """
    counts = np.ones(len(load), int)
    queue = [(-float(value), e) for e, value in enumerate(load)]
    heapq.heapify(queue)
    for _ in range(slots - len(load)):
        _, e = heapq.heappop(queue)
        counts[e] += 1
        heapq.heappush(queue, (-float(load[e]) / counts[e], e))
    return counts


def greedy(
    load: Float[np.ndarray, " expert"], devices: int, per_device: int
) -> Int[np.ndarray, "device slot"]:
    """Replicas in order of load, each to the least loaded device with a free slot.

    Source: balanced packing of DeepSeek's load balancer (global policy), own
    implementation from its description.
    """
    counts = replica_counts(load, devices * per_device)
    items = np.repeat(np.arange(len(load)), counts)
    each = load[items] / counts[items]
    table = np.zeros((devices, per_device), int)
    queue = [(0.0, 0, d) for d in range(devices)]
    for i in np.argsort(-each, kind="stable"):
        busy, used, d = heapq.heappop(queue)
        table[d, used] = items[i]
        if used + 1 < per_device:
            heapq.heappush(queue, (busy + float(each[i]), used + 1, d))
    return table


def round_robin(
    experts: int, devices: int, per_device: int
) -> Int[np.ndarray, "device slot"]:
    """Experts in order over the devices, beginning again while slots are left."""
    return np.resize(np.arange(experts), (per_device, devices)).T.copy()
