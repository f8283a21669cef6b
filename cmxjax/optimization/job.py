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
from .objective import DEFAULT, LATENCY, Objective, changed, objective_of, role_of
from .price import Family
from .settings import PLAIN, Form, check, forms_of
from .space import Frame, Rules, frames_of

Planned = DecodeScenario | PrefillScenario | TrainScenario
"""What has a layout to choose."""


class Job(NamedTuple):
    """A job, what is free in it, what is wanted."""

    scenario: Planned
    problem: Problem
    objective: Objective
    frames: tuple[Frame, ...]
    rules: Rules
    given: Mapping[str, tuple]
    """Values of settings to choose from, by name; those left out are free."""
    families: tuple[Family, ...]
    """Programs that price the ways to serve, or the one that trains."""
    forms: tuple[Form, ...]
    """Of a pipeline. The first is plain 1F1B, which bounds rest on."""
    plain: bool
    """Plain 1F1B is among those to choose from."""
    inputs: tuple
    """What `metrics` takes."""

    @property
    def trains(self) -> bool:
        return isinstance(self.problem.workload, Train)

    def field(self, quantity: str) -> str:
        """The name of a quantity among the metrics of this phase."""
        return field_of(quantity, None, self.scenario.phase)

    @property
    def sequences(self) -> float:
        """Of a training step, all devices together; 0 in serving."""
        w = self.problem.workload
        return float(w.global_batch) if isinstance(w, Train) else 0.0

    @property
    def first_form(self) -> int:
        return 0 if self.plain else 1

    @property
    def tiers(self) -> int:
        return len(self.frames[0].units)


def job_of(
    scenario: Scenario,
    *,
    objectives: tuple[str, ...] = (),
    limits: tuple[str, ...] = (),
    pinned: Mapping[str, int | float | str] | None = None,
    settings: Mapping[str, tuple] | None = None,
    devices: tuple[int, ...] = (),
    calibration: str | None = None,
) -> Job:
    """What a search is to find.

    Args:
        scenario: the job. Its degrees, their placement and the settings are free.
        objectives: quantities; rates are maximized, all else minimized. The first is made
            best and traded against the others; tokens a second of a package if empty.
        limits: such as `tpot=50ms`; rates are bounded from below.
        pinned: degrees and settings that are not free, by name.
        settings: values to choose from, by name of the setting.
        devices: numbers of devices to choose from; the scenario's if empty.
        calibration: as in `build`.

    Raises:
        SpecError: naming each mistake.
    """
    if not isinstance(scenario, Planned):
        known = ", ".join(LATENCY)
        raise SpecError([f"optimize: phase = {scenario.phase!r}: use one of {known}"])
    pins = dict(pinned or {})
    given = dict(settings or {})
    degrees = {name: value for name, value in pins.items() if name in AXES}
    given |= {name: (value,) for name, value in pins.items() if name not in AXES}
    counts = tuple(dict.fromkeys(devices)) or (devices_of(scenario.layout),)
    if wrong := [count for count in counts if count < 1]:
        raise SpecError([f"--devices {n}: use a whole number from 1" for n in wrong])

    def free() -> tuple[Problem, tuple[Frame, ...], Rules]:
        problem = _problem(scenario, counts[0], calibration)
        frames, rules, _ = all_of(
            lambda: _frames(problem, counts),
            lambda: rules_of(problem, degrees),
            lambda: check(problem, given),
        )
        return problem, frames, rules

    (problem, frames, rules), wanted = all_of(
        free, lambda: _objective(scenario.phase, objectives, limits)
    )
    check_known(problem, *wanted.fields)
    trains = isinstance(problem.workload, Train)
    forms = forms_of(problem, given) if trains else [PLAIN]
    if not forms:
        raise SpecError(["schedule: dualpipe overlaps micro-batches; give 2 of them"])
    return Job(
        scenario,
        problem,
        wanted,
        frames,
        rules,
        given,
        _families(scenario, problem, forms),
        tuple(dict.fromkeys((PLAIN, *forms))),
        PLAIN in forms,
        problem.inputs,
    )


