"""What a measurement file may say: sources, scenarios, measurements."""

from typing import Literal, NamedTuple, TypeVar

from pydantic import Field, ValidationError, field_validator

from ..units import UNITS
from ..words import choose
from .errors import SpecError, all_of, explain
from .figures import (
    Info,
    Positive,
    Source,
    Strict,
    Text,
    UnitName,
    listed_source,
    listing,
)
from .files import load
from .scenario import validate_scenario, with_overrides
from .scenario_file import KnownKeys, Scenario

T = TypeVar("T")

QUANTITIES: dict[str, str] = {
    "time": "time",
    "flop_rate": "flop_rate",
    "byte_rate": "byte_rate",
    "bus_rate": "byte_rate",
    "utilization": "number",
    "tpot": "time",
    "ttft": "time",
    "step_time": "time",
    "layer_time": "time",
    "stream_time": "time",
    "dispatch_time": "time",
    "combine_time": "time",
    "host_time": "time",
    "iteration_rest": "time",
    "tokens_per_step": "number",
    "tokens_rate_per_device": "token_rate",
    "tokens_rate_per_package": "token_rate",
    "tokens_rate": "token_rate",
    "samples_rate": "sample_rate",
    "requests_rate": "request_rate",
    "request_capacity_rate": "request_rate",
    "request_time": "time",
    "flop_rate_per_device": "flop_rate",
    "mfu": "number",
    "hfu": "number",
    "forward_time": "time",
    "backward_time": "time",
    "bubble": "number",
    "memory": "bytes",
    "memory_weights": "bytes",
    "memory_gradients": "bytes",
    "memory_optimizer": "bytes",
    "memory_activations": "bytes",
    "memory_usable": "bytes",
    "memory_bandwidth": "byte_rate",
    "peak_flop_rate": "flop_rate",
    "power": "power",
    "energy_per_token": "energy",
    "cost_per_token": "token_cost",
    "tokens_rate_per_kw": "number",
    "goodput": "number",
    "mtbf": "time",
    "run_time": "time",
    "run_energy": "energy",
    "run_cost": "cost",
    "packages": "number",
    "cpus": "number",
    "parameters": "number",
    "fabric_bandwidth": "byte_rate",
    "optical_modules": "number",
    "power_per_flop_rate": "number",
    "power_per_memory": "number",
    "power_per_memory_bandwidth": "number",
}
"""Each quantity's dimension. Power ratios are only measured as ratios of systems."""

BOUND_SIGNS = {None: 0.0, "floor": 1.0, "ceiling": -1.0}
"""The way that predictions may go beyond a value without being wrong."""

DEFAULT_SIGMA = {"A": 0.03, "B": 0.06, "C": 0.1}


class MeasurementSpec(Strict):
    """One observation of one scenario."""

    id: Text
    scenario: str
    set: dict[str, object] = {}
    ratio_to: dict[str, object] | None = None
    assumed: KnownKeys = []
    quantity: Literal[tuple(QUANTITIES)]  # pyright: ignore[reportInvalidTypeForm]
    part: Literal["attention", "moe"] | None = Field(None, validate_default=True)
    per: Literal["device", "package", "total"] | None = None
    value: Positive
    unit: UnitName
    bound: Literal["floor", "ceiling"] | None = None
    """The value is a mark that the true one lies above or below, such as a rate that a
    test must pass: a prediction on the wrong side of it is wrong, any other is not."""
    relative_sigma: Positive | None = None
    source: str
    locator: Text
    confidence: Literal["A", "B", "C"] = "A"
    conflict: str | None = None
    note: str | None = None

    @field_validator("scenario")
    @classmethod
    def _there(cls, scenario: str, info: Info) -> str:
        scenarios = (info.context or {}).get("scenarios")
        if scenarios is not None and scenario not in scenarios:
            raise ValueError(f"not there; {choose(scenario, scenarios)}")
        return scenario

    @field_validator("part")
    @classmethod
    def _which_stream(cls, part: str | None, info: Info) -> str | None:
        if part is None and info.data.get("quantity") == "stream_time":
            raise ValueError('missing; write "attention" or "moe"')
        return part

    @field_validator("unit")
    @classmethod
    def _fits_quantity(cls, unit: str, info: Info) -> str:
        ratio = info.data.get("ratio_to") is not None
        what = "a ratio" if ratio else info.data.get("quantity")
        if what is None:
            return unit
        wanted = QUANTITIES.get(what, "number")
        if UNITS[unit].dimension != wanted:
            fitting = [u for u, known in UNITS.items() if known.dimension == wanted]
            raise ValueError(f"{what} needs {' or '.join(fitting)}")
        return unit

    @field_validator("source")
    @classmethod
    def _listed(cls, source: str, info: Info) -> str:
        return listed_source(source, info)


