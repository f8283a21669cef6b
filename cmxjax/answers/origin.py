"""Where the parameters come from that each part of a prediction follows most."""

import math
from collections.abc import Mapping

from ..parameters import is_fraction
from ..specs.build import Problem
from ..specs.relatives import NAME as RELATIVES

FITTED, RELATIVE, ASSUMED, PRINTED = "fitted", "relative", "assumed", "printed"


def origins_of(problem: Problem) -> dict[str, str]:
    """Of each leaf of the system: `fitted` to rows of this machine, taken from a
    `relative`, `assumed`, or `printed` by a source."""
    fitted, found = problem.fitted, {}
    for path, figure in problem.figures.items():
        found[path] = ASSUMED if figure.kind == "assumed" else PRINTED
    found |= dict.fromkeys(fitted.inherited, RELATIVE)
    for parameter in fitted.parameters.values():
        if fitted.name == RELATIVES:
            found |= dict.fromkeys(parameter.leaves, RELATIVE)
        elif parameter.identified:  # else rows say no more than was known without them
            found |= dict.fromkeys(parameter.leaves, FITTED)
    return found


def origin_of(
    problem: Problem, origins: Mapping[str, str], slopes: Mapping[str, float]
) -> str:
    """The origin of the leaves that a number follows most.

    Args:
        origins: of each leaf, from `origins_of`.
        slopes: derivative of the number's log along the shift of each uncertain leaf;
            without any it follows printed figures alone.
    """
    follows, theta = {PRINTED: 0.0}, problem.fitted.theta
    for path, slope in slopes.items():
        odds = 1.0
        if is_fraction(path):  # as much as it follows the leaf itself, not its logit
            value = problem.figures[path].si
            odds += value / (1.0 - value) * math.exp(theta.get(path, 0.0))
        follows[origins[path]] = follows.get(origins[path], 0.0) + odds * abs(slope)
    return max(follows, key=lambda origin: follows[origin])
