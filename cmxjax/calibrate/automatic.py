"""A recipe for a system that has none: the leaves that its measurements speak about."""

from collections.abc import Callable

import numpy as np

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
    leaves that do the same only one is taken. One parameter for every four rows.

    Raises:
        SpecError: the files are wrong or hold nothing on the system.
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
    rows = int(setup.measured.sum())  # a bound that is met says nothing of a leaf
    chosen: list[Parameter] = []
    while len(chosen) < min(MOST_PARAMETERS, rows // ROWS_PER_PARAMETER):
        information = np.linalg.norm(scaled, axis=0)
        best = int(np.argmax(information))
        if information[best] < LEAST_INFORMATION:
            break
        chosen.append(loose[best])
        direction = scaled[:, best] / information[best]
        scaled = scaled - np.outer(direction, direction @ scaled)
    return setup._replace(parameters=chosen)
