"""The workloads that a machine is designed for, and what each is judged by."""

import math
from contextlib import suppress
from typing import NamedTuple

from ...answers.limits import more_is_better, parse_limit
from ...answers.operations import check_known
from ...job.workload import Decode, Prefill
from ...quantities import field_of
from ...specs.build import Problem, build
from ...specs.errors import SpecError, all_of
from ...specs.scenario_file import Scenario
from ..objective import field_in

OBJECTIVES = {"op": "time", "collective": "time"}
OBJECTIVES |= dict.fromkeys(("decode", "prefill", "train"), "tokens_rate")
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


def job_of(share: Share, calibration: str | None) -> Job:
    """Build a workload. Raises `SpecError` with what is wrong with it."""
    phase = share.scenario.phase
    objective = share.objective or OBJECTIVES.get(phase, "")
    if phase not in OBJECTIVES:
        known = ", ".join(OBJECTIVES)
        raise SpecError([f"codesign: phase = {phase!r}: use one of {known}"])
    if not (share.weight > 0.0 and math.isfinite(share.weight)):
        raise SpecError([f"codesign: weight = {share.weight:g}: must be above 0"])
    parsed = [parse_limit(text) for text in share.limits]
    whole = objective == "tokens_rate"
    named = "tokens_rate_per_device" if whole else objective
    field, *bounded = (field_in(q, phase) for q in (named, *(p.quantity for p in parsed)))
    problem = build(share.scenario, calibration)
    check_known(problem, field, *bounded)
    form = Form(
        field=field,
        sign=1.0 if more_is_better(named) else -1.0,
        whole_system=whole,
        limits=tuple(
            (name, -1.0 if more_is_better(limit.quantity) else 1.0)
            for name, limit in zip(bounded, parsed)
        ),
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
        concerned = []
        for text, quantity in parsed.items():
            with suppress(ValueError):  # this phase doesn't predict it
                field_of(quantity, None, scenario.phase)
                concerned.append(text)
        used |= set(concerned)
        shares.append(Share(scenario, weight, tuple(concerned), objective))
    if idle := [text for text in limits if text not in used]:
        raise SpecError([f"--limit {text}: no workload predicts it" for text in idle])
    return shares
