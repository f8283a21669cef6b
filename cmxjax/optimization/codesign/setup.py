"""What a co-design starts from: files and scenarios, made into arrays and bounds."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from ...answers.numbers import values_of
from ...specs.budget_file import BudgetSpec, leaves_named, load_budget, unpriced
from ...specs.errors import SpecError
from ...specs.files import same_file
from .cost import Prices, prices_of
from .exact import SPAN
from .mix import Data, Mix, moved_by
from .workloads import Job, Share, jobs_of


class Setup(NamedTuple):
    """A design problem: files read, leaves resolved, arrays made."""

    spec: BudgetSpec
    jobs: list[Job]
    leaves: dict[str, list[str]]
    """That each resource moves."""
    known: dict[str, float]
    """What the machine's leaves are."""
    mix: Mix
    data: Data
    prices: Prices
    box: tuple[np.ndarray, np.ndarray]
    """Bounds of the logs of the multipliers."""

    @property
    def variables(self) -> tuple[np.ndarray, np.ndarray]:
        """Bounds of all variables: resources, then free batches."""
        edge = np.full(sum(bool(form.batch) for form in self.mix.forms), SPAN)
        low, high = self.box
        return np.concatenate([low, -edge]), np.concatenate([high, edge])


def setup_of(
    workloads: list[Share] | tuple[Share, ...],
    budget: str,
    calibration: str | None,
    aim: str = "gain",
    only: tuple[str, ...] = (),
) -> Setup:
    """Raises `SpecError` with what is wrong with the workloads or the budget file.

    Args:
        only: resources that may change; all if empty.
    """
    spec = load_budget(budget)
    if unknown := [name for name in only if name not in spec.resources]:
        known = ", ".join(spec.resources)
        raise SpecError([f"only = {name!r}: use one of {known}" for name in unknown])
    if aim == "gain" and (mistakes := unpriced(spec)):
        raise SpecError([f"{budget}: {mistake}" for mistake in mistakes])
    jobs = jobs_of(workloads, calibration)
    name, base = jobs[0].problem.system.name, jobs[0].problem.scenario.system.base
    if name != spec.system and not same_file("systems", base, spec.system):
        said = f"{budget}: system = {spec.system!r}: the workloads run on {name}"
        raise SpecError([said])
    known = values_of(jobs[0].problem)
    known = {path: v for path, v in known.items() if path.startswith("system.")}
    leaves = leaves_named(spec, known, budget)
    powers = [
        dict.fromkeys(paths, spec.resources[name].power) for name, paths in leaves.items()
    ]
    free = [not only or name in only for name in spec.resources]
    ends = [(r.low, r.high) for r in spec.resources.values()]
    low, high = np.where(free, np.log(ends).T, 0.0)
    prices = prices_of(spec)
    mix = Mix(tuple(job.form for job in jobs), len(low), aim)
    moved = tuple(moved_by(job, powers) for job in jobs)
    data = Data(moved, Prices(*(jnp.asarray(field, float) for field in prices)))
    return Setup(spec, jobs, leaves, known, mix, data, prices, (low, high))
