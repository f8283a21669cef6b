"""A recipe for a system that has none: the leaves that its measurements speak about."""

from collections.abc import Callable

import numpy as np

from ..specs.errors import SpecError
from ..specs.recipe_file import Parameter, RecipeSpec
from .posterior import USUAL
from .setup import Setup, prepare

ROWS_PER_PARAMETER = 4
MOST_PARAMETERS = 25

LEAST_INFORMATION = 0.5
"""Standard errors by which a prior width must move the rows in all."""


def automatic(
    system: str,
    files: list[str],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Setup:
    """Choose parameters one by one: the leaf about which the rows say most.

    What earlier choices already explain is projected out of the slopes, so of two
    leaves that do the same only one is taken. One parameter for every four rows, and one
    at least.

    Raises:
        SpecError: the files are wrong, or say nothing of the system or of what is
            uncertain in it.
    """
    recipe = RecipeSpec.model_construct(
        system=system, phases=[], measurements=[], robust=4.0, parameters=[], excluded=[]
    )
    setup = prepare(recipe, files, system, progress)
    loose = setup.uncertain("chosen by its information")
    _, slopes = setup.predictor.model(loose)(np.zeros((1, len(loose))))
    sigma = np.hypot(setup.row_sigma, USUAL)
    widths = np.array([p.sigma for p in loose])
    scaled = np.nan_to_num(slopes[0]) * widths[None, :] / sigma[:, None]
    scaled = scaled * setup.measured[:, None]
    rows = int(setup.measured.sum())  # a bound says little of a leaf, or nothing
    chosen: list[Parameter] = []
    while len(chosen) < min(MOST_PARAMETERS, max(rows // ROWS_PER_PARAMETER, 1)):
        information = np.linalg.norm(scaled, axis=0)
        best = int(np.argmax(information))
        if information[best] < LEAST_INFORMATION:
            break
        chosen.append(loose[best])
        direction = scaled[:, best] / information[best]
        scaled = scaled - np.outer(direction, direction @ scaled)
    if not chosen:
        said = (
            f"{rows} measurements say less of each uncertain leaf than its prior; give"
            " more, or give leaves that may be off a sigma in the file of the system"
        )
        raise SpecError([f"{system}: {said}"])
    return setup._replace(parameters=chosen)
