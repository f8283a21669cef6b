"""Jobs of a sweep: built once for each combination of keys that need it.

A job is a flat list of leaves, as `metrics` takes them. Jobs of one structure, whose fast
keys go into the same leaves, make a group: one program evaluates it. Of a group's leaves
only those that differ between its jobs vary over the rows of the program.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np

from ..machine.resolve import origins
from ..specs.build import Problem, build
from ..specs.errors import SpecError
from ..specs.model_load import load_model
from ..specs.resolved import resolved
from ..specs.scenario import validate_scenario, with_overrides
from ..specs.scenario_file import PrefillScenario, TrainScenario
from .fast import FIELDS, SKEW, SYSTEM, Rules, Target, neutral, rules_of

Leaves = tuple[np.ndarray, ...]
MOST_KEPT = 100_000
"""Jobs that are kept for the next part of a sweep."""


@dataclass
class Group:
    """Jobs that one program evaluates."""

    structure: Any
    targets: tuple[Target, ...]
    """Of the fast keys, in their order."""
    template: Leaves
    varying: set[int] = field(default_factory=set)
    """Leaves that differ between jobs."""
    checked: bool = False


class Job(NamedTuple):
    """A built job, up to the values of its fast keys."""

    group: Group
    leaves: Leaves
    rules: Rules
    told: dict[str, object]
    """Keys that constraints ask for and that don't vary, as the job has them."""


class _Machine(NamedTuple):
    """The leaves of a resolved machine, with what they came from, which stays alive."""

    leaves: Leaves
    structure: Any
    places: dict[str, tuple[tuple[int, int], ...]]
    kept: tuple


