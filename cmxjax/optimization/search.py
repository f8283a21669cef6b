"""Branch and bound over all layouts and settings in whole steps, with its proof.

The cells that could hold the best point are halved, or taken apart into schedules and
placements, until none could beat the best point known; see `cells` for what bounds them.
What is dropped is then looked at again: points drawn from it must be no better than the
bound that it was dropped by. Where one is, the bound that the answer states is worse by
as much.

Reference: Land & Doig, Econometrica 28, 1960.
"""

import math
from typing import NamedTuple

import numpy as np

from .cells import ALL, SHARE, TOLERANCE, At, Bounds, Cells, Points, joined
from .factors import PIPELINE
from .front import Front
from .job import Job
from .layouts import Layouts, ordered
from .price import NEEDS

CLOSE = 1e-4
"""Log by which a cell must promise to be better than the best point known."""

MARGIN = 5e-3
"""Log by which a cell of all placements may be better than its bound says: overlap and
the split of cores are not quite monotone in the rates of links."""

WIDTH = 2048
"""Cells that are taken apart in one round."""

ROUGH = 2.0
"""Ratio of batches below which a cell is taken apart into spare expert slots."""

PULLED = 0.25
"""Share of the log of a range of batches that is worth to be dropped without halving."""

SAMPLED = 4096
"""Layouts that are tried before the first cell is taken apart."""

USUAL = 31
"""Place on the menu of the batch that is tried first."""

MOST_ROWS = 6_000_000
"""Exact evaluations after which a search ends with the gap that is left."""

MOST_PARTS = 16_384
"""Cells that those of one round are taken apart into, about."""

CHECKED = 4096
"""Points that are drawn from what was dropped."""

LISTED = 128
"""Degrees whose placements are listed for that, about."""

NEAR = 0.1
"""Log of the distance to the best within which a point that beats its bound counts."""


class Found(NamedTuple):
    """What a search found, and how good it can be at best."""

    best: Points | None
    """The best point that can run, or the nearest one; a single row."""
    bound: float | None
    """No point has a lower score; None where none can run."""
    checked: int
    """Points drawn from what was dropped."""
    slack: float
    """Log by which the worst of them was better than the bound of its cell."""
    batches: int
    """Most whole requests of a group that were found to fit."""


