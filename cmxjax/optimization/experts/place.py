"""Replicas and placement of experts for all layers of a model."""

import time
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from .cost import Cost, cost_of
from .exchange import improve
from .greedy import greedy, replica_counts, round_robin
from .transport import spread

SMALL = 48
"""Slots up to which a table is shaken after it was improved."""

KICKS = 150

FEW = 8
"""Layers up to which both the relaxed plan and greedy balancing are improved; of more
only the better start, unless that ends slower than greedy balancing."""


class ExpertPlan(NamedTuple):
    """Where every layer's experts sit, and what that costs beside the baselines."""

    slots: Int[np.ndarray, "layer device slot"]
    """Expert in every slot."""
    costs: list[Cost]
    greedy: list[Cost]
    round_robin: list[Cost]
    seconds: float


def place_experts(
    loads: np.ndarray,
    devices: int,
    per_device: int,
    *,
    nodes: int = 1,
    traffic_weight: float = 0.05,
    seed: int = 0,
) -> ExpertPlan:
    """Choose replicas and their devices so that the slowest device is least loaded.

    Relaxed plans are annealed for all layers at once, rounded by the Hungarian method
    and refined by exact exchanges; greedy balancing is refined too, and the better of
    both is kept, so no layer is slower than under greedy balancing.

    Args:
        loads: tokens of each expert, (layer, expert, time), (expert, time) or (expert,).
        devices: expert-parallel ranks.
        per_device: slots of each; spare ones hold replicas.
        nodes: groups of consecutive devices; tokens prefer replicas in their own.
        traffic_weight: cost of sending all tokens to other nodes, in units of the mean
            device load. Among placements with equal slowest devices only.

    Raises:
        ValueError: naming what doesn't fit.
    """
    start = time.perf_counter()
    loads = _checked(loads, devices, per_device, nodes)
    counts = np.stack(
        [replica_counts(load.mean(axis=1), devices * per_device) for load in loads]
    )
    relaxed = spread(loads, counts, devices, per_device, seed)
    tables, costs, baselines, plain = [], [], [], []
    for load, rounded in zip(loads, relaxed):
        packed = greedy(load.mean(axis=1), devices, per_device)
        starts = [(cost_of(table, load, nodes), table) for table in (rounded, packed)]
        baseline = starts[1][0]
        priced = []
        for _, table in sorted(starts, key=_rank):
            if priced and len(loads) > FEW and priced[0][0].slowest <= baseline.slowest:
                break
            better = improve(table, load, nodes, traffic_weight)
            priced.append((cost_of(better, load, nodes), better))
        if per_device * devices <= SMALL:
            priced += _kicked(
                min(priced, key=_rank)[1], load, nodes, traffic_weight, seed
            )
        best, table = min(priced, key=_rank)
        tables.append(table)
        costs.append(best)
        baselines.append(baseline)
        turns = round_robin(loads.shape[1], devices, per_device)
        plain.append(cost_of(turns, load, nodes))
    seconds = time.perf_counter() - start
    return ExpertPlan(np.stack(tables), costs, baselines, plain, seconds)


def _rank(item: tuple[Cost, np.ndarray]) -> tuple[float, float]:
    """Slowest first: traffic only decides between equally slow placements."""
    return round(item[0].slowest, 6), item[0].traffic


def _kicked(
    table: np.ndarray, loads: np.ndarray, nodes: int, traffic_weight: float, seed: int
) -> list[tuple[Cost, np.ndarray]]:
    """Small tables leave the exchanges few ways out, so they are shaken and improved
    again, each time from the best so far: other replicas, exchanged slots."""
    rng = np.random.default_rng(seed)
    best = (cost_of(table, loads, nodes), table)
    for _ in range(KICKS):
        shaken = best[1].copy()
        flat, counts = shaken.ravel(), np.bincount(shaken.ravel(), minlength=len(loads))
        several = np.flatnonzero(counts[flat] > 1)
        if len(several) and rng.random() < 0.7:
            flat[rng.choice(several)] = rng.integers(len(loads))
        for _ in range(int(rng.integers(1, 4))):
            a, b = rng.integers(len(flat), size=2)
            flat[a], flat[b] = flat[b], flat[a]
        shaken = improve(shaken, loads, nodes, traffic_weight)
        best = min(best, (cost_of(shaken, loads, nodes), shaken), key=_rank)
    return [best]


def _checked(loads: np.ndarray, devices: int, per_device: int, nodes: int) -> np.ndarray:
    loads = np.asarray(loads, float)
    if loads.ndim == 1:
        loads = loads[None, :, None]
    if loads.ndim == 2:
        loads = loads[None]
    if loads.ndim != 3 or not loads.size:
        raise ValueError("loads: give an array of (layer, expert, time)")
    if not np.isfinite(loads).all() or (loads < 0.0).any():
        raise ValueError("loads: must be finite and not negative")
    experts, slots = loads.shape[1], devices * per_device
    if devices < 1 or per_device < 1 or experts > slots:
        raise ValueError(
            f"{experts} experts don't fit into {devices} devices x {per_device} slots ="
            f" {slots}; use more of either"
        )
    if nodes < 1 or devices % nodes:
        raise ValueError(f"nodes = {nodes}: must divide the {devices} devices")
    return loads
