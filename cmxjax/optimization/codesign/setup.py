"""What a co-design starts from: files and scenarios, made into arrays and bounds."""

from typing import NamedTuple

import numpy as np

from ...answers.numbers import values_of
from ...specs.budget_file import BudgetSpec, leaves_named, load_budget
from ...specs.errors import SpecError
from ...specs.files import same_file
from .cost import prices_of
from .exact import SPAN
from .mix import Mix, work_of
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
    box: tuple[np.ndarray, np.ndarray]
    """Bounds of the logs of the multipliers."""

    @property
    def variables(self) -> tuple[np.ndarray, np.ndarray]:
        """Bounds of all variables: resources, then free batches."""
        edge = np.full(sum(bool(work.form.batch) for work in self.mix.works), SPAN)
        low, high = self.box
        return np.concatenate([low, -edge]), np.concatenate([high, edge])


def setup_of(
    workloads: list[Share] | tuple[Share, ...],
    budget: str,
    calibration: str | None,
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
    jobs = jobs_of(workloads, calibration)
    problem = jobs[0].problem
    name, base = problem.system.name, problem.scenario.system.base
    if name != spec.system and not same_file("systems", base, spec.system):
        said = f"{budget}: system = {spec.system!r}: the workloads run on {name}"
        raise SpecError([said])
    values = values_of(problem)
    known = {path: v for path, v in values.items() if path.startswith("system.")}
    leaves = leaves_named(spec, known, budget)
    powers = [
        dict.fromkeys(paths, spec.resources[name].power) for name, paths in leaves.items()
    ]
    free = [not only or name in only for name in spec.resources]
    ends = [(r.low, r.high) for r in spec.resources.values()]
    low, high = np.where(free, np.log(ends).T, 0.0)
    works = tuple(work_of(job, powers) for job in jobs)
    mix = Mix(works=works, prices=prices_of(spec), resources=len(low))
    return Setup(spec, jobs, leaves, known, mix, (low, high))
