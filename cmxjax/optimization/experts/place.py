"""Replicas and placement of experts for all layers of a model."""

import time
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from .bound import slowest_bound
from .cost import Cost, cost_of, device_loads, replicas, slowest
from .exchange import EPSILON, balance, gather
from .greedy import greedy, round_robin

SHAKES = 150
"""Times that a table is shaken and balanced again, at most."""

EFFORT = 30_000
"""Slots x times x layers x shakes, about; large problems are shaken less."""


class ExpertPlan(NamedTuple):
    """Where every layer's experts sit, and what that costs beside the baselines."""

    slots: Int[np.ndarray, "layer device slot"]
    """Expert in every slot."""
    costs: list[Cost]
    greedy: list[Cost]
    round_robin: list[Cost]
    seconds: float
    bounds: list[float]
    """Of each layer, what no placement's slowest device is below."""


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

    Greedy balancing is improved by exact exchanges, then shaken and improved again, so no
    layer is slower than under greedy balancing.

    Args:
        loads: tokens of each expert, (layer, expert, time), (expert, time) or (expert,).
        devices: expert-parallel ranks.
        per_device: slots of each; spare ones hold replicas.
        nodes: groups of consecutive devices; tokens prefer replicas in their own.
        traffic_weight: where it is above 0, of placements with equal slowest devices one
            is chosen that sends fewer tokens to other nodes.

    Raises:
        ValueError: naming what doesn't fit.
    """
    start = time.perf_counter()
    loads = _checked(loads, devices, per_device, nodes)
    shakes = min(SHAKES, EFFORT // (devices * per_device * loads[:, 0].size))
    turns = round_robin(loads.shape[1], devices, per_device)
    tables, baselines, bounds = [], [], []
    for load in loads:
        packed = greedy(load.mean(axis=1), devices, per_device)
        baselines.append(cost_of(packed, load, nodes))
        least = slowest_bound(load, devices, per_device)
        table = _shaken(packed, load, least, shakes, np.random.default_rng(seed))
        if traffic_weight > 0.0 and nodes > 1:
            gather(table, load, nodes)
        tables.append(table)
        bounds.append(least)
    return ExpertPlan(
        np.stack(tables),
        [cost_of(table, load, nodes) for table, load in zip(tables, loads)],
        baselines,
        [cost_of(turns, load, nodes) for load in loads],
        time.perf_counter() - start,
        bounds,
    )


def _shaken(
    table: Int[np.ndarray, "device slot"],
    loads: Float[np.ndarray, "expert time"],
    bound: float,
    shakes: int,
    rng: np.random.Generator,
) -> Int[np.ndarray, "device slot"]:
    """Balanced, and again from the best so far until the bound is reached, each time with
    a replica less of one expert for one more of the slowest device's, and with slots
    exchanged at random: exchanges alone can't change replicas."""
    best = table.copy()
    balance(best, loads)
    busy = device_loads(best, loads)
    least, enough = slowest(busy), bound * float(busy.mean()) * (1.0 + EPSILON)
    for _ in range(shakes):
        if least <= enough:
            break
        tried = best.copy()
        flat = tried.ravel()
        busy = device_loads(tried, loads)[:, rng.integers(loads.shape[1])]
        several = np.flatnonzero(replicas(tried, len(loads))[flat] > 1)
        if len(several):
            flat[rng.choice(several)] = rng.choice(tried[busy.argmax()])
        pairs = rng.integers(len(flat), size=(rng.integers(3), 2))
        for pair in pairs:
            flat[pair] = flat[pair[::-1]]
        balance(tried, loads)
        value = slowest(device_loads(tried, loads))
        if value < least:
            best, least = tried, value
    return best


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
