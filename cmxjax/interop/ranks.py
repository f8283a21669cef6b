"""Whole degrees of a layout, and whether a tool's rank order places them the same way."""

import numpy as np

from ..job.layout import ATTENTION_AXES, AXES, DEFAULT_ORDER, placement
from ..machine.system import ordered_tiers
from ..specs.build import Problem


def degrees_of(problem: Problem) -> dict[str, int]:
    """Every axis's degree."""
    factor = np.asarray(problem.placed.factor, float)
    return dict(zip(AXES, np.rint(factor.prod(axis=1)).astype(int).tolist()))


def placed_by_order(problem: Problem) -> bool:
    """Whether ranks numbered with tp innermost, then cp, dp and pp, sit as planned."""
    sizes = [float(tier.size) for tier in ordered_tiers(problem.system)]
    degrees = {axis: float(degree) for axis, degree in degrees_of(problem).items()}
    try:
        plain = placement(degrees, sizes, DEFAULT_ORDER)
    except ValueError:
        return False
    return np.allclose(plain, np.asarray(problem.placed.factor, float))


def order_notes(problem: Problem, tool: str) -> list[str]:
    """A note where the tool's rank order gives another placement."""
    if placed_by_order(problem):
        return []
    factor = np.rint(np.asarray(problem.placed.factor, float)).astype(int)
    tiers = ", ".join(problem.system.tier_order)
    split = ", ".join(
        f"{axis} {'x'.join(map(str, row))}"
        for axis, row in zip(AXES, factor)
        if row.max() > 1
    )
    order = "-".join(ATTENTION_AXES)
    return [
        f"not expressed: placement on the tiers ({tiers}): {split}; {tool} numbers ranks"
        f" {order}, innermost first, so order the host list accordingly"
    ]
