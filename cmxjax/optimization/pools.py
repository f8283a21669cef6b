r"""How to split a machine into the pools of phase `serve`.

The layout of an instance is given; how many there are of each role is the choice. A pool
of n devices serves up to $n\,r$ requests a second within the limits, with r from the
phase's own metrics. Sizes n_i of N devices in all, that make the least of these rates
largest, balance them:

$$ \max_n \min_i n_i r_i \quad\Rightarrow\quad n_i = N \frac{1 / r_i}{\sum_j 1 / r_j} $$

Attention and experts wait for each other, so that the rate of one depends on the size of
the other: there Adam climbs the relaxed model over shares of the devices. Whole instances
next to the relaxed split are tried, and every split is, to show what that costs.
"""

import itertools
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from .._types import Sharpness
from ..job.layout import Pool, Pools, devices
from ..phases.metrics import metrics
from ..serve.metrics import ServeMetrics
from ..specs.build import Problem, build
from ..specs.errors import SpecError
from ..specs.scenario_file import Scenario, ServeScenario
from .pool_split import WAITING, PoolSplit, Split
from .price import GRADIENT_COST

LARGEST = 200_000
"""Splits that are tried at most."""

STEPS, RATE, SHARPNESS = 150, 0.05, 64.0
"""Of Adam on the logits of the shares."""


def split_pools(
    scenario: Scenario, devices: int | None = None, *, calibration: str | None = None
) -> PoolSplit:
    """The split of a machine that serves most requests within the limits.

    Args:
        scenario: of phase `serve`, with a prefill and a decode pool whose layouts are
            those of one instance; a cache stays as it is.
        devices: to split; those of its pools if left out.
        calibration: as in `build`.

    Raises:
        SpecError: the scenario has another phase or nothing to split, one instance of
            each doesn't fit, or no split meets the limits.
    """
    if not isinstance(scenario, ServeScenario):
        raise SpecError([f"pools: phase = {scenario.phase!r}: needs phase 'serve'"])
    problem = build(scenario, calibration)
    layout = problem.layout
    assert isinstance(layout, Pools)
    sizes = _instance_devices(layout)
    if len(sizes) < 2:
        raise SpecError(["pools: one pool alone has no split; add another"])
    total = devices
    if total is None:
        total = sum(p.devices for p in scenario.pools if p.role in sizes)
    if sum(sizes.values()) > total:
        parts = " and ".join(f"{role} {size}" for role, size in sizes.items())
        raise SpecError(
            [f"devices = {total}: one instance of each ({parts}) doesn't fit; use more"]
        )
    whole = _whole_splits(sizes, total)
    m = _evaluate(problem, sizes, whole)
    rates = np.asarray(m.capacity_requests_per_s)
    _check_served(m, rates)
    splits = [
        Split(
            {role: int(n) for role, n in zip(sizes, counts)},
            {role: int(n) * sizes[role] for role, n in zip(sizes, counts)},
            float(rate),
        )
        for counts, rate in zip(whole, rates)
    ]
    if WAITING & sizes.keys():
        share, relaxed = _climbed(problem, sizes, total)
        spent = STEPS * GRADIENT_COST + 1
    else:
        share, relaxed = _relaxed(m, sizes, total)
        spent = 1
    near = _nearest(share, sizes, total, whole)
    rounded = max((splits[i] for i in near), key=lambda s: s.requests_per_s)
    best = int(rates.argmax())
    return PoolSplit(
        problem=problem,
        devices=total,
        share=share,
        relaxed_requests_per_s=relaxed,
        rounded=rounded,
        best=splits[best],
        splits=splits,
        evaluations={
            "relaxed": spent,
            "rounded": len(near),
            "exhaustive": len(whole),
        },
        metrics=jax.tree.map(lambda leaf: np.asarray(leaf)[best], m),
    )


def _instance_devices(layout: Pools) -> dict[str, int]:
    """Devices of one instance by role; a cache has none."""
    return {
        role: round(float(devices(pool.layout)))
        for role, pool in layout.pools.items()
        if role != "cache"
    }


