"""What a measurement file may say: sources, scenarios, measurements."""

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, ValidationError

from ..units import UNITS
from .errors import SpecError, explain
from .figures import Positive, Source, Strict, UnitName
from .files import load
from .scenario import validate_scenario, with_overrides
from .scenario_file import Scenario

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
    "flop_rate_per_device": "flop_rate",
    "mfu": "number",
    "hfu": "number",
    "forward_time": "time",
    "backward_time": "time",
    "bubble": "number",
    "memory": "bytes",
    "memory_weights": "bytes",
    "memory_optimizer": "bytes",
    "memory_activations": "bytes",
    "memory_usable": "bytes",
    "memory_bandwidth": "byte_rate",
    "peak_flop_rate": "flop_rate",
    "power": "power",
    "energy_per_token": "energy",
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

DEFAULT_SIGMA = {"A": 0.03, "B": 0.06, "C": 0.1}


class MeasurementSpec(Strict):
    """One observation of one scenario."""

    id: Annotated[str, Field(min_length=1)]
    scenario: str
    set: dict[str, Any] = {}
    ratio_to: dict[str, Any] | None = None
    assumed: list[str] = []
    quantity: Literal[tuple(QUANTITIES)]  # pyright: ignore[reportInvalidTypeForm]
    part: Literal["attention", "moe"] | None = None
    per: Literal["device", "package", "total"] | None = None
    value: Positive
    unit: UnitName
    relative_sigma: Positive | None = None
    source: str
    locator: Annotated[str, Field(min_length=1)]
    confidence: Literal["A", "B", "C"] = "A"
    conflict: str | None = None
    note: str | None = None


class MeasurementFile(Strict):
    sources: dict[str, Source]
    scenarios: dict[str, dict[str, Any]] = Field(min_length=1)
    measurements: list[MeasurementSpec] = Field(min_length=1)


class Measurement(NamedTuple):
    """A row with its scenarios resolved: above the line and, for a ratio, below it."""

    spec: MeasurementSpec
    scenario: Scenario
    below: Scenario | None

    @property
    def relative_sigma(self) -> float:
        given = self.spec.relative_sigma
        return DEFAULT_SIGMA[self.spec.confidence] if given is None else given


def load_measurements(name: str) -> list[Measurement]:
    """A shipped measurement file by name or a user's by path.

    Raises:
        SpecError: with every mistake of the file.
    """
    raw, where = load("measurements", name)
    try:
        file = MeasurementFile.model_validate(raw)
    except ValidationError as error:
        raise SpecError(explain(error, where)) from None
    rows, mistakes, seen = [], [], set()
    for spec in file.measurements:
        label = f"{where}: measurements[{spec.id}]"
        if spec.id in seen:
            mistakes.append(f"{label}: id repeats; give each measurement its own")
        seen.add(spec.id)
        mistakes += _row_mistakes(spec, file, label)
        if spec.scenario in file.scenarios:
            try:
                rows.append(_resolve(spec, file.scenarios[spec.scenario], label))
            except SpecError as error:
                mistakes += error.mistakes
    unused = set(file.scenarios) - {spec.scenario for spec in file.measurements}
    mistakes += [f"{where}: scenarios.{name}: no measurement uses it" for name in unused]
    if mistakes:
        raise SpecError(mistakes)
    return rows


def _row_mistakes(spec: MeasurementSpec, file: MeasurementFile, label: str) -> list[str]:
    mistakes = []
    if spec.source not in file.sources:
        mistakes.append(f"{label}: source = {spec.source!r}: not under [sources]")
    if spec.scenario not in file.scenarios:
        mistakes.append(
            f"{label}: scenario = {spec.scenario!r}: not there; use one of"
            f" {', '.join(file.scenarios)}"
        )
    wanted = "number" if spec.ratio_to is not None else QUANTITIES[spec.quantity]
    if UNITS[spec.unit].dimension != wanted:
        fitting = [u for u, unit in UNITS.items() if unit.dimension == wanted]
        what = "a ratio" if spec.ratio_to is not None else spec.quantity
        mistakes.append(
            f"{label}: unit = {spec.unit!r}: {what} needs {' or '.join(fitting)}"
        )
    if spec.quantity == "stream_time" and spec.part is None:
        mistakes.append(f'{label}: part: missing; write "attention" or "moe"')
    return mistakes


def _resolve(spec: MeasurementSpec, base: dict[str, Any], label: str) -> Measurement:
    raw = with_overrides(base, spec.set)
    above = validate_scenario(raw, label)
    below = None
    if spec.ratio_to is not None:
        changed = with_overrides(raw, spec.ratio_to)
        below = validate_scenario(changed, f"{label} ratio_to")
    return Measurement(spec, above, below)
