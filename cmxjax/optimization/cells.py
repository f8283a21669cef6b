"""Parts of the space of layouts, and what no layout in one of them can be better than.

A cell has the degrees of one layout, a range of the menu of each setting, and either one
placement or all. Where the time of a step never falls as a setting grows, no point of
the cell is faster than the value at the low end; where memory never falls, none takes
less than there. So two exact evaluations bound a cell: at the end of every range where a
step is shortest, and, where that is too much, at the end where memory is least. A rate
of batches between b1 and b2 is at most b2 / time(b1), so all up to R time(b1) are slower
than a known rate R. Expert slots that are open read the weights of the fewest and are
balanced as by the most. A schedule that is open is priced as the shortest of all,
with the memory of 1F1B, which no other needs less of; micro-batches that are open without
any bubble. All placements are bounded by each axis as far inside as it goes; see
`layouts.innermost`.
"""

import math
from typing import NamedTuple

import numpy as np

from ..job.workload import PROGRAMS
from ..specs.schedules import DUALPIPE_EACH, program_of
from ..step.pipeline import FINEST, SHORTEST, chunks_filled
from .factors import PIPELINE
from .job import Job
from .layouts import Layouts
from .objective import counts_of, role_of
from .price import Pricer, Scores
from .settings import degree

TOLERANCE = 1e-9
"""Log of an excess that still counts as none: rounding of the sums, nothing more."""

SHARE = "recompute_fraction"
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
    form: np.ndarray
    """First and last form of the pipeline, (cell, 2)."""
    base: np.ndarray
    """Minimized score where a step is shortest; not a number before it is priced."""
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


def joined(parts: list[Cells]) -> Cells:
    return Cells(*(np.concatenate(columns) for columns in zip(*parts)))


class At(NamedTuple):
    """Where points are, columns of one length."""

    row: np.ndarray
    factor: np.ndarray
    family: np.ndarray
    levels: np.ndarray
    """Places on the menus of the settings, (point, setting)."""
    form: np.ndarray

    def take(self, chosen: np.ndarray) -> "At":
        return At(*(column[chosen] for column in self))


class Points(NamedTuple):
    """Exact points with their scores: the columns of `At`, and of one length."""

    row: np.ndarray
    factor: np.ndarray
    family: np.ndarray
    levels: np.ndarray
    form: np.ndarray
    logs: np.ndarray
    score: np.ndarray
    """Minimized; infinite where it can't run or exceeds a limit."""
    excess: np.ndarray
    """Worst log of what is used over what is allowed."""
    worst: np.ndarray
    """Which one: of `price.NEEDS`, or behind them which field."""

    def take(self, chosen: np.ndarray) -> "Points":
        return Points(*(column[chosen] for column in self))

    @property
    def at(self) -> At:
        return At(*self[: len(At._fields)])

    @property
    def key(self) -> bytes:
        """The same for equal points, whatever they score."""
        return b"".join(column.tobytes() for column in self.at)


def together(parts: list[Points]) -> Points:
    return Points(*(np.concatenate(columns) for columns in zip(*parts)))


