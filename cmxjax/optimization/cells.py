"""Parts of the space of layouts, and what no layout in one of them can be better than.

A cell has the degrees of one layout, a range of the menu of each setting, and either one
placement or all. Where the time of a step never falls as a setting grows, no point of
the cell is faster than the value at the low end; where memory never falls, none takes
less than there. So two exact evaluations bound a cell: at the end of every range where a
step is shortest, and, where that is too much, at the end where memory is least. A rate
of batches between b1 and b2 is at most b2 / time(b1), so all up to R time(b1) are slower
than a known rate R. A schedule that is open is priced as the shortest of all, with the
memory of 1F1B, which no other needs less of; micro-batches that are open without any
bubble. All placements are bounded by each axis as far inside as it goes; see
`space.innermost`.
"""

import math
from typing import NamedTuple, TypeVar

import jax
import numpy as np

from ..job.workload import PROGRAMS, Train
from ..specs.schedules import DUALPIPE_EACH, program_of
from ..step.pipeline import FINEST, SHORTEST, chunks_filled
from .factors import PIPELINE
from .job import Job
from .layouts import Layouts
from .objective import role_of
from .price import Pricer, Scores
from .settings import degree

TOLERANCE = 1e-9
"""Log of an excess that still counts as none: rounding of the sums, nothing more."""

ALL = -1
"""In place of a placement: any of them."""


class Cells(NamedTuple):
    """Columns of one length."""

    row: np.ndarray
    """Which degrees."""
    place: np.ndarray
    """Which of their placements, or `ALL`."""
    family: np.ndarray
    low: np.ndarray
    """First place on the menu of each setting, (cell, setting)."""
    high: np.ndarray
    bound: np.ndarray
    """No point is better than this minimized score."""
    used: np.ndarray
    """Logs of the memory that is used over what there is, (cell, 3): where a step is
    shortest; where memory is least, but for what runs again; and where it is least."""

    @property
    def size(self) -> int:
        return len(self.row)

    def take(self, chosen: np.ndarray | slice) -> "Cells":
        return Cells(*(column[chosen] for column in self))


class At(NamedTuple):
    """Where points are, columns of one length."""

    row: np.ndarray
    factor: np.ndarray
    family: np.ndarray
    levels: np.ndarray
    """Places on the menus of the settings, (point, setting)."""

    def take(self, chosen: np.ndarray) -> "At":
        return At(*(column[chosen] for column in self))


class Points(NamedTuple):
    """Exact points with their scores, columns of one length."""

    at: At
    logs: np.ndarray
    score: np.ndarray
    """Minimized; infinite where it can't run or exceeds a limit."""
    excess: np.ndarray
    """Worst log of what is used over what is allowed."""
    worst: np.ndarray
    """Which one: of `price.NEEDS`, or behind them which field."""

    def take(self, chosen: np.ndarray) -> "Points":
        return jax.tree.map(lambda column: column[chosen], self)

    @property
    def key(self) -> bytes:
        """The same for equal points, whatever they score."""
        return b"".join(column.tobytes() for column in self.at)


Columns = TypeVar("Columns", Cells, Points, Scores)


def together(parts: list[Columns]) -> Columns:
    """The rows of all parts."""
    return jax.tree.map(lambda *columns: np.concatenate(columns), *parts)


