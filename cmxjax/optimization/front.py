"""The Pareto front of throughput against latency, memory and energy."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .cells import Points


class Entry(NamedTuple):
    """A point that no other beats in both quantities."""

    throughput: float
    cost: float
    point: Points


class Front:
    """Fronts of the first field (more is better) against each other one (less is)."""

    def __init__(self, fields: tuple[str, ...]):
        self.fields = fields[:4]
        self.entries: dict[str, list[Entry]] = {name: [] for name in self.fields[1:]}

    def add(
        self, logs: np.ndarray, good: np.ndarray, make: Callable[[int], Points]
    ) -> None:
        """Add feasible points.

        Args:
            logs: logs of the fields, (row, field).
            good: which rows are feasible.
            make: the point of a row, called for few of them.
        """
        rows = np.flatnonzero(good)
        if not len(rows):
            return
        for k, name in enumerate(self.fields[1:], start=1):
            entries = self.entries[name]
            cost, rate = logs[rows, k], logs[rows, 0]
            if entries:
                costs = np.array([entry.cost for entry in entries])
                rates = np.array([entry.throughput for entry in entries])
                place = np.searchsorted(costs, cost, side="right") - 1
                fresh = (place < 0) | (rate > rates[np.maximum(place, 0)] + MARGIN)
            else:
                fresh = np.ones(len(rows), bool)
            kept = rows[fresh]
            kept = kept[_undominated(logs[kept, 0], logs[kept, k])]
            new = [Entry(logs[i, 0], logs[i, k], make(int(i))) for i in kept]
            merged = entries + new
            keep = _undominated(
                np.array([entry.throughput for entry in merged]),
                np.array([entry.cost for entry in merged]),
            )
            self.entries[name] = [merged[i] for i in keep]

    def points(self) -> list[Points]:
        """All of them, each a single row."""
        return [entry.point for rows in self.entries.values() for entry in rows]

    def table(self, name: str) -> list[tuple[float, float, Points]]:
        """Throughput, cost and point, in SI, from the cheapest on."""
        entries = self.entries[name]
        return [
            (float(np.exp(e.throughput)), float(np.exp(e.cost)), e.point) for e in entries
        ]


MARGIN = 1e-3
"""Log of a gain in throughput below which a costlier point is not worth a row."""


def _undominated(rate: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """Rows of the front, by ascending cost; of equal ones the first."""
    if not len(rate):
        return np.zeros(0, int)
    order = np.lexsort((-rate, cost))
    best = np.maximum.accumulate(rate[order])
    above = np.concatenate([[True], rate[order][1:] > best[:-1] + MARGIN])
    return order[above]
