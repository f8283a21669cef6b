"""From a scenario and options to a question."""

import math
from functools import partial

import numpy as np

from ..answers.limits import Limit, parse_limit
from ..job.layout import AXES
from ..job.workload import Train
from ..machine.system import ordered_tiers
from ..model.architecture import Architecture
from ..specs.build import Problem, build
from ..specs.errors import SpecError, all_of
from ..specs.scenario_file import DecodeScenario, PrefillScenario, Scenario, TrainScenario
from . import serving, ways
from .question import DEFAULT_OBJECTIVE, FIELDS, Question, Target, target_of
from .space import Frame, Rules, Setting, Space, frames_of

Planned = DecodeScenario | PrefillScenario | TrainScenario
"""What has a layout to choose."""


def ask(
    scenario: Scenario,
    *,
    objective: str | None = None,
    limits: tuple[str, ...] = (),
    pinned: dict[str, int] | None = None,
    settings: dict[str, tuple] | None = None,
    devices: tuple[int, ...] = (),
    calibration: str | None = None,
) -> Question:
    """What a search is to find.

    Args:
        scenario: the job. Its degrees, batch and spare experts are free.
        objective: a quantity; rates are maximized, all else minimized.
        limits: such as `tpot=50ms`; rates are bounded from below.
        pinned: degrees that are not free, by axis.
        settings: values to try for a setting, such as `sequences_per_device`; of a
            training step also `schedule`, `vpp` and `overlapped_microbatches`.
        devices: numbers of devices to choose from; the scenario's if empty.
        calibration: as in `build`.

    Raises:
        SpecError: naming each mistake.
    """
    if not isinstance(scenario, Planned):
        known = ", ".join(FIELDS)
        raise SpecError([f"optimize: phase = {scenario.phase!r}: use one of {known}"])
    parts, (bounds, (fields, target)) = all_of(
        lambda: _job(scenario, devices, pinned or {}, settings or {}, calibration),
        lambda: _wanted(scenario.phase, objective or DEFAULT_OBJECTIVE, limits),
    )
    problem, space, tried = parts
    return Question(
        problem=problem,
        space=space,
        families=_families(scenario, problem, tried),
        fields=fields,
        target=target,
        objective=objective or DEFAULT_OBJECTIVE,
        limits=bounds,
        inputs=problem.inputs,
    )


def _job(
    scenario: Planned,
    devices: tuple[int, ...],
    pinned: dict[str, int],
    settings: dict[str, tuple],
    calibration: str | None,
) -> tuple[Problem, Space, dict[str, tuple]]:
    """The job on data parallelism alone, what is free in it, and the ways to try."""
    counts = tuple(dict.fromkeys(devices)) or (_devices(scenario),)
    if wrong := [count for count in counts if count < 1]:
        raise SpecError([f"--devices {n}: use a whole number from 1" for n in wrong])
    problem = build(_bare(scenario, counts[0]), calibration)
    if isinstance(problem.workload, Train) and isinstance(scenario, TrainScenario):
        batch = problem.workload.global_batch * 0.0 + scenario.workload.global_batch
        workload = problem.workload.replace(global_batch=batch)
        given = problem.scenario.model_copy(update={"workload": scenario.workload})
        problem = problem._replace(workload=workload, scenario=given)
    frames, rules, (free, tried) = all_of(
        lambda: _frames(problem, counts),
        lambda: _rules(problem, pinned),
        lambda: _settings(problem, settings),
    )
    return problem, Space(frames, rules, free), tried


def _wanted(
    phase: str, objective: str, limits: tuple[str, ...]
) -> tuple[tuple[Limit, ...], tuple[tuple[str, ...], Target]]:
    """Limits, and what to compute for them and the objective."""
    bounds = tuple(all_of(*(partial(parse_limit, text) for text in limits)))
    return bounds, target_of(phase, objective, bounds)


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


def _devices(scenario: Planned) -> int:
    """The scenario's number of devices, from its degrees where it isn't given."""
    spec = scenario.layout
    if spec.devices is not None:
        return spec.devices
    attention = np.prod([spec.tp or 1, spec.cp or 1, spec.dp or 1, spec.pp or 1])
    experts = np.prod([spec.etp or 1, spec.ep or 1, spec.edp or 1, spec.pp or 1])
    return int(max(attention, experts))