class Bounds:
    """Prices cells and points of a job."""

    def __init__(self, job: Job, layouts: Layouts):
        self.job, self.layouts, self.settings = job, layouts, layouts.settings
        names = [setting.name for setting in self.settings]
        places = {name: at for at, name in enumerate(names)}
        self.batch = None if job.trains else 0
        self.micro, self.form = places.get("micro_batch"), places.get("form")
        self.staging = [at for at in (self.micro, self.form) if at is not None]
        self.share = places.get("recompute_fraction")
        self.saving = [i for i, s in enumerate(self.settings) if s.time > 0 > s.memory]
        """Settings that save memory for time."""
        self.settled = np.array([setting.settled for setting in self.settings])
        names += ["chunks", "order"] if job.trains else []
        objective = job.objective
        self.price = Pricer(job.inputs, objective.fields, tuple(names))
        roles = [role_of(field) for field in objective.fields]
        self.known = np.array([role is not None for role in roles])
        self.time, self.count = np.array([role or (0, 0) for role in roles]).T
        self.memory = self.known & (self.time == 0)
        self.growth = float(objective.weights @ self.count)
        """What the score gains for each log of the batch in the same time."""
        asked = (objective.weights != 0.0) | np.isfinite(objective.bounds)
        self.asks_memory = bool((asked & self.memory).any())
        order = [PROGRAMS.index(program_of(form.schedule)) for form in job.forms]
        self.order = np.array(order, float)
        self.chunks = np.array([form.chunks for form in job.forms], float)
        self.many = sum(form.schedule != "interleaved" for form in job.forms)
        """Place of the first form of any number of chunks."""

    def column(self, at: int, rows: np.ndarray, index: np.ndarray) -> np.ndarray:
        """Values of one setting at places of its menus, (point,)."""
        return self.settings[at].values(rows, index[:, at])

    def values(self, rows: np.ndarray, index: np.ndarray) -> np.ndarray:
        """Values of the settings at places of the menus, (point, setting)."""
        every = range(len(self.settings))
        return np.stack([self.column(at, rows, index) for at in every], axis=1)

    def factors(self, rows: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Placements, or the best imaginable ones."""
        found = self.layouts.best[rows]
        for row in np.unique(rows[places != ALL]):
            mine = (rows == row) & (places != ALL)
            found[mine] = self.layouts.placed(int(row))[places[mine]]
        return found

    def scored(
        self, at: At, last: np.ndarray | None = None, price: Pricer | None = None
    ) -> Scores:
        """Exact scores of points.

        Args:
            last: the ends of ranges, as levels; one of schedules is priced at once.
            price: of another machine, if given.
        """
        price, last = price or self.price, at.levels if last is None else last
        columns = [self.values(at.row, at.levels)]
        if self.form is not None:
            form = at.levels[:, self.form]
            several = form != last[:, self.form]
            order = np.where(form < self.many, SHORTEST, FINEST)
            columns.append(np.where(several, 1.0, self.chunks[form]))
            columns.append(np.where(several, order, self.order[form]))
        values, parts, places = np.column_stack(columns), [], []
        for kind in np.unique(at.family):
            mine = np.flatnonzero(at.family == kind)
            parts.append(price(self.job.families[kind], at.factor[mine], values[mine]))
            places.append(mine)
        back = np.argsort(np.concatenate(places))
        return jax.tree.map(lambda column: column[back], together(parts))

    def runs(self, row: np.ndarray, levels: np.ndarray) -> np.ndarray:
        """Which points have stages and micro-batches for their schedule."""
        w = self.job.problem.workload
        if self.micro is None or self.form is None or not isinstance(w, Train):
            return np.ones(len(row), bool)
        degrees, form = self.layouts.degrees[row], levels[:, self.form]
        stages = degrees[:, PIPELINE]
        micro = self.column(self.micro, row, levels) * degree(degrees, "dp")
        count = np.round(float(w.global_batch) / micro)
        most = float(chunks_filled(float(self.job.rules.layers)))
        filled = self.chunks[form] * stages <= most
        both = self.order[form] == PROGRAMS.index("dualpipe")
        even = (stages % 2 == 0) & (count % 2 == 0) & (count >= DUALPIPE_EACH * stages)
        return (stages == 1) | filled & (even | ~both)

    def exact(self, at: At) -> Points:
        """Points with their exact scores."""
        return self._points(at, self.scored(at))

    def _points(self, at: At, scored: Scores, real: np.ndarray | None = None) -> Points:
        """Scores of points, with what they lack; of those alone that are real."""
        objective = self.job.objective
        over = np.concatenate([scored.excess, objective.excess(scored.logs)], axis=1)
        over = np.where(np.isnan(over), np.inf, over)
        excess, scores = over.max(axis=1), objective.scores(scored.logs)
        good = (excess <= TOLERANCE) & np.isfinite(scores)
        scores = np.where(good, scores, np.inf)
        points = Points(at, scored.logs, scores, excess, over.argmax(axis=1))
        if real is None:
            return points
        return points.take(real & self.runs(at.row, at.levels))

    def bounded(
        self, cells: Cells, worse: np.ndarray | float = math.inf
    ) -> tuple[Cells, np.ndarray, Points]:
        """Cells with their bounds, which of them may hold a point that can run, and the
        points that were priced on the way.

        Args:
            worse: bounds from which on it is no matter whether a cell fits, (cell,).
        """
        fastest, leanest = self.ends(cells)
        at = At(cells.row, self.factors(cells.row, cells.place), cells.family, fastest)
        fast = self.scored(at, cells.high)
        bound, possible = self._bound(cells, fast, fast.logs)
        used = np.repeat(fast.excess[:, :1], 3, axis=1)
        opened = cells.low != cells.high
        several = (
            np.zeros(cells.size, bool) if self.form is None else opened[:, self.form]
        )
        real = (cells.place != ALL) & ~several
        points = self._points(at, fast, real)
        other, short = (fastest != leanest).any(axis=1), used[:, 0] > TOLERANCE
        asked = short & possible & (bound < worse) | self.asks_memory
        again = np.flatnonzero(asked & other)
        if again.size:
            last = None if self.form is None else cells.high[again]
            lean, logs = at._replace(levels=leanest).take(again), fast.logs.copy()
            small = self.scored(lean, last)
            used[again, 1:] = small.excess[:, :1]
            if self.share is not None:
                levels = lean.levels.copy()
                levels[:, self.share] = cells.low[again, self.share]
                unsaving = self.scored(lean._replace(levels=levels), last)
                used[again, 1] = unsaving.excess[:, 0]
            points = together([points, self._points(lean, small, real[again])])
            if self.asks_memory:
                logs[again] = small.logs
                bound, possible = self._bound(cells, fast, logs)
        known = ~other
        known[again] = True
        possible &= ~known | (used[:, 2] <= TOLERANCE)
        return cells._replace(bound=bound, used=used), possible, points

    def _bound(
        self, cells: Cells, fast: Scores, least: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Scores that no point of a cell is better than, and whether any keeps limits.

        Args:
            least: logs of fields where memory is least.
        """
        objective, bubbles = self.job.objective, np.ones(cells.size, bool)
        if self.micro is not None:
            bubbles = (cells.low == cells.high)[:, self.micro]
        filled = np.where(bubbles, 0.0, fast.filled)[:, None]
        logs = fast.logs + self.time * filled + self.count * self.width(cells)[:, None]
        logs = np.where(self.memory, least, logs)
        over = objective.excess(logs)[:, self.known].max(axis=1)
        possible = (over <= TOLERANCE) & (~bubbles | (fast.excess[:, 1] <= TOLERANCE))
        return objective.scores(logs), possible

    def width(self, cells: Cells) -> np.ndarray:
        """Logs of the last batch over the first one, (cell,)."""
        if self.batch is None:
            return np.zeros(cells.size)
        ends = cells.low, cells.high
        low, high = (self.column(self.batch, cells.row, end) for end in ends)
        return np.log(high / low)

    def ends(self, cells: Cells) -> tuple[np.ndarray, np.ndarray]:
        """The ends of all ranges where a step is shortest, and where memory is least."""
        time = np.array([setting.time for setting in self.settings])
        memory = np.array([setting.memory for setting in self.settings])
        low, high = cells.low, cells.high
        return np.where(time < 0, high, low), np.where(memory < 0, high, low)
