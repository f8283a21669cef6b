r"""How to split a machine into the pools of phase `serve`.

The layout of an instance is given; how many there are of each role is the choice. A pool
of n devices serves up to $n\,r$ requests a second within the limits, with r from the
phase's own metrics. It grows a little with n where instances are served in turn, so sizes
are found again with the r that they have. Sizes n_i of N devices in all, that make the
least of these rates largest, balance them:

$$ \max_n \min_i n_i r_i \quad\Rightarrow\quad n_i = N \frac{1 / r_i}{\sum_j 1 / r_j} $$

Attention and experts wait for each other, so that the rate of one depends on the size of
the other: there gradients climb the relaxed model over shares of the devices. Every whole
split is tried; where there are too many, those next to the relaxed split, and what single
instances more or less lead to from there.
"""

import itertools
import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import logsumexp

from .._types import Sharpness
from ..job.layout import Pool, Pools
from ..job.layout import devices as devices_of
from ..phases.metrics import metrics
from ..serve.metrics import ServeMetrics
from ..specs.build import Problem, build
from ..specs.errors import SpecError
from ..specs.scenario_file import Scenario, ServeScenario
from ..units import format_si
from .ascent import ascend, slopes
from .pool_split import PoolSplit, Split
from .price import GRADIENT_COST, in_blocks

LARGEST = 20_000
"""Splits up to which all are tried."""

BLOCK = 32
"""Splits that are evaluated at once, by one program whatever their number."""

WAITING = {"expert", "encode"}
"""Roles of pools on whose size the rate of others depends."""

BALANCED = 3
"""Times that sizes are balanced, from one instance each."""

SHARPNESS = (16.0, 64.0)
"""Of the relaxed rates whose shares are climbed."""

Sizes = tuple[tuple[str, int], ...]
"""Roles and the devices of an instance of each."""


def split_pools(
    scenario: Scenario,
    devices: int | None = None,
    *,
    fewest: bool = False,
    calibration: str | None = None,
) -> PoolSplit:
    """The split of a machine that serves most requests within the limits.

    Args:
        scenario: of phase `serve`, with a prefill and a decode pool whose layouts are
            those of one instance; a cache stays as it is.
        devices: to split, at most; those of its pools if left out, or with `fewest` as
            many as needed.
        fewest: find the split with the fewest devices that serves the scenario's rate.
        calibration: as in `build`.

    Returns:
        The best split; where none fits into memory and serves the scenario's rate within
        the limits, the nearest with what it lacks in `reasons`.

    Raises:
        SpecError: the scenario has another phase or nothing to split, one instance of
            each doesn't fit, or `fewest` has no rate to meet.
    """
    if not isinstance(scenario, ServeScenario):
        raise SpecError([f"pools: phase = {scenario.phase!r}: needs phase 'serve'"])
    asked = scenario.workload.request_rate
    if fewest and asked is None:
        raise SpecError(["workload.request_rate: the fewest devices need one; give it"])
    problem = build(scenario, calibration)
    layout = problem.layout
    assert isinstance(layout, Pools)
    sizes = instance_sizes(layout)
    if len(sizes) < 2:
        raise SpecError(["pools: one pool alone has no split; add another"])
    total = devices or sum(p.devices for p in scenario.pools if p.role in sizes)
    if devices == 0 or sum(sizes.values()) > total:
        parts = " and ".join(f"{role} {size}" for role, size in sizes.items())
        raise SpecError(
            [f"devices = {devices}: one instance of each ({parts}) doesn't fit; use more"]
        )
    answer = _best(problem, sizes, total, fewest)
    rate = answer.best.requests_per_s
    if fewest and devices is None and asked is not None and 0.0 < rate < asked:
        # as many copies of the best split do, if not fewer devices
        answer = _best(problem, sizes, total * math.ceil(asked / rate), fewest)
    return answer


def instance_sizes(layout: Pools) -> dict[str, int]:
    """Devices of an instance by role; a cache has no instances."""
    return {
        role: round(float(devices_of(pool.layout)))
        for role, pool in layout.pools.items()
        if role != "cache"
    }


