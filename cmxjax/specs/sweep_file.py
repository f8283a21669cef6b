"""What a file of a sweep may say: a base scenario, axes over its keys, what is kept."""

from collections.abc import Mapping
from typing import Annotated, Literal, NamedTuple

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from .errors import SpecError, explain
from .figures import Count, Strict, Text
from .files import load

MOST_POINTS = 10**12
MOST_BARRED, MOST_BARRED_QUEUES = 2000, 50
"""Rows that have error bars without being asked for, and of phase serve: ten to twenty
seconds of them."""

Scalar = str | bool | int | float


def _value(value: object) -> object:
    if isinstance(value, list):
        if all(isinstance(item, Scalar) for item in value):
            return value
    elif isinstance(value, Scalar):
        return value
    raise ValueError("must be a number, a text, true or false, or a list of them")


Value = Annotated[object, BeforeValidator(_value)]
Values = Annotated[list[Value], Field(min_length=1)]
Bound = Annotated[Value, Field(description="A number, or a text with a unit.")]


class RangeSpec(Strict):
    """Where a key's samples lie."""

    values: Values | None = None
    """Choose one of these, each as likely."""
    low: Bound | None = None
    """Least value, with its unit where the key has one."""
    high: Bound | None = None
    """Largest value."""
    spacing: Literal["linear", "log"] = "linear"
    """Uniform in the value, or in its logarithm."""
    whole: bool = False
    """Round to whole numbers."""

    @model_validator(mode="after")
    def _one_form(self):
        if (self.values is None) == (self.low is None or self.high is None):
            raise ValueError("give values, or low and high")
        return self


class AxisSpec(Strict):
    """One axis: a key with its values, several keys side by side, or samples of some."""

    key: Text | None = None
    """The key that varies, of a scenario: `workload.kv_tokens`, `system.<path>`."""
    values: Values | None = None
    """Its values, one after the other."""
    low: Bound | None = None
    """First of evenly spaced values."""
    high: Bound | None = None
    """Last of evenly spaced values."""
    points: Count | None = None
    """How many of them."""
    spacing: Literal["linear", "log"] = "linear"
    """Equal differences or equal ratios."""
    whole: bool = False
    """Round to whole numbers, each once."""
    zip: dict[Text, Values] | None = None
    """Keys that vary together, each with as many values."""
    sample: Literal["random", "sobol"] | None = None
    """Draw points instead: independent ones, or of a scrambled Sobol sequence, which
    fills the space evenly (best of a number that is a power of 2)."""
    count: Count | None = None
    """How many points are drawn."""
    keys: dict[Text, RangeSpec] | None = None
    """Keys that are drawn, each with its range."""

    @model_validator(mode="after")
    def _one_form(self):
        forms = [
            name
            for name, given in (
                ("values", self.values is not None),
                ("low, high and points", self.points is not None),
                ("zip", self.zip is not None),
                ("sample", self.sample is not None),
            )
            if given
        ]
        if len(forms) != 1:
            said = f"{' and '.join(forms)} are given" if forms else "says no values"
            raise ValueError(
                f"{said}; give key with values, key with low, high and points, zip, or"
                " sample with count and keys"
            )
        single = self.values is not None or self.points is not None
        if single and self.key is None:
            raise ValueError("key: missing; name the key that varies")
        if not single and self.key is not None:
            raise ValueError(f"key: says nothing beside {forms[0]}; leave it out")
        if (self.points is not None) != (self.low is not None and self.high is not None):
            raise ValueError("give low, high and points together")
        if self.zip is not None:
            counts = {name: len(values) for name, values in self.zip.items()}
            if not counts or len(set(counts.values())) > 1:
                told = ", ".join(f"{name} has {n}" for name, n in counts.items())
                raise ValueError(f"zip: {told or 'empty'}; give as many of each key")
        if (self.sample is None) != (self.count is None) or (self.sample is None) != (
            not self.keys
        ):
            raise ValueError("give sample, count and keys together")
        return self


class TopSpec(Strict):
    """The best rows by one metric."""

    metric: Text
    """A quantity such as `tokens_rate_per_package`, or a metric's name."""
    count: Annotated[int, Field(ge=1, le=10**6)] = 100
    """How many."""
    largest: bool | None = None
    """Left out, rates and utilizations are best when large, all else when small."""


