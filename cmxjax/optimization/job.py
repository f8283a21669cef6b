"""A scenario as a search takes it: what is free, on which devices, and what is wanted."""

import math
from collections.abc import Mapping
from typing import NamedTuple

from ..answers.operations import check_known
from ..job.layout import AXES
from ..job.workload import ANY, Decode, Prefill, Train
from ..machine.system import ordered_tiers
from ..model.architecture import Architecture
from ..quantities import field_of
from ..specs.build import Problem, build
from ..specs.degrees import devices_of
from ..specs.errors import SpecError, all_of
from ..specs.scenario_file import DecodeScenario, PrefillScenario, Scenario, TrainScenario
from .factors import footprints
from .objective import DEFAULT, LATENCY, Objective, objective_of
from .price import Family
from .settings import Form, Given, checked, forms_of
from .space import Frame, Rules

Planned = DecodeScenario | PrefillScenario | TrainScenario
"""What has a layout to choose."""


class Job(NamedTuple):
    """A job, what is free in it, what is wanted."""

    scenario: Planned
    problem: Problem
    """Of the scenario on data parallelism alone."""
    objective: Objective
    frames: tuple[Frame, ...]
    rules: Rules
    given: Given
    families: tuple[Family, ...]
    """Programs that price the ways to serve, or the one that trains."""
    forms: tuple[Form, ...]
    """Of a pipeline; none in serving."""
    inputs: tuple
    """What `metrics` takes."""

    @property
    def trains(self) -> bool:
        return isinstance(self.problem.workload, Train)

    def field(self, quantity: str) -> str:
        """The name of a quantity among the metrics of this phase."""
        return field_of(quantity, None, self.scenario.phase)


def job_of(
    scenario: Scenario,
    *,
    objectives: tuple[str, ...] = (),
    limits: tuple[str, ...] = (),
    pinned: Mapping[str, int | float | str] | None = None,
    settings: Given | None = None,
    devices: tuple[int, ...] = (),
    calibration: str | None = None,
) -> Job:
    """What a search is to find; arguments are those of `optimize`.

    Raises:
        SpecError: naming each mistake.
    """
    if not isinstance(scenario, Planned):
        known = ", ".join(LATENCY)
        raise SpecError([f"optimize: phase = {scenario.phase!r}: use one of {known}"])
    pins = dict(pinned or {})
    degrees = {name: value for name, value in pins.items() if name in AXES}
    values = {name: (value,) for name, value in pins.items() if name not in AXES}
    counts = tuple(dict.fromkeys(devices)) or (devices_of(scenario.layout),)
    if wrong := [count for count in counts if count < 1]:
        raise SpecError([f"--devices {n}: use a whole number from 1" for n in wrong])

    def free() -> tuple[Problem, tuple[Frame, ...], Rules, Given]:
        problem = _problem(scenario, counts[0], calibration)
        return (
            problem,
            *all_of(
                lambda: _frames(problem, counts),
                lambda: rules_of(problem, degrees),
                lambda: checked(problem, {**(settings or {}), **values}),
            ),
        )

    (problem, frames, rules, given), wanted = all_of(
        free,
        lambda: objective_of(scenario.phase, objectives or (DEFAULT,), limits),
    )
    check_known(problem, *wanted.fields)
    trains = isinstance(scenario, TrainScenario)
    forms = forms_of(problem, given) if trains else ()
    if trains and not forms:
        raise SpecError(["schedule: dualpipe overlaps micro-batches; give 2 of them"])
    return Job(
        scenario,
        problem,
        wanted,
        frames,
        rules,
        given,
        _families(scenario, problem),
        forms,
        problem.inputs,
    )


