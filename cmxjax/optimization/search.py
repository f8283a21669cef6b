"""Branch and bound over all layouts and settings in whole steps, with its proof.

The cells that could hold the best point are halved, or taken apart into schedules and
placements, until none could beat the best point known; see `cells` for what bounds them.
What is dropped is then looked at again: points drawn from it must be no better than the
bound that it was dropped by. Where one is, the bound that the answer states is worse by
as much.

Reference: Land & Doig, Econometrica 28, 1960.
"""

import math

import numpy as np

from .cells import ALL, TOLERANCE, At, Bounds, Cells, Points, together
from .front import Front
from .job import Job
from .layouts import Layouts
from .space import in_rank_order

CLOSE = 1e-4
"""Log by which a cell must promise to be better than the best point known."""

MARGIN = 5e-3
"""Log by which a cell of all placements may be better than its bound says: overlap and
the split of cores are not quite monotone in the rates of links."""

WIDTH, PARTS = 2048, 16_384
"""Cells that are taken apart in one round at most, and into how many, about."""

SAMPLED = 4096
"""Layouts that are tried before the first cell is taken apart."""

USUAL = 31
"""Place on the menu of the batch that is tried first."""

MOST_ROWS = 6e6
"""Exact evaluations after which a search ends with the gap that is left."""

CHECKED, LISTED = 4096, 128
"""Points that are drawn from what was dropped, and degrees whose placements are listed
for that, about."""

NEAR = 0.1
"""Log of the distance to the best within which a point that beats its bound counts."""


