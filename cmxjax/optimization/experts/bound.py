r"""What no placement beats: the pigeonhole principle on the heaviest replicas.

Of the j D + 1 heaviest replicas some device of D holds j + 1. The lightest of them is
lightest where the j D busiest experts have one replica each and the other slots split the
rest most evenly, with busiest replica $b_j$; so the slowest device has at least
$(j + 1)\, b_j$, and at least the mean.
"""

import numpy as np
from jaxtyping import Float

from .greedy import replica_counts


def slowest_bound(
    loads: Float[np.ndarray, "expert time"], devices: int, per_device: int
) -> float:
    """Least that `Cost.slowest` can be: of every time alone, then averaged; or of the
    mean load, as a mean of largest loads is at least the largest mean."""
    mean = loads.sum() / loads.shape[1] / devices
    if mean == 0.0:
        return 1.0
    alone = np.mean([_busiest(load, devices, per_device) for load in loads.T])
    return float(max(alone, _busiest(loads.mean(axis=1), devices, per_device)) / mean)


def _busiest(load: Float[np.ndarray, " expert"], devices: int, per_device: int) -> float:
    """Least load of the busiest device at one time."""
    falling, least = np.sort(load)[::-1], float(load.sum()) / devices
    for j in range(per_device):
        rest = falling[j * devices :]
        if not len(rest):
            break
        counts = replica_counts(rest, (per_device - j) * devices)
        least = max(least, (j + 1) * float((rest / counts).max()))
    return least
