"""Evaluates one part of a sweep: which points there are, and their metrics."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import jax
import numpy as np
from jax.sharding import Mesh

from .chosen import Chosen, Rows
from .counts import BY_CONSTRAINT, Counts
from .evaluate import MOST_TILES, Kind, Program
from .grid import Grid
from .jobs import Group, Job
from .keep import Columns
from .plan import Plan, check_group

Codes = dict[str, np.ndarray]


class Evaluator:
    """Evaluates parts of a sweep, on some devices."""

    def __init__(self, plan: Plan, mesh: Mesh):
        self.plan, self.mesh = plan, mesh
        self._programs: dict[tuple, Program] = {}
        self._moved: dict[tuple, np.ndarray] = {}
        inner = {key for axis in plan.grid.inner for key in axis.keys}
        keys = {key for axis in plan.axes for key in axis.keys}
        self.early = [
            e for e in plan.constraints if not {*e.keys} - keys and not {*e.keys} & inner
        ]
        """Constraints that hold or not before a job is built."""
        self.late = [e for e in plan.constraints if e not in self.early]

    def part(self, number: int) -> Rows:
        """The rows of a part."""
        plan, grid = self.plan, self.plan.grid
        first, last = grid.range_of(number)
        units = np.arange(first, last)
        cell = np.unique(units // grid.units)
        counts = Counts()
        cells = self._cells(cell, units, counts)
        chosen = Chosen(plan.keep, counts)
        for group, tiles in cells.tiles(grid, units):
            for rows in self._evaluated(group, cells, tiles):
                chosen.add(*rows)
        return chosen.rows()

    def _cells(self, cell: np.ndarray, units: np.ndarray, counts: Counts) -> "_Cells":
        """The cells of a part that can be built and hold what is asked of them."""
        plan, grid = self.plan, self.plan.grid
        codes: Codes = {}
        for axis, index in zip(grid.outer, grid.outer_index(cell)):
            codes |= axis.codes(index)
        points = _points_of(grid, units, cell)
        counts.points += int(points.sum())
        good = np.ones(len(cell), bool)
        for expression in self.early:
            good &= expression.holds(_values(plan, codes))
        counts.refuse(points[~good], BY_CONSTRAINT)
        built = [k for a in grid.outer for k in a.keys if k not in plan.fast]
        matrix = np.empty((len(cell), len(built)))
        for i, key in enumerate(built):
            matrix[:, i] = codes[key]
        names, which = np.unique(matrix[good], axis=0, return_inverse=True)
        jobs = [self._job(built, tuple(row.tolist())) for row in names]
        which = which.ravel()
        there = np.array([isinstance(job, Job) for job in jobs], bool)[which]
        left = np.flatnonzero(good)
        for number, job in enumerate(jobs):
            if isinstance(job, str):
                counts.refuse(points[left[which == number]], job)
        codes = {key: column[left[there]] for key, column in codes.items()}
        return _Cells(cell[left[there]], which[there], jobs, codes)

    def _job(self, built: list[str], codes: tuple) -> Job | str:
        plan = self.plan
        changes = {key: axis.trial(key)[0] for axis in plan.axes for key in axis.keys}
        for key, code in zip(built, codes):
            changes[key] = plan.axis_of(key).written(key, code)
        job = plan.jobs.job(codes, changes)
        if isinstance(job, Job):
            check_group(plan, job, changes)
        return job

    def _program(self, group: Group, points: int) -> Program:
        """The program of a group, of calls that are no longer than needed."""
        plan, grid = self.plan, self.plan.grid
        outer = [key for axis in grid.outer for key in axis.keys if key in plan.fast]
        place = plan.fast.index
        levels = [(tuple(map(place, outer)), grid.together)]
        for axis, block in zip(grid.inner, grid.blocks):
            levels.append((tuple(map(place, axis.keys)), block))
        devices = self.mesh.size
        tiles = 1
        while tiles < MOST_TILES and tiles * devices < points:
            tiles *= 2
        varying = tuple(sorted(group.varying))
        kind = Kind(
            varying, tuple(levels), plan.keep.evaluated, tiles, plan.sweep.spec.precision
        )
        key = id(group), kind
        if key not in self._programs:
            self._programs[key] = Program(group, kind, self.mesh)
        return self._programs[key]

    def _evaluated(self, group: Group, cells: "_Cells", tiles: "_Tiles") -> Iterator:
        """Point, metrics, and feasibility of the rows of some tiles of a group."""
        grid = self.plan.grid
        program = self._program(group, len(tiles.cell))
        size = program.kind.tiles * self.mesh.size
        waiting = None
        for start in range(0, len(tiles.cell), size):
            some = np.minimum(np.arange(start, start + size), len(tiles.cell) - 1)
            there = np.arange(start, start + size) < len(tiles.cell)
            one = tiles.cell[some]  # (tile, cell)
            if grid.together == 1:
                one = one[:, 0]
            leaves = [
                cells.leaves(group, i)[cells.which[one]] for i in program.kind.varying
            ]
            index = grid.inner_index(tiles.unit[some])
            columns = self._columns(group, cells, one, index)
            found = program(leaves, columns)
            if waiting is not None:
                yield self._rows(cells, *waiting)
            waiting = found, tiles.cell[some], tiles.real[some] & there[:, None], index
        if waiting is not None:
            yield self._rows(cells, *waiting)

    def _columns(
        self, group: Group, cells: "_Cells", one: np.ndarray, index: list
    ) -> list[list[np.ndarray]]:
        """Values of the targets of each level."""
        plan, grid = self.plan, self.plan.grid
        target = {t.key: t for t in group.targets}
        first = []
        for axis in grid.outer:
            for key in axis.keys:
                if key in plan.fast:
                    numbers = axis.numbers(key, cells.codes[key][one])
                    first.append(target[key].moved(numbers))
        levels = [first]
        for axis, block, (places, _) in zip(grid.inner, grid.blocks, index):
            if block == 1:
                places = places[:, 0]
            shape, level = places.shape, []
            if axis.sample is None:
                for key in axis.keys:
                    level.append(self._whole(group, axis, key)[places])
            else:
                codes = axis.codes(places.ravel())
                for key in axis.keys:
                    numbers = axis.numbers(key, codes[key])
                    level.append(target[key].moved(numbers).reshape(shape))
            levels.append(level)
        return levels

    def _whole(self, group: Group, axis, key: str) -> np.ndarray:
        """All values of a key that is no sample, as a group has them."""
        name = id(group), key
        if name not in self._moved:
            target = next(t for t in group.targets if t.key == key)
            numbers = axis.options[key].numbers
            self._moved[name] = target.moved(numbers)
        return self._moved[name]

    def _rows(self, cells: "_Cells", found, cell, real, index) -> tuple:
        """Of a call's results the points, which of them are there, and the rest flat."""
        grid = self.plan.grid
        shape = (*cell.shape, *(places.shape[1] for places, _ in index))
        point = cells.cell[cell] * grid.inside
        point = point.reshape(cell.shape + (1,) * len(index))
        whole = real.reshape(point.shape)
        stride = grid.inside
        for i, (axis, (places, inside)) in enumerate(zip(grid.inner, index)):
            stride //= axis.size
            at = [1] * len(shape)
            at[0], at[2 + i] = len(cell), places.shape[1]
            point = point + (places * stride).reshape(at)
            whole = whole & inside.reshape(at)
        *metrics, feasible = (np.asarray(x).ravel() for x in jax.device_get(found))
        named = dict(zip(self.plan.keep.evaluated, metrics, strict=True))
        wrong = self._wrong(cells, cell, index, shape)
        whole = np.broadcast_to(whole, shape)
        counted = None if wrong is None else np.broadcast_to(wrong, shape)
        return (
            np.broadcast_to(point, shape).ravel(),
            named,
            feasible,
            None if whole.all() else whole.ravel(),
            None if counted is None else counted.ravel(),
        )

    def _wrong(self, cells: "_Cells", cell, index, shape) -> np.ndarray | None:
        """Points that a rule of several keys or a late constraint refuses."""
        grid = self.plan.grid
        rules = [job.rules for job in cells.jobs if isinstance(job, Job)]
        if not self.late and not any(rule.group or rule.ranks for rule in rules):
            return None
        found = np.zeros(shape, bool)
        fast: Columns = {}
        texts: dict[str, np.ndarray] = {}
        for i, (axis, (places, _)) in enumerate(zip(grid.inner, index)):
            at = [1] * len(shape)
            at[0], at[2 + i] = len(cell), places.shape[1]
            codes = axis.codes(places.ravel())
            for key in axis.keys:
                fast[key] = axis.numbers(key, codes[key]).reshape(at)
        flat = (*cell.shape, *(1,) * len(index))
        for key, codes in cells.codes.items():
            axis = self.plan.axis_of(key)
            if axis.is_number(key):
                column = axis.numbers(key, codes[cell]).reshape(flat)
                (fast if key in self.plan.fast else texts)[key] = column
            else:
                written = np.array(axis.options[key].written, object)
                texts[key] = written[codes[cell]].reshape(flat)
        for number in np.unique(cells.which[cell]):
            mine = (cells.which[cell] == number).reshape(flat)
            job = cells.jobs[number]
            assert isinstance(job, Job)
            refused = job.rules.refuses(fast)
            if refused is not None:
                found |= refused & mine
            values = texts | fast | {k: np.asarray(v) for k, v in job.told.items()}
            for expression in self.late:
                found |= ~expression.holds(values) & mine
        return found


