"""Log predictions of measured rows and their slopes, in few compiled programs.

A prediction is one number of one problem; a ratio row has two. Predictions whose
problems share a structure are one family and one program, compiled ahead of time, the
families side by side in threads. A program takes a batch of shifts of any length up to
its capacity, so restarts, folds and synthetic data all ride in one call.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..answers.batch import alike
from ..answers.numbers import row_of
from ..machine.resolve import origins
from ..parameters import shift_all
from ..phases.metrics import metrics
from ..quantities import field_of, scaled_to
from ..specs.build import Problem
from ..specs.measurement_file import Measurement, MeasurementSpec
from ..specs.recipe_file import Parameter

CAPACITY = 128
"""Points that one call of a program can take."""

Wanted = tuple[str, str, str | None]
"""A metrics field, its quantity, and what it counts per: device, package or total."""

THREADS = 2
"""Programs that compile or run at once; each compilation keeps about one core busy."""


class Term(NamedTuple):
    """One prediction: a number of a problem, and the row and side it belongs to."""

    problem: Problem
    wanted: Wanted
    row: int
    sign: float
    """+1 above a row's line, -1 below it."""


class _Family(NamedTuple):
    run: jax.stages.Compiled
    inputs: tuple
    """Stacked over the family's terms: system, ..., pick."""
    origins: list[tuple[str, ...]]
    """Path in the system of each number of each term's machine."""
    base: np.ndarray
    """Shifts that a problem's calibration gives its leaves, (term, leaf)."""
    rows: np.ndarray
    signs: np.ndarray


def terms_of(
    rows: Iterable[Measurement], pairs: Iterable[tuple[Problem, Problem | None]]
) -> list[Term]:
    """The predictions that measured rows consist of."""
    terms = []
    for i, (row, (above, below)) in enumerate(zip(rows, pairs, strict=True)):
        terms.append(Term(above, _wanted(row.spec, above), i, 1.0))
        if below is not None:
            terms.append(Term(below, _wanted(row.spec, below), i, -1.0))
    return terms


def _wanted(spec: MeasurementSpec, problem: Problem) -> Wanted:
    field = field_of(spec.quantity, spec.part, problem.scenario.phase)
    return field, spec.quantity, spec.per


