"""Does a job fit, how large could it be, and what would make it fit: of memory alone."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax

from ..job.workload import BYTES
from ..memory.serving import usable_bytes
from ..phases.metrics import explain
from ..specs.build import Problem, build
from ..specs.errors import SpecError
from ..units import format_si

SIZES = {"decode": "sequences_per_device", "prefill": "tokens_per_device"}
"""The key of a workload that a device's memory bounds, by phase."""

MOST = 2**30
LARGER = (2, 4, 8, 16)
"""Factors of devices that are tried for a job that doesn't fit."""


class Capacity(NamedTuple):
    """What a device's memory holds of a job, whatever its speed."""

    fits: bool
    free_bytes: float
    """Below 0 where the job doesn't fit."""
    key: str
    """What `largest` is of; empty in phases that have no such key."""
    largest: int
    """Largest whole value that fits, 0 if none."""

    def as_json(self) -> dict[str, object]:
        largest = {"key": self.key, "largest": self.largest} if self.key else {}
        return {"fits": self.fits, "free_bytes": self.free_bytes, **largest}

    def __str__(self) -> str:
        size = format_si(abs(self.free_bytes), "bytes")
        said = f"fits, {size} a device free" if self.fits else f"{size} a device too much"
        return f"{said}; at most {self.key} = {self.largest}" if self.key else said


def _excess(inputs: tuple) -> float:
    """Bytes of the worst device beyond what it may hold, negative where some are free."""
    used = jax.device_get(explain(*inputs)).memory_bytes
    return float(used - usable_bytes(inputs[0]))


def capacity(problem: Problem) -> Capacity | None:
    """What fits into memory; None in phases that hold none.

    The program that predicted the job is run again with other sizes, so nothing is
    compiled.
    """
    phase = problem.scenario.phase
    if phase not in (*SIZES, "train"):
        return None
    machine, model, workload, layout = inputs = problem.inputs
    excess, name = _excess(inputs), SIZES.get(phase, "")

    def fits(size: int) -> bool:
        sized = workload.replace(**{name: 0.0 * getattr(workload, name) + size})
        return _excess((machine, model, sized, layout)) <= 0.0

    largest = _last(fits) if name else 0
    key = f"workload.{name}" if name else ""
    return Capacity(excess <= 0.0, -excess, key, largest)


def _last(fits: Callable[[int], bool]) -> int:
    """The largest whole number that fits, where all below do too; 0 if none does."""
    low, high = 0, 1
    while high < MOST and fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def remedies(problem: Problem, calibration: str | None) -> list[str]:
    """Single settings with which a job that doesn't fit would: narrower weights, and
    more devices."""
    found = []
    for tried in (_narrower(problem), _larger(problem)):
        for key, value in tried:
            if _fits_with(problem, calibration, key, value):
                found.append(f"{key} = {value}")
                break
    return found


def _narrower(problem: Problem) -> Iterator[tuple[str, object]]:
    """Formats that the machine multiplies, from the widest that is narrower."""
    used = float(problem.workload.software.sizes.weight)  # pyright: ignore
    peaks = problem.system.chip.matrix_flop_per_s
    for name in sorted(peaks, key=lambda name: -BYTES.get(name, 0.0)):
        if 0.0 < BYTES.get(name, 0.0) < used:
            yield "dtypes.weight", name


def _larger(problem: Problem) -> Iterator[tuple[str, object]]:
    devices = round(float(problem.placed.factor[:4].prod()))
    for factor in LARGER:
        yield "layout.devices", devices * factor


def _fits_with(
    problem: Problem, calibration: str | None, key: str, value: object
) -> bool:
    """Whether the job with one setting changed can be built and fits."""
    scenario = problem.scenario
    section, _, name = key.partition(".")
    table = getattr(scenario, section).model_copy(update={name: value})
    if name == "devices":  # degrees that were spelt out would no longer multiply to them
        table = table.model_copy(update={"dp": None, "ep": None, "placement": None})
    try:
        changed = build(scenario.model_copy(update={section: table}), calibration)
    except SpecError:  # not a job at all
        return False
    return _excess(changed.inputs) <= 0.0