class Bounds:
    """Prices cells and points of a job."""

    def __init__(self, job: Job, layouts: Layouts):
        self.job, self.layouts = job, layouts
        self.settings = [menus.setting for menus in layouts.menus]
        self.menu = np.array([menus.menu for menus in layouts.menus]).T
        names = [setting.name for setting in self.settings]
        self.spare = next((i for i, s in enumerate(self.settings) if s.eased), None)
        names += [] if self.spare is None else ["balancing_slots"]
        names += ["chunks", "order"] if job.trains else []
        self.price = Pricer(job.inputs, job.objective.fields, tuple(names))
        fields = job.objective.fields
        roles = [role_of(field) for field in fields]
        self.known = np.array([role is not None for role in roles])
        self.role = np.array([role or 0 for role in roles])
        self.memory = np.array([role == 0 for role in roles])
        self.counts = np.array([counts_of(field) for field in fields])
        objective = job.objective
        self.growth = float(objective.weights @ self.counts)
        """What the score gains for each log of the batch in the same time."""
        asked = (objective.weights != 0.0) | np.isfinite(objective.bounds)
        self.asks_memory = bool((asked & self.memory).any())
        places = {setting.name: i for i, setting in enumerate(self.settings)}
        self.batch = next((i for i, s in enumerate(self.settings) if s.is_batch), None)
        self.micro, self.share = places.get("micro_batch"), places.get(SHARE)
        self.saving = [i for i, s in enumerate(self.settings) if s.time > 0 > s.memory]
        """Settings that save memory for time."""
        self.settled = np.array([s.settled for s in self.settings])
        order = [PROGRAMS.index(program_of(form.schedule)) for form in job.forms]
        self.order = np.array(order, float)
        self.chunks = np.array([form.chunks for form in job.forms], float)

    def column(self, at: int, rows: np.ndarray, index: np.ndarray) -> np.ndarray:
        """Values of one setting at places of its menus, (point,)."""
        group = self.layouts.group[rows]
        return self.settings[at].values(self.menu[rows, at], index[:, at], group)

    def values(self, rows: np.ndarray, index: np.ndarray) -> np.ndarray:
        """Values of the settings at places of the menus, (point, setting)."""
        every = range(len(self.settings))
        columns = [self.column(at, rows, index) for at in every]
        return np.stack(columns, axis=1).astype(float)

    def factors(self, rows: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Placements, or the best imaginable ones."""
        found = self.layouts.best[rows].copy()
        for row in np.unique(rows[places != ALL]):
            mine = (rows == row) & (places != ALL)
            found[mine] = self.layouts.placed(int(row))[places[mine]]
        return found

    def scored(
        self,
        at: At,
        order: np.ndarray | None = None,
        price: Pricer | None = None,
        most: np.ndarray | None = None,
    ) -> Scores:
        """Exact scores of points.

        Args:
            order: prices several schedules at once where it says so.
            price: of another machine, if given.
            most: ends of the ranges of settings that are eased.
        """
        price, job, columns = price or self.price, self.job, []
        if self.spare is not None:
            last = at.levels if most is None else most
            columns.append(self.column(self.spare, at.row, last))
        if job.trains:
            columns += [
                self.chunks[at.form],
                self.order[at.form] if order is None else order,
            ]
        values = np.column_stack([self.values(at.row, at.levels), *columns])
        parts, places = [], []
        for kind in np.unique(at.family):
            mine = np.flatnonzero(at.family == kind)
            parts.append(price(job.families[kind], at.factor[mine], values[mine]))
            places.append(mine)
        back = np.argsort(np.concatenate(places))
        return Scores(*(np.concatenate(part) for part in zip(*parts))).take(back)

    def runs(self, row: np.ndarray, levels: np.ndarray, form: np.ndarray) -> np.ndarray:
        """Which points have stages and micro-batches for their schedule."""
        job = self.job
        if self.micro is None:
            return np.ones(len(row), bool)
        degrees = self.layouts.degrees[row]
        stages = degrees[:, PIPELINE]
        micro = self.column(self.micro, row, levels)
        count = np.round(job.sequences / (micro * degree(degrees, "dp")))
        most = float(chunks_filled(float(job.rules.layers)))
        filled = self.chunks[form] * stages <= most
        both = self.order[form] == PROGRAMS.index("dualpipe")
        even = (stages % 2 == 0) & (count % 2 == 0) & (count >= DUALPIPE_EACH * stages)
        several = (form >= job.first_form) & filled & (even | ~both)
        return np.where(stages == 1, form == job.first_form, several)

    def exact(self, at: At) -> Points:
        """Points with their exact scores."""
        return self.points(at, self.scored(at))

    def points(self, at: At, scored: Scores) -> Points:
        """Scores of points, with what they lack."""
        objective = self.job.objective
        over = np.concatenate([scored.excess, objective.excess(scored.logs)], axis=1)
        over = np.where(np.isnan(over), np.inf, over)
        excess, scores = over.max(axis=1), objective.scores(scored.logs)
        good = (excess <= TOLERANCE) & np.isfinite(scores)
        scores = np.where(good, scores, np.inf)
        return Points(*at, scored.logs, scores, excess, over.argmax(axis=1))

    def bounded(
        self, cells: Cells, worse: np.ndarray | float = math.inf
    ) -> tuple[Cells, np.ndarray, Points]:
        """Cells with their bounds, which of them may hold a point that can run, and the
        points that were priced on the way.

        Args:
            worse: bounds from which on it is no matter whether a cell fits, (cell,).
        """
        fastest, leanest = self.ends(cells)
        first = cells.form[:, 0]
        open_form = first != cells.form[:, 1]
        factors = self.factors(cells.row, cells.place)
        several = np.where(first == 0, SHORTEST, FINEST)
        order = np.where(open_form, several, self.order[first])
        at = At(cells.row, factors, cells.family, fastest, first)
        fast = self.scored(at, order, most=cells.high)
        exists = (cells.place != ALL) & (order < SHORTEST)
        if self.spare is not None:
            exists &= cells.low[:, self.spare] == cells.high[:, self.spare]
        points = self.points(at, fast).take(
            exists & self.runs(at.row, at.levels, at.form)
        )
        bound, possible = self._bound(cells, fast, fast)
        over = fast.excess[:, 0] > TOLERANCE
        used = np.repeat(fast.excess[:, :1], 3, axis=1)
        small = Scores(*(part.copy() for part in fast))
        least = np.where(open_form, 0, first)
        other = (fastest != leanest).any(axis=1) | (least != first)
        possible &= other | ~over
        wanted = over & possible & (bound < worse) | self.asks_memory
        again = np.flatnonzero(wanted & other)
        if again.size:
            unsaving = leanest.copy()
            if self.share is not None:
                unsaving[:, self.share] = cells.low[:, self.share]
            third = again[(leanest != unsaving)[again].any(axis=1)]
            every, count = np.concatenate([again, third]), again.size
            levels = np.concatenate([leanest[again], unsaving[third]])
            at = at.take(every)._replace(levels=levels, form=least[every])
            lean = self.scored(at)
            for whole, part in zip(small, lean):
                whole[again] = part[:count]
            used[again, 1:] = lean.excess[:count, :1]
            used[third, 1] = lean.excess[count:, 0]
            exists = (cells.place != ALL)[every] & self.runs(at.row, levels, at.form)
            points = together([points, self.points(at, lean).take(exists)])
            if self.asks_memory:
                bound, fits = self._bound(cells, fast, small)
                possible &= fits
            possible[again] &= used[again, 2] <= TOLERANCE
        base = bound - self.growth * self._range(cells)
        return cells._replace(base=base, bound=bound, used=used), possible, points

    def _range(self, cells: Cells) -> np.ndarray:
        """Logs of the last batch over the first one."""
        if self.batch is None:
            return np.zeros(cells.size)
        ends = cells.low, cells.high
        low, high = (self.column(self.batch, cells.row, end) for end in ends)
        return np.log(high / low)

    def narrowed(self, cells: Cells) -> Cells:
        """Priced cells whose batches have become fewer from above, with their bounds."""
        bound = cells.base + self.growth * self._range(cells)
        return cells._replace(bound=np.maximum(bound, cells.bound))

    def ends(self, cells: Cells) -> tuple[np.ndarray, np.ndarray]:
        """The ends of all ranges where a step is shortest, and where memory is least."""
        time = np.array([setting.time for setting in self.settings])
        memory = np.array([setting.memory for setting in self.settings])
        low, high = cells.low, cells.high
        return np.where(time < 0, high, low), np.where(memory < 0, high, low)

    def _bound(
        self, cells: Cells, fast: Scores, small: Scores
    ) -> tuple[np.ndarray, np.ndarray]:
        objective = self.job.objective
        unsettled = np.zeros(cells.size, bool)
        if self.micro is not None:
            unsettled = (cells.low != cells.high)[:, self.micro]
        filled = np.where(unsettled, fast.filled, 0.0)
        logs = fast.logs + self.role * filled[:, None]
        logs = logs + self.counts * self._range(cells)[:, None]
        logs = np.where(self.memory, small.logs, logs)
        over = np.where(self.known, objective.excess(logs), -np.inf)
        over = np.where(np.isnan(over), np.inf, over).max(axis=1)
        whole = np.where(unsettled, -1.0, fast.excess[:, 1])
        possible = (over <= TOLERANCE) & (whole <= TOLERANCE)
        return objective.scores(logs), possible
