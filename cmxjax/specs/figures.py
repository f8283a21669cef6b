"""A printed number with its unit and where it was read."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    field_validator,
)

from ..units import LIKELY, UNITS, dimension_of, to_si

if TYPE_CHECKING:
    from pydantic import ValidationInfo as Info
else:
    Info = object  # a protocol that can't be checked while a test runs


class Strict(BaseModel):
    """Base of every file model: unknown keys and coerced types are mistakes."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


Text = Annotated[str, Field(min_length=1)]


class Source(Strict):
    """A publication; rows of one source share their errors."""

    title: Text
    url: str = ""
    note: str = ""


LARGEST = 1e30
"""Products of a few numbers of this size, or their inverses, are finite in float64."""

LONGEST_QUANTITY = 64


def number(value: object) -> float:
    """A parsed value as a float. Raises `ValueError` if it is no finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("must be a number")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("must be a finite number")
    if abs(value) > LARGEST:
        raise ValueError(f"must be a number of at most {LARGEST:g}")
    if 0.0 < abs(value) < 1.0 / LARGEST:
        raise ValueError(f"must be 0 or at least {1.0 / LARGEST:g}")
    return float(value)


Number = Annotated[float, BeforeValidator(number)]
Positive = Annotated[Number, Field(gt=0)]
NonNegative = Annotated[Number, Field(ge=0)]
Fraction = Annotated[Number, Field(ge=0, le=1)]


def _whole(value: float) -> float:
    if value % 1.0:
        raise ValueError("must be a whole number")
    return value


Whole = Annotated[Positive, AfterValidator(_whole)]
WholeOrZero = Annotated[NonNegative, AfterValidator(_whole)]

MOST_DEVICES = 10**9
Count = Annotated[int, Field(ge=1, le=MOST_DEVICES)]
"""Devices, or ways to split them."""


def _known_unit(unit: str) -> str:
    if unit not in UNITS:
        raise ValueError(f"unknown unit; use one of {', '.join(UNITS)}")
    return unit


UnitName = Annotated[str, AfterValidator(_known_unit)]


class Figure(Strict):
    """One number as its source prints it."""

    value: NonNegative
    unit: UnitName
    source: str
    locator: Text
    kind: Literal["published", "derived", "assumed"]
    note: str = ""
    sigma: NonNegative | None = None
    """Prior standard deviation of the log (of the logit, for a fraction)."""

    @field_validator("source")
    @classmethod
    def _listed(cls, source: str, info: Info) -> str:
        return listed_source(source, info)

    @property
    def si(self) -> float:
        return to_si(self.value, self.unit)

    @property
    def prior_sigma(self) -> float:
        """Published and derived figures are fixed unless they say otherwise."""
        if self.sigma is not None:
            return self.sigma
        return 0.3 if self.kind == "assumed" else 0.0


_DIVISORS = (
    "efficiency",
    "cores",
    "slowdown",
    "oversubscription",
    "rate_factor",
    "mtbf_s",
    "memory_bytes",
    "tile_rows",
    "tile_columns",
)
"""Leaves, besides rates, that times are divided by."""

_ABSENT = "exponential_flop_per_s"
"""A rate that is 0 where a chip has no such unit."""


def check_figure(path: str, figure: Figure) -> str | None:
    """What is wrong with a figure in the leaf at `path`, or None."""
    wanted = dimension_of(path)
    if UNITS[figure.unit].dimension != wanted:
        fitting = [u for u, unit in UNITS.items() if unit.dimension == wanted]
        what = wanted.replace("_", " ")
        return f"unit = {figure.unit!r}: no unit of {what}; use {', '.join(fitting)}"
    last, problem = path.rsplit(".", 1)[-1], None
    if last.endswith(("efficiency", "fraction", "share")) and figure.si > 1.0:
        problem = "a fraction can't exceed 1"
    elif last == "core_share" and figure.si >= 1.0:
        problem = "compute needs cores too; use a share below 1"
    elif last == "oversubscription" and figure.si < 1.0:
        problem = "the ports below over those above; 1 is none, use no less"
    elif last == "size" and (figure.si < 1.0 or figure.si % 1.0):
        problem = "must be a whole number of at least 1"
    elif figure.value == 0.0 and last != _ABSENT:
        if wanted.endswith("_rate") or last.endswith(_DIVISORS):
            problem = "must be greater than 0"
    return problem and f"value = {figure.value:g}: {problem}"


STATED = "stated"
"""The source of what a file says without one; no file lists it."""


def listed_source(source: str, info: Info) -> str:
    """The source's name, if the file lists it. `context` holds the names it lists.

    Raises:
        ValueError: it doesn't.
    """
    listed = (info.context or {}).get("sources")
    if listed is not None and source not in listed and source != STATED:
        raise ValueError("not under [sources]; add it there")
    return source


def listing(raw: Mapping[str, object]) -> dict[str, object]:
    """The validation context of a file: the sources that it lists, if it says so well."""
    sources = raw.get("sources")
    return {"sources": sources if isinstance(sources, dict) else None}


def mistakes_of(figures: dict[str, Figure]) -> list[str]:
    """What is wrong with the figures of the leaves at these paths, one line each."""
    problems = {path: check_figure(path, figure) for path, figure in figures.items()}
    return [f"{path}.{problem}" for path, problem in problems.items() if problem]


def stated(path: str, value: object) -> object:
    """A figure from a plain value: text with its unit, or a number where there is none to
    give. What is neither stays as it is.

    Raises:
        ValueError: the unit is missing or wrong.
    """
    dimension = dimension_of(path)
    if isinstance(value, str):
        return unsourced(parse_quantity(value, dimension), dimension)
    bare = isinstance(value, int | float) and not isinstance(value, bool)
    if bare and dimension == "number":
        return unsourced(number(value), dimension)
    if bare:
        table = "with its source it must be a table, such as { value = ... }"
        raise ValueError(f"{no_unit(number(value), dimension)}, as text; {table}")
    return value


SI_UNITS = {
    "time": "s",
    "bytes": "B",
    "byte_rate": "B/s",
    "flop_rate": "FLOP/s",
    "power": "W",
    "energy": "J",
    "cost": "USD",
}
"""Of what leaves measure; all else is a plain number."""


def unsourced(
    si: float, dimension: str, locator: str = "as the file says"
) -> dict[str, object]:
    """A figure without a source, in SI."""
    unit = {"unit": SI_UNITS.get(dimension, "1"), "kind": "published"}
    return {"value": si, "source": STATED, "locator": locator, **unit}


class Leaves(Strict):
    """A group of figures whose names carry their units."""

    @field_validator("*", mode="before")
    @classmethod
    def _stated(cls, value: object, info: Info) -> object:
        name = info.field_name or ""
        kind = cls.model_fields[name].annotation
        if kind in (Figure, Figure | None):
            return stated(name, value)
        if Figure in get_args(kind) and isinstance(value, dict):
            return {key: stated(f"{name}.{key}", item) for key, item in value.items()}
        return value

    @field_validator("*")
    @classmethod
    def _dimensions(cls, value: object, info: Info) -> object:
        name = info.field_name or ""
        if isinstance(value, Figure) and (problem := check_figure(name, value)):
            raise ValueError(problem)
        if isinstance(value, dict):
            figures = {k: item for k, item in value.items() if isinstance(item, Figure)}
            problems = mistakes_of({f"{name}.{key}": f for key, f in figures.items()})
            if problems:
                raise ValueError("\n".join(m.removeprefix(f"{name}.") for m in problems))
        return value


class InUnit(NamedTuple):
    """Marks a field whose unit its name doesn't end in."""

    unit: str


