"""What a calibration works on: rows, observations, levels, and which rows are fitted."""

import hashlib
import json
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from ..answers.validate import check_rows, problems_of
from ..specs.calibration_file import InheritedSpec
from ..specs.discrepancy import level_of
from ..specs.errors import SpecError
from ..specs.figures import Figure
from ..specs.files import same_file
from ..specs.measurement_file import Measurement, load_measurements
from ..specs.recipe_file import (
    Parameter,
    ParameterSpec,
    RecipeSpec,
    resolve,
    why_excluded,
)
from ..specs.related import relatives_of
from ..specs.relatives import inherited
from ..specs.system_load import Reference, load_system
from ..units import to_si
from .rows import Predictor, terms_of


class Elsewhere(NamedTuple):
    """Rows of a file that are of another system."""

    file: str
    system: str
    rows: list[str]

    def said(self, system: str, count: int) -> str:
        """What to do about them, as a line.

        Args:
            system: that is calibrated.
            count: measurements in the file.
        """
        some = ", ".join(self.rows[:4])
        rest = len(self.rows) - 4
        more = f" and {rest} more" if rest > 0 else ""
        return (
            f"{self.file}: {len(self.rows)} of {count} measurements are of {self.system},"
            f" not of {system}, and aren't fitted: {some}{more}; write system ="
            f' "{system}" in their scenarios if they are of it, else calibrate'
            f" {self.system} with them"
        )


class Setup(NamedTuple):
    """Rows of all files on the system, ready to be fitted."""

    recipe: RecipeSpec
    system: str
    """The name that the system's file gives it."""
    parameters: list[Parameter]
    figures: dict[str, Figure]
    rows: list[Measurement]
    predictor: Predictor
    observed: np.ndarray
    """Logs of the observations in SI, (row,)."""
    row_sigma: np.ndarray
    """What the file says of each observation, (row,)."""
    levels: list[str]
    reasons: list[str]
    """Why a row is not fitted; empty for rows in the fit."""
    inherited: dict[str, InheritedSpec]
    """Shifts of leaves that the fit starts from: what relatives say."""
    elsewhere: list["Elsewhere"]
    """Rows of other systems, which are left to those systems' calibrations."""
    counts: dict[str, int]
    """Measurements of each file."""

    @property
    def fitted(self) -> np.ndarray:
        """1 for rows in the fit, else 0."""
        return np.array([0.0 if reason else 1.0 for reason in self.reasons])

    @property
    def bound(self) -> np.ndarray:
        """1 for rows that are floors, -1 for ceilings, 0 for values."""
        return np.array([row.bound_sign for row in self.rows])

    @property
    def measured(self) -> np.ndarray:
        """1 for rows in the fit that are values, not bounds: errors are learned there."""
        return self.fitted * (self.bound == 0.0)

    def uncertain(self, reason: str) -> list[Parameter]:
        """Every leaf with a prior width, as a parameter of its own."""
        return [
            Parameter(path, (path,), figure.prior_sigma, reason)
            for path, figure in self.figures.items()
            if figure.prior_sigma > 0.0
        ]

    def fingerprint(self) -> str:
        """A hash of everything that the result depends on."""
        data = [
            self.recipe.model_dump(),
            [[p.name, p.leaves, p.sigma] for p in self.parameters],
            [row.spec.model_dump() for row in self.rows],
            [row.scenario.model_dump() for row in self.rows],
            {path: figure.si for path, figure in self.figures.items()},
            {path: [i.theta, i.sigma] for path, i in self.inherited.items()},
        ]
        text = json.dumps(data, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def prepare(
    recipe: RecipeSpec,
    files: list[str],
    where: str,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Setup:
    """Read the files, build every row's problems and compile their predictions.

    Rows of phase `system` are totals of printed figures: nothing in them is fitted.
    Rows of other systems are left to those systems' calibrations, and listed.

    Raises:
        SpecError: with every mistake of the recipe or of a file.
    """
    loaded = load_system(Reference(recipe.system), where)
    start: dict[str, InheritedSpec] = {}
    if loaded.file.relatives:
        start = inherited(loaded.figures, *relatives_of(loaded))
    resolved = resolve(recipe, loaded.figures, where)
    parameters = [
        _narrowed(parameter, spec, start)
        for parameter, spec in zip(resolved, recipe.parameters, strict=True)
    ]
    shifts = {path: jnp.asarray(i.theta) for path, i in start.items()}
    rows: list[Measurement] = []
    others: list[Elsewhere] = []
    counts: dict[str, int] = {}
    pairs = []
    for name in files:
        measured = load_measurements(name)
        check_rows(measured, name)
        built = problems_of(measured, name, "none")
        counts[name], of = len(measured), {}
        for row, pair in zip(measured, built, strict=True):
            base = row.scenario.system.base
            if not same_file("systems", base, recipe.system):
                of.setdefault(base, []).append(row.spec.id)
            elif row.scenario.phase != "system":
                rows.append(row)
                pairs.append(tuple(p and p._replace(theta=shifts) for p in pair))
        others += [Elsewhere(name, base, ids) for base, ids in of.items()]
    if not rows:
        said = f"no measurement of {recipe.system} in {', '.join(files) or 'it'}"
        told = [other.said(recipe.system, counts[other.file]) for other in others]
        raise SpecError([f"{where}: {said}", *told])
    if all(row.bound_sign for row in rows):
        raise SpecError([f"{where}: all measurements are bounds; a fit needs values too"])
    ids = [row.spec.id for row in rows]
    if repeated := sorted({i for i in ids if ids.count(i) > 1}):
        raise SpecError([f"{where}: measurements repeat: {', '.join(repeated)}"])
    return Setup(
        recipe=recipe,
        system=loaded.system.name,
        parameters=parameters,
        figures=loaded.figures,
        rows=rows,
        predictor=Predictor(terms_of(rows, pairs), progress),
        observed=np.log([to_si(row.spec.value, row.spec.unit) for row in rows]),
        row_sigma=np.array([row.relative_sigma for row in rows]),
        levels=[level_of(row.scenario, row.spec.quantity) for row in rows],
        reasons=[why_excluded(recipe, row.spec.id) or "" for row in rows],
        inherited=start,
        elsewhere=others,
        counts=counts,
    )


def _narrowed(
    parameter: Parameter, spec: ParameterSpec, start: dict[str, InheritedSpec]
) -> Parameter:
    """A parameter with the width that relatives leave to it, if they know its leaves and
    the recipe doesn't say itself how far they may be off."""
    if spec.sigma or not all(leaf in start for leaf in parameter.leaves):
        return parameter
    width = max(start[leaf].sigma for leaf in parameter.leaves)
    return parameter._replace(sigma=min(width, parameter.sigma))