def _problem(scenario: Planned, devices: int, calibration: str | None) -> Problem:
    """The job on data parallelism alone, which every model allows, with the batch as it
    is."""
    layout = scenario.layout
    bare = type(layout)(devices=devices, ep=1, head=layout.head, vision=layout.vision)
    routing = {"redundant_experts": 0.0, "shared_replicas": 0.0}
    routing = scenario.routing.model_copy(update=routing | {"experts_per_device": None})
    changes: dict[str, object] = {"layout": bare, "routing": routing}
    # a device alone must get a sequence or a prompt
    if isinstance(scenario, TrainScenario):
        w = scenario.workload
        room = max(w.global_batch, w.micro_batch * devices)
        update = {"global_batch": room, "schedule": "1f1b"}
        changes["workload"] = w.model_copy(update=update)
    if isinstance(scenario, PrefillScenario):
        w = scenario.workload
        room = max(w.tokens_per_device, w.prompt_tokens)
        changes["workload"] = w.model_copy(update={"tokens_per_device": room})
    problem = build(scenario.model_copy(update=changes), calibration)
    if isinstance(problem.workload, Train) and isinstance(scenario, TrainScenario):
        batch = problem.workload.global_batch * 0.0 + scenario.workload.global_batch
        workload = problem.workload.replace(global_batch=batch)
        given = problem.scenario.model_copy(update={"workload": scenario.workload})
        problem = problem._replace(workload=workload, scenario=given)
    return problem


def _frames(problem: Problem, counts: tuple[int, ...]) -> tuple[Frame, ...]:
    """How the devices lie on the tiers."""
    sizes = tuple(float(tier.size) for tier in ordered_tiers(problem.system))
    frames = [Frame(n, units) for n in counts for units in footprints(n, sizes)]
    if not frames:
        said = f"layout.devices = {', '.join(map(str, counts))}: can't be split into"
        said += f" whole units of {problem.system.name}'s tiers; use another number"
        raise SpecError([said])
    return tuple(frames)


def model_of(problem: Problem) -> Architecture:
    """The problem's model. Raises `TypeError` if the phase has none."""
    if problem.model is None:
        raise TypeError(f"phase {problem.workload.kind} has no model to lay out")
    return problem.model


def rules_of(problem: Problem, pinned: Mapping[str, int | float | str]) -> Rules:
    """What the model lets degrees be, and those that are given.

    Raises:
        SpecError: a given degree is no whole number from 1.
    """
    a = model_of(problem)
    wrong = [pin for pin in pinned.items() if not _is_degree(pin[1])]
    if wrong:
        said = "{} = {}: use a whole number from 1"
        raise SpecError([said.format(*pin) for pin in wrong])
    experts, serves = a.experts, not isinstance(problem.workload, Train)
    layers = zip(a.feed_forwards, a.half_counts.feed_forwards, strict=True)
    dense = [int(f.intermediate) for f, n in layers if f is not experts and float(n)]
    return Rules(
        heads=math.gcd(*(int(mixer.heads) for mixer in a.mixers)),
        dense_width=math.gcd(*dense),
        expert_width=0 if experts is None else int(experts.intermediate),
        layers=int(a.layers),
        experts=0 if experts is None else int(experts.routed),
        pinned=tuple(sorted((name, int(value)) for name, value in pinned.items())),
        spread=0 if serves or experts is None else int(experts.routed),
    )


def _is_degree(value: int | float | str) -> bool:
    if isinstance(value, str | bool):
        return False
    return 1 <= value <= 10**9 and value % 1 == 0


def _families(scenario: Planned, problem: Problem) -> tuple[Family, ...]:
    """The scenario's own way first, then what else the model and the phase allow."""
    a, w = model_of(problem), problem.workload
    if isinstance(w, Train):
        return (Family(schedule=ANY),)
    along, apart = ("tp", "sp_tp_sp"), (False, True)
    if scenario.layout.attention == "sp_tp_sp":
        along = along[::-1]
    if scenario.routing.shared_replicas > 0:
        apart = apart[::-1]
    shares = a.experts is not None and float(a.experts.shared) == 1.0
    return tuple(
        Family(attention, dispatches_shared)
        for attention in (along if isinstance(w, Prefill) else along[:1])
        for dispatches_shared in (
            apart if isinstance(w, Decode) and shares else apart[:1]
        )
    )