Model = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""From (batch, parameter) to logs (batch, row) and slopes (batch, row, parameter)."""


class Predictor:
    """Compiled log predictions of rows and their slopes along every leaf.

    Args:
        terms: the predictions; their rows count from 0.
        progress: called with the number of programs compiled so far and in all.
    """

    def __init__(
        self,
        terms: list[Term],
        progress: Callable[[int, int], None] = lambda done, total: None,
    ):
        self.rows = 1 + max((term.row for term in terms), default=-1)
        jobs = [_as_printed(term.problem) for term in terms]
        members = [[(terms[i], jobs[i]) for i in group] for group in alike(jobs)]
        self._families: list[_Family] = []
        with ThreadPoolExecutor(THREADS) as pool:
            for family in pool.map(self._family, members):
                self._families.append(family)
                progress(len(self._families), len(members))

    def _family(self, members: list[tuple[Term, tuple]]) -> _Family:
        fields = sorted({term.wanted for term, _ in members}, key=str)
        pick = np.array(
            [[float(term.wanted == f) for f in fields] for term, _ in members]
        )
        paths = [origins(t.problem.system, t.problem.choices) for t, _ in members]
        base = np.array(
            [row_of(names, t.problem.theta) for (t, _), names in zip(members, paths)]
        )
        inputs = jax.tree.map(lambda *x: jnp.stack(x), *(job for _, job in members))
        inputs = (*inputs, jnp.asarray(pick))
        shifts = jax.ShapeDtypeStruct((len(members), CAPACITY, base.shape[1]), float)
        counts = jax.ShapeDtypeStruct((len(members),), int)
        return _Family(
            jax.jit(_program(fields)).lower(inputs, shifts, counts).compile(),
            inputs,
            paths,
            base,
            np.array([term.row for term, _ in members]),
            np.array([term.sign for term, _ in members]),
        )

    def model(
        self, parameters: list[Parameter], chosen: np.ndarray | None = None
    ) -> Model:
        """Log predictions of rows as a function of some parameters.

        Args:
            chosen: 1 for rows to predict; 0 for others, whose logs and slopes are 0 and
                take no time, (row,). All rows, if left out.

        Returns:
            A function from (batch, parameter) to logs (batch, row) and slopes
            (batch, row, parameter). Values that are not finite stay so.
        """
        chosen = np.ones(self.rows) if chosen is None else chosen
        designs = [
            np.array([_design(paths, parameters) for paths in family.origins])
            for family in self._families
        ]
        taken = [chosen[family.rows] > 0 for family in self._families]

        def of_theta(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            theta = np.atleast_2d(theta)
            logs = np.zeros((len(theta), self.rows))
            slopes = np.zeros((*logs.shape, len(parameters)))
            for i in range(0, len(theta), CAPACITY):
                part = slice(i, i + CAPACITY)
                moved = [np.einsum("tlp,bp->tbl", d, theta[part]) for d in designs]
                outputs = self._run(moved, taken)
                for family, design, (values, tangents) in zip(
                    self._families, designs, outputs, strict=True
                ):
                    along = np.einsum("tbl,tlp->tbp", tangents, design)
                    for j, (row, sign) in enumerate(zip(family.rows, family.signs)):
                        logs[part, row] += sign * values[j]
                        slopes[part, row] += sign * along[j]
            return logs, slopes

        return of_theta

    def _run(
        self, moved: list[np.ndarray], taken: list[np.ndarray]
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Values (term, batch) and slopes (term, batch, leaf) of every family, of the
        terms that are taken."""

        def one(
            family: _Family, shifts: np.ndarray, taken: np.ndarray
        ) -> tuple[np.ndarray, np.ndarray]:
            terms, count, leaves = shifts.shape
            padded = np.zeros((terms, CAPACITY, leaves))
            padded[:, :count] = shifts + family.base[:, None]
            values, slopes = family.run(family.inputs, padded, taken * count)
            return np.asarray(values)[:, :count], np.asarray(slopes)[:, :count]

        with ThreadPoolExecutor(THREADS) as pool:
            return list(pool.map(one, self._families, moved, taken))


def _design(paths: Sequence[str], parameters: list[Parameter]) -> np.ndarray:
    """Which parameter moves each leaf, (leaf, parameter)."""
    owner = {path: k for k, p in enumerate(parameters) for path in p.leaves}
    matrix = np.zeros((len(paths), len(parameters)))
    for i, path in enumerate(paths):
        if path in owner:
            matrix[i, owner[path]] = 1.0
    return matrix


def _as_printed(problem: Problem) -> tuple:
    """What `metrics` takes, but the machine as its specification prints it."""
    return problem._replace(theta={}).inputs


def _program(
    fields: list[Wanted],
) -> Callable[[tuple, Array, Array], tuple[Array, Array]]:
    """Log of one number and its slopes, over a family's terms and the first `counts` of
    a batch of shifts."""

    def log_of(shifts: Array, one: tuple) -> Array:
        machine, *job, pick = one
        m = metrics(shift_all(machine, shifts), *job)
        values = [
            scaled_to(getattr(m, f), quantity, per, m) for f, quantity, per in fields
        ]
        return jnp.log(jnp.stack(values) @ pick)

    def run(inputs: tuple, shifts: Array, counts: Array) -> tuple[Array, Array]:
        def one_term(term: tuple) -> tuple[Array, Array]:
            one, points, count = term

            def one_point(i: Array, filled: tuple) -> tuple:
                value, slope = jax.value_and_grad(log_of)(points[i], one)
                return filled[0].at[i].set(value), filled[1].at[i].set(slope)

            empty = jnp.zeros(len(points)), jnp.zeros(points.shape)
            return jax.lax.fori_loop(0, count, one_point, empty)

        return jax.lax.map(one_term, (inputs, shifts, counts))

    return run
