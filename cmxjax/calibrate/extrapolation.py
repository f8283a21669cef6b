"""How much farther off the model is outside of what a fit has seen.

Every run was left out once with others. Where it lay outside of all that stayed in the
fit, or in no calibration's files at all, its error over its error bar shows how much
wider the bar should be.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..answers.extrapolation import beyond, steps
from ..specs.calibration_file import calibration_for
from ..specs.evidence_file import Run

FARTHEST_OFF = 4.0
"""Standard errors as which larger ones count: there something else was wrong."""

GRID = np.linspace(0.0, 2.0, 101)
"""Growths of the variance that are tried."""

LOAD = ("batch", "context", "output", "in_flight", "requests_per_s")


class LeftOut(NamedTuple):
    """A run that a fit has not seen."""

    run: Run
    doublings: float
    words: float
    """Steps outside of what the fit has seen."""

    @property
    def off(self) -> float:
        """Its error in standard errors."""
        return abs(self.run.log_error) / self.run.sigma


def left_out(runs: Sequence[Run]) -> list[LeftOut]:
    """The runs that a fit of other runs of their kind predicted, each with how far it
    lies outside of those."""
    fitted: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        if run.fitted:
            fitted.setdefault((run.calibration, run.traits.kind), []).append(run)
    found = []
    for run in runs:
        kind = run.traits.kind
        if run.sigma == 0.0 or (run.calibration and not run.fitted):
            continue  # exact, or left out of every fit for a reason
        phase = kind.partition(" ")[0]
        name = run.calibration or calibration_for(run.traits.system, None, phase).name
        seen = [r for r in fitted.get((name, kind), []) if r.fold != run.fold]
        if seen:
            outside = beyond(run.traits, [other.traits for other in seen])
            found.append(LeftOut(run, *steps(outside)))
    return found


def growth(found: Sequence[LeftOut]) -> dict[str, float]:
    """Most likely growth of the variance for each doubling and each word outside.

    Errors are normal, with the variance v (1 + g_s d + g_w w) and v inside. Rows of one
    deployment share their errors: they have one vote together.
    """
    deployments = [_deployment(one.run) for one in found]
    counts = Counter(deployments)
    vote = np.array([1.0 / counts[name] for name in deployments])
    square = np.square(np.minimum([one.off for one in found], FARTHEST_OFF))
    doublings = np.array([one.doublings for one in found])
    words = np.array([one.words for one in found])
    best = (np.inf, 0.0, 0.0)
    for of_size in GRID:
        for of_word in GRID:
            factor = 1.0 + of_size * doublings + of_word * words
            inside = vote @ (square / factor) / vote.sum()
            misfit = vote @ np.log(inside * factor)
            best = min(best, (misfit, of_size, of_word))
    _, of_size, of_word = map(float, best)
    return {"doubling": round(of_size, 2), "word": round(of_word, 2)}


def _deployment(run: Run) -> str:
    sizes = {name: x for name, x in run.traits.sizes.items() if name not in LOAD}
    return repr((run.calibration, run.traits.words, sizes, run.quantity))
