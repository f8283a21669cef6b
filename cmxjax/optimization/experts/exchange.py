"""Exact local search: exchange two slots of different devices."""

import numpy as np
from jaxtyping import Float, Int

from .cost import device_loads, held_by_node, replicas, slowest, stays

ROUNDS = 300
EPSILON = 3e-5
"""Relative gain below which an exchange is not worth its time."""


def balance(
    table: Int[np.ndarray, "device slot"], loads: Float[np.ndarray, "expert time"]
) -> None:
    """Make the best exchange of a device that is slowest at some time, in place, as long
    as one helps."""
    for _ in range(ROUNDS):
        for first in np.unique(device_loads(table, loads).argmax(axis=0)).tolist():
            now, value = _exchanges(table, loads, first)
            if value.min() < now * (1.0 - EPSILON):
                _swap(table, first, int(value.argmin()))
                break
        else:
            return


def gather(
    table: Int[np.ndarray, "device slot"],
    loads: Float[np.ndarray, "expert time"],
    nodes: int,
) -> None:
    """Exchange slots, in place, so that fewer tokens leave their node and no device that
    is slowest gets slower."""
    shares = loads.sum(axis=1) / max(loads.sum(), 1e-300)
    counts = replicas(table, len(loads))
    homes = np.arange(len(table)) // (len(table) // nodes)
    for first, home in enumerate(homes):
        held = held_by_node(table, len(loads), nodes)
        kept = shares * stays(held, counts)
        more = shares * stays(held + 1.0, counts) - kept
        less = kept - shares * stays(held - 1.0, counts)
        mine, theirs, there = table[first][:, None, None], table, homes[:, None]
        gain = more[there, mine] - less[home, mine] + more[home, theirs]
        gain = np.where(there == home, 0.0, gain - less[there, theirs])
        now, value = _exchanges(table, loads, first)
        gain = np.where(value <= now * (1.0 + 1e-12), gain, 0.0)
        if gain.max() > EPSILON:
            _swap(table, first, int(gain.argmax()))


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
    rest = np.append(busy, 0.0 * busy[:1], axis=0)
    rest[first] = 0.0
    second, highest = np.sort(rest, axis=0)[-2:]
    # for each device the highest load of all but it and `first`
    others = np.where(busy == highest, second, highest)
    difference = each[first][:, None, None, :] - each[None]
    pair = np.maximum(busy[first] - difference, busy[None, :, None] + difference)
    value = np.maximum(pair, others[None, :, None]).mean(axis=-1)
    value[:, first] = np.inf
    return slowest(busy), value
