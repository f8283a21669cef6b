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
    phase: str, quantities: tuple[str, ...], limits: tuple[str, ...]
) -> Objective:
    """The first quantity made best under limits, over what others need too.

    Args:
        quantities: the one to make best, and those that it is to be traded against.
        limits: such as `tpot=50ms`.

    Raises:
        SpecError: the phase doesn't predict a quantity, or it can't be made best; one is
            there twice; or a limit is not above 0.
    """
    if len(set(quantities)) < len(quantities):
        raise SpecError(["--objective: give each quantity once"])
    parsed = tuple(all_of(*(partial(parse_limit, text) for text in limits)))
    names = (*quantities, *(limit.quantity for limit in parsed))
    asked = all_of(*(partial(field_in, name, phase) for name in names))
    mistakes = [
        f"--objective {quantity}: nothing is known of how it goes with a setting; use a"
        " rate, a time, mfu, energy_per_token, cost_per_token or a memory"
        for quantity, field in zip(quantities, asked)
        if role_of(field) is None
    ]
    if mistakes:
        raise SpecError(mistakes)
    front = "tokens_per_s_per_package", LATENCY[phase]
    # in one order whatever is made best, so that one program prices all
    fields = (*front, "energy_per_token_j", "memory_bytes", *sorted(asked))
    return over(tuple(dict.fromkeys(fields)), phase, quantities[0], parsed)


def over(
    fields: tuple[str, ...], phase: str, quantity: str, limits: tuple[Limit, ...]
) -> Objective:
    """A quantity made best under limits, all of them among some fields."""
    weights, signs = np.zeros(len(fields)), np.ones(len(fields))
    bounds = np.full(len(fields), np.inf)
    best = fields.index(field_in(quantity, phase))
    weights[best] = -1.0 if more_is_better(quantity) else 1.0
    for name in {limit.quantity for limit in limits}:
        place, more = fields.index(field_in(name, phase)), more_is_better(name)
        values = [limit.value for limit in limits if limit.quantity == name]
        signs[place] = -1.0 if more else 1.0
        bounds[place] = math.log(max(values) if more else min(values))
    return Objective(quantity, limits, fields, weights, signs, bounds)


def field_in(quantity: str, phase: str) -> str:
    """The metric that a quantity is. Raises `SpecError` where a phase has none."""
    if quantity not in QUANTITIES:
        known = ", ".join(QUANTITIES)
        raise SpecError([f"{quantity}: no such quantity; use one of {known}"])
    try:
        return field_of(quantity, None, phase)
    except ValueError as error:
        raise SpecError([f"optimize: {error}"]) from None


class Role(NamedTuple):
    """How a field goes with a step: powers of its time and of its batch."""

    time: int
    batch: int


RATES = "_per_s", "_per_s_per_device", "_per_s_per_package", "mfu"
TIMES = "_time_s", "tpot_s", "ttft_s"
PER_TOKEN = "energy_per_token_j", "cost_per_token_usd"


def role_of(field: str) -> Role | None:
    """A rate is batch over time, and what a token costs time over batch; memory is no
    matter of time. None where nothing is known. Fields of one role move together."""
    if field.endswith(RATES):
        return Role(-1, 1)
    if field.startswith("memory_"):
        return Role(0, 0)
    if field.endswith(TIMES):
        return Role(1, 0)
    return Role(1, -1) if field in PER_TOKEN else None
