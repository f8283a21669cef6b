r"""The fewest instances of each pool that take a load.

A pool of n instances serves at most $R_c(n)$ requests a second of class c within its
limits. Classes that share it leave each other what they don't use, so that it takes
rates $\lambda_c$ where

$$ \rho(n) = \sum_c \lambda_c / R_c(n) \le 1 $$

which is exact for one class and for anything that is bound by a rate of work. R grows
with n at least in proportion (instances that are served in turn see a steadier stream),
so $\rho$ falls, and the fewest are found by halving. What a pool serves follows from its
own size and layout alone, so that all pools are halved at once.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ..job.layout import Layout, Pools
from ..job.workload import Workload
from ..machine.machine import Machine
from ..model.architecture import Architecture
from ..optimization.pools import WAITING, instance_sizes
from ..phases.metrics import metrics
from ..serve.metrics import ServeMetrics
from ..specs.errors import SpecError
from .load import RequestClass
from .shaped import shaped

TINY = 1e-9
"""Rounding, as a share of a load."""

DIGITS = 1e-6
"""Share of a limit that roots may be off by."""

MORE = 8
"""Instances more that are tried where requests are late at a load that rates allow: a
step may jump as its batch grows, so that a larger batch serves the same rate."""

MOST = 1_000_000
"""Instances of a pool beyond which a load is not planned for."""


class Sized(NamedTuple):
    """Pools that take the load, or why there are none."""

    instances: dict[str, int]
    """By role; as far as known where there is a reason."""
    devices: dict[str, int]
    """Of an instance."""
    load: dict[str, float]
    """Share of what each pool can serve that is used, caches too."""
    metrics: list[ServeMetrics]
    """Of each class, as if all were of that class, at those numbers."""
    lacking: dict[str, list[str]]
    """Why a pool doesn't take the load, by role; nothing of those that do."""

    @property
    def reasons(self) -> list[str]:
        return [reason for reasons in self.lacking.values() for reason in reasons]

    @property
    def pools(self) -> dict[str, int]:
        """Devices of all instances of each pool."""
        return {role: n * self.devices[role] for role, n in self.instances.items()}


def devices_of_instances(c: RequestClass) -> dict[str, int]:
    """By role, of pools that have instances.

    Raises:
        SpecError: pools wait for each other, so that none has a size of its own.
    """
    if waiting := [p.role for p in c.scenario.pools if p.role in WAITING]:
        raise SpecError(
            [
                f"pools: {', '.join(waiting)} waits for other pools, which a plan does"
                " not size; use `cmxjax optimize --objective devices`"
            ]
        )
    layout = c.problem.layout
    assert isinstance(layout, Pools)
    return instance_sizes(layout)


