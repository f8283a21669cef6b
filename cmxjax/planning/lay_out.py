"""Layouts of the instances of a fleet, so that it has the fewest devices.

What a pool serves follows from its own layout and size, so each pool is laid out by
itself. Its layouts are looked at in order of the fewest devices that they could do with,
by the most that an instance serves where many are, until none could do with fewer than
the best one found.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ..job.layout import AXES
from ..specs.scenario_file import LayoutSpec
from .bound import most_of
from .fewest import (
    DIGITS,
    MORE,
    MOST,
    TINY,
    Sized,
    devices_of_instances,
    fewest_instances,
    takes,
)
from .load import RequestClass
from .space import LARGEST, Layouts, instance_of, layouts_of, spec_of, with_layout

BESIDE = [AXES.index(axis) for axis in ("tp", "pp", "etp")]

SPACE = (
    "every tp, dp, pp, etp, ep and edp that the model allows, in the usual rank order, on"
    " instances that tile the machine and need no more devices than the scenario's fleet;"
    " batches as large as limits, memory and the engine allow; cp, micro-batches that"
    " overlap and copies of experts stay as the scenario has them"
)
"""What is searched and what is not."""

FREE = ("prefill", "decode")
"""Roles of pools that are laid out."""


class Searched(NamedTuple):
    """What was looked at for a pool."""

    layouts: int
    """That the model allows and could do with fewer devices than the scenario's."""
    priced: int
    """Of which whole fleets were sized."""
    most: int
    """Devices of the largest instance."""


class LaidOut(NamedTuple):
    """Classes on pools whose instances have the chosen layouts, and their numbers."""

    classes: list[RequestClass]
    sized: Sized
    given: dict[str, LayoutSpec]
    """Layout of an instance in the scenario, by role."""
    chosen: dict[str, LayoutSpec]
    searched: dict[str, Searched]
    """Empty where all layouts stay as they are."""
    pinned: Mapping[str, int]
    """Degrees that were not free."""

    @property
    def changed(self) -> list[str]:
        """Roles of pools whose layouts are not the scenario's."""
        return [role for role, x in self.chosen.items() if x is not self.given[role]]

    @property
    def covers(self) -> str:
        """What the claim that no fleet is smaller is about, in a sentence."""
        if not self.searched:
            return "numbers of instances; their layouts stay as the scenario has them"
        return f"{self.counts}: {SPACE}{self._pins}"

    @property
    def counts(self) -> str:
        """How many layouts were looked at; empty where they stay."""
        each = [
            f"{x.layouts:,} layouts of {role} on up to {x.most} devices"
            for role, x in self.searched.items()
        ]
        return " and ".join(each)

    @property
    def _pins(self) -> str:
        return "".join(f"; {axis} = {n}" for axis, n in self.pinned.items())

    def lacking(self, sized: Sized, mistakes: list[str]) -> "LaidOut":
        """With what keeps its pools from being built."""
        return self._replace(sized=sized._replace(lacking={"machine": mistakes}))


def as_given(classes: list[RequestClass]) -> LaidOut:
    """Pools with the scenario's own layouts, sized."""
    given = {
        role: instance_of(classes[0].scenario, role)
        for role in devices_of_instances(classes[0])
    }
    return LaidOut(classes, fewest_instances(classes), given, given, {}, {})


def laid_out(
    classes: list[RequestClass], pinned: Mapping[str, int] | None = None
) -> LaidOut:
    """The layouts with which pools that take all classes have the fewest devices; the
    scenario's own where none has fewer, and for images, whose towers split likewise.

    Args:
        pinned: degrees that are not free, by axis.

    Raises:
        SpecError: a degree is no whole number from 1.
    """
    best = as_given(classes)._replace(pinned=pinned or {})
    if any(c.scenario.workload.images_per_prompt for c in classes):
        return best
    for role in FREE:
        if role in best.chosen:
            best = _with_best(best, role)
    return best


def _with_best(known: LaidOut, role: str) -> LaidOut:
    """With the best layout of one pool."""
    best, c, priced = known, known.classes[0], 0
    most = LARGEST if role in known.sized.lacking else known.sized.pools[role]
    layouts = layouts_of(c, role, most, known.pinned)
    rows = _ordered(known, role, layouts)
    for row in rows:
        if role not in best.sized.lacking and row.devices >= best.sized.pools[role]:
            break
        priced += 1
        spec = spec_of(c, role, layouts, row.place, row.attention)
        fewer = _fewer(best, role, row.size)
        trial = _tried(best, spec, role, fewer)
        if trial is not None and _better(trial.sized, best.sized, role):
            best = trial
    count, largest = len(layouts.degrees), int(layouts.devices.max(initial=0))
    seen = Searched(count, priced, largest)
    return best._replace(searched=best.searched | {role: seen})


