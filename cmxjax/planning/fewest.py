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
from collections.abc import Iterable, Mapping
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
    priced = Priced(classes)
    allowed = {role: (share or {}).get(role, 1.0) for role in priced.devices}
    one = dict.fromkeys(allowed, 1)
    alone = priced.loads(one)
    lacking = _unserved(classes, priced.at(one), allowed)
    most = {
        role: fewest_of(alone[role], allowed[role]) if role not in lacking else 1
        for role in allowed
    }
    for role in [role for role, number in most.items() if number > MOST]:
        lacking[role], most[role] = [f"pool {role}: more than {MOST:,} instances"], 1
    found = _halved(priced, allowed, most)
    for _ in range(MORE):
        late = _late(priced, found)
        if not late.keys() - lacking.keys():
            break
        found |= {role: found[role] + 1 for role in late if role not in lacking}
    lacking = _late(priced, found) | lacking
    load = priced.loads(found)
    lacking |= {
        role: [
            f"pool {role} can take {1.0 / used:.2g} of the load, and is not to be"
            " enlarged"
        ]
        for role, used in load.items()
        if role not in allowed and used > 1.0 + TINY
    }
    return Sized(found, priced.devices, load, priced.at(found), lacking)


def takes(classes: list[RequestClass], instances: Mapping[str, int], role: str) -> bool:
    """Whether one of the pools takes the rates of all classes with so many instances; if
    it doesn't, it doesn't with fewer either."""
    return Priced(classes).loads(instances)[role] <= 1.0 + TINY


class Priced:
    """Metrics of some classes on pools of so many instances, each number once."""

    def __init__(self, classes: list[RequestClass]):
        self.classes = classes
        self.devices = devices_of_instances(classes[0])
        """Of an instance, by role."""
        self._known: dict[tuple[int, ...], list[ServeMetrics]] = {}

    def at(self, instances: Mapping[str, int]) -> list[ServeMetrics]:
        key = tuple(instances.values())
        if key not in self._known:
            every = [metrics_at(c, self.devices, instances) for c in self.classes]
            self._known[key] = every
        return self._known[key]

    def loads(self, instances: Mapping[str, int]) -> dict[str, float]:
        """Share of each pool's capacity that the classes use together."""
        return loads_of(self.classes, self.at(instances))


def _halved(
    priced: Priced, allowed: Mapping[str, float], most: Mapping[str, int]
) -> dict[str, int]:
    """The fewest instances whose loads are allowed, up to those that are enough."""
    low, high = dict.fromkeys(most, 1), dict(most)
    while any(high[role] > low[role] for role in high):
        middle = {role: (low[role] + high[role]) // 2 for role in high}
        used = priced.loads(middle)
        for role, number in middle.items():
            if number == high[role] or used[role] <= allowed[role] * (1.0 + TINY):
                high[role] = number
            else:
                low[role] = number + 1
    return high


def _late(priced: Priced, instances: Mapping[str, int]) -> dict[str, list[str]]:
    """Which classes see more than their limit on the time per token, as if all requests
    were of it at the load of the busiest pool, by role."""
    devices, late = priced.devices, []
    role = next(role for role in ("decode", "attention") if role in devices)
    busiest = max(priced.loads(instances).values())
    if not 0.0 < busiest <= 1.0 + TINY:
        return {}
    for c, m in zip(priced.classes, priced.at(instances)):
        limit, rate = c.scenario.workload.tpot_limit, float(m.capacity_requests_per_s)
        if limit is None:
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
    classes: list[RequestClass], at: list[ServeMetrics], roles: Iterable[str]
) -> dict[str, list[str]]:
    """Why instances like these don't serve some class, however many, by role."""
    found: dict[str, list[str]] = {}
    for role in roles:
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
