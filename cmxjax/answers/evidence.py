"""The measured runs nearest to a prediction, with what the model says of each."""

from typing import NamedTuple

from ..specs.build import Problem
from ..specs.evidence_file import Run, shipped_runs, sources
from ..specs.traits import distance, traits_of
from .sensitivity import USUAL

NEAREST = 3


class Evidence(NamedTuple):
    """One measured run beside what the model says there, in the run's own unit."""

    id: str
    quantity: str
    measured: float
    modelled: float
    unit: str
    source: str
    """Title and address."""
    locator: str
    distance: float
    """From the job that was asked for, in doublings of a size; see `traits`."""


def nearest(problem: Problem, count: int = NEAREST) -> list[Evidence]:
    """The measured runs of the same kind that are nearest to a job, nearest first.

    Of a run that was measured in several quantities, the usual one of its phase.
    """
    job = traits_of(problem.scenario)
    usual = USUAL.get(problem.scenario.phase, "")
    ranked = sorted(
        (distance(job, run.traits), run.quantity != usual, i, run)
        for i, run in enumerate(shipped_runs())
        if run.traits.kind == job.kind
    )
    chosen: dict[str, tuple[float, Run]] = {}
    for far, _, _, run in ranked:
        chosen.setdefault(repr(run.traits), (far, run))
        if len(chosen) == count:
            break
    titles = sources()
    return [
        Evidence(
            *(run.id, run.quantity, run.measured, run.modelled, run.unit),
            source=titles[run.file, run.source],
            locator=run.locator,
            distance=round(far, 3),
        )
        for far, run in chosen.values()
    ]