@dataclass
class _Tiles:
    """Tiles of one group."""

    cell: np.ndarray
    """Places among the cells of the part, (tile, cell)."""
    real: np.ndarray
    """Whether there is such a cell, or it only fills the tile."""
    unit: np.ndarray
    """Which unit of the cells, (tile,)."""


@dataclass
class _Cells:
    """Cells of a part that are evaluated."""

    cell: np.ndarray
    which: np.ndarray
    """The job of each."""
    jobs: list[Job | str]
    codes: Codes
    """Of the keys of outer axes."""
    _leaves: dict[tuple, np.ndarray] = field(default_factory=dict)

    def leaves(self, group: Group, leaf: int) -> np.ndarray:
        """One leaf of every job, (job, ...); zeros where it is of another group."""
        name = id(group), leaf
        if name not in self._leaves:
            empty = np.zeros_like(group.template[leaf])
            rows = [
                job.leaves[leaf] if isinstance(job, Job) and job.group is group else empty
                for job in self.jobs
            ]
            self._leaves[name] = np.stack(rows)
        return self._leaves[name]

    def tiles(self, grid: Grid, units: np.ndarray) -> Iterator[tuple[Group, _Tiles]]:
        """The tiles of each group, by the first unit."""
        groups = {id(j.group): j.group for j in self.jobs if isinstance(j, Job)}
        of = np.array([id(j.group) if isinstance(j, Job) else 0 for j in self.jobs])
        owner = of[self.which] if len(self.which) else np.zeros(0, int)
        for name, group in groups.items():
            mine = np.flatnonzero(owner == name)
            if not len(mine):
                continue
            if grid.units > 1:
                numbers = self.cell[mine] * grid.units
                every = numbers[:, None] + np.arange(grid.units)
                row, unit = np.nonzero((every >= units[0]) & (every <= units[-1]))
                real = np.ones((len(row), 1), bool)
                yield group, _Tiles(mine[row][:, None], real, unit)
                continue
            count = -(-len(mine) // grid.together)
            place = np.arange(count * grid.together).reshape(count, grid.together)
            real = place < len(mine)
            place = np.minimum(place, len(mine) - 1)
            yield group, _Tiles(mine[place], real, np.zeros(count, int))


def _points_of(grid: Grid, units: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """How many points of each cell some units hold."""
    places = grid.inner_index(units % grid.units)
    each = np.ones(len(units), int)
    for _, inside in places:
        each = each * inside.sum(axis=1)
    return np.bincount(units // grid.units - cell[0], each, len(cell)).astype(int)


def _values(plan: Plan, codes: Codes) -> dict[str, np.ndarray]:
    """Values of keys: numbers in SI, texts as objects."""
    found = {}
    for key, column in codes.items():
        axis = plan.axis_of(key)
        if axis.is_number(key):
            found[key] = axis.numbers(key, column)
        else:
            found[key] = np.array(axis.options[key].written, object)[column]
    return found
