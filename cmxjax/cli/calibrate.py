"""Calibrate, ask what matters, plan what to measure."""

from dataclasses import dataclass
from typing import Annotated

import tyro
from rich.console import Console
from rich.text import Text

from .arguments import Name, parse_changes


@dataclass(frozen=True)
class Calibrate:
    """Fit a system's physical parameters to measurements, with error bars."""

    system: Name
    """A shipped system or recipe, or the path of one."""
    measurements: tuple[str, ...] = ()
    """Measurement files to fit besides those of the recipe."""
    out: str | None = None
    """Folder for the result; calibration-SYSTEM without it."""
    restarts: int = 32
    seed: int = 0
    json: bool = False

    def run(self, console: Console) -> object:
        from pathlib import Path

        from ..calibrate.result import as_calibration
        from ..calibrate.run import fit
        from ..report.calibration import calibration_tables, draw
        from ..specs.errors import afterwards

        stem = Path(self.system).stem
        out = f"calibration-{stem}" if self.out is None else self.out
        status = Console(stderr=True, highlight=False)
        with status.status("reading") as spinner:
            report = fit(
                self.system,
                self.measurements,
                out,
                self.restarts,
                self.seed,
                spinner.update,
            )
        status.print(*map(Text, report.notes), sep="\n", soft_wrap=True)
        console.print(calibration_tables(report.result))
        data = as_calibration(report.result, report.name).model_dump()

        def write() -> None:
            pictures = draw(report.result, Path(out))
            written = ", ".join(str(path) for path in [*report.files, *pictures])
            console.print(f"written: {written}")

        console.print(f"use it with --calibration {report.files[0]}")
        return afterwards(data, write)


@dataclass(frozen=True)
class Sensitivity:
    """What a metric follows: elasticities, what binds, and inverse questions."""

    scenario: Name
    set: tuple[str, ...] = ()
    """Dotted keys to change, such as workload.kv_tokens=8192."""
    quantity: str | None = None
    """The metric to explain, such as tpot."""
    solve: str | None = None
    """A leaf to find for --for; system.tiers.*.bytes_per_s moves all that match."""
    target: Annotated[str | None, tyro.conf.arg(name="for")] = None
    """What the metric should be: tpot=50ms, or tpot=@SCENARIO."""
    over: str | None = None
    """KEY=FIRST:LAST, a workload key over which to draw what binds."""
    picture: str | None = None
    """File for the bars, or with --over for the shares."""
    calibration: str | None = None
    """A calibration's name, or none for the spec as printed."""
    json: bool = False

    def run(self, console: Console) -> object:
        from functools import partial
        from pathlib import Path

        from ..answers.sensitivity import sensitivity
        from ..answers.solve import solve
        from ..report.job import job_text
        from ..report.sensitivity import (
            draw_binding,
            draw_elasticities,
            sensitivity_tables,
            solution_table,
        )
        from ..specs.errors import SpecError, afterwards
        from ..specs.output import check_outputs, inputs_of
        from ..specs.scenario import load_scenario

        if (self.solve is None) != (self.target is None):
            raise SpecError(["--solve LEAF and --for QUANTITY=VALUE go together"])
        if self.over is not None and self.picture is None:
            raise SpecError(["--over: needs --picture FILE"])
        changes = parse_changes(self.set)
        read = inputs_of(self.scenario, changes, self.calibration)
        check_outputs({"--picture": self.picture}, read)
        scenario = load_scenario(self.scenario, changes)
        if self.solve is not None and self.target is not None:
            solution = solve(scenario, self.solve, self.target, self.calibration)
            console.print(solution_table(solution))
            console.print(job_text(solution.problem))
            return solution.as_json()
        if self.over is not None:
            key, values, predictions = self._binding(changes)
            data = {"key": key, "values": values, "picture": self.picture}
            draw = partial(draw_binding, key, values, predictions)
        else:
            result = sensitivity(scenario, self.quantity, self.calibration)
            console.print(sensitivity_tables(result))
            console.print(job_text(result.problem))
            data, draw = result.as_json(), partial(draw_elasticities, result)
        if (picture := self.picture) is None:
            return data

        def write() -> None:
            draw(Path(picture))
            console.print(f"written: {picture}")

        return afterwards(data, write)

    def _binding(self, changes: dict[str, object]) -> tuple[str, list[float], list]:
        from ..answers.predict import predict
        from ..answers.sensitivity import grid
        from ..specs.scenario import load_scenario

        key, values = grid(self.over or "")
        scenarios = [load_scenario(self.scenario, changes | {key: v}) for v in values]
        return key, values, [predict(s, self.calibration) for s in scenarios]


@dataclass(frozen=True)
class PlanMeasurements:
    """Which measurement would narrow a prediction most."""

    scenario: Name
    candidates: str | None = None
    """A list of possible measurements: a shipped plan or a TOML file."""
    set: tuple[str, ...] = ()
    """Dotted keys to change, such as workload.kv_tokens=8192."""
    quantity: str | None = None
    """The metric that matters, such as tpot."""
    calibration: str | None = None
    """A calibration's name, or none for the spec as printed."""
    json: bool = False

    def run(self, console: Console) -> object:
        from ..calibrate.plan import plan_measurements
        from ..report.job import job_text
        from ..report.sensitivity import plan_table
        from ..specs.scenario import load_scenario

        scenario = load_scenario(self.scenario, parse_changes(self.set))
        base = scenario.system if isinstance(scenario.system, str) else "cloudmatrix384"
        plan = plan_measurements(
            scenario, self.candidates or base, self.quantity, self.calibration
        )
        console.print(plan_table(plan), job_text(plan.problem))
        return plan.as_json()