class Search:
    """One search; `run` does it."""

    def __init__(self, job: Job, layouts: Layouts | None = None, seed: int = 0):
        self.job = job
        self.layouts = layouts or Layouts(job)
        self.bounds = Bounds(job, self.layouts)
        self.rng = np.random.default_rng(seed)
        self.best: Points | None = None
        self.front = Front(job.objective.fields)
        self.dropped: list[Cells] = []
        self.batches = 1

    @property
    def score(self) -> float:
        return math.inf if self.best is None else float(self.best.score[0])

    def run(self, most_rows: int = MOST_ROWS, rows: np.ndarray | None = None) -> Found:
        """Search the whole space, or the layouts of some rows."""
        left = math.inf
        for family in range(len(self.job.families)):
            cells = self._first(family, rows)
            self._probe(cells)
            left = min(left, self._searched(self._priced(cells), most_rows))
        return self._proven(left)

    def _first(self, family: int, rows: np.ndarray | None) -> Cells:
        """Cells of all degrees with all placements; settings of which nothing is known
        are taken apart already."""
        layouts, settings = self.layouts, self.bounds.settings
        usable = np.flatnonzero(layouts.usable)
        rows = usable if rows is None else np.intersect1d(rows, usable)
        index = np.zeros((len(rows), 0), int)
        low, high = index, index
        for place, setting in enumerate(settings):
            sizes = setting.counts[self.bounds.menu[rows, place]]
            if setting.time or setting.eased:
                first, last = np.zeros(len(rows), int), sizes - 1
            else:
                each = np.repeat(np.arange(len(rows)), sizes)
                starts = np.cumsum(sizes) - sizes
                first = last = np.arange(len(each)) - np.repeat(starts, sizes)
                rows, low, high = rows[each], low[each], high[each]
            low = np.concatenate([low, first[:, None]], axis=1)
            high = np.concatenate([high, last[:, None]], axis=1)
        names = [setting.name for setting in settings]
        if "selective" in names:  # scores run again, or whole layers
            some = low[:, names.index("selective")] > 0
            high[some, names.index(SHARE)] = 0
        job = self.job
        alone = layouts.degrees[rows, PIPELINE] == 1
        form = np.tile([0, len(job.forms) - 1], (len(rows), 1))
        form[alone] = job.first_form
        place = np.where(layouts.ways[rows] == 1, 0, ALL)
        kind = np.full(len(rows), family)
        bound, used = np.full(len(rows), -math.inf), np.zeros((len(rows), 3))
        base = np.full(len(rows), math.nan)
        return Cells(rows, place, kind, low, high, form, base, bound, used)

    def _searched(self, cells: Cells, most_rows: int) -> float:
        """Take priced cells apart until none is left that could hold a better point.

        Returns:
            The best bound of those that are left when the evaluations are spent.
        """
        waiting = cells
        while (waiting := self._kept(waiting)).size:
            if self.bounds.price.rows >= most_rows:
                return float(self._effective(waiting).min())
            order = np.argsort(waiting.bound, kind="stable")
            count = self._width(waiting.take(order[:WIDTH]))
            children = self._priced(self._children(waiting.take(order[:count])))
            waiting = joined([waiting.take(order[count:]), children])
        return math.inf

    def _kept(self, cells: Cells) -> Cells:
        """Cells that may hold a better point than the best known one."""
        keep = cells.bound < self._worse(cells)
        self.dropped.append(cells.take(~keep))
        return cells.take(keep)

    def _width(self, cells: Cells) -> int:
        """How many of the first cells are taken apart at once."""
        setting, _ = self._halved(cells)
        settled = (setting < 0) & (cells.form[:, 0] == cells.form[:, 1])
        places = np.where(settled, self.layouts.ways[cells.row], 4.0)
        return max(1, int((np.cumsum(places) <= MOST_PARTS).sum()))

    def _effective(self, cells: Cells) -> np.ndarray:
        return cells.bound - np.where(cells.place == ALL, MARGIN, 0.0)

    def _worse(self, cells: Cells) -> np.ndarray:
        """Bounds from which on cells hold nothing better."""
        return self.score - CLOSE + np.where(cells.place == ALL, MARGIN, 0.0)

    def _priced(self, cells: Cells) -> Cells:
        """Cells that may hold a point, with their bounds; their points are looked at."""
        known = ~np.isnan(cells.base)
        if known.any():
            rest = self._settled(self.bounds.narrowed(cells.take(known)))
            return joined([rest, self._priced(cells.take(~known))])
        if not cells.size:
            return cells
        priced, possible, points = self.bounds.bounded(cells, self._worse(cells))
        # a part is never better than the whole
        priced = priced._replace(bound=np.maximum(priced.bound, cells.bound))
        self.look(points)
        never = priced.take(~possible)
        self.dropped.append(never._replace(bound=np.full(never.size, math.inf)))
        return self._settled(priced.take(possible))

    def _settled(self, cells: Cells) -> Cells:
        """Where memory is enough without it, nothing runs again and no batch is cut in
        two to hold less."""
        if self.bounds.asks_memory:
            return cells
        high, bounds = cells.high.copy(), self.bounds
        fits = (cells.used[:, 0] <= TOLERANCE) & (cells.form[:, 0] == cells.form[:, 1])
        if bounds.batch is not None:
            fits &= cells.low[:, bounds.batch] == cells.high[:, bounds.batch]
        for at in bounds.saving:
            high[fits, at] = cells.low[fits, at]
        return cells._replace(high=high)

    def look(self, points: Points) -> None:
        """Keep the best point, and the front."""
        if not len(points.row):
            return
        good = np.isfinite(points.score)
        if self.bounds.batch is not None and good.any():
            self.batches = max(
                self.batches, int(points.levels[good, self.bounds.batch].max()) + 1
            )
        if good.any():
            self.front.add(points.take(good))
            row = int(points.score.argmin())
            if points.score[row] < self.score:
                self.best = points.take(np.array([row]))
        elif self.best is None or (
            not np.isfinite(self.score) and points.excess.min() < self.best.excess[0]
        ):
            self.best = points.take(np.array([int(points.excess.argmin())]))

    def _probe(self, cells: Cells) -> None:
        """Try some layouts in the usual rank order, at both ends of what is open and with
        a usual batch."""
        bounds, batch = self.bounds, self.bounds.batch
        cells = cells.take(self.rng.permutation(cells.size)[:SAMPLED])
        rows, forms = cells.row, np.maximum(cells.form[:, 0], self.job.first_form)
        factors, good = ordered(self.layouts.degrees[rows], self.layouts.units[rows])
        fastest, leanest = bounds.ends(cells)
        if batch is not None:
            leanest = fastest.copy()
            leanest[:, batch] = np.clip(USUAL, cells.low[:, batch], cells.high[:, batch])
        for levels in (fastest, leanest):
            at = At(rows, factors, cells.family, levels, forms)
            if (real := good & bounds.runs(rows, levels, forms)).any():
                self.look(bounds.exact(at.take(real)))

    def _children(self, cells: Cells) -> Cells:
        """Every cell in parts."""
        pulled, cells = self._pulled(cells)
        parts = [pulled]
        setting, middle = self._halved(cells)
        halved, batch = setting >= 0, self.bounds.batch
        if halved.any():
            some, at = cells.take(halved), setting[halved]
            each = np.arange(some.size)
            low, high = some.low.copy(), some.high.copy()
            high[each, at] = middle[halved]
            low[each, at] = middle[halved] + 1
            fresh = np.full(some.size, math.nan)
            base = fresh if batch is None else np.where(at == batch, some.base, fresh)
            parts.append(some._replace(high=high, base=base))
            parts.append(some._replace(low=low, base=fresh))
        forms = ~halved & (cells.form[:, 0] != cells.form[:, 1])
        if forms.any():
            parts.append(self._by_form(cells.take(forms)))
        rest = cells.take(~halved & ~forms)
        if rest.size:
            parts.append(self._by_place(rest))
        return joined(parts)

    def _pulled(self, cells: Cells) -> tuple[Cells, Cells]:
        """Cells whose first batches are many and all worse than the best point, without
        those, and the other cells.

        A rate R takes at least R time(b) requests where b are the fewest.
        """
        bounds, at = self.bounds, self.bounds.batch
        if at is None or not bounds.settings[at].whole or not bounds.growth < 0.0:
            return cells.take(slice(0)), cells
        worse, low, high = self._worse(cells), cells.low[:, at], cells.high[:, at]
        whole = np.log((high + 1.0) / (low + 1.0))
        gain = np.maximum((cells.base - worse) / -bounds.growth, 0.0)
        gain = np.minimum(gain, whole)
        first = np.floor((low + 1.0) * np.exp(gain) * (1.0 - 1e-12)).astype(int)
        first = np.clip(first, low, high)
        far = (first > low) & (
            np.log((first + 1.0) / (low + 1.0)) >= np.minimum(PULLED * whole, 1.0)
        )
        some, first = cells.take(far), first[far]
        last, start = some.high.copy(), some.low.copy()
        last[:, at], start[:, at] = first - 1, first
        self.dropped.append(bounds.narrowed(some._replace(high=last)))
        moved = some._replace(low=start, base=np.full(some.size, math.nan))
        return moved, cells.take(~far)

    def _halved(self, cells: Cells) -> tuple[np.ndarray, np.ndarray]:
        """Which setting of a cell is halved, -1 for none, and where."""
        wide = (cells.low != cells.high) & ~self.bounds.settled
        setting = np.where(wide.any(axis=1), wide.argmax(axis=1), -1)
        bounds, each = self.bounds, np.arange(cells.size)
        at = np.maximum(setting, 0)
        low, high = cells.low[each, at], cells.high[each, at]
        middle = (low + high) // 2
        if bounds.batch is not None and bounds.settings[bounds.batch].whole:
            root = np.floor(np.sqrt((low + 1.0) * (high + 1.0))).astype(int) - 1
            root = np.clip(root, low, np.maximum(high - 1, low))
            middle = np.where(at == bounds.batch, root, middle)
        if bounds.batch is not None and (spare := bounds.spare) is not None:
            low, high = cells.low[:, bounds.batch], cells.high[:, bounds.batch]
            rough = (high + 1.0) <= ROUGH * (low + 1.0)
            setting = np.where(rough & wide[:, spare], spare, setting)
            middle = np.where(setting == spare, cells.low[:, spare], middle)
        share = bounds.share
        if share is not None:
            # as much runs again as memory needs at least; schedules differ in the rest
            open_form = cells.form[:, 0] != cells.form[:, 1]
            setting = np.where((setting == share) & open_form, -1, setting)
            low, high = cells.low[:, share], cells.high[:, share]
            first = (low != high) & (cells.used[:, 1] > TOLERANCE)
            setting = np.where(first, share, setting)
            middle = np.where(setting == share, self._chord(cells, low, high), middle)
        return setting, middle

    def _chord(self, cells: Cells, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """The last share at which memory is too little, were it linear in the share; it
        is convex, so the next one is enough."""
        _, most, least = np.exp(cells.used).T
        part = (most - 1.0) / np.maximum(most - least, 1e-12)
        enough = low + np.ceil(np.clip(part, 0.0, 1.0) * (high - low)).astype(int)
        # now and then in the middle, as a chord stays on one side
        middle = np.where((high - low) % 3 == 1, (low + high) // 2, enough - 1)
        return np.clip(middle, low, np.maximum(high - 1, low))

    def _by_form(self, cells: Cells) -> Cells:
        """A cell for each schedule of one or two chunks, and one for all with more."""
        forms = range(self.job.first_form, len(self.job.forms))
        more = [f for f in forms if self.job.forms[f].schedule == "interleaved"]
        ranges = [(form, form) for form in forms if form not in more]
        ranges += [(more[0], more[-1])] if more else []
        open_form, middle = cells.form[:, 0] == 0, cells.form.sum(axis=1) // 2
        some, others, parts = cells.take(open_form), cells.take(~open_form), []
        for ends in ranges:
            parts.append(some._replace(form=np.tile(ends, (some.size, 1))))
        for column, ends in ((0, middle + 1), (1, middle)):
            form = others.form.copy()
            form[:, column] = ends[~open_form]
            parts.append(others._replace(form=form))
        every = joined(parts)
        every = every._replace(base=np.full(every.size, math.nan))
        return every.take(self.bounds.runs(every.row, every.low, every.form[:, 0]))

    def _by_place(self, cells: Cells) -> Cells:
        """A cell for each placement; one that has a placement is done."""
        cells = cells.take(cells.place == ALL)
        counts = [len(self.layouts.placed(int(row))) for row in cells.row]
        each = np.repeat(np.arange(cells.size), counts)
        places = [np.arange(count) for count in counts]
        place = np.concatenate([np.zeros(0, int), *places])
        return cells.take(each)._replace(place=place, base=np.full(len(each), math.nan))

    def _proven(self, left: float) -> Found:
        if self.best is None or not np.isfinite(self.score):
            bound = None if math.isinf(left) else left
            return self.found(bound)
        dropped = joined(self.dropped)
        checked, slack = self._checked(dropped)
        lowest = min(left, float(self._effective(dropped).min(initial=math.inf)) - slack)
        return self.found(min(self.score, lowest), checked, slack)

    def found(
        self, bound: float | None = None, checked: int = 0, slack: float = 0.0
    ) -> Found:
        """What is known so far, with what was proven of it."""
        return Found(self.best, bound, checked, slack, self.batches)

    def _checked(self, dropped: Cells) -> tuple[int, float]:
        """Points drawn from what was dropped: how many, and by how much one is better
        than its cell's bound."""
        rng, before = self.rng, self.score
        near = np.argsort(dropped.bound)[: CHECKED // 2]
        near = np.concatenate([near, rng.integers(0, dropped.size, CHECKED // 2)])
        # placements are listed for some of the degrees only
        rows = dropped.row[near]
        some = np.concatenate([rows[: LISTED // 2], rng.choice(rows, LISTED // 2)])
        listed = (dropped.place[near] != ALL) | np.isin(rows, some)
        cells = dropped.take(near[listed])
        cells = cells.take(np.resize(np.arange(cells.size), CHECKED))
        index = rng.integers(cells.low, cells.high + 1)
        forms = rng.integers(cells.form[:, 0], cells.form[:, 1] + 1)
        forms = np.maximum(forms, self.job.first_form)
        places = [
            rng.integers(len(self.layouts.placed(int(row)))) if place == ALL else place
            for row, place in zip(cells.row, cells.place)
        ]
        factors = self.bounds.factors(cells.row, np.array(places))
        at = At(cells.row, factors, cells.family, index, forms)
        runs = self.bounds.runs(cells.row, index, forms)
        cells, at = cells.take(runs), at.take(runs)
        if not cells.size:
            return 0, 0.0
        points = self.bounds.exact(at)
        self.look(points)
        bound = self._effective(cells)
        # one from where none can be only counts if it is better than the best
        bound = np.where(np.isfinite(bound), bound, before)
        close = np.isfinite(points.score) & (bound < before + NEAR)
        return cells.size, max(0.0, float((bound - points.score)[close].max(initial=0.0)))


def needs(job: Job, points: Points) -> str:
    """What the nearest point lacks, in words."""
    worst, over = int(points.worst[0]), math.expm1(float(points.excess[0]))
    if worst >= len(NEEDS):
        field = job.objective.fields[worst - len(NEEDS)]
        return f"the nearest is {over:.1%} off the limit of {field}"
    if worst == 0:
        return f"the nearest needs {over:.1%} more memory than there is"
    return f"none has {NEEDS[worst]}"
