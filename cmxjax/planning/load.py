"""What arrives: classes of requests at their rates, as jobs on one machine."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ..specs.build import Problem, build
from ..specs.errors import SpecError, all_of
from ..specs.mix_file import MixSpec
from ..specs.scenario import load_scenario
from ..specs.scenario_file import ServeScenario
from ..specs.trace_file import Trace

ONLY = "requests"
"""Name of the class where a scenario's own workload is all that arrives."""


@dataclass(frozen=True, eq=False)
class RequestClass:
    """Requests of one kind."""

    name: str
    per_s: float
    scenario: ServeScenario
    calibration: str | None
    cache_link: str = ""
    """That some class loads prefixes over."""

    @cached_property
    def problem(self) -> Problem:
        return self.built(self.scenario)

    @cached_property
    def inputs(self) -> tuple:
        """What `metrics` takes."""
        return self.problem.inputs

    def built(self, scenario: ServeScenario) -> Problem:
        """Another scenario of these requests. All classes have the link that one of them
        needs, and load nothing over it, so that one program serves them.

        Raises:
            SpecError: the scenario is wrong.
        """
        problem = build(scenario, self.calibration)
        meets = problem.choices
        assert isinstance(meets, dict)
        link = self.cache_link
        joined = {role: used._replace(cache_link=link) for role, used in meets.items()}
        return problem._replace(choices=joined) if link else problem


PARTS = 4
"""Classes that the requests of a trace are put into, by the length of their prompts."""


def mix_of(trace: Trace) -> tuple[MixSpec, np.ndarray]:
    """Classes of a trace's requests with their mean lengths, and which each one is of."""
    edges = np.quantile(trace.prompt_tokens, np.arange(1, PARTS) / PARTS)
    of = np.searchsorted(np.unique(edges), trace.prompt_tokens)
    parts = np.unique(of)
    of = np.searchsorted(parts, of)
    tables: dict[str, dict[str, object]] = {}
    for part in range(len(parts)):
        prompts, outputs = (
            trace.prompt_tokens[of == part],
            trace.output_tokens[of == part],
        )
        tables[f"prompts {prompts.min():g} to {prompts.max():g}"] = {
            "request_rate": trace.per_s * len(prompts) / len(of),
            "prompt_tokens": float(round(prompts.mean())),
            "output_tokens": float(outputs.mean()),
            "arrival_cv": float(np.clip(trace.arrival_cv, 0.0, BURSTIEST)),
        }
    return MixSpec(title="trace", classes=tables), of


BURSTIEST = 4.0
"""Largest coefficient of variation that queues are solved for."""


def classes_on(
    name: str,
    mix: MixSpec | None = None,
    *,
    per_s: float | None = None,
    growth: float = 1.0,
    changes: Mapping[str, object] | None = None,
    calibration: str | None = None,
) -> list[RequestClass]:
    """The classes of requests on a scenario's machine, model and pools.

    Args:
        name: a scenario of phase `serve`, shipped or a path.
        mix: what arrives; the scenario's own workload if left out.
        per_s: requests a second of all classes together; as they say if left out.
        growth: factor of all rates.
        changes: dotted keys that hold for all classes.

    Raises:
        SpecError: the scenario or the mix is wrong, or says no rate.
    """
    base = load_scenario(name, changes or {})
    if not isinstance(base, ServeScenario):
        raise SpecError([f"{name}: phase = {base.phase!r}: a plan needs phase 'serve'"])
    tables = {ONLY: {}} if mix is None else mix.classes

    def one(key: str, table: Mapping[str, object]) -> RequestClass:
        # of limits and lengths the mix's own hold, of all else what was changed
        keys = {f"workload.{k}": v for k, v in table.items()}
        scenario = load_scenario(name, {**(changes or {}), **keys})
        assert isinstance(scenario, ServeScenario)
        rate = scenario.workload.request_rate
        if rate is None:
            raise SpecError([f"{name}: workload.request_rate: missing; give --rate"])
        made = RequestClass(key, rate, scenario, calibration)
        assert isinstance(made.problem.choices, dict)
        links = (used.cache_link for used in made.problem.choices.values())
        return replace(made, cache_link=next(filter(None, links), ""))

    found = list(all_of(*(lambda k=k, t=t: one(k, t) for k, t in tables.items())))
    total = sum(c.per_s for c in found)
    factor = growth * (1.0 if per_s is None else per_s / total)
    link = next(filter(None, (c.cache_link for c in found)), "")
    return [replace(c, per_s=c.per_s * factor, cache_link=link) for c in found]