def quantity(dimension: str, unit: str = "") -> object:
    """A number in SI or a string such as `"40 MiB"` of the given dimension.

    Args:
        unit: the SI unit that files are written in, where the key's name doesn't end in
            it; a bare number is refused then.
    """

    def parse(value: object) -> float:
        if isinstance(value, str):
            return parse_quantity(value, dimension)
        si = number(value)
        if unit:
            raise ValueError(no_unit(si, dimension))
        return si

    write = PlainSerializer(lambda si: f"{si!r} {unit}" if unit else si, when_used="json")
    said = [InUnit(unit)] if unit else []
    return Annotated[(float, BeforeValidator(parse), write, *said)]


def no_unit(value: float, dimension: str) -> str:
    """What to do about a number whose unit would have to be guessed."""
    readings = " or ".join(f"{value:g}{unit}" for unit in LIKELY[dimension])
    return f"has no unit; write {readings}"


def parse_quantity(text: str, dimension: str) -> float:
    """`"50 ms"` or `"50ms"` in SI. Raises `ValueError` for a wrong unit or number."""
    stripped = text.strip() if len(text) <= LONGEST_QUANTITY else ""
    end = len(stripped)
    while end and not stripped[end - 1].isdigit() and stripped[end - 1] != ".":
        end -= 1
    for cut in range(end, 0, -1):
        digits, unit = stripped[:cut].strip(), stripped[cut:].strip()
        try:
            value = float(digits)
        except ValueError:
            continue
        if not unit and dimension == "number":
            return number(value)
        if not unit:
            raise ValueError(no_unit(value, dimension))
        if unit in UNITS and UNITS[unit].dimension == dimension:
            return number(to_si(value, unit))
    fitting = [u for u, unit in UNITS.items() if unit.dimension == dimension]
    what, units = dimension.replace("_", " "), ", ".join(fitting)
    raise ValueError(f"must be a number and a unit of {what}: one of {units}")
