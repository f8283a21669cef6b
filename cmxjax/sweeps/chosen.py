"""The rows of a part that are kept, gathered call by call."""

from dataclasses import dataclass

import numpy as np

from .counts import BY_CONSTRAINT, Counts
from .keep import Columns, Keep


@dataclass(frozen=True)
class Rows:
    """What is kept of a part."""

    point: np.ndarray
    """Number of each row's point."""
    columns: Columns
    """Metrics."""
    feasible: np.ndarray
    counts: Counts


class Chosen:
    """The rows that are kept so far."""

    def __init__(self, keep: Keep, counts: Counts):
        self.keep, self.counts = keep, counts
        self.parts: list[tuple[np.ndarray, Columns, np.ndarray]] = []
        self.held = 0

    def add(self, point, found: Columns, feasible, whole, wrong) -> None:
        """Take the rows of a call.

        Args:
            whole: which of them are there; None for all.
            wrong: which of them are refused.
        """
        keep, counts = self.keep, self.counts
        good = whole
        if wrong is not None:
            counts.refuse(wrong if whole is None else wrong & whole, BY_CONSTRAINT)
            good = ~wrong if good is None else good & ~wrong
        can = feasible if good is None else feasible & good
        total = len(point) if good is None else int(good.sum())
        counts.infeasible += total - int(can.sum())
        fine = keep.good(found, feasible)
        if fine is not None:
            good = fine if good is None else good & fine
        if good is not None and not good.all():
            rows = np.flatnonzero(good)
            point, feasible = point[rows], feasible[rows]
            found = {field: column[rows] for field, column in found.items()}
        if keep.scores and len(point):
            rows = keep.best(found, point)
            point, feasible = point[rows], feasible[rows]
            found = {field: column[rows] for field, column in found.items()}
        if len(point):
            self.parts.append((point, found, feasible))
            self.held += len(point)
        if keep.scores and self.held > MOST_HELD + 4 * keep.best_of:
            self._join()

    def _join(self) -> None:
        if not self.parts:
            return
        points, founds, feasibles = zip(*self.parts)
        point, feasible = np.concatenate(points), np.concatenate(feasibles)
        found = {f: np.concatenate([x[f] for x in founds]) for f in founds[0]}
        if self.keep.scores:
            rows = self.keep.best(found, point)
        else:
            rows = slice(None)
        found = {field: column[rows] for field, column in found.items()}
        self.parts = [(point[rows], found, feasible[rows])]
        self.held = len(self.parts[0][0])

    def rows(self) -> Rows:
        """All of them, as they were evaluated, or best first."""
        self._join()
        fields = self.keep.fields
        if not self.parts:
            empty = {field: np.zeros(0) for field in fields}
            return Rows(np.zeros(0, int), empty, np.zeros(0, bool), self.counts)
        point, found, feasible = self.parts[0]
        columns = {field: found[field] for field in fields}
        unknown = [~np.isfinite(column) for column in columns.values()]
        self.counts.missing += int(np.logical_or.reduce(unknown).sum())
        self.counts.kept += len(point)
        return Rows(point, columns, feasible, self.counts)


MOST_HELD = 100_000
"""Rows, before the best of them are chosen."""