def _best(problem: Problem, sizes: dict[str, int], total: int, fewest: bool) -> PoolSplit:
    """The best split of so many devices."""
    each, climbed = np.array(list(sizes.values())), bool(WAITING & sizes.keys())
    given = problem.workload.requests_per_s  # pyright: ignore
    asked = None if given is None else float(given)
    share, relaxed, spent = (_climbed if climbed else _balanced)(problem, sizes, total)
    start = np.array([share.get(role, 1.0 / len(each)) for role in sizes]) * total / each
    if fewest and asked is not None:
        start = start * min(asked / max(relaxed, 1e-300), 1.0)

    def order(rows: np.ndarray, m: ServeMetrics) -> np.ndarray:
        """From the best on: what fits, what serves the rate on fewest devices, most."""
        rates, used = m.capacity_requests_per_s, rows @ each
        first = np.where(rates < asked, np.inf, used) if fewest else 0.0 * used
        return np.lexsort((used, -rates, first, np.maximum(m.memory_excess_bytes, 0.0)))

    def split_of(row: np.ndarray, rate: float) -> Split:
        counts = dict(zip(sizes, row.tolist()))
        return Split(counts, {r: n * sizes[r] for r, n in counts.items()}, float(rate))

    near = rows = _nearest(start, each, total)
    at = m = _evaluate(problem, sizes, near)
    every = _every(each, total, fewest)
    if every is not None:
        rows, m = every, _evaluate(problem, sizes, every)
    while every is None:
        best = rows[order(rows, m)[0]]
        steps = best + np.array([*itertools.product((-1, 0, 1), repeat=len(each))])
        rows = np.unique(np.concatenate([rows, _fitting(steps, each, total)]), axis=0)
        m = _evaluate(problem, sizes, rows)
        if (rows[order(rows, m)[0]] == best).all():
            break
    rounded, best = order(near, at)[0], order(rows, m)[0]
    chosen = jax.tree.map(lambda leaf: leaf[best], m)
    return PoolSplit(
        problem=problem,
        devices=total,
        fewest=fewest,
        share=share,
        relaxed_requests_per_s=relaxed,
        climbed=climbed,
        rounded=split_of(near[rounded], at.capacity_requests_per_s[rounded]),
        best=split_of(rows[best], chosen.capacity_requests_per_s),
        splits=[split_of(*pair) for pair in zip(rows, m.capacity_requests_per_s)],
        complete=every is not None,
        evaluations={"relaxed": spent, "rounded": len(near), "exhaustive": len(rows)},
        metrics=chosen,
        reasons=_lacking(chosen, asked),
    )


def _lacking(m: ServeMetrics, asked: float | None) -> list[str]:
    """Why a split doesn't serve what is asked; empty where it does."""
    excess, rate = float(m.memory_excess_bytes), float(m.capacity_requests_per_s)
    if excess > 0.0:
        return [f"{excess / 1e9:.3g} GB a device don't fit into memory"]
    if float(m.placement_excess) > 1e-9:
        return ["the layout puts more ranks into a tier than it joins"]
    if rate <= 0.0:
        late = [role for role, pool in m.pools.items() if pool.requests_per_s <= 1e-9]
        return [
            f"no request is served within the limits: pool {', '.join(late)} is too slow"
            " even without load; use larger limits or other instances"
        ]
    if asked is not None and rate < asked * (1.0 - 1e-9):
        rates = [format_si(value, "request_rate") for value in (asked, rate)]
        return [
            f"{rates[0]} arrive, of which at most {rates[1]} can be served within the"
            " limits; use more devices, larger limits or other instances"
        ]
    return []


def _fitting(rows: np.ndarray, each: np.ndarray, total: int) -> np.ndarray:
    """Those of some numbers of instances that are splits."""
    return rows[(rows >= 1).all(axis=1) & (rows @ each <= total)]