class Search:
    """One search, and what it found; `run` does it."""

    def __init__(self, job: Job, layouts: Layouts | None = None, seed: int = 0):
        self.job = job
        self.layouts = layouts or Layouts(job)
        self.bounds = Bounds(job, self.layouts)
        self.rng = np.random.default_rng(seed)
        self.best: Points | None = None
        """The best point that can run, or the nearest one; a single row."""
        self.bound: float | None = None
        """No point has a lower score; None where none can run, or before `run`."""
        self.checked, self.slack = 0, 0.0
        """Points drawn from what was dropped, and the log by which the worst of them was
        better than the bound of its cell."""
        self.batches = 1
        """Most whole requests of a group that were found to fit."""
        self.front = Front(job.objective.fields)
        self.dropped: list[Cells] = []

    @property
    def score(self) -> float:
        return math.inf if self.best is None else float(self.best.score[0])

    def run(self, most_rows: float = MOST_ROWS) -> None:
        """Search the whole space."""
        rows, left = np.flatnonzero(self.layouts.usable), math.inf
        for family in range(len(self.job.families)):
            cells = self._first(family, rows)
            self._probe(cells)
            left = min(left, self._searched(self._priced(cells), most_rows))
        if not math.isfinite(self.score):
            self.bound = None if math.isinf(left) else left
            return
        dropped = together(self.dropped)
        self.checked, self.slack = self._checked(dropped)
        lowest = float(self._effective(dropped).min(initial=math.inf)) - self.slack
        self.bound = min(self.score, left, lowest)

    def look(self, points: Points) -> None:
        """Keep the best point, or the one that lacks least, and the front."""
        good, batch = points.take(np.isfinite(points.score)), self.bounds.batch
        if len(good.score):
            self.front.add(good)
            if batch is not None:
                self.batches = max(self.batches, int(good.at.levels[:, batch].max()) + 1)
        every = points if self.best is None else together([self.best, points])
        if len(every.score):
            self.best = every.take(np.lexsort((every.excess, every.score))[:1])

    def _first(self, family: int, rows: np.ndarray) -> Cells:
        """Cells of all degrees of some rows with all placements; settings of which
        nothing is known are taken apart already."""
        settings = self.bounds.settings
        sizes = [setting.counts[setting.menu[rows]] for setting in settings]
        high = np.stack(sizes, axis=1) - 1
        low = 0 * high
        for at, setting in enumerate(settings):
            if setting.time:
                continue
            each = np.repeat(np.arange(len(rows)), high[:, at] + 1)
            rows, low, high = rows[each], low[each], high[each]
            # counts up from 0 for each of those that were repeated
            low[:, at] = np.arange(len(each)) - np.searchsorted(each, each)
            high[:, at] = low[:, at]
            if setting.name == "selective":  # scores run again, or whole layers
                high[low[:, at] > 0, self.bounds.share] = 0
        place = np.where(self.layouts.ways[rows] == 1, 0, ALL)
        kind, bound = np.full(len(rows), family), np.full(len(rows), -math.inf)
        return Cells(rows, place, kind, low, high, bound, np.zeros((len(rows), 3)))

    def _probe(self, cells: Cells) -> None:
        """Try some layouts in the usual rank order where a step is shortest, and with a
        usual batch or where memory is least."""
        bounds, batch = self.bounds, self.bounds.batch
        cells = cells.take(self.rng.permutation(cells.size)[:SAMPLED])
        rows = cells.row
        factors = in_rank_order(self.layouts.degrees[rows], self.layouts.units[rows])
        whole = (factors == np.round(factors)).all(axis=(1, 2))
        fastest, leanest = bounds.ends(cells)
        if batch is not None:
            leanest = fastest.copy()
            leanest[:, batch] = np.minimum(USUAL, cells.high[:, batch])
        for levels in (fastest, leanest):
            real = np.flatnonzero(whole & bounds.runs(rows, levels))
            if real.size:
                at = At(rows, factors.astype(np.int64), cells.family, levels)
                self.look(bounds.exact(at.take(real)))

    def _searched(self, waiting: Cells, most_rows: float) -> float:
        """Take priced cells apart until none is left that could hold a better point.

        Returns:
            The best bound of those that are left when the evaluations are spent.
        """
        while True:
            keep = waiting.bound < self._worse(waiting)
            self.dropped.append(waiting.take(~keep))
            waiting = waiting.take(keep)
            if not waiting.size:
                return math.inf
            if self.bounds.price.rows >= most_rows:
                return float(self._effective(waiting).min())
            order = np.argsort(waiting.bound, kind="stable")
            cells = self._without_saving(waiting.take(order[:WIDTH]))
            setting, middle = self._halved(cells)
            parts = np.where(setting < 0, self.layouts.ways[cells.row], 4.0)
            count = max(1, int((np.cumsum(parts) <= PARTS).sum()))
            some = slice(0, count)
            parts = self._parts(cells.take(some), setting[some], middle[some])
            waiting = together([waiting.take(order[count:]), parts])

    def _effective(self, cells: Cells) -> np.ndarray:
        return cells.bound - np.where(cells.place == ALL, MARGIN, 0.0)

    def _worse(self, cells: Cells) -> np.ndarray:
        """Bounds from which on cells hold nothing better."""
        return self.score - CLOSE + np.where(cells.place == ALL, MARGIN, 0.0)

    def _priced(self, cells: Cells) -> Cells:
        """Cells that may hold a point, with their bounds; their points are looked at."""
        opened = (cells.low != cells.high)[:, self.bounds.staging].any(axis=1)
        cells = cells.take(opened | self.bounds.runs(cells.row, cells.low))
        if not cells.size:
            return cells
        priced, possible, points = self.bounds.bounded(cells, self._worse(cells))
        self.look(points)
        never = priced.take(~possible)
        self.dropped.append(never._replace(bound=np.full(never.size, math.inf)))
        return priced.take(possible)

    def _without_saving(self, cells: Cells) -> Cells:
        """Where memory is enough without it, nothing runs again and no batch is cut in
        two to hold less."""
        bounds, high = self.bounds, cells.high.copy()
        last = bounds.form if bounds.batch is None else bounds.batch
        fits = (cells.used[:, 0] <= TOLERANCE) & (cells.low == cells.high)[:, last]
        fits &= not bounds.asks_memory
        for at in bounds.saving:
            high[fits, at] = cells.low[fits, at]
        return cells._replace(high=high)

    def _halved(self, cells: Cells) -> tuple[np.ndarray, np.ndarray]:
        """Which setting of a cell is halved, -1 for none, and the last place of its lower
        half."""
        bounds, wide = self.bounds, (cells.low != cells.high) & ~self.bounds.settled
        share, short = bounds.share, np.zeros(cells.size, bool)
        if share is not None:
            # as much runs again as memory needs at least; schedules differ in the rest
            short = wide[:, share] & (cells.used[:, 1] > TOLERANCE)
            wide[:, share] &= short | ~wide[:, bounds.form]
        setting = np.where(wide.any(axis=1), wide.argmax(axis=1), -1)
        each, at = np.arange(cells.size), np.maximum(setting, 0)
        middle = (cells.low + cells.high)[each, at] // 2
        if share is not None:
            setting = np.where(short, share, setting)
            middle = np.where(setting == share, self._too_little(cells), middle)
            # schedules of one or two chunks one by one, and those with more by halves
            first = cells.low[:, bounds.form]
            one_by_one = (setting == bounds.form) & (first < bounds.many)
            middle = np.where(one_by_one, first, middle)
        elif bounds.settings[0].each is not None:
            middle = np.where(setting == 0, self._middle_batch(cells), middle)
        return setting, middle

    def _middle_batch(self, cells: Cells) -> np.ndarray:
        """The middle of whole batches by their logs, or the last of those that are all
        worse than the best point: a rate R takes at least R time(b) requests where b are
        the fewest."""
        low, high, growth = cells.low[:, 0], cells.high[:, 0], self.bounds.growth
        middle = np.sqrt((low + 1.0) * (high + 1.0))
        if growth < 0.0:
            width = self.bounds.width(cells)
            base = cells.bound - growth * width
            gain = np.clip((base - self._worse(cells)) / -growth, 0.0, width)
            least = (low + 1.0) * np.exp(gain) * (1.0 - 1e-12)
            middle = np.where(gain >= np.minimum(width / 4.0, 1.0), least, middle)
        return np.clip(middle.astype(int) - 1, low, np.maximum(high - 1, low))

    def _too_little(self, cells: Cells) -> np.ndarray:
        """The last share of layers run again at which memory is too little, were it
        linear in the share; it is convex, so the next one is enough."""
        low, high = cells.low[:, self.bounds.share], cells.high[:, self.bounds.share]
        _, most, least = np.exp(cells.used).T
        part = np.clip((most - 1.0) / np.maximum(most - least, 1e-12), 0.0, 1.0)
        enough = low + np.ceil(part * (high - low)).astype(int)
        return np.clip(enough - 1, low, np.maximum(high - 1, low))

    def _parts(self, cells: Cells, setting: np.ndarray, middle: np.ndarray) -> Cells:
        """Every cell in parts, those whose bound isn't known priced."""
        halved, bounds = setting >= 0, self.bounds
        some, at, last = cells.take(halved), setting[halved], middle[halved]
        each, low, high = np.arange(some.size), some.low.copy(), some.high.copy()
        top = high[each, at]
        high[each, at], low[each, at] = last, last + 1
        lower, upper = some._replace(high=high), some._replace(low=low)
        # of fewer batches from above the time is known already
        fewer = bounds.growth * (bounds.width(lower) - bounds.width(some))
        lower = lower._replace(bound=some.bound + fewer)
        batches = at == bounds.batch
        # fewer schedules are no faster than all
        forms = (at == bounds.form) & (last + 1 < np.minimum(bounds.many, top))
        placed = self._by_place(cells.take(~halved))
        priced = self._priced(
            together([lower.take(~batches), upper.take(~forms), placed])
        )
        return together([lower.take(batches), upper.take(forms), priced])

    def _by_place(self, cells: Cells) -> Cells:
        """A cell for each placement; one that has a placement is done."""
        cells = cells.take(cells.place == ALL)
        counts = [len(self.layouts.placed(int(row))) for row in cells.row]
        each = np.repeat(np.arange(cells.size), np.array(counts, int))
        places = [np.zeros(0, int), *(np.arange(count) for count in counts)]
        return cells.take(each)._replace(place=np.concatenate(places))

    def _checked(self, dropped: Cells) -> tuple[int, float]:
        """Points drawn from what was dropped: how many, and by how much one is better
        than its cell's bound."""
        rng, before, bounds = self.rng, self.score, self.bounds
        near = np.argsort(dropped.bound)[: CHECKED // 2]
        near = np.concatenate([near, rng.integers(0, dropped.size, CHECKED // 2)])
        # placements are listed for some of the degrees only
        rows = dropped.row[near]
        some = np.concatenate([rows[: LISTED // 2], rng.choice(rows, LISTED // 2)])
        listed = (dropped.place[near] != ALL) | np.isin(rows, some)
        cells = dropped.take(np.resize(near[listed], CHECKED))
        index = rng.integers(cells.low, cells.high + 1)
        runs = bounds.runs(cells.row, index)
        if not runs.any():
            return 0, 0.0
        places = [
            rng.integers(len(self.layouts.placed(int(row)))) if place == ALL else place
            for row, place in zip(cells.row, cells.place)
        ]
        factors = bounds.factors(cells.row, np.array(places))
        at = At(cells.row, factors, cells.family, index)
        points, cells = bounds.exact(at.take(runs)), cells.take(runs)
        self.look(points)
        bound = self._effective(cells)
        # one from where none can be only counts if it is better than the best
        bound = np.where(np.isfinite(bound), bound, before)
        close = np.isfinite(points.score) & (bound < before + NEAR)
        return cells.size, max(0.0, float((bound - points.score)[close].max(initial=0.0)))
