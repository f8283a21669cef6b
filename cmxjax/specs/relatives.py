r"""What calibrated systems say about one of which only the datasheet is known.

The value of a leaf differs from chip to chip. With u_i its unconstrained value (log, or
logit of a fraction) on calibrated system i, and s_i the error of that,

$$ \mu = \frac{\sum_i w_i u_i}{\sum_i w_i}, \qquad w_i = \frac{1}{s_i^2 + \tau^2},
\qquad \sigma^2 = \tau^2 + \frac{1}{\sum_i w_i} $$

is the prediction for one more chip (random-effects pooling). The spread tau between chips
is the method of moments of DerSimonian & Laird (Controlled Clinical Trials 7, 1986), and
at least `LEAST_SPREAD`: a few chips say little about how much chips differ.
"""

import math

import numpy as np

from ..parameters import is_fraction
from .calibration_file import Calibration, FittedSpec
from .figures import Figure

NAME = "relatives"
LEAST_SPREAD = 0.15
GROUP = "chip."
"""Only what belongs to the chip carries over; libraries and engines are their own."""

WIDER = 1.5
"""A chip that was never measured has this times its relatives' model discrepancy."""


def unconstrained(path: str, value: float) -> float:
    """Log of a leaf, or logit of a fraction."""
    return math.log(value / (1.0 - value)) if is_fraction(path) else math.log(value)


def pooled(values: list[float], sigmas: list[float]) -> tuple[float, float]:
    """Mean and standard error of one more value of the population.

    Args:
        values, sigmas: of each member, unconstrained.
    """
    u, s = np.array(values), np.array(sigmas)
    weight = 1.0 / np.square(s)
    mean = float(weight @ u / weight.sum())
    spread = 0.0
    if len(u) > 1:
        excess = float(weight @ np.square(u - mean)) - (len(u) - 1)
        spread = excess / (weight.sum() - np.square(weight).sum() / weight.sum())
    between = max(spread, LEAST_SPREAD**2)
    weight = 1.0 / (np.square(s) + between)
    mean = float(weight @ u / weight.sum())
    return mean, math.sqrt(between + 1.0 / float(weight.sum()))


def relatives(
    system: str,
    figures: dict[str, Figure],
    calibrated: list[tuple[Calibration, dict[str, Figure]]],
) -> Calibration:
    """A calibration of a system from those of others, with wider error bars.

    Leaves that the system's own sources state keep their values.

    Args:
        figures: of the system.
        calibrated: other systems' calibrations, each with its system's figures.
    """
    seen: dict[str, list[tuple[float, float]]] = {}
    for calibration, known in calibrated:
        for parameter in calibration.parameters.values():
            for path in parameter.leaves:
                if path.startswith(GROUP) and parameter.identified:
                    value = unconstrained(path, known[path].si) + parameter.theta
                    seen.setdefault(path, []).append((value, parameter.sigma))
    parameters = {}
    for path, values in seen.items():
        figure = figures.get(path)
        if figure is None or figure.prior_sigma == 0.0:
            continue
        mean, sigma = pooled(*(list(part) for part in zip(*values, strict=True)))
        parameters[path] = FittedSpec(
            leaves=[path],
            theta=mean - unconstrained(path, figure.si),
            sigma=sigma,
            prior_sigma=figure.prior_sigma,
            identified=False,
            bic_gain=0.0,
            reason=f"pooled over {len(values)} calibrated systems",
        )
    levels = sorted({level for c, _ in calibrated for level in c.discrepancy})
    variances = [p.sigma**2 for p in parameters.values()]
    return Calibration(
        name=NAME,
        system=system,
        parameters=parameters,
        covariance=np.diag(variances).tolist() if parameters else [],
        discrepancy={
            level: WIDER
            * math.sqrt(
                np.mean(
                    [
                        c.discrepancy[level] ** 2
                        for c, _ in calibrated
                        if level in c.discrepancy
                    ]
                )
            )
            for level in levels
        },
        provenance={"relatives": [c.name for c, _ in calibrated]},
    )
