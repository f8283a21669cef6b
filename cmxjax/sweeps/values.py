"""The values of one key of an axis: as the file writes them, and as numbers in SI."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..specs.errors import SpecError
from ..specs.sweep_file import AxisSpec, RangeSpec
from ..units import UNITS, to_si

_QUANTITY = re.compile(r"\s*([-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*([A-Za-z%][\w/%]*)\s*")


class Quantity(NamedTuple):
    """A number, and the SI unit that a scenario wants behind it; empty for none."""

    si: float
    unit: str


def quantity(value: object) -> Quantity | None:
    """What a value is as a number; None for texts, switches and lists."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return Quantity(float(value), "")
    found = _QUANTITY.fullmatch(value) if isinstance(value, str) else None
    if found is None or found[2] not in UNITS:
        return None
    try:
        si = to_si(float(found[1]), found[2])
    except ValueError:
        return None
    dimension = UNITS[found[2]].dimension
    of = (u for u, x in UNITS.items() if x.dimension == dimension and x.factor == 1.0)
    return Quantity(si, next(of))


class Options(NamedTuple):
    """Values that a key is chosen from."""

    key: str
    written: tuple[object, ...]
    """As a scenario takes them."""
    numbers: np.ndarray | None
    """The same in SI; None where some are no numbers."""


def options(key: str, values: Sequence[object]) -> Options:
    """Values of a key as a file lists them."""
    found = [quantity(value) for value in values]
    known = [q for q in found if q is not None]
    alike = len(known) == len(found) and len({q.unit for q in known}) == 1
    numbers = np.array([q.si for q in known]) if alike else None
    return Options(key, tuple(values), numbers)


class Span(NamedTuple):
    """A range that a key is drawn from, in SI."""

    key: str
    low: float
    high: float
    log: bool
    whole: bool
    unit: str

    def at(self, share: np.ndarray) -> np.ndarray:
        """Values at shares of the range from 0 to 1, ends included."""
        if self.log:
            values = self.low * np.exp(share * np.log(self.high / self.low))
        else:
            values = self.low + share * (self.high - self.low)
        values = np.where(share < 1.0, values, self.high)
        values = np.clip(values, self.low, self.high)  # whatever rounding does
        return np.round(values) if self.whole else values

    def written(self, value: float) -> object:
        """A value as a scenario takes it."""
        if self.unit:
            return f"{value!r} {self.unit}"
        return int(value) if self.whole else value


def span(key: str, spec: AxisSpec | RangeSpec, where: str) -> Span:
    """The range of a key. Raises `SpecError` if it is none."""
    low, high = quantity(spec.low), quantity(spec.high)
    problem = None
    if low is None or high is None:
        problem = "must be numbers, or numbers with a unit"
    elif low.unit != high.unit:
        problem = "must have one kind of unit"
    elif not low.si < high.si:
        problem = "low must be below high"
    elif spec.spacing == "log" and low.si <= 0.0:
        problem = "spacing = 'log' needs low above 0"
    elif spec.whole and low.unit:
        problem = "whole: only of numbers without a unit; leave it out"
    elif spec.whole and (low.si % 1.0 or high.si % 1.0):
        problem = "must be whole numbers, as whole says"
    if problem is not None or low is None or high is None:
        said = f"{where}: {key}: low = {spec.low!r} and high = {spec.high!r}"
        raise SpecError([f"{said}: {problem}"])
    return Span(key, low.si, high.si, spec.spacing == "log", spec.whole, low.unit)


def spaced(key: str, spec: AxisSpec, where: str) -> Options:
    """Evenly spaced values of a key, each once. Raises `SpecError` if there are none."""
    assert spec.points is not None
    of = span(key, spec, where)
    if spec.points < 2:
        raise SpecError([f"{where}: {key}: points = {spec.points}: give at least 2"])
    numbers = np.unique(of.at(np.linspace(0.0, 1.0, spec.points)))
    written = tuple(of.written(float(x)) for x in numbers)
    return Options(key, written, numbers)
