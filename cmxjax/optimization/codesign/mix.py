"""The workloads that a machine is designed for, as functions of its multipliers."""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from ..._types import Scalar, Sharpness
from ...answers.limits import parse_limit
from ...answers.numbers import paths_of, row_of, scaled, values_of
from ...job.workload import Decode, Prefill
from ...phases.metrics import metrics
from ...quantities import field_of
from ...specs.build import Problem, build
from ...specs.errors import SpecError, all_of
from ...specs.measurement_file import QUANTITIES
from ...specs.scenario_file import Scenario
from ..objective import more_is_better
from ..price import unshared
from .cost import Prices, log_cost

OBJECTIVES = {
    "op": "time",
    "collective": "time",
    "decode": "tokens_rate",
    "prefill": "tokens_rate",
    "train": "tokens_rate",
}
"""What a workload is judged by if nothing is said."""


class Share(NamedTuple):
    """One workload of a mix."""

    scenario: Scenario
    weight: float = 1.0
    """Exponent of its metric in the geometric mean; weights are made to sum to 1."""
    limits: tuple[str, ...] = ()
    """Bounds that must hold, such as `tpot=50ms`."""
    objective: str | None = None
    """Rates are maximized, all else minimized. `tokens_rate`, the usual one, counts the
    whole scale-up system, as if instances of the scenario filled it."""


class Form(NamedTuple):
    """What is static about a workload of a mix."""

    field: str
    sign: float
    whole_system: bool
    limits: tuple[tuple[str, float], ...]
    """Metrics fields that are bounded, +1 from above and -1 from below."""
    batch: str
    """Workload field that follows the limits; empty where it is fixed."""


class Job(NamedTuple):
    """A workload of a mix, ready to run."""

    share: Share
    problem: Problem
    form: Form
    bounds: tuple[float, ...]
    """Logs of the limits."""
    weight: float
    objective: str


class Outcome(NamedTuple):
    """Log of the metric, negated where it is minimized, and logs of used / allowed."""

    objective: Array
    constraints: Array


def job_of(share: Share, calibration: str | None) -> Job:
    """Build a workload. Raises `SpecError` with what is wrong with it."""
    phase = share.scenario.phase
    objective = share.objective or OBJECTIVES.get(phase, "")
    if phase not in OBJECTIVES:
        raise SpecError(
            [f"codesign: phase = {phase!r}: use one of {', '.join(OBJECTIVES)}"]
        )
    if not (share.weight > 0.0 and math.isfinite(share.weight)):
        raise SpecError([f"codesign: weight = {share.weight:g}: must be above 0"])
    parsed = [parse_limit(text) for text in share.limits]
    whole = objective == "tokens_rate"
    named = "tokens_rate_per_device" if whole else objective
    try:
        if named not in QUANTITIES:
            raise ValueError(f"objective = {named!r}: no such quantity")
        fields = [
            field_of(q, None, phase) for q in (named, *(p.quantity for p in parsed))
        ]
    except ValueError as error:
        raise SpecError([f"codesign: {error}"]) from None
    if low := [limit.quantity for limit in parsed if not limit.value > 0.0]:
        raise SpecError([f"--limit {name}: must be above 0" for name in low])
    problem = build(share.scenario, calibration)
    signs = [-1.0 if more_is_better(limit.quantity) else 1.0 for limit in parsed]
    form = Form(
        field=fields[0],
        sign=1.0 if more_is_better(named) or named in ("mfu", "hfu") else -1.0,
        whole_system=whole,
        limits=tuple(zip(fields[1:], signs)),
        batch=_free_batch(problem, [limit.quantity for limit in parsed]),
    )
    logs = tuple(math.log(limit.value) for limit in parsed)
    return Job(share, problem, form, logs, share.weight, objective)


def _free_batch(problem: Problem, limited: list[str]) -> str:
    """Decode takes the batch that its limits and the memory allow; prefill does where
    its TTFT is limited, and otherwise keeps the scenario's."""
    if isinstance(problem.workload, Decode):
        return "sequences_per_device"
    if isinstance(problem.workload, Prefill) and "ttft" in limited:
        return "tokens_per_device"
    return ""


def jobs_of(
    shares: list[Share] | tuple[Share, ...], calibration: str | None
) -> list[Job]:
    """All workloads of a mix, weights summing to 1.

    Raises:
        SpecError: with every mistake, or the workloads run on different machines.
    """
    if not shares:
        raise SpecError(["codesign: name at least one workload"])
    jobs = list(all_of(*(lambda s=s: job_of(s, calibration) for s in shares)))
    machines = sorted({job.problem.system.name for job in jobs})
    if len(machines) > 1:
        raise SpecError(
            [f"codesign: workloads on {' and '.join(machines)}: name one machine's"]
        )
    total = sum(job.weight for job in jobs)
    return [job._replace(weight=job.weight / total) for job in jobs]


