r"""How errors of a level grow with the scale-up systems that a job spans.

$$ \sigma(n) \propto n^\gamma $$

with gamma the most probable under Student's t, whose width is free, and a prior.
"""

from collections.abc import Iterable

import numpy as np

from ..specs.calibration_file import ScaleSpec
from ..specs.discrepancy import grows, level_of, nodes_of
from ..specs.measurement_file import Measurement

TAIL = 4.0
"""Degrees of freedom of Student's t."""

USUAL, SPREAD = 0.1, 0.25
"""Mean and standard deviation of gamma over frameworks: published runs of Megatron-LM,
NeMo and FSDP scatter no more on many nodes (-0.1 to 0), those of InternEvo and nanotron
do (0.35 and 0.5)."""

_GAMMAS = np.linspace(-0.3, 0.9, 121)
_WIDTHS = np.geomspace(0.005, 2.0, 120)[:, None]


def growth(errors: np.ndarray, nodes: np.ndarray) -> float:
    """Most probable gamma of one level, at least 0.

    Args:
        errors: of the logs of rows left out of the fit, (row,).
        nodes: scale-up systems of each, (row,).
    """
    odds = -0.5 * np.square((_GAMMAS - USUAL) / SPREAD)
    for k, gamma in enumerate(_GAMMAS):
        width = _WIDTHS * nodes**gamma
        tail = 0.5 * (TAIL + 1.0) * np.log1p(np.square(errors / width) / TAIL)
        odds[k] += np.max(np.sum(-np.log(width) - tail, axis=1))
    return max(float(_GAMMAS[np.argmax(odds)]), 0.0)


def scales(rows: Iterable[tuple[Measurement, float]]) -> dict[str, ScaleSpec]:
    """The scale of each level's rows, and how their errors grow with it.

    Args:
        rows: measurements with the errors of their logs under a fit without them.
    """
    levels: dict[str, list[tuple[float, float]]] = {}
    for row, error in rows:
        if grows(row.spec.quantity):
            level = level_of(row.scenario, row.spec.quantity)
            levels.setdefault(level, []).append((nodes_of(row.scenario), error))
    found = {}
    for level, members in levels.items():
        nodes, errors = np.array(members).T
        several = np.ptp(nodes) > 0.0
        scale = {
            "nodes": np.exp(np.mean(np.log(nodes))),
            "most": np.max(nodes),
            "growth": growth(errors, nodes) if several else 0.0,
        }
        found[level] = ScaleSpec(**{k: round(float(v), 4) for k, v in scale.items()})
    return found
