"""Exact local search: exchange two slots, or give a slot to another expert."""

import numpy as np
from jaxtyping import Float, Int

from .cost import cost_of, device_loads, replicas

ROUNDS = 300
EPSILON = 3e-5
"""Relative gain below which an exchange is not worth its time."""


def improve(
    slots: Int[np.ndarray, "device slot"],
    loads: Float[np.ndarray, "expert time"],
    nodes: int,
    traffic_weight: float,
    rounds: int = ROUNDS,
) -> Int[np.ndarray, "device slot"]:
    """Exchange slots of the slowest device with others as long as that helps.

    The best exchange for the slowest device is exact at every time; where none is left
    a replica of an expert that has several is given to one of the slowest device's
    experts, and exchanges go on from there if that helps.
    """
    table = slots.copy()
    for _ in range(rounds):
        if not _exchange(table, loads) and not _give(table, loads, nodes):
            break
    if traffic_weight > 0.0 and nodes > 1:
        _gather(table, loads, nodes, traffic_weight)
    return table


def _slowest(busy: Float[np.ndarray, "device time"]) -> float:
    return float(busy.max(axis=0).mean())


def _exchange(table: np.ndarray, loads: np.ndarray) -> bool:
    """One best exchange with a device that is slowest at some time, in place."""
    counts = replicas(table, len(loads))
    each = (loads / counts[:, None])[table]  # (device, slot, time)
    busy = each.sum(axis=1)
    now = _slowest(busy)
    order = np.argsort(-busy, axis=0)
    for first in dict.fromkeys(order[0].tolist()):
        # the highest of all devices but two, at each time
        difference = each[first][:, None, None, :] - each[None]  # (slot, device, slot, t)
        mine = busy[first] - difference
        theirs = busy[None, :, None, :] + difference
        third = _others(busy, order, first)
        value = np.maximum(np.maximum(mine, theirs), third[None, :, None, :])
        value = value.mean(axis=-1)
        value[:, first] = np.inf
        best = int(value.argmin())
        if value.ravel()[best] < now * (1.0 - EPSILON):
            slot, device, other = np.unravel_index(best, value.shape)
            mine_now = table[first, slot]
            table[first, slot] = table[device, other]
            table[device, other] = mine_now
            return True
    return False


def _others(busy: np.ndarray, order: np.ndarray, first: int) -> np.ndarray:
    """For each device the highest load of all but it and `first`, (device, time)."""
    devices, times = busy.shape
    result = np.zeros((devices, times))
    for rank in range(min(3, devices) - 1, -1, -1):
        top = order[rank]
        value = busy[top, np.arange(times)]
        free = (top[None] != np.arange(devices)[:, None]) & (top[None] != first)
        result = np.where(free, np.maximum(result, value[None]), result)
    return result


def _give(table: np.ndarray, loads: np.ndarray, nodes: int) -> bool:
    """Give a slot of a replicated expert to one that burdens the slowest device."""
    counts = replicas(table, len(loads))
    busy = device_loads(table, loads)
    now = _slowest(busy)
    slowest = int(busy.mean(axis=1).argmax())
    mean = loads.mean(axis=1) / counts
    wanted = sorted(set(table[slowest].tolist()), key=lambda e: -mean[e])[:3]
    spare = np.flatnonzero(counts > 1)
    givers = spare[np.argsort(loads[spare].mean(axis=1) / (counts[spare] - 1))][:6]
    for expert in wanted:
        for giver in givers:
            if giver == expert:
                continue
            for device, slot in np.argwhere(table == giver):
                table[device, slot] = expert
                if _slowest(device_loads(table, loads)) < now * (1.0 - EPSILON):
                    return True
                table[device, slot] = giver
    return False


def _gather(
    table: np.ndarray, loads: np.ndarray, nodes: int, traffic_weight: float
) -> None:
    """Exchange replicas that share a node for others elsewhere, if the sum gains.

    Replicas of one expert in different nodes keep more tokens in their node.
    """
    per_node = len(table) // nodes
    best = cost_of(table, loads, nodes)
    for expert in np.flatnonzero(replicas(table, len(loads)) > 1):
        places = np.argwhere(table == expert)
        homes = places[:, 0] // per_node
        for k in range(1, len(places)):
            if homes[k] not in homes[:k]:
                continue
            device, slot = (int(i) for i in places[k])
            wanted = [n for n in range(nodes) if n not in homes]
            swap = _elsewhere(
                table,
                loads,
                (device, slot),
                wanted,
                per_node,
                best,
                nodes,
                traffic_weight,
            )
            if swap is not None:
                best, homes[k] = swap


def _elsewhere(
    table: np.ndarray,
    loads: np.ndarray,
    place: tuple[int, int],
    wanted: list[int],
    per_node: int,
    best,
    nodes: int,
    traffic_weight: float,
):
    """Exchange a slot with one of similar load in a wanted node, if the cost falls."""
    counts = replicas(table, len(loads))
    mean = loads.mean(axis=1) / counts
    device, slot = place
    expert = table[device, slot]
    for node in wanted[:4]:
        rows = slice(node * per_node, (node + 1) * per_node)
        gap = np.abs(mean[table[rows]] - mean[expert])
        for flat in np.argsort(gap, axis=None)[:4]:
            d, s = np.unravel_index(int(flat), gap.shape)
            d = int(d) + node * per_node
            table[device, slot], table[d, s] = table[d, s], expert
            cost = cost_of(table, loads, nodes)
            gain = cost.weighed(traffic_weight) < best.weighed(traffic_weight) - EPSILON
            if gain and cost.slowest <= best.slowest * (1.0 + EPSILON):
                return cost, node
            table[d, s], table[device, slot] = table[device, slot], expert
    return None