def shares_of(
    scenarios: list[tuple[Scenario, float]],
    limits: tuple[str, ...],
    objective: str | None = None,
) -> list[Share]:
    """Workloads by weight, each with the limits on what its phase predicts.

    Raises:
        SpecError: a limit is wrong or concerns none of them.
    """
    parsed = {text: parse_limit(text).quantity for text in limits}
    shares, used = [], set()
    for scenario, weight in scenarios:
        concerned = tuple(
            t for t, quantity in parsed.items() if _predicts(scenario, quantity)
        )
        used |= set(concerned)
        shares.append(Share(scenario, weight, concerned, objective))
    if idle := [text for text in limits if text not in used]:
        raise SpecError([f"--limit {text}: no workload predicts it" for text in idle])
    return shares


def _predicts(scenario: Scenario, quantity: str) -> bool:
    try:
        field_of(quantity, None, scenario.phase)
    except (KeyError, ValueError):
        return False
    return True


def machine_leaves(jobs: list[Job]) -> dict[str, float]:
    """Leaves of the machine that can be multiplied, from `system.` on, with values."""
    known = values_of(jobs[0].problem)
    return {path: v for path, v in known.items() if path.startswith("system.")}


Moves = tuple[tuple[str, int, float], ...]
"""Leaves that follow the resources: (path, resource, power)."""


class Moved(NamedTuple):
    """A job and how its numbers follow the variables; leaves are arrays."""

    inputs: tuple
    """What `metrics` takes."""
    powers: Array | np.ndarray
    """Of each number in each resource's multiplier, (number, resource)."""
    batch: Array | np.ndarray
    """1 for the number that is the batch, (number,)."""


def moved_by(job: Job, moves: Moves, resources: int) -> Moved:
    """A job whose machine follows the resources."""
    paths = paths_of(job.problem)
    powers = [
        row_of(paths, {path: power for path, resource, power in moves if resource == k})
        for k in range(resources)
    ]
    batch = row_of(paths, {f"workload.{job.form.batch}": 1.0})
    return Moved(job.problem.inputs, np.array(powers).T, batch)


def outcome(
    form: Form,
    moved: Moved,
    bounds: Array | np.ndarray,
    z: Array,
    batch: Array,
    sharpness: Sharpness,
) -> Outcome:
    """What a workload makes of a machine.

    Args:
        moved: from `moved_by`.
        bounds: logs of the limits.
        z: logs of the resources' multipliers.
        batch: log of the multiplier of the batch; unused where the batch is fixed.
    """
    inputs = scaled(moved.inputs, jnp.matmul(moved.powers, z) + moved.batch * batch)
    machine, _, workload, layout = inputs
    m = metrics(*inputs, sharpness)
    value = form.sign * jnp.log(getattr(m, form.field))
    if form.whole_system:
        value = value + jnp.log(machine.scale_up_devices)
    used = [
        sign * (jnp.log(getattr(m, field)) - bounds[i])
        for i, (field, sign) in enumerate(form.limits)
    ]
    if hasattr(m, "memory_bytes"):
        used.append(jnp.log(m.memory_bytes / machine.chip.memory_usable_bytes))
        used.append(jnp.log1p(m.placement_excess))
    if form.batch:
        # a group of devices holds at least one whole request
        used.append(unshared(workload, layout, jnp.ones(())))
    return Outcome(value, jnp.stack(used) if used else jnp.zeros(0))


class Data(NamedTuple):
    """What the terms of a mix take beside the variables."""

    jobs: tuple[Moved, ...]
    bounds: tuple[Array | np.ndarray, ...]
    weights: Array | np.ndarray
    prices: Prices


class Mix(NamedTuple):
    """Static description of a design problem; calling it gives its terms.

    Variables are the logs of the resources' multipliers and then one log batch for each
    job that has a free one.
    """

    forms: tuple[Form, ...]
    resources: int
    aim: str = "gain"
    """`gain`: most of the mix within a budget. `change`: least change that brings the
    mix over the cost to a target."""

    def __call__(
        self, data: Data, bound: Array, x: Array, sharpness: Sharpness
    ) -> tuple[Scalar, Array]:
        z, at, value, used = x[: self.resources], self.resources, 0.0, []
        for form, moved, bounds, weight in zip(
            self.forms, data.jobs, data.bounds, data.weights
        ):
            batch = x[at] if form.batch else jnp.zeros(())
            at += bool(form.batch)
            made = outcome(form, moved, bounds, z, batch, sharpness)
            value = value + weight * made.objective
            used.append(made.constraints)
        cost = log_cost(data.prices, z)
        if self.aim == "change":
            return -0.5 * (z @ z), jnp.concatenate([(bound - value + cost)[None], *used])
        return value, jnp.concatenate([(cost - bound)[None], *used])


def data_of(jobs: list[Job], moves: Moves, resources: int, prices: Prices) -> Data:
    """The arrays of a mix."""
    return Data(
        tuple(moved_by(job, moves, resources) for job in jobs),
        tuple(jnp.asarray(job.bounds, float) for job in jobs),
        jnp.asarray([job.weight for job in jobs]),
        Prices(*(jnp.asarray(field, float) for field in prices)),
    )
