"""A printed number with its unit and where it was read."""

import math
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from ..units import UNITS, dimension_of, to_si


class Strict(BaseModel):
    """Base of every file model: unknown keys and coerced types are mistakes."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Source(Strict):
    """A publication; rows of one source share their errors."""

    title: Annotated[str, Field(min_length=1)]
    url: str = ""
    note: str = ""


def _finite(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("must be a number")
    if not math.isfinite(value):
        raise ValueError("must be a finite number")
    return float(value)


Number = Annotated[float, BeforeValidator(_finite)]
Positive = Annotated[Number, Field(gt=0)]
NonNegative = Annotated[Number, Field(ge=0)]
Fraction = Annotated[Number, Field(ge=0, le=1)]


def _known_unit(unit: str) -> str:
    if unit not in UNITS:
        raise ValueError(f"unknown unit {unit!r}; use one of {', '.join(UNITS)}")
    return unit


UnitName = Annotated[str, AfterValidator(_known_unit)]


class Figure(Strict):
    """One number as its source prints it."""

    value: NonNegative
    unit: UnitName
    source: str
    locator: str
    kind: Literal["published", "derived", "assumed"]
    note: str = ""
    sigma: NonNegative | None = None
    """Prior standard deviation of the log (of the logit, for a fraction)."""

    @property
    def si(self) -> float:
        return to_si(self.value, self.unit)

    @property
    def prior_sigma(self) -> float:
        """Published and derived figures are fixed unless they say otherwise."""
        if self.sigma is not None:
            return self.sigma
        return 0.3 if self.kind == "assumed" else 0.0


def check_figure(path: str, figure: Figure) -> str | None:
    """What is wrong with a figure in the leaf at `path`, or None."""
    wanted = dimension_of(path)
    if UNITS[figure.unit].dimension != wanted:
        fitting = [u for u, unit in UNITS.items() if unit.dimension == wanted]
        return f"{path}.unit = {figure.unit!r}: not a {wanted}; use {', '.join(fitting)}"
    last = path.rsplit(".", 1)[-1]
    if last.endswith(("efficiency", "fraction", "share")) and figure.si > 1.0:
        return f"{path}.value = {figure.value!r}: a fraction can't exceed 1"
    if figure.value == 0.0 and (wanted.endswith("_rate") or last == "size"):
        return f"{path}.value = 0: must be greater than 0"
    return None


class Leaves(Strict):
    """A group of figures whose names carry their units."""

    @model_validator(mode="after")
    def _dimensions(self):
        mistakes = []
        for name, value in self:
            figures = value.items() if isinstance(value, dict) else [("", value)]
            for sub, figure in figures:
                if isinstance(figure, Figure):
                    path = f"{name}.{sub}" if sub else name
                    if problem := check_figure(path, figure):
                        mistakes.append(problem)
        if mistakes:
            raise ValueError("; ".join(mistakes))
        return self


def quantity(dimension: str) -> Any:
    """A number in SI or a string such as `"40 MiB"` of the given dimension."""

    def parse(value: Any) -> float:
        if isinstance(value, str):
            return parse_quantity(value, dimension)
        return _finite(value)

    return Annotated[float, BeforeValidator(parse)]


def parse_quantity(text: str, dimension: str) -> float:
    """`"50 ms"` or `"50ms"` in SI. Raises `ValueError` for a wrong unit or number."""
    stripped = text.strip()
    digits = len(stripped)
    while digits and not stripped[digits - 1].isdigit() and stripped[digits - 1] != ".":
        digits -= 1
    for cut in range(digits, 0, -1):
        number, unit = stripped[:cut].strip(), stripped[cut:].strip()
        try:
            value = float(number)
        except ValueError:
            continue
        if not unit:
            return _finite(value)
        if unit in UNITS and UNITS[unit].dimension == dimension:
            return _finite(to_si(value, unit))
    fitting = [u for u, unit in UNITS.items() if unit.dimension == dimension]
    raise ValueError(
        f"{text!r} is not a {dimension}; write a number and one of {fitting}"
    )
