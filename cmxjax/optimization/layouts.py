"""All degrees that a job allows, each with its best imaginable placement."""

import numpy as np

from ..job.layout import ATTENTION_AXES, AXES, EXPERT_AXES
from .factors import PIPELINE
from .job import Job
from .settings import Menus, degree, free_settings
from .space import degree_counts, placed

CACHED = 200_000
"""Placements that are kept between calls, which bounds the memory."""


def innermost(degrees: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Each axis as far inside as it can be, whatever the others do, (row, axis, tier).

    Of all placements each axis then has the most ranks in every inner part of the
    machine. No layout has all axes there at once, so the time of this one is less than
    that of any that exists, if traffic never gets slower further inside.

    Args:
        degrees: (row, axis).
        units: of each tier, (row, tier).
    """
    left, splits = degrees.astype(np.int64), []
    for tier in range(units.shape[1]):
        split = np.gcd(left, units[:, tier, None])
        splits.append(split)
        left = left // split
    return np.stack(splits, axis=2)


def ordered(degrees: np.ndarray, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The usual rank order, tensor parallelism innermost and the pipeline outermost.

    Returns:
        Placements (row, axis, tier), and for which rows there is such a one.
    """
    factor = np.ones((*degrees.shape, units.shape[1]), np.int64)
    good = np.ones(len(degrees), bool)
    free = units.astype(np.int64)
    for axes in (ATTENTION_AXES, EXPERT_AXES[:-1]):
        for axis in (AXES.index(name) for name in axes):
            left = degrees[:, axis].astype(np.int64)
            for tier in range(units.shape[1]):
                split = np.gcd(left, free[:, tier])
                factor[:, axis, tier] = split
                left = left // split
                free[:, tier] //= split
            good &= left == 1
        free = units // factor[:, PIPELINE]
    return factor, good


class Layouts:
    """Degrees of a job with their menus of settings."""

    def __init__(self, job: Job):
        self.job = job
        tables = [degree_counts(frame, job.rules) for frame in job.frames]
        self.degrees = np.concatenate([table for table, _ in tables])
        self.ways = np.concatenate([ways for _, ways in tables])
        """Placements of each."""
        counts = [len(table) for table, _ in tables]
        self.frame = np.repeat(np.arange(len(counts)), counts)
        self.units = np.array([frame.units for frame in job.frames])[self.frame]
        self.best = innermost(self.degrees, self.units)
        self.group = degree(self.degrees, "tp") * degree(self.degrees, "cp")
        self.menus: list[Menus] = free_settings(
            job.problem, job.given, self.degrees, job.objective.within_s
        )
        self._placements: dict[int, np.ndarray] = {}
        self._kept = 0

    def __len__(self) -> int:
        return len(self.degrees)

    @property
    def usable(self) -> np.ndarray:
        """Layouts that have a value of every setting."""
        return np.all([menus.menu >= 0 for menus in self.menus], axis=0)

    def placed(self, row: int) -> np.ndarray:
        """All placements of the degrees of a row, (placement, axis, tier)."""
        if row not in self._placements:
            units = self.job.frames[self.frame[row]].units
            found = placed(self.degrees[row], units)
            if self._kept + len(found) > CACHED:
                self._placements.clear()
                self._kept = 0
            self._kept += len(found)
            self._placements[row] = found
        return self._placements[row]

    def count(self, batches: int) -> int:
        """Points of the space, of so many whole batches."""
        sizes = [
            np.full(len(self), batches) if s.whole else s.counts[np.maximum(menu, 0)]
            for s, menu in self.menus
        ]
        each = np.prod(np.array(sizes, float), axis=0) * self.ways * self.usable
        forms = len(self.job.forms) * len(self.job.families)
        return int(each.sum()) * forms
