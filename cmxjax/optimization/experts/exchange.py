"""Exact local search: exchange two slots, or give a slot to another expert."""

import numpy as np
from jaxtyping import Float, Int

from .cost import device_loads, held_by_node, replicas, slowest, stays

ROUNDS = 300
EPSILON = 3e-5
"""Relative gain below which an exchange is not worth its time."""

WANTED, GIVERS = 3, 6
"""Experts of the slowest device that may get a slot, and experts that may give one."""


def balance(
    table: Int[np.ndarray, "device slot"], loads: Float[np.ndarray, "expert time"]
) -> None:
    """Exchange slots of the slowest device, in place, as long as that helps.

    Where no exchange is left a replica of an expert that has several is given to one of
    the slowest device's experts.
    """
    for _ in range(ROUNDS):
        if not _relieve(table, loads) and not _give(table, loads):
            return


def gather(
    table: Int[np.ndarray, "device slot"],
    loads: Float[np.ndarray, "expert time"],
    nodes: int,
) -> None:
    """Exchange slots, in place, so that fewer tokens leave their node and no device that
    is slowest gets slower."""
    per_node, shares = len(table) // nodes, loads.sum(axis=1) / max(loads.sum(), 1e-300)
    counts = replicas(table, len(loads))
    repeated = counts > 1
    for first in range(len(table)):
        if not repeated[table[first]].any():
            continue
        held = held_by_node(table, len(loads), nodes)
        kept = shares * stays(held, counts)
        more = shares * stays(held + 1.0, counts) - kept
        less = kept - shares * stays(held - 1.0, counts)
        home, homes = first // per_node, np.arange(len(table)) // per_node
        mine, theirs = table[first][:, None, None], table[None]
        there = homes[None, :, None]
        gain = more[there, mine] - less[home, mine] + more[home, theirs]
        gain = np.where(there == home, 0.0, gain - less[there, theirs])
        now, value = _exchanges(table, loads, first)
        gain = np.where(value <= now * (1.0 + 1e-12), gain, 0.0)
        if gain.max() > EPSILON:
            _swap(table, first, int(gain.argmax()))


def _relieve(table: np.ndarray, loads: np.ndarray) -> bool:
    """The best exchange of a device that is slowest at some time, if one helps."""
    order = device_loads(table, loads).argmax(axis=0)
    for first in dict.fromkeys(order.tolist()):
        now, value = _exchanges(table, loads, first)
        best = int(value.argmin())
        if value.ravel()[best] < now * (1.0 - EPSILON):
            _swap(table, first, best)
            return True
    return False


def _swap(table: np.ndarray, first: int, flat: int) -> None:
    """The exchange with this place in the array of `_exchanges`, in place."""
    devices, slots = table.shape
    slot, device, other = np.unravel_index(flat, (slots, devices, slots))
    mine, theirs = table[first, slot], table[device, other]
    table[first, slot], table[device, other] = theirs, mine


def _exchanges(
    table: np.ndarray, loads: np.ndarray, first: int
) -> tuple[float, Float[np.ndarray, "slot device slot"]]:
    """Load of the slowest device, now and after each exchange with a slot of `first`."""
    each = (loads / replicas(table, len(loads))[:, None])[table]  # (device, slot, time)
    busy = each.sum(axis=1)
    difference = each[first][:, None, None, :] - each[None]
    pair = np.maximum(busy[first] - difference, busy[None, :, None] + difference)
    value = np.maximum(pair, _others(busy, first)[None, :, None]).mean(axis=-1)
    value[:, first] = np.inf
    return slowest(busy), value


def _others(
    busy: Float[np.ndarray, "device time"], first: int
) -> Float[np.ndarray, "device time"]:
    """For each device the highest load of all but it and `first`."""
    rest, times = busy.copy(), np.arange(busy.shape[1])
    rest[first] = 0.0
    top = rest.argmax(axis=0)
    highest = rest[top, times]
    rest[top, times] = 0.0
    others = np.broadcast_to(highest, busy.shape).copy()
    others[top, times] = rest.max(axis=0)
    return others


def _give(table: np.ndarray, loads: np.ndarray) -> bool:
    """Give a slot of a replicated expert to one that burdens the slowest device."""
    counts = replicas(table, len(loads))
    busy, mean = device_loads(table, loads), loads.mean(axis=1)
    burdens = table[busy.mean(axis=1).argmax()]
    wanted = sorted(set(burdens.tolist()), key=lambda e: -mean[e] / counts[e])[:WANTED]
    spare = np.flatnonzero(counts > 1)
    givers = spare[np.argsort(mean[spare] / (counts[spare] - 1))][:GIVERS]
    for expert in wanted:
        for giver in givers[givers != expert]:
            changed = counts.copy()
            changed[expert] += 1
            changed[giver] -= 1
            each = loads / changed[:, None]
            places = np.argwhere(table == giver)
            tried = np.repeat(each[table].sum(axis=1)[None], len(places), axis=0)
            tried[np.arange(len(places)), places[:, 0]] += each[expert] - each[giver]
            value = tried.max(axis=1).mean(axis=-1)
            if value.min() < slowest(busy) * (1.0 - EPSILON):
                table[tuple(places[value.argmin()])] = expert
                return True
    return False