def _objective(
    phase: str, quantities: tuple[str, ...], limits: tuple[str, ...]
) -> Objective:
    first, *others = quantities or (DEFAULT,)
    if len({first, *others}) <= len(others):
        raise SpecError(["--objective: give each quantity once"])
    wanted = objective_of(phase, first, limits, tuple(others))
    mistakes = [
        f"--objective {quantity}: nothing is known of how it goes with a setting; use a"
        " rate, a time, mfu, energy_per_token, cost_per_token or a memory"
        for quantity in (first, *others)
        if role_of(changed(wanted, phase, quantity, ()).field) is None
    ]
    if mistakes:
        raise SpecError(mistakes)
    return wanted


def _problem(scenario: Planned, devices: int, calibration: str | None) -> Problem:
    """The job on data parallelism alone, with the batch as it is."""
    problem = build(_bare(scenario, devices), calibration)
    if isinstance(problem.workload, Train) and isinstance(scenario, TrainScenario):
        batch = problem.workload.global_batch * 0.0 + scenario.workload.global_batch
        workload = problem.workload.replace(global_batch=batch)
        given = problem.scenario.model_copy(update={"workload": scenario.workload})
        problem = problem._replace(workload=workload, scenario=given)
    return problem


def _bare(scenario: Planned, devices: int) -> Scenario:
    """The scenario with data parallelism alone, which every model allows."""
    layout = scenario.layout
    bare = type(layout)(devices=devices, ep=1, head=layout.head, vision=layout.vision)
    routing = {"redundant_experts": 0.0, "shared_replicas": 0.0}
    routing = scenario.routing.model_copy(update=routing | {"experts_per_device": None})
    changes: dict[str, object] = {"layout": bare, "routing": routing}
    if isinstance(scenario, TrainScenario):
        w = scenario.workload
        # a device alone must get a sequence; the batch itself is put back later
        room = max(w.global_batch, w.micro_batch * devices)
        changes["workload"] = w.model_copy(
            update={"global_batch": room, "schedule": "1f1b"}
        )
    if isinstance(scenario, PrefillScenario):
        # a device alone must admit a prompt
        w = scenario.workload
        room = max(w.tokens_per_device, w.prompt_tokens)
        changes["workload"] = w.model_copy(update={"tokens_per_device": room})
    return scenario.model_copy(update=changes)


def _frames(problem: Problem, counts: tuple[int, ...]) -> tuple[Frame, ...]:
    """How the devices lie on the tiers."""
    sizes = tuple(float(tier.size) for tier in ordered_tiers(problem.system))
    frames = frames_of(counts, sizes)
    if not frames:
        raise SpecError(
            [
                f"layout.devices = {', '.join(map(str, counts))}: can't be split into"
                f" whole units of {problem.system.name}'s tiers; use another number"
            ]
        )
    return frames


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
    wrong = {name: value for name, value in pinned.items() if not _is_degree(value)}
    if wrong:
        raise SpecError(
            [
                f"{name} = {value}: use a whole number from 1"
                for name, value in wrong.items()
            ]
        )
    experts, serves = a.experts, not isinstance(problem.workload, Train)
    return Rules(
        heads=math.gcd(*(int(mixer.heads) for mixer in a.mixers)),
        dense_width=_dense_width(a),
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


def _dense_width(a: Architecture) -> int:
    """What the widths of all dense networks have as a common divisor, 0 without any."""
    counts = zip(a.feed_forwards, a.half_counts.feed_forwards, strict=True)
    widths = [int(f.intermediate) for f, n in counts if f is not a.experts and float(n)]
    return math.gcd(*widths)


def _families(
    scenario: Planned, problem: Problem, forms: list[Form]
) -> tuple[Family, ...]:
    """The scenario's own way first, then what else the model and the phase allow."""
    a, w = model_of(problem), problem.workload
    along = scenario.layout.attention == "sp_tp_sp"
    given = Family("sp_tp_sp" if along else "tp", scenario.routing.shared_replicas > 0)
    if isinstance(w, Train):
        return (Family(schedule="1f1b" if forms == [PLAIN] else ANY),)
    families = [given]
    if isinstance(w, Prefill):
        families.append(given._replace(attention="tp" if along else "sp_tp_sp"))
    if isinstance(w, Decode) and a.experts is not None:
        if float(a.experts.shared) == 1.0:
            other = not given.dispatches_shared
            families.append(given._replace(dispatches_shared=other))
    return tuple(families)
