"""Predict, validate, compare; list and show what ships."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich.console import Console

from .arguments import Name, Names, parse_changes

if TYPE_CHECKING:
    from ..answers.predict import Prediction
    from ..specs.build import Problem
else:
    Prediction = Problem = object  # both are loaded when first used


@dataclass(frozen=True)
class Predict:
    """Predict one scenario: a shipped name or a TOML file."""

    scenario: Name
    """A shipped scenario (see `list scenarios`) or a path that ends in .toml."""
    set: tuple[str, ...] = ()
    """Dotted keys to change, such as workload.kv_tokens=8192 or
    'system.chip.memory_bytes_per_s="4 TB/s"'."""
    max: str | None = None
    """Find the largest value of this workload key, such as
    workload.sequences_per_device, that fits the memory and meets the limits."""
    limit: tuple[str, ...] = ()
    """Bounds for --max, such as tpot=50ms."""
    calibration: str | None = None
    """A calibration's name, or none for the spec as printed; left out, the one that ships
    for the system."""
    picture: str | None = None
    """Draw where the time goes, with one sigma, into this file."""
    trace: str | None = None
    """Write a training step's timeline to this file, for chrome://tracing or Perfetto."""
    json: bool = False
    """Print JSON alone, in SI, with units in the keys."""

    def run(self, console: Console) -> object:
        from ..answers.limits import largest, parse_limit
        from ..answers.predict import predict
        from ..report.tables import prediction_tables
        from ..specs.errors import SpecError, afterwards
        from ..specs.output import check_outputs, inputs_of
        from ..specs.scenario import load_scenario

        changes = parse_changes(self.set)
        read = inputs_of(self.scenario, changes, self.calibration)
        check_outputs({"--trace": self.trace, "--picture": self.picture}, read)
        if self.limit and self.max is None:
            raise SpecError(["--limit: needs --max KEY to say what to enlarge"])
        if self.max is not None:
            limits = [parse_limit(text) for text in self.limit]
            scenario = load_scenario(self.scenario, changes)
            best = largest(scenario, self.max, limits, self.calibration)
            changes[self.max] = best
            console.print(f"largest {self.max}: {best:g}")
        prediction = predict(load_scenario(self.scenario, changes), self.calibration)
        data = prediction.as_json()
        if self.max is not None:
            data[self.max] = changes[self.max]
        console.print(prediction_tables(prediction))
        data |= self._room(prediction.problem, console)
        return afterwards(
            data,
            lambda: (
                self.trace is None or self._draw_trace(prediction.problem, self.trace)
            ),
            lambda: self.picture is None or self._draw(prediction, self.picture),
        )

    def _draw_trace(self, problem: Problem, path: str) -> None:
        from ..answers.trace import write_trace

        write_trace(problem, path)

    def _draw(self, prediction: Prediction, path: str) -> None:
        from pathlib import Path

        from ..report.prediction import draw_prediction

        draw_prediction(prediction, Path(path))

    def _room(self, problem: Problem, console: Console) -> dict[str, object]:
        """What fits into memory, and what would make the job fit that doesn't."""
        from ..answers.capacity import capacity, remedies

        room = capacity(problem)
        if room is None:
            return {}
        console.print(f"memory: {room}")
        if room.fits:
            return {"capacity": room.as_json()}
        found = remedies(problem, self.calibration)
        said = " or ".join(found) or "no single setting that was tried"
        console.print(f"it would fit with {said}")
        return {"capacity": room.as_json(), "remedies": found}


@dataclass(frozen=True)
class Validate:
    """Compare predictions with a measurement file, shipped or your own."""

    measurements: Name
    """A shipped file (see `list measurements`) or a path that ends in .toml."""
    calibration: str | None = None
    """A calibration's name, or none for the spec as printed; left out, the one that ships
    for the system."""
    json: bool = False
    """Print JSON alone, in SI, with units in the keys."""

    def run(self, console: Console) -> object:
        from ..answers.validate import validate
        from ..report.tables import validation_table

        validation = validate(self.measurements, self.calibration)
        console.print(validation_table(self.measurements, validation))
        return validation.as_json()


@dataclass(frozen=True)
class Compare:
    """Set two or more systems or scenarios side by side."""

    names: Names
    """Systems (their totals) or scenarios, shipped or paths."""
    calibration: str | None = None
    """A calibration's name, or none for the spec as printed; left out, the one that ships
    for the system."""
    json: bool = False
    """Print JSON alone, in SI, with units in the keys."""

    def run(self, console: Console) -> object:
        from ..answers.compare import compare
        from ..report.job import job_text
        from ..report.tables import comparison_tables
        from ..specs.errors import SpecError

        if len(self.names) < 2:
            raise SpecError(["compare: name at least two systems or scenarios"])
        comparison = compare(list(self.names), self.calibration)
        console.print(comparison_tables(comparison))
        for prediction in comparison.predictions:
            console.print(job_text(prediction.problem))
        return comparison.as_json()


@dataclass(frozen=True)
class List:
    """List what ships with the package."""

    what: Annotated[
        Literal[
            "systems",
            "models",
            "measurements",
            "scenarios",
            "sweeps",
            "recipes",
            "calibrations",
            "budgets",
            "plans",
        ],
        tyro.conf.Positional,
    ]
    json: bool = False
    """Print JSON alone, in SI, with units in the keys."""

    def run(self, console: Console) -> object:
        from ..report.tables import names_table
        from ..specs.calibration_file import calibration_names
        from ..specs.files import shipped

        if self.what == "calibrations":
            names = calibration_names()
        else:
            names = [*shipped(self.what)]
        if self.what == "models" and not self.json:
            from ..report.model import models_table

            console.print(models_table(names))
        elif self.what == "systems" and not self.json:
            from ..report.systems import systems_table

            console.print(systems_table(names))
        else:
            console.print(names_table(self.what, names))
        return names


@dataclass(frozen=True)
class Show:
    """Print a whole file, for `show NAME > my.toml`: a system or model with all that it
    leaves out, anything else as it ships."""

    names: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[KIND] NAME|FILE")
    ]
    """Whatever `list` lists, or a path; with its kind in front (recipe, measurements ...)
    where several have the name."""
    json: bool = False
    """Print JSON alone, in SI, with units in the keys."""

    def run(self, console: Console) -> object:
        from rich.segment import Segment, Segments

        from ..report.show import show
        from ..specs.errors import SpecError

        if len(self.names) not in (1, 2):
            raise SpecError(["show: name one file, or its kind and then the file"])
        *kind, name = self.names
        shown = show(name, *kind)
        # whole lines, however narrow the terminal
        console.print(Segments([Segment(shown.text)]), crop=False, end="")
        return shown.data


@dataclass(frozen=True)
class Budget:
    """Write a budget for `optimize --budget`: a system's resources and who draws its
    power."""

    origin: Annotated[str, tyro.conf.arg(name="from", metavar="NAME|FILE")]
    """A shipped system or a path."""
    out: str | None = None
    """The file to write; without it, the budget is printed."""
    json: bool = False
    """Print JSON alone."""

    def run(self, console: Console) -> object:
        from rich.segment import Segment, Segments

        from ..specs.budget_make import budget_from
        from ..specs.output import check_outputs, inputs_of, write_text
        from ..specs.toml_text import toml_text

        check_outputs({"--out": self.out}, inputs_of(self.origin))
        tables = budget_from(self.origin)
        text = toml_text(tables)
        if self.out is None:
            console.print(Segments([Segment(text)]), crop=False, end="")
        else:
            write_text(self.out, text)
            console.print(f"written: {self.out}")
        return tables
