"""Axes: how many points they have, and the values of their keys at each."""

from collections.abc import Iterable
from functools import partial
from typing import NamedTuple

import numpy as np

from ..specs.errors import SpecError, all_of
from ..specs.sweep_file import AxisSpec, Sweep
from .draw import drawn
from .values import Options, Span, options, spaced, span


class Axis(NamedTuple):
    """One axis; points are numbered from 0."""

    size: int
    options: dict[str, Options]
    """Keys that are chosen from a list: one after the other, or drawn."""
    spans: dict[str, Span]
    """Keys that are drawn from a range."""
    sample: str | None
    seed: tuple[int, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        return (*self.options, *self.spans)

    def codes(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """What tells a key's values apart at some points: places in its options, or of a
        span the values."""
        if self.sample is None:
            return dict.fromkeys(self.options, index)
        shares = drawn(self.sample, self.seed, len(self.keys), index)
        found: dict[str, np.ndarray] = {}
        for i, key in enumerate(self.keys):
            if key in self.spans:
                found[key] = self.spans[key].at(shares[:, i])
            else:
                count = len(self.options[key].written)
                found[key] = np.minimum((shares[:, i] * count).astype(int), count - 1)
        return found

    def numbers(self, key: str, codes: np.ndarray) -> np.ndarray:
        """Values in SI of a key that has numbers."""
        if key in self.spans:
            return codes
        numbers = self.options[key].numbers
        assert numbers is not None
        return numbers[codes]

    def written(self, key: str, code: int | float) -> object:
        """A value as a scenario takes it."""
        if key in self.spans:
            return self.spans[key].written(float(code))
        return self.options[key].written[int(code)]

    def is_number(self, key: str) -> bool:
        return key in self.spans or self.options[key].numbers is not None

    def trial(self, key: str) -> list[object]:
        """Values that a key is tried at: all of a short list, else from end to end."""
        if key in self.spans:
            return [self.spans[key].written(float(x)) for x in self._ends(key)]
        listed = self.options[key].written
        if len(listed) <= MOST_TRIED:
            return list(dict.fromkeys(listed)) if _hashable(listed) else list(listed)
        numbers = self.options[key].numbers
        order = np.arange(len(listed)) if numbers is None else np.argsort(numbers)
        places = np.linspace(0, len(listed) - 1, MOST_TRIED).round().astype(int)
        return [listed[place] for place in order[places]]

    def _ends(self, key: str) -> np.ndarray:
        return np.unique(self.spans[key].at(np.array([0.0, 0.31, 0.5, 0.83, 1.0])))


MOST_TRIED = 24


def _hashable(values: Iterable[object]) -> bool:
    return not any(isinstance(value, list) for value in values)


def axes_of(sweep: Sweep) -> list[Axis]:
    """The axes of a sweep, as its file has them.

    Raises:
        SpecError: with every mistake.
    """
    made = (
        partial(_axis, spec, (sweep.spec.seed, i), f"{sweep.where}: axes.{i}")
        for i, spec in enumerate(sweep.spec.axes)
    )
    return list(all_of(*made))


def _axis(spec: AxisSpec, seed: tuple[int, ...], where: str) -> Axis:
    if spec.key is not None and spec.points is not None:
        listed = spaced(spec.key, spec, where)
        return Axis(len(listed.written), {spec.key: listed}, {}, None, seed)
    if spec.sample is None:
        columns = spec.zip or {spec.key or "": spec.values or []}
        found = {key: options(key, values) for key, values in columns.items()}
        return Axis(len(next(iter(columns.values()))), found, {}, None, seed)
    assert spec.count is not None
    assert spec.keys is not None
    chosen = {k: options(k, r.values) for k, r in spec.keys.items() if r.values}
    drawn_from = all_of(
        *(partial(span, k, r, where) for k, r in spec.keys.items() if not r.values)
    )
    spans = {found.key: found for found in drawn_from}
    if spec.sample == "sobol" and len(spec.keys) > MOST_SOBOL:
        raise SpecError([f"{where}: keys: {len(spec.keys)}; at most {MOST_SOBOL}"])
    return Axis(spec.count, chosen, spans, spec.sample, seed)


MOST_SOBOL = 100