def fewest_instances(
    classes: list[RequestClass], share: Mapping[str, float] | None = None
) -> Sized:
    """The fewest instances of each pool that take all classes.

    Args:
        classes: on one machine, with the same pools.
        share: of a pool's capacity that may be used, by role; 1 if left out.
    """
    devices = devices_of_instances(classes[0])
    allowed = {role: (share or {}).get(role, 1.0) for role in devices}
    priced: dict[tuple[int, ...], list[ServeMetrics]] = {}

    def at(numbers: Mapping[str, int]) -> list[ServeMetrics]:
        key = tuple(numbers.values())
        if key not in priced:
            priced[key] = [metrics_at(c, devices, numbers) for c in classes]
        return priced[key]

    low = dict.fromkeys(devices, 1)
    alone = loads_of(classes, at(low))
    lacking = _unserved(classes, at(low), devices)
    high = low | {
        role: fewest_of(alone[role], allowed[role])
        for role in devices
        if role not in lacking
    }
    lacking |= {
        role: [f"pool {role}: more than {MOST:,} instances"]
        for role in devices
        if high[role] > MOST
    }
    high |= dict.fromkeys(lacking.keys() & devices.keys(), 1)
    while any(high[role] > low[role] for role in devices):
        middle = {role: (low[role] + high[role]) // 2 for role in devices}
        used = loads_of(classes, at(middle))
        for role, number in middle.items():
            if role in lacking or used[role] <= allowed[role] * (1.0 + TINY):
                high[role] = number
            else:
                low[role] = number + 1
    for _ in range(MORE):
        late = _late(classes, devices, high, at(high))
        if not late.keys() - lacking.keys():
            break
        high |= {role: high[role] + 1 for role in late if role not in lacking}
    lacking = _late(classes, devices, high, at(high)) | lacking
    load = loads_of(classes, at(high))
    lacking |= {
        role: [
            f"pool {role} can take {1.0 / used:.2g} of the load, and is not to be"
            " enlarged"
        ]
        for role, used in load.items()
        if role not in devices and used > 1.0 + TINY
    }
    return Sized(high, devices, load, at(high), lacking)


def _late(
    classes: list[RequestClass],
    devices: Mapping[str, int],
    instances: Mapping[str, int],
    at: list[ServeMetrics],
) -> dict[str, list[str]]:
    """Which classes see more than their limit on the time per token, as if all requests
    were of it at the load of the busiest pool, by role."""
    role = next(role for role in ("decode", "attention") if role in devices)
    busiest, late = max(loads_of(classes, at).values()), []
    for c, m in zip(classes, at):
        limit, rate = c.scenario.workload.tpot_limit, float(m.capacity_requests_per_s)
        if limit is None or not 0.0 < busiest <= 1.0 + TINY:
            continue
        tpot = float(metrics_at(c, devices, instances, rate * busiest).tpot_s)
        if tpot > limit * (1.0 + DIGITS):
            late.append(
                f"{c.name}: pool {role} takes {tpot * 1e3:.3g} ms a token at this load;"
                " use other instances"
            )
    return {role: late} if late else {}


def fewest_of(load: float, allowed: float) -> int:
    """Instances that take a load, from the share of one that it needs, if they serve in
    proportion to their number."""
    return max(1, math.ceil(load / allowed - TINY))


def sized_inputs(
    c: RequestClass, devices: Mapping[str, int], instances: Mapping[str, int]
) -> tuple:
    """What `metrics` takes, with so many instances of each pool."""
    machine, model, workload, layout = c.inputs
    assert isinstance(layout, Pools)
    pools = dict(layout.pools)
    for role, count in instances.items():
        number = jnp.asarray(pools[role].devices) * 0.0 + count * devices[role]
        pools[role] = pools[role].replace(devices=number)
    return machine, model, workload, Pools(pools=pools)


def metrics_at(
    c: RequestClass,
    devices: Mapping[str, int],
    instances: Mapping[str, int],
    per_s: float | None = None,
) -> ServeMetrics:
    """Metrics of one class with so many instances, fetched; at its rate or another."""
    machine, model, workload, layout = sized_inputs(c, devices, instances)
    if per_s is not None:
        rate = 0.0 * jnp.asarray(workload.requests_per_s) + per_s
        workload = workload.replace(requests_per_s=rate)
    return predicted(machine, model, workload, layout)


def predicted(
    machine: Machine | dict[str, Machine],
    model: Architecture | None,
    workload: Workload,
    layout: Layout | Pools,
) -> ServeMetrics:
    """`metrics` of phase `serve`, fetched, by a program that most machines share."""
    assert isinstance(machine, dict)
    assert isinstance(layout, Pools)
    machines, pools = shaped(machine, layout)
    found = jax.device_get(metrics(machines, model, workload, pools))
    assert isinstance(found, ServeMetrics)
    return found


def loads_of(classes: list[RequestClass], at: list[ServeMetrics]) -> dict[str, float]:
    """Share of each pool's capacity that the classes use together."""
    return {
        role: sum(
            c.per_s / max(float(m.pools[role].requests_per_s), 1e-300)
            for c, m in zip(classes, at)
        )
        for role in at[0].pools
    }


def _unserved(
    classes: list[RequestClass], at: list[ServeMetrics], devices: Mapping[str, int]
) -> dict[str, list[str]]:
    """Why instances like these don't serve some class, however many, by role."""
    found: dict[str, list[str]] = {}
    for role in devices:
        reasons = found.setdefault(role, [])
        for c, m in zip(classes, at):
            pool = m.pools[role]
            if (excess := float(pool.memory_excess_bytes)) > 0.0:
                reasons.append(
                    f"{c.name}: pool {role}: {excess / 1e9:.3g} GB a device don't fit"
                )
            elif not float(pool.requests_per_s) > TINY:
                reasons.append(
                    f"{c.name}: pool {role} serves none within its limits, even without"
                    " load; use larger limits or other instances"
                )
    if float(at[0].placement_excess) > TINY:
        found.setdefault("placement", []).append("more ranks in a tier than it joins")
    return {role: reasons for role, reasons in found.items() if reasons}