def _bare(scenario: Planned, devices: int) -> Scenario:
    """The scenario with data parallelism alone, which every model allows."""
    layout = scenario.layout
    kept = {
        "devices": devices,
        "ep": 1,
        "sequence_parallel": layout.sequence_parallel,
        "head": layout.head,
    }
    routing = {"redundant_experts": 0.0, "shared_replicas": 0.0}
    bare = type(layout)(**kept)
    changes: dict[str, object] = {
        "layout": bare,
        "routing": scenario.routing.model_copy(
            update={**routing, "experts_per_device": None}
        ),
    }
    if scenario.phase == "train":
        # a device alone must get a sequence; the batch itself is put back later
        w = scenario.workload
        room = max(w.global_batch, w.micro_batch * devices)
        changes["workload"] = w.model_copy(update={"global_batch": room})
        # what a step overlaps is given, as is the number of chunks
        given = {
            "vpp": layout.vpp,
            "overlapped_microbatches": layout.overlapped_microbatches,
        }
        changes["layout"] = bare.model_copy(update=given)
    if scenario.phase == "prefill":
        # a device alone must admit a prompt
        w = scenario.workload
        room = max(w.tokens_per_device, w.prompt_tokens)
        changes["workload"] = w.model_copy(update={"tokens_per_device": room})
    return scenario.model_copy(update=changes)


def _dense_width(a: Architecture) -> int:
    """What the widths of all dense networks have as a common divisor, 0 without any."""
    counts = zip(a.feed_forwards, a.half_counts.feed_forwards, strict=True)
    widths = [int(f.intermediate) for f, n in counts if f is not a.experts and float(n)]
    return math.gcd(*widths)


def _rules(problem: Problem, pinned: dict[str, int]) -> Rules:
    a = serving.model_of(problem)
    if unknown := pinned.keys() - set(AXES):
        raise SpecError(
            [f"{name}: no such axis; use one of {', '.join(AXES)}" for name in unknown]
        )
    experts, serves = a.experts, not isinstance(problem.workload, Train)
    return Rules(
        heads=math.gcd(*(int(mixer.heads) for mixer in a.mixers)),
        dense_width=_dense_width(a),
        expert_width=0 if experts is None else int(experts.intermediate),
        layers=int(a.layers),
        experts=0 if experts is None else int(experts.routed),
        pinned=tuple(sorted(pinned.items())),
        spread=0 if serves or experts is None else int(experts.routed),
    )


def _settings(
    problem: Problem, given: dict[str, tuple]
) -> tuple[tuple[Setting, ...], dict[str, tuple]]:
    """What is free, with the values to try, and the ways of a training step to try."""
    free = {setting.name: setting for setting in serving.settings(problem)}
    trains = isinstance(problem.workload, Train)
    tried, mistakes = ways.checked(given) if trains else ({}, [])
    known = [*free, *(ways.WAYS if trains else ())]
    for name, values in given.items():
        if name not in known:
            mistakes.append(f"{name}: not free here; use one of {', '.join(known)}")
        elif name in free:
            allowed, remedy = serving.ALLOWED[name]
            mistakes += [
                f"{name} = {value}: use {remedy}"
                for value in values
                if isinstance(value, str) or not allowed(float(value))
            ]
    if mistakes:
        raise SpecError(mistakes)
    settings = (
        Setting(name, tuple(sorted(set(map(float, given.get(name, setting.values))))))
        for name, setting in free.items()
    )
    return tuple(settings), tried


def _families(
    scenario: Planned, problem: Problem, tried: dict[str, tuple]
) -> tuple[serving.Family, ...]:
    """The scenario's own family first, of training if it is among the ways tried."""
    given = problem._replace(
        layout=problem.placed.replace(
            attention=scenario.layout.attention or "dp",
            routing=problem.placed.routing.replace(
                dispatches_shared=scenario.routing.shared_replicas > 0
            ),
        )
    )
    families = serving.families(given)
    if not isinstance(problem.workload, Train):
        return families
    return ways.combined(problem.workload, families[0], tried)
