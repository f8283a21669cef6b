"""All degrees that a job allows, with their menus of settings and their placements."""

import numpy as np

from .job import Job
from .settings import free_settings
from .space import degree_counts, innermost, placed

CACHED = 200_000
"""Placements that are kept between calls, which bounds the memory."""


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
        """The best imaginable placement of each."""
        self.settings = [*free_settings(job.problem, job.given, self.degrees, job.forms)]
        self.usable = np.all([setting.menu >= 0 for setting in self.settings], axis=0)
        """Layouts that have a value of every setting."""
        self._placements: dict[int, np.ndarray] = {}
        self._kept = 0

    def placed(self, row: int) -> np.ndarray:
        """All placements of the degrees of a row, (placement, axis, tier)."""
        if row not in self._placements:
            found = placed(self.degrees[row], self.job.frames[self.frame[row]].units)
            if self._kept + len(found) > CACHED:
                self._placements.clear()
                self._kept = 0
            self._kept += len(found)
            self._placements[row] = found
        return self._placements[row]

    def count(self, batches: int) -> int:
        """Points of the space, of so many whole batches."""
        each = self.ways * self.usable
        for setting in self.settings:
            whole = setting.each is not None
            each = each * (batches if whole else setting.counts[setting.menu])
        return int(each.sum()) * len(self.job.families)
