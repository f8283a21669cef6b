"""Keys whose values are set in the built job directly, without building it again.

A key qualifies where the builder copies its value into leaves and derives nothing else
from it. The table says which may; whether a key does in the job at hand is found out by
building it at several values (`jobs.Jobs.verify`).
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from ..job.layout import degree
from ..job.workload import Prefill, Train
from ..parameters import shifted
from ..specs.build import Problem
from ..specs.degrees import derive
from ..specs.scenario_file import PrefillScenario, Scenario, TrainScenario
from ..specs.schedules import schedule_mistakes

FIELDS: dict[str, dict[str, str]] = {
    "op": {f"op.{name}": name for name in ("groups", "m", "n", "k", "sequences")},
    "collective": {"collective.payload_bytes": "payload_bytes"},
    "decode": {
        "workload.sequences_per_device": "sequences_per_device",
        "workload.kv_tokens": "kv_tokens",
        "workload.acceptance": "acceptance",
    },
    "prefill": {
        "workload.tokens_per_device": "tokens_per_device",
        "workload.prompt_tokens": "prompt_tokens",
        "workload.cached_fraction": "cached_fraction",
    },
    "train": {
        "workload.global_batch": "global_batch",
        "workload.micro_batch": "micro_batch",
        "workload.sequence_tokens": "sequence_tokens",
        "workload.recompute": "recompute_fraction",
        "workload.peak": "peak_flop_per_s",
    },
    "serve": {
        "workload.request_rate": "requests_per_s",
        "workload.concurrency": "concurrency",
        "workload.arrival_cv": "arrival_cv",
        "workload.prompt_tokens": "prompt_tokens",
        "workload.output_tokens": "output_tokens",
        "workload.cached_fraction": "cached_fraction",
        "workload.ttft_limit": "ttft_limit_s",
        "workload.tpot_limit": "tpot_limit_s",
    },
}
"""Keys that a workload holds as they are, by phase, with the field."""

SKEW = "routing.skew"
SYSTEM = "system."


def may_be_fast(key: str, phase: str) -> bool:
    """Whether a number at a key may go straight into leaves of the job."""
    if key.startswith(SYSTEM):  # layouts are placed on tiers of a size
        return not key.endswith((".size", ".alternatives"))
    return key in FIELDS.get(phase, {}) or (key == SKEW and phase != "serve")


class Target(NamedTuple):
    """Where a key's value goes."""

    key: str
    leaves: tuple[tuple[int, int], ...]
    """Leaf of the job, and entry in it; -1 for the whole leaf."""
    path: str = ""
    """Of the system, where the calibration moves it."""
    theta: float = 0.0

    def moved(self, values: np.ndarray) -> np.ndarray:
        """Values as the job has them."""
        if not self.path:
            return values
        return np.asarray(shifted(self.path, jnp.asarray(values, float), self.theta))


def neutral(scenario: Scenario, fast: set[str], mixture: bool) -> Scenario:
    """The scenario with values of fast keys that no check of several keys refuses: their
    values differ between points, and `Rules` checks those."""
    workload = getattr(scenario, "workload", None)
    changes: dict[str, float] = {}
    if isinstance(scenario, PrefillScenario):
        if "workload.prompt_tokens" in fast:
            changes["prompt_tokens"] = 1.0
        elif "workload.tokens_per_device" in fast:
            changes["tokens_per_device"] = MANY_TOKENS
    elif isinstance(scenario, TrainScenario):
        degrees = derive(scenario.layout, mixture, scenario.where)
        count = 4.0 * degrees.pp
        w = scenario.workload
        if "workload.global_batch" in fast:
            changes["global_batch"] = count * w.micro_batch * degrees.dp
        elif "workload.micro_batch" in fast:
            changes["micro_batch"] = w.global_batch / (count * degrees.dp)
    if workload is None or not changes:
        return scenario
    return scenario.model_copy(update={"workload": workload.model_copy(update=changes)})


MANY_TOKENS = 1e12
"""That hold any prompt."""


class Rules(NamedTuple):
    """What the builder checks of several keys at once, of which some are fast."""

    group: float = 0.0
    """Devices that share prompts; 0 where nothing is checked."""
    ranks: float = 0.0
    """Data-parallel ranks."""
    schedule: str = ""
    chunks: int = 1
    stages: int = 1
    held: tuple[tuple[str, float], ...] = ()
    """What keys are that don't vary."""

    def refuses(self, columns: dict[str, np.ndarray]) -> np.ndarray | None:
        """Where the builder would refuse values of fast keys; None for nowhere.

        Args:
            columns: values by key, of shapes that broadcast.
        """
        held = dict(self.held)

        def at(name: str) -> np.ndarray:
            key = f"workload.{name}"
            return np.asarray(columns.get(key, held.get(name, 0.0)))

        if self.group:
            tokens, admitted = at("prompt_tokens"), at("tokens_per_device") * self.group
            return np.asarray(tokens > admitted)
        if not self.ranks:
            return None
        batch, least = at("global_batch"), at("micro_batch") * self.ranks
        wrong = batch < least
        if self.schedule == "dualpipe" and self.stages > 1:
            count = batch / least
            several, where = np.unique(count, return_inverse=True)
            args = self.schedule, self.chunks, self.stages
            bad = [bool(schedule_mistakes(*args, x)) for x in several.tolist()]
            wrong = wrong | np.array(bad)[where].reshape(count.shape)
        return np.asarray(wrong)


def rules_of(problem: Problem, fast: set[str]) -> Rules:
    """What is left to check of a job that was built with `neutral` values."""
    w = problem.workload
    if isinstance(w, Prefill):
        checked = "prompt_tokens", "tokens_per_device"
    elif isinstance(w, Train):
        checked = "global_batch", "micro_batch"
    else:
        return Rules()
    if not {f"workload.{name}" for name in checked} & fast:
        return Rules()
    held = tuple((name, float(getattr(w, name))) for name in checked)
    if isinstance(w, Prefill):
        spec = problem.scenario.layout
        return Rules(group=float((spec.tp or 1) * (spec.cp or 1)), held=held)
    scenario, spec = problem.scenario, problem.scenario.layout
    assert isinstance(scenario, TrainScenario)
    return Rules(
        ranks=float(degree(problem.placed, "dp")),
        schedule=scenario.workload.schedule,
        chunks=spec.vpp or 1,
        stages=round(float(degree(problem.placed, "pp"))),
        held=held,
    )