class Row(NamedTuple):
    """A layout that may serve all classes."""

    devices: int
    """Fewest that it could do with."""
    splits: int
    """Kinds of them beside dp and ep."""
    size: int
    """Of an instance, all of which one failure stops."""
    load: float
    """Of those devices."""
    place: int
    attention: str


def _ordered(known: LaidOut, role: str, layouts: Layouts) -> list[Row]:
    """Layouts that may serve all classes, from the fewest devices on, of those that need
    as many the plainest, then the smallest and the least loaded first."""
    most = LARGEST if role in known.sized.lacking else known.sized.pools[role]
    rows = []
    for attention in dict.fromkeys(("tp", _split(known.given[role]))):
        rates = np.array(
            [most_of(c, role, attention, layouts).per_s for c in known.classes]
        )
        rate = np.array([c.per_s for c in known.classes])
        load = rate @ (1.0 / np.maximum(rates, TINY * rate[:, None] / MOST))
        count = np.maximum(np.ceil(load - TINY), 1.0)
        places = np.flatnonzero((load <= MOST) & (count * layouts.devices <= most))
        count = _enough(known, role, attention, layouts.take(places), rates[:, places])
        for place, number in zip(places.tolist(), count.tolist()):
            if math.isfinite(number):
                size = int(layouts.devices[place])
                devices = int(number) * size
                used = float(load[place]) / number
                splits = int((layouts.degrees[place][BESIDE] > 1).sum())
                rows.append(Row(devices, splits, size, used, place, attention))
    # with tp = 1 both ways are one, of which the plain one is said
    return sorted(rows, key=lambda row: (*row[:4], row.attention != "tp"))


def _enough(
    known: LaidOut, role: str, attention: str, layouts: Layouts, rates: np.ndarray
) -> np.ndarray:
    """Instances of each layout with which the time per token is within limits at the load
    that is left to each; infinite where no few more are enough, (layout,)."""
    rate = np.array([c.per_s for c in known.classes])
    load = rate @ (1.0 / rates)
    count = np.maximum(np.ceil(load - TINY), 1.0)
    late = np.arange(len(count) if role != "prefill" else 0)
    for more in range(MORE + 1):
        if not len(late):
            return count
        count[late] += min(more, 1)
        left = layouts.take(late)
        exceeded = np.zeros(len(late), bool)
        for c, own in zip(known.classes, rates[:, late]):
            limit = c.scenario.workload.tpot_limit
            if limit is not None:
                asked = own * load[late] / count[late]
                tpot = most_of(c, role, attention, left, asked).tpot_s
                exceeded |= tpot > limit * (1.0 + DIGITS)
        late = late[exceeded]
    count[late] = np.inf
    return count


def _split(layout: LayoutSpec) -> str:
    """How attention is split, `dp` being `tp` with tp = 1."""
    return "sp_tp_sp" if layout.attention == "sp_tp_sp" else "tp"


def _fewer(known: LaidOut, role: str, size: int) -> int | None:
    """The most instances of a size that are fewer devices than a pool has; None where it
    doesn't take the load yet."""
    lacks = role in known.sized.lacking
    return None if lacks else (known.sized.pools[role] - 1) // size


def _tried(
    known: LaidOut, spec: LayoutSpec, role: str, most: int | None
) -> LaidOut | None:
    """With another layout of one pool, sized; None if so many instances don't take the
    load."""
    classes = [
        replace(c, scenario=with_layout(c.scenario, role, spec)) for c in known.classes
    ]
    if most is not None and not takes(
        classes, known.sized.instances | {role: most}, role
    ):
        return None
    chosen = known.chosen | {role: spec}
    return known._replace(classes=classes, sized=fewest_instances(classes), chosen=chosen)


def _better(one: Sized, other: Sized, role: str) -> bool:
    """Whether a pool takes the load on fewer devices."""
    if role in one.lacking or role in other.lacking:
        return role not in one.lacking
    return one.pools[role] < other.pools[role]
