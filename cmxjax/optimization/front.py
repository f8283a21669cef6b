"""The Pareto front of throughput against latency, memory and energy."""

import numpy as np

from .cells import Points, together

MARGIN = 1e-3
"""Log of a gain in throughput below which a costlier point is not worth a row."""


class Front:
    """Fronts of the first field (more is better) against each other one (less is)."""

    def __init__(self, fields: tuple[str, ...]):
        self.fields = fields[:4]
        self.points: dict[str, Points] = {}
        """Those that no other beats in both, by the costs and from the cheapest on."""

    def add(self, points: Points) -> None:
        """Add points that are feasible."""
        for k, name in enumerate(self.fields[1:], start=1):
            fresh = _undominated(points, k)
            if name in self.points:
                fresh = _undominated(together([self.points[name], fresh]), k)
            self.points[name] = fresh

    def table(self, name: str) -> list[tuple[float, float, Points]]:
        """Throughput, cost and point, in SI, from the cheapest on."""
        if name not in self.points:
            return []
        points, k = self.points[name], self.fields.index(name)
        values = np.exp(points.logs[:, [0, k]]).tolist()
        return [(*pair, points.take(np.array([i]))) for i, pair in enumerate(values)]


def _undominated(points: Points, k: int) -> Points:
    """Those of the front, by ascending cost; of equal ones the first."""
    rate, cost = points.logs[:, 0], points.logs[:, k]
    order = np.lexsort((-rate, cost))
    best = np.maximum.accumulate(rate[order])
    above = np.append(True, rate[order][1:] > best[:-1] + MARGIN)
    return points.take(order[above])