def _whole_splits(sizes: dict[str, int], total: int) -> np.ndarray:
    """Numbers of instances, (split, role): of the last role as many as fit.

    Raises:
        SpecError: there are too many.
    """
    *first, last = sizes.values()
    room = total - last
    counts = [range(1, room // size + 1) for size in first]
    if math.prod(len(count) for count in counts) > LARGEST:
        raise SpecError(
            [f"pools: more than {LARGEST} splits; use larger instances or fewer devices"]
        )
    rows = []
    for some in itertools.product(*counts):
        used = sum(n * size for n, size in zip(some, first))
        if used <= room:
            rows.append((*some, (total - used) // last))
    return np.array(rows)


Sizes = tuple[tuple[str, int], ...]
"""Roles and the devices of an instance of each."""


def _metrics_at(
    inputs: tuple, counts: Array, sizes: Sizes, sharpness: Sharpness = None
) -> ServeMetrics:
    """Metrics at numbers of instances, (role,), whole or not."""
    machines, model, workload, layout = inputs
    pools: dict[str, Pool] = dict(layout.pools)
    for i, (role, size) in enumerate(sizes):
        pools[role] = pools[role].replace(devices=counts[i] * size)
    pooled = Pools(pools=pools)
    return metrics(machines, model, workload, pooled, sharpness)


@partial(jax.jit, static_argnames="sizes")
def _every(inputs: tuple, counts: Array, sizes: Sizes) -> ServeMetrics:
    """Metrics at many splits, (split, role)."""
    one = partial(_metrics_at, inputs, sizes=sizes)
    return jax.lax.map(one, counts, batch_size=min(64, len(counts)))


@partial(jax.jit, static_argnames="sizes")
def _climb(inputs: tuple, total: Array, sizes: Sizes) -> tuple[Array, Array]:
    """Shares of the devices after Adam, and what they serve, exactly."""
    optimizer = optax.adam(RATE)
    each = jnp.asarray([float(size) for _, size in sizes])

    def counts(logits: Array) -> Array:
        return total * jax.nn.softmax(logits) / each

    def loss(logits: Array) -> Array:
        m = _metrics_at(inputs, counts(logits), sizes, jnp.asarray(SHARPNESS))
        return -jnp.log(m.capacity_requests_per_s)

    def step(state: tuple, _: None) -> tuple[tuple, None]:
        logits, memory = state
        change, memory = optimizer.update(jax.grad(loss)(logits), memory)
        return (optax.apply_updates(logits, change), memory), None

    start = jnp.zeros(len(sizes))
    (logits, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), length=STEPS)
    served = _metrics_at(inputs, counts(logits), sizes).capacity_requests_per_s
    return jax.nn.softmax(logits), served


def _climbed(
    problem: Problem, sizes: dict[str, int], total: int
) -> tuple[dict[str, float], float]:
    """Shares and rate of the relaxed split by gradients."""
    inputs = problem.inputs
    shares, rate = _climb(inputs, jnp.asarray(float(total)), tuple(sizes.items()))
    return {role: float(share) for role, share in zip(sizes, shares)}, float(rate)


def _evaluate(problem: Problem, sizes: dict[str, int], whole: np.ndarray) -> ServeMetrics:
    """Metrics of phase `serve` at every split."""
    counts = jnp.asarray(whole, float)
    inputs = problem.inputs
    return jax.device_get(_every(inputs, counts, tuple(sizes.items())))


def _check_served(m: ServeMetrics, rates: np.ndarray) -> None:
    """Raises `SpecError` if memory or limits leave nothing at any split."""
    excess = np.asarray(m.memory_excess_bytes).min()
    if excess > 0.0:
        raise SpecError([f"pools: {excess / 1e9:.3g} GB a device don't fit into memory"])
    if rates.max() <= 0.0 or not np.isfinite(rates).all():
        late = [
            role
            for role, pool in m.pools.items()
            if np.asarray(pool.requests_per_s).max() <= 1e-9
        ]
        raise SpecError(
            [
                f"pools: no request is served within the limits: pool {', '.join(late)}"
                " is too slow even without load; use larger limits or other instances"
            ]
        )


def _relaxed(
    m: ServeMetrics, sizes: dict[str, int], total: int
) -> tuple[dict[str, float], float]:
    """Shares that balance the pools, and the rate that they serve."""
    paces = {}
    for role in sizes:
        pool = m.pools[role]
        paces[role] = float(
            np.asarray(pool.requests_per_s)[0] / np.asarray(pool.devices)[0]
        )
    whole = sum(1.0 / pace for pace in paces.values())
    share = {role: 1.0 / pace / whole for role, pace in paces.items()}
    rate = total / whole
    if "cache" in m.pools:
        rate = min(rate, float(np.asarray(m.pools["cache"].requests_per_s)[0]))
    return share, rate


def _nearest(
    share: dict[str, float], sizes: dict[str, int], total: int, whole: np.ndarray
) -> list[int]:
    """Whole splits next to the relaxed one: all roles but one are rounded up or down,
    and that one takes the rest."""
    exact = np.array([share[role] * total / size for role, size in sizes.items()])
    near = np.abs(whole - exact) < 1.0
    rows: dict[tuple, int] = {}
    for rest in range(len(sizes)):
        others = np.delete(near, rest, axis=1).all(axis=1)
        for i in np.flatnonzero(others):
            key = (rest, *np.delete(whole[i], rest).tolist())
            best = rows.get(key, int(i))
            rows[key] = int(i) if whole[i, rest] > whole[best, rest] else best
    if rows:
        return sorted(set(rows.values()))
    return [int(np.abs(whole - exact).max(axis=1).argmin())]