class Jobs:
    """Builds the jobs of a sweep.

    Args:
        raw: keys of the base scenario.
        where: how messages name it.
        fast: keys whose values go straight into leaves.
        asked: further keys that constraints ask for.
    """

    def __init__(
        self,
        raw: Mapping[str, object],
        where: str,
        calibration: str | None,
        fast: Sequence[str],
        asked: Sequence[str] = (),
    ):
        self.raw, self.where, self.calibration = raw, where, calibration
        self.fast, self.asked = tuple(fast), tuple(asked)
        self.groups: dict[tuple, Group] = {}
        self.built = 0
        self._jobs: dict[tuple, Job | str] = {}
        self._machines: dict[tuple, _Machine] = {}
        self._interned: dict[tuple, np.ndarray] = {}

    def problem(self, changes: Mapping[str, object], exact: bool) -> Problem:
        """The job at some values of keys.

        Args:
            exact: as `predict` builds it; else what fast keys make of several keys is
                left to `Rules`.

        Raises:
            SpecError: the builder refuses it.
        """
        self.built += 1
        raw = with_overrides(self.raw, changes, self.where)
        scenario = validate_scenario(raw, self.where)
        if not exact and isinstance(scenario, PrefillScenario | TrainScenario):
            model = load_model(scenario.model, self.where)
            mixture = model.file.mixture is not None
            scenario = neutral(scenario, set(self.fast), mixture)
        return build(scenario, self.calibration, self.where)

    def job(self, name: tuple, changes: Mapping[str, object]) -> Job | str:
        """The job at some values of the keys that it is built for, or why there is none.

        Args:
            name: what tells it from others.
            changes: values of all keys that vary; those of fast ones don't matter.
        """
        if name not in self._jobs:
            if len(self._jobs) >= MOST_KEPT:
                self._jobs.clear()
            try:
                self._jobs[name] = self._job(self.problem(changes, exact=False))
            except SpecError as error:
                self._jobs[name] = error.mistakes[0]
        return self._jobs[name]

    def _job(self, problem: Problem) -> Job:
        leaves, structure, places = self.flat(problem)
        targets = tuple(self._target(problem, places, key) for key in self.fast)
        key = structure, tuple(leaf.shape for leaf in leaves), targets
        group = self.groups.setdefault(key, Group(structure, targets, leaves))
        pairs = enumerate(zip(leaves, group.template))
        group.varying |= {i for i, (one, other) in pairs if one is not other}
        told = _told(problem, self.asked) if self.asked else {}
        return Job(group, leaves, rules_of(problem, set(self.fast)), told)

    def flat(self, problem: Problem) -> tuple[Leaves, tuple, dict]:
        """Leaves of what `metrics` takes, their structure, and where the machine has
        leaves of the system."""
        machine = self._machine(problem)
        rest, structure = jax.tree.flatten(
            (problem.model, problem.workload, problem.layout)
        )
        leaves = (*machine.leaves, *(self._kept(np.asarray(leaf)) for leaf in rest))
        return leaves, (machine.structure, structure), machine.places

    def _kept(self, leaf: np.ndarray) -> np.ndarray:
        """Equal leaves as one array."""
        key = leaf.shape, leaf.tobytes()
        return self._interned.setdefault(key, leaf)

    def _machine(self, problem: Problem) -> _Machine:
        choices = problem.choices
        named = choices if isinstance(choices, tuple) else tuple(choices.items())
        key = id(problem.system), id(problem.theta), named
        if key not in self._machines:
            if len(self._machines) >= 64:
                self._machines.clear()
            leaves, structure = jax.tree.flatten(problem.machine)
            host = tuple(self._kept(np.asarray(leaf)) for leaf in leaves)
            kept = problem.system, problem.theta
            self._machines[key] = _Machine(host, structure, self._places(problem), kept)
        return self._machines[key]

    def _places(self, problem: Problem) -> dict[str, tuple[tuple[int, int], ...]]:
        """Where the machine has each leaf of the system that a fast key sets."""
        wanted = {key.removeprefix(SYSTEM) for key in self.fast if key[:7] == SYSTEM}
        if not wanted:
            return {}
        found: dict[str, list[tuple[int, int]]] = {path: [] for path in wanted}
        paths = iter(origins(problem.system, problem.choices))
        for i, leaf in enumerate(jax.tree.leaves(problem.machine)):
            for entry in range(np.size(leaf)):
                if (path := next(paths)) in wanted:
                    found[path].append((i, entry if np.ndim(leaf) else -1))
        return {path: tuple(places) for path, places in found.items()}

    def _target(self, problem: Problem, places: dict, key: str) -> Target:
        if key.startswith(SYSTEM):
            path = key.removeprefix(SYSTEM)
            theta = problem.theta.get(path)
            if theta is None:
                return Target(key, places[path])
            return Target(key, places[path], path, float(theta))
        workload = problem.workload
        field = FIELDS.get(problem.scenario.phase, {}).get(key, "")
        wanted = f"{field}" if key != SKEW else "skew"
        start = len(self._machine(problem).leaves) + len(jax.tree.leaves(problem.model))
        paths = jax.tree_util.tree_leaves_with_path(workload)
        named = [jax.tree_util.keystr(p, simple=True, separator=".") for p, _ in paths]
        ends = [i for i, n in enumerate(named) if n == wanted or n.endswith(f".{wanted}")]
        if key != SKEW:
            ends = [i for i in ends if named[i] == wanted]
        return Target(key, tuple((start + i, -1) for i in ends))


def with_values(job: Job, values: Mapping[str, float]) -> list[np.ndarray]:
    """The leaves of a job with values of its fast keys in them."""
    leaves = list(job.leaves)
    for target in job.group.targets:
        value = float(target.moved(np.asarray(values[target.key])))
        for leaf, entry in target.leaves:
            changed = np.array(leaves[leaf], float)
            changed[... if entry < 0 else np.unravel_index(entry, changed.shape)] = value
            leaves[leaf] = changed
    return leaves


def _told(problem: Problem, keys: Sequence[str]) -> dict[str, object]:
    """Values of keys as a job has them, those included that follow from others."""
    table, told = resolved(problem), {}
    for key in keys:
        first, _, path = key.partition(".")
        if first == "system" and path in problem.figures:
            told[key] = problem.figures[path].si
            continue
        node: object = table
        for part in key.split("."):
            node = node.get(part) if isinstance(node, dict) else None
        told[key] = node
    return told
