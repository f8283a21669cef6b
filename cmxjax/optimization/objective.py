"""What is wanted: quantities to make best, and limits that must hold."""

import math
from functools import partial
from typing import NamedTuple

import numpy as np

from ..answers.limits import Limit, more_is_better, parse_limit
from ..quantities import field_of
from ..specs.errors import SpecError, all_of
from ..specs.measurement_file import QUANTITIES

LATENCY = {"decode": "tpot_s", "prefill": "ttft_s", "train": "step_time_s"}
DEFAULT = "tokens_rate_per_package"


class Objective(NamedTuple):
    """A quantity to make best under limits, over fields of the metrics."""

    quantity: str
    """Rates and utilizations are maximized, all else minimized."""
    limits: tuple[Limit, ...]
    fields: tuple[str, ...]
    """Throughput, latency, energy and memory first, which fronts are made of."""
    weights: np.ndarray
    """The minimized score is weights @ log(field)."""
    signs: np.ndarray
    """+1 where a field is bounded from above, -1 from below."""
    bounds: np.ndarray
    """Logs of the bounds; infinite where there is none."""

    @property
    def maximizes(self) -> bool:
        return more_is_better(self.quantity)

    @property
    def field(self) -> str:
        return self.fields[int(np.abs(self.weights).argmax())]

    @property
    def within_s(self) -> float:
        """The limit of TPOT or TTFT; infinite where there is none."""
        limits = (x.value for x in self.limits if x.quantity in ("tpot", "ttft"))
        return min(limits, default=math.inf)

    def value(self, score: float) -> float:
        """The quantity in SI from the minimized score."""
        return math.exp(-score if self.maximizes else score)

    def scores(self, logs: np.ndarray) -> np.ndarray:
        """Minimized scores of logs of the fields, (..., field)."""
        return logs @ self.weights

    def excess(self, logs: np.ndarray) -> np.ndarray:
        """Logs of what is used over what a limit allows, (..., field)."""
        with np.errstate(invalid="ignore"):
            over = self.signs * (logs - self.bounds)
        return np.where(np.isinf(self.bounds), -np.inf, over)


def objective_of(
    phase: str,
    wanted: str,
    limits: tuple[str, ...],
    others: tuple[str, ...] = (),
) -> Objective:
    """An objective with its limits.

    Args:
        wanted: the quantity to make best.
        limits: such as `tpot=50ms`.
        others: quantities that it is to be traded against, so that their fields are
            looked at too.

    Raises:
        SpecError: the phase doesn't predict the objective or a limited quantity, or a
            limit is not above 0.
    """
    parsed = tuple(all_of(*(partial(parse_limit, text) for text in limits)))
    names = (wanted, *others, *(limit.quantity for limit in parsed))
    asked = all_of(*(partial(field_in, name, phase) for name in names))
    front = "tokens_per_s_per_package", LATENCY[phase]
    # in one order whatever is made best, so that one program prices all
    fields = (*front, "energy_per_token_j", "memory_bytes", *sorted(asked))
    fields = tuple(dict.fromkeys(fields))
    return _objective(phase, wanted, parsed, fields)


def changed(
    objective: Objective, phase: str, quantity: str, limits: tuple[Limit, ...]
) -> Objective:
    """Another quantity made best, under other limits, over the same fields."""
    return _objective(phase, quantity, limits, objective.fields)


def _objective(
    phase: str, wanted: str, limits: tuple[Limit, ...], fields: tuple[str, ...]
) -> Objective:
    weights, signs = np.zeros(len(fields)), np.ones(len(fields))
    bounds = np.full(len(fields), np.inf)
    best = fields.index(field_in(wanted, phase))
    weights[best] = -1.0 if more_is_better(wanted) else 1.0
    for limit in limits:
        place = fields.index(field_in(limit.quantity, phase))
        signs[place] = -1.0 if more_is_better(limit.quantity) else 1.0
        # of two limits on one quantity the stricter one holds
        known = signs[place] * bounds[place] if np.isfinite(bounds[place]) else np.inf
        bounds[place] = signs[place] * min(known, signs[place] * math.log(limit.value))
    return Objective(wanted, limits, fields, weights, signs, bounds)


def field_in(quantity: str, phase: str) -> str:
    """The metric that a quantity is. Raises `SpecError` where a phase has none."""
    if quantity not in QUANTITIES:
        known = ", ".join(QUANTITIES)
        raise SpecError([f"{quantity}: no such quantity; use one of {known}"])
    try:
        return field_of(quantity, None, phase)
    except ValueError as error:
        raise SpecError([f"optimize: {error}"]) from None


GROWS = "_per_s", "_per_s_per_device", "_per_s_per_package", "mfu"
PER_TOKEN = ("energy_per_token_j", "cost_per_token_usd")
TIMES = "_time_s", "tpot_s", "ttft_s"


def role_of(field: str) -> int | None:
    """How a field goes with the time of a step: 1 for time itself, -1 for a rate, 1 for
    what a token costs, 0 for memory, which is no matter of time; None for anything else.

    Those of one role move together when a step gets longer.
    """
    if field.endswith(GROWS):
        return -1
    if field.startswith("memory_"):
        return 0
    return 1 if field in PER_TOKEN or field.endswith(TIMES) else None


def counts_of(field: str) -> int:
    """Power of the batch that a field holds beside the time of a step: a rate is batch
    over time, energy a token is energy of a step over batch."""
    return 1 if field.endswith(GROWS) else -1 if field in PER_TOKEN else 0
