r"""What calibrated systems say about one of which only the datasheet is known.

The value of a leaf differs from chip to chip. With u_i its unconstrained value (log, or
logit of a fraction) on calibrated system i, and s_i the error of that,

$$ \mu = \frac{\sum_i w_i u_i}{\sum_i w_i}, \qquad w_i = \frac{1}{s_i^2 + \tau^2},
\qquad \sigma^2 = \tau^2 + \frac{1}{\sum_i w_i} $$

is the prediction for one more chip (random-effects pooling). The spread tau between chips
is the method of moments of DerSimonian & Laird (Controlled Clinical Trials 7, 1986), and
at least `LEAST_SPREAD`: a few chips say little about how much chips differ.

What takes a time of its own is taken over as such. A kernel multiplies for t of work
that takes w at the peak; of the rest, t - w = w (1 - e) / e, a core does as much in a
second whatever its matrix units do, so that the odds e / (1 - e) of an efficiency go with
one over the peak of a core. A ramp is the size at which operands take as long to load as
to multiply, and goes with peak over bandwidth.
"""

import math
from collections.abc import Mapping

import numpy as np

from ..parameters import is_fraction
from .calibration_file import Calibration, FittedSpec, InheritedSpec
from .figures import Figure

NAME = "relatives"
LEAST_SPREAD = 0.15
GROUPS = ("chip.", "engines.")
"""What carries over from any system: chips and engines; libraries are their own."""

CLOSE_GROUPS = (*GROUPS, "collectives.", "expert_parallel.", "trainers.")
"""Likewise from systems that a file names as its relatives."""

PEAK, BANDWIDTH = "chip.matrix_flop_per_s.bf16", "chip.memory_bytes_per_s"
RATIOS = {
    "chip.half_rows": (PEAK, BANDWIDTH),
    "chip.half_columns": (PEAK, BANDWIDTH),
    "chip.half_depth": (PEAK, BANDWIDTH),
    "chip.gemm_efficiency": ("chip.matrix_cores", PEAK),
    "chip.eight_bit_efficiency": ("chip.matrix_cores", PEAK),
    "chip.attention_efficiency": ("chip.matrix_cores", PEAK),
}
"""The ratio of figures that a leaf, or the odds of a fraction, goes with from chip to
chip."""

WIDER = 1.5
"""What was never measured, a chip or an engine on it, has this times the model
discrepancy of the most alike that was."""


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


def scale(path: str, figures: Mapping[str, Figure]) -> float:
    """Log of what a leaf goes with from chip to chip; 0 where nothing is known."""
    over, under = (figures.get(name) for name in RATIOS.get(path, ("", "")))
    return math.log(over.si / under.si) if over and under else 0.0


Known = list[tuple[Calibration, dict[str, Figure]]]
"""Other systems' calibrations, each with its system's figures."""


def inherited(
    figures: dict[str, Figure], calibrated: Known, groups: tuple[str, ...]
) -> dict[str, InheritedSpec]:
    """What others say of a system's leaves. Those that its own sources state keep their
    values, or are averaged with the others' where the sources leave a width.

    Args:
        figures: of the system.
        groups: what leaves that carry over begin with.
    """
    seen: dict[str, list[tuple[float, float]]] = {}
    for calibration, known in calibrated:
        shifts = calibration.theta
        sigmas = {leaf: i.sigma for leaf, i in calibration.inherited.items()}
        for parameter in calibration.parameters.values():
            for leaf in parameter.leaves:
                sigmas.pop(leaf, None)
                if parameter.identified:
                    sigmas[leaf] = parameter.sigma
        for path, sigma in sigmas.items():
            value = known[path].si
            movable = value > 0.0 and not (is_fraction(path) and value == 1.0)
            if path.startswith(groups) and movable:
                total = unconstrained(path, value) + shifts[path] - scale(path, known)
                seen.setdefault(path, []).append((total, sigma))
    found = {}
    for path, values in seen.items():
        figure = figures.get(path)
        if figure is None or figure.prior_sigma == 0.0:
            continue
        mean, sigma = pooled(*(list(part) for part in zip(*values, strict=True)))
        shift = mean + scale(path, figures) - unconstrained(path, figure.si)
        if figure.kind != "assumed":  # it counts as much as its width lets it
            weight = 1.0 / (1.0 + sigma**2 / figure.prior_sigma**2)
            shift, sigma = shift * weight, sigma * math.sqrt(weight)
        found[path] = InheritedSpec(theta=shift, sigma=sigma)
    return found


def relatives(
    system: str,
    figures: dict[str, Figure],
    calibrated: Known,
    groups: tuple[str, ...] = GROUPS,
) -> Calibration:
    """A calibration of a system from those of others, with wider error bars.

    Args:
        figures: of the system.
        groups: what leaves that carry over begin with.
    """
    parameters = {
        path: FittedSpec(
            leaves=[path],
            theta=i.theta,
            sigma=i.sigma,
            prior_sigma=figures[path].prior_sigma,
            identified=False,
            bic_gain=0.0,
            reason="pooled over calibrated systems",
        )
        for path, i in inherited(figures, calibrated, groups).items()
    }
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