class MeasurementFile(Strict):
    sources: dict[str, Source]
    scenarios: dict[str, dict[str, object]] = Field(min_length=1)
    measurements: list[dict[str, object]] = Field(min_length=1)
    """Validated one by one, so that a message names its measurement."""


class Measurement(NamedTuple):
    """A row with its scenarios resolved: above the line and, for a ratio, below it."""

    spec: MeasurementSpec
    scenario: Scenario
    below: Scenario | None

    @property
    def relative_sigma(self) -> float:
        given = self.spec.relative_sigma
        return DEFAULT_SIGMA[self.spec.confidence] if given is None else given

    @property
    def bound_sign(self) -> float:
        """1 where the value is a floor, -1 where it is a ceiling, else 0."""
        return BOUND_SIGNS[self.spec.bound]


def load_measurements(name: str) -> list[Measurement]:
    """A shipped measurement file by name or a user's by path.

    Raises:
        SpecError: with every mistake of the file.
    """
    raw, where = load("measurements", name)
    mistakes: list[str] = []
    try:
        MeasurementFile.model_validate(raw)
    except ValidationError as error:
        mistakes += explain(error, where, MeasurementFile)
    scenarios = _of_type(dict, raw.get("scenarios"))
    listed = _of_type(list, raw.get("measurements"))
    context = listing(raw) | {"scenarios": scenarios}
    rows, seen, used = [], set(), []
    for i, row in enumerate(row for row in listed if isinstance(row, dict)):
        name = _of_type(str, row.get("id")) or str(i)
        label = f"{where}: measurements[{name}]"
        if name in seen:
            mistakes.append(f"{label}: id repeats; give each measurement its own")
        seen.add(name)
        used.append(row.get("scenario"))
        try:
            rows.append(_measurement(row, context, scenarios, label))
        except SpecError as error:
            mistakes += error.mistakes
    mistakes += [
        f"{where}: scenarios.{name}: no measurement uses it; remove it"
        for name in scenarios
        if used and name not in used
    ]
    if mistakes:
        raise SpecError(mistakes)
    return rows


def _of_type(kind: type[T], value: object) -> T:
    """The value, or an empty one where validation has refused it."""
    return value if isinstance(value, kind) else kind()


def _measurement(
    row: dict[str, object],
    context: dict[str, object],
    scenarios: dict[str, object],
    label: str,
) -> Measurement:
    """One row. Raises `SpecError` with the mistakes of its keys and its scenarios."""
    spec, (above, below) = all_of(
        lambda: _validated(row, context, label),
        lambda: _sides(row, scenarios, label),
    )
    if above is None:
        raise SpecError([])  # the mistakes of the file say why
    return Measurement(spec, above, below)


def _validated(
    row: dict[str, object], context: dict[str, object], label: str
) -> MeasurementSpec:
    try:
        return MeasurementSpec.model_validate(row, context=context)
    except ValidationError as error:
        raise SpecError(explain(error, label, MeasurementSpec)) from None


def _sides(
    row: dict[str, object], scenarios: dict[str, object], label: str
) -> tuple[Scenario | None, Scenario | None]:
    """Scenarios above and below a row's line; None where its own keys are wrong."""
    name, changes, below = row.get("scenario"), row.get("set", {}), row.get("ratio_to")
    base = scenarios.get(name) if isinstance(name, str) else None
    if not isinstance(base, dict) or not isinstance(changes, dict):
        return None, None
    shared = f"{label.partition(': ')[0]}: scenarios.{name}"
    raw = with_overrides(base, changes, label)
    above = _side(raw, label, base, shared)
    if not isinstance(below, dict):
        return above, None
    changed = with_overrides(raw, below, f"{label} ratio_to")
    return above, _side(changed, f"{label} ratio_to", base, shared)


def _side(
    raw: dict[str, object], label: str, base: dict[str, object], shared: str
) -> Scenario:
    """One side of a row. Mistakes of its base are laid to the base, once for all rows."""
    try:
        return validate_scenario(raw, label)
    except SpecError as error:
        mistakes = _mistakes(base, shared)
        shared_lines = {line.replace(shared, label, 1): line for line in mistakes}
        raise SpecError(shared_lines.get(m, m) for m in error.mistakes) from None


def _mistakes(raw: dict[str, object], where: str) -> list[str]:
    try:
        validate_scenario(raw, where)
    except SpecError as error:
        return error.mistakes
    return []