class KeepSpec(Strict):
    """Which rows are written; left out, all."""

    feasible: bool | None = None
    """Only what fits and can run; left out, yes where `top` or `pareto` is given."""
    limits: list[Text] = []
    """Bounds that must hold, such as `tpot=50ms`; rates are bounded from below."""
    top: TopSpec | None = None
    """Only the best rows."""
    pareto: Annotated[list[Text], Field(min_length=2, max_length=2)] | None = None
    """Only rows that no other beats in both of two metrics."""
    sigma: bool | None = None
    """One relative sigma of each metric of the rows that are kept, at 5 ms a row (of
    serving 0.4 s); left out, yes where `top` or `pareto` is given, or at most 2,000 rows
    (of serving 50) are kept."""

    @model_validator(mode="after")
    def _one_choice(self):
        if self.top is not None and self.pareto is not None:
            raise ValueError("top and pareto: give one of them")
        return self

    @property
    def chooses(self) -> bool:
        """Whether which rows are kept is known only when all have been seen."""
        return self.top is not None or self.pareto is not None

    @property
    def only_feasible(self) -> bool:
        return self.chooses if self.feasible is None else self.feasible

    def with_sigma(self, rows: int, phase: str) -> bool:
        """Whether so many rows that are kept have error bars."""
        few = self.chooses or rows <= most_barred(phase)
        return few if self.sigma is None else self.sigma


def most_barred(phase: str) -> int:
    """Rows of a phase that have error bars without being asked for."""
    return MOST_BARRED_QUEUES if phase == "serve" else MOST_BARRED


def _scenario(value: object) -> object:
    if isinstance(value, str | dict) and value:
        return value
    raise ValueError("must be a shipped name, a path that ends in .toml, or a table")


class SweepSpec(Strict):
    """A sweep: every combination of the values of its axes."""

    title: Text | None = None
    """What it is for."""
    scenario: Annotated[object, BeforeValidator(_scenario)]
    """The scenario that axes change: a shipped name, a file, or a table of its keys."""
    set: dict[str, object] = {}
    """Dotted keys of the scenario that are changed for all points."""
    calibration: Text | None = None
    """A calibration's name, or `none`; left out, the one that ships for the system."""
    metrics: Annotated[list[Text], Field(min_length=1)] | None = None
    """Quantities such as `tpot`, or names of metrics such as `memory_bytes`; left out,
    the usual ones of the phase."""
    precision: Literal["float64", "float32"] = "float64"
    """Of the computation."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Of samples that are drawn."""
    constraints: list[Text] = []
    """What keys must fulfil together, such as `layout.tp * layout.ep <= 64`."""
    one_by_one: list[Text] = []
    """Keys of axes whose jobs are built one by one, though it would go without: slower,
    never different."""
    axes: Annotated[list[AxisSpec], Field(min_length=1)]
    """The last one varies fastest, behind those that points are built one by one for."""
    keep: KeepSpec = KeepSpec()


class Sweep(NamedTuple):
    """A validated sweep and how messages name it."""

    spec: SweepSpec
    where: str


def load_sweep(name: str | Mapping[str, object]) -> Sweep:
    """A sweep by its shipped name, from a TOML file or from a dict.

    Raises:
        SpecError: (a `ValueError`) with every mistake of the file.
    """
    if isinstance(name, Mapping):
        raw, where = dict(name), "sweep"
    else:
        raw, where = load("sweeps", name)
    try:
        spec = SweepSpec.model_validate(raw)
    except ValidationError as error:
        raise SpecError(explain(error, where, SweepSpec)) from None
    mistakes, seen = [], set()
    for i, axis in enumerate(spec.axes):
        for key in axis_keys(axis):
            if key in seen:
                mistakes.append(f"{where}: axes.{i}: {key} varies on another axis too")
            seen.add(key)
    if mistakes:
        raise SpecError(mistakes)
    return Sweep(spec, where)


def axis_keys(axis: AxisSpec) -> list[str]:
    """Keys that an axis varies."""
    if axis.key is not None:
        return [axis.key]
    return list(axis.zip or axis.keys or {})


def files_of(spec: SweepSpec) -> list[object]:
    """Everything in a sweep that may name a file."""
    values = [axis.values or [] for axis in spec.axes]
    values += [list(column) for axis in spec.axes for column in (axis.zip or {}).values()]
    return [spec.scenario, spec.set, spec.calibration, *values]
