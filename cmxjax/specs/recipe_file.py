"""What a calibration fits and why: parameters, measurement files, rows left out."""

from fnmatch import fnmatchcase
from typing import NamedTuple

from pydantic import Field, ValidationError

from .errors import SpecError, explain
from .figures import Figure, Positive, Strict, Text
from .files import load


class ParameterSpec(Strict):
    """One fitted number; it moves every leaf that it names by the same shift."""

    name: Text
    leaves: list[Text] = Field(min_length=1)
    """Dotted leaf paths; `*` stands for any name between dots."""
    sigma: Positive | None = None
    """Prior width of the shift; without it, the widest prior of the leaves, or what
    relatives leave of it."""
    reason: Text
    """Why the parameter exists and what identifies it."""


class ExclusionSpec(Strict):
    """Rows that are predicted and printed but not fitted."""

    rows: list[Text] = Field(min_length=1)
    """Ids of measurements; `*` stands for any text."""
    reason: Text


class RecipeSpec(Strict):
    """One calibration: a system, its parameters, and the files it is fitted to."""

    system: Text
    phases: list[Text] = []
    """Phases that the result is meant for; empty for all that no other one claims."""
    measurements: list[Text] = []
    robust: Positive | None = None
    """Degrees of freedom of Student's t; without it residuals are Gaussian."""
    parameters: list[ParameterSpec] = Field(min_length=1)
    excluded: list[ExclusionSpec] = []


class Parameter(NamedTuple):
    """A parameter with its patterns resolved against a system's leaves."""

    name: str
    leaves: tuple[str, ...]
    sigma: float
    reason: str


def load_recipe(name: str) -> RecipeSpec:
    """A shipped recipe by name or a user's by path.

    Raises:
        SpecError: with every mistake of the file.
    """
    raw, where = load("recipes", name)
    try:
        return RecipeSpec.model_validate(raw)
    except ValidationError as error:
        raise SpecError(explain(error, where, RecipeSpec)) from None


def matches(path: str, pattern: str) -> bool:
    """Whether a dotted path fits a pattern, part by part."""
    parts, wanted = path.split("."), pattern.split(".")
    return len(parts) == len(wanted) and all(
        fnmatchcase(part, want) for part, want in zip(parts, wanted, strict=True)
    )


def resolve(
    recipe: RecipeSpec, figures: dict[str, Figure], where: str
) -> list[Parameter]:
    """The recipe's parameters with the leaves that their patterns name.

    Raises:
        SpecError: a pattern names no leaf, a leaf has two parameters, a name repeats,
            or neither the recipe nor the leaves give a prior width.
    """
    mistakes: list[str] = []
    resolved: list[Parameter] = []
    owner: dict[str, str] = {}
    for spec in recipe.parameters:
        label = f"{where}: parameters.{spec.name}"
        leaves: list[str] = []
        for pattern in spec.leaves:
            hits = [path for path in figures if matches(path, pattern)]
            if not hits:
                mistakes.append(f"{label}: {pattern}: {recipe.system} has no such leaf")
            leaves += hits
        if spec.name in (parameter.name for parameter in resolved):
            mistakes.append(f"{label}: name repeats; give each parameter its own")
        for path in leaves:
            if path in owner:
                mistakes.append(f"{label}: {path} belongs to {owner[path]} too")
            owner[path] = spec.name
        widths = [figures[path].prior_sigma for path in leaves]
        sigma = spec.sigma or max(widths, default=0.0)
        if leaves and sigma <= 0.0:
            mistakes.append(
                f"{label}: its leaves are published without a width; write sigma = ..."
            )
        resolved.append(Parameter(spec.name, tuple(leaves), sigma, spec.reason))
    if mistakes:
        raise SpecError(mistakes)
    return resolved


def why_excluded(recipe: RecipeSpec, row: str) -> str | None:
    """The recipe's reason not to fit a row, or None."""
    for exclusion in recipe.excluded:
        if any(fnmatchcase(row, pattern) for pattern in exclusion.rows):
            return exclusion.reason
    return None