def _every(each: np.ndarray, total: int, fewest: bool) -> np.ndarray | None:
    """All splits, (split, role), of the last role as many instances as fit unless the
    fewest devices are sought; None where there are too many."""
    most = (total - each.sum()) // each + 1
    free = [np.arange(1, n + 1) for n in (most if fewest else most[:-1])]
    if math.prod(map(len, free)) > math.factorial(len(each)) * LARGEST:
        return None
    rows = np.stack(np.meshgrid(*free, indexing="ij"), axis=-1).reshape(-1, len(free))
    if not fewest:
        left = (total - rows @ each[:-1]) // each[-1]
        rows = np.column_stack([rows, left])
    rows = _fitting(rows, each, total)
    return rows if len(rows) <= LARGEST else None


def _nearest(start: np.ndarray, each: np.ndarray, total: int) -> np.ndarray:
    """Whole splits next to a relaxed one: roles rounded up or down, and one of them takes
    the rest."""
    options = [{max(math.floor(n), 1), max(math.ceil(n), 1)} for n in start]
    rows = np.array(list(itertools.product(*options)))
    filled = [rows]
    for i, size in enumerate(each):
        rest = rows.copy()
        rest[:, i] = (total - rows @ each + rows[:, i] * size) // size
        filled.append(rest)
    near = _fitting(np.unique(np.concatenate(filled), axis=0), each, total)
    return near if len(near) else np.ones((1, len(each)), int)


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
def _block(inputs: tuple, counts: Array, sizes: Sizes) -> ServeMetrics:
    """Metrics at many splits, (split, role)."""
    return jax.vmap(partial(_metrics_at, inputs, sizes=sizes))(counts)


def _evaluate(problem: Problem, sizes: dict[str, int], rows: np.ndarray) -> ServeMetrics:
    """Metrics of phase `serve` at any number of splits."""
    program = partial(_block, problem.inputs, sizes=(*sizes.items(),))
    joined = in_blocks(program, BLOCK, rows.astype(float))
    rates = np.nan_to_num(joined.capacity_requests_per_s, posinf=0.0)
    return joined.replace(capacity_requests_per_s=rates)


class Shared(NamedTuple):
    """Terms of an ascent over the logs of the shares of all devices, (role,)."""

    sizes: Sizes

    def __call__(self, inputs: tuple, total: Array, x: Array, sharpness: Array) -> tuple:
        counts = total * jnp.exp(x) / jnp.asarray([float(size) for _, size in self.sizes])
        rate = _metrics_at(inputs, counts, self.sizes, sharpness).capacity_requests_per_s
        return jnp.log(rate), logsumexp(x)[None]


def _climbed(
    problem: Problem, sizes: dict[str, int], total: int
) -> tuple[dict[str, float], float, int]:
    """Shares and rate of the relaxed split by gradients; none where they lead nowhere."""
    count = len(sizes)
    terms = partial(slopes, Shared((*sizes.items(),)), problem.inputs, float(total))
    box = np.full(count, -8.0), np.zeros(count)
    x, spent = ascend(terms, np.full(count, -math.log(count)), box, SHARPNESS)
    counts = np.exp(x) * total / list(sizes.values())
    rate = float(_evaluate(problem, sizes, counts[None]).capacity_requests_per_s[0])
    shares = dict(zip(sizes, np.exp(x).tolist()))
    return (shares if rate > 0.0 else {}), max(rate, 0.0), GRADIENT_COST * spent + 1


def _balanced(
    problem: Problem, sizes: dict[str, int], total: int
) -> tuple[dict[str, float], float, int]:
    """Shares that balance the pools, and the rate that they serve; none where one of
    them serves nothing."""
    counts, share, rate = np.ones(len(sizes)), {}, 0.0
    for _ in range(BALANCED):
        m = jax.tree.map(lambda x: x[0], _evaluate(problem, sizes, counts[None]))
        if not m.capacity_requests_per_s > 0.0:
            return {}, 0.0, BALANCED
        pools = m.pools
        device_s = {r: float(pools[r].devices / pools[r].requests_per_s) for r in sizes}
        whole = sum(device_s.values())
        share = {role: seconds / whole for role, seconds in device_s.items()}
        rate = total / whole
        if "cache" in pools:
            rate = min(rate, float(pools["cache"].requests_per_s))
        counts = np.array([share[role] * total / size for role, size in sizes.items()])
    return share, rate, BALANCED
