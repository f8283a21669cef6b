"""The command line. JSON goes to stdout alone; messages go to stderr."""

import json
import os
import sys
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console

BAD_INPUT = 2
METAVAR = tyro.conf.arg(metavar="NAME|FILE")
Name = Annotated[str, tyro.conf.Positional, METAVAR]
Names = Annotated[tuple[str, ...], tyro.conf.Positional, METAVAR]


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
    trace: str | None = None
    """Write a training step's timeline to this file, for chrome://tracing or Perfetto."""
    json: bool = False
    """Print JSON alone, in SI, with units in the keys."""

    def run(self, console: Console) -> Any:
        from .evaluate.limits import largest, parse_limit
        from .evaluate.predict import predict
        from .report.tables import prediction_tables
        from .specs.scenario import load_scenario

        changes = parse_changes(self.set)
        from .specs.errors import SpecError

        if self.limit and self.max is None:
            raise SpecError(["--limit: needs --max KEY to say what to enlarge"])
        if self.max is not None:
            limits = [parse_limit(text) for text in self.limit]
            scenario = load_scenario(self.scenario, changes)
            best = largest(scenario, self.max, limits, self.calibration)
            changes[self.max] = best
            console.print(f"largest {self.max}: {best:g}")
        prediction = predict(load_scenario(self.scenario, changes), self.calibration)
        found = prediction.as_json()
        if self.trace is not None:
            from .evaluate.trace import write_trace

            write_trace(prediction.problem, self.trace)
        if self.max is not None:
            found[self.max] = changes[self.max]
        console.print(prediction_tables(prediction))
        return found


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

    def run(self, console: Console) -> Any:
        from .evaluate.validate import validate
        from .report.tables import validation_table

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

    def run(self, console: Console) -> Any:
        from .evaluate.compare import compare
        from .report.tables import comparison_table
        from .specs.errors import SpecError

        if len(self.names) < 2:
            raise SpecError(["compare: name at least two systems or scenarios"])
        comparison = compare(list(self.names), self.calibration)
        console.print(comparison_table(comparison))
        return comparison.as_json()


@dataclass(frozen=True)
class Optimize:
    """Choose degrees, placement and batch of a job together; of serving, the pools;
    with --budget the chip and the fabric of the machine."""

    scenario: Name
    set: tuple[str, ...] = ()
    """Dotted keys to change, such as workload.kv_tokens=8192."""
    objective: str | None = None
    """A quantity; rates are maximized, all else minimized."""
    limit: tuple[str, ...] = ()
    """Bounds that must hold, such as tpot=50ms; rates are bounded from below."""
    pin: tuple[str, ...] = ()
    """Degrees that are given, such as tp=1."""
    try_: Annotated[tuple[str, ...], tyro.conf.arg(name="try")] = ()
    """Values of a setting to choose from, such as sequences_per_device=16,32,48."""
    devices: tuple[int, ...] = ()
    """Numbers of devices to choose from; the scenario's if left out."""
    method: Literal["auto", "gradient", "enumerate"] = "auto"
    certify: tyro.conf.FlagCreatePairsOff[bool] = False
    """Sweep even more than 1e7 layouts."""
    no_certify: tyro.conf.FlagCreatePairsOff[bool] = False
    """Compare with nothing: neither a sweep nor a bound."""
    seed: int = 0
    budget: str | None = None
    """Design the machine: its resources and what they cost, a shipped budget or a file.
    The layout stays, limits hold where a phase predicts them."""
    spend: str | None = None
    """What the machine may cost, such as 559kW; the budget file's if left out."""
    also: tuple[str, ...] = ()
    """More workloads of the machine, each a scenario or SCENARIO=WEIGHT; a weight is 1
    if left out."""
    picture: str | None = None
    """Draw the Pareto fronts, or the machine over budgets, into this file."""
    out: str | None = None
    """Write the answer as a scenario that predict takes."""
    emit: Literal["megatron", "mindspeed", "vllm", "vllm-ascend", "sglang"] | None = None
    """Print the answer as launch arguments of this tool."""
    calibration: str | None = None
    """A calibration's name, or none for the spec as printed."""
    json: bool = False

    def run(self, console: Console) -> Any:
        from .interop.emit import check_phase
        from .optimization.answer import optimize
        from .report.optimization import answer_tables, write_answer, write_picture
        from .specs.errors import SpecError
        from .specs.scenario import load_scenario

        if self.certify and self.no_certify:
            raise SpecError(["--certify and --no-certify: give one of them"])
        if self.budget is not None:
            return self._design(console, self.budget)
        if self.spend is not None or self.also:
            raise SpecError(["--spend and --also: need --budget"])
        scenario = load_scenario(self.scenario, parse_changes(self.set))
        if scenario.phase == "serve":
            return self._pools(console)
        if self.emit is not None:
            check_phase(scenario.phase, self.emit)
        answer = optimize(
            scenario,
            objective=self.objective,
            limits=self.limit,
            pinned=parse_numbers(self.pin, "--pin", int, several=False),
            settings=parse_numbers(self.try_, "--try", float, several=True),
            devices=self.devices,
            method=self.method,
            certify=False if self.no_certify else self.certify or None,
            seed=self.seed,
            calibration=self.calibration,
        )
        console.print(answer_tables(answer))
        if self.picture is not None:
            write_picture(answer, self.picture)
        if self.out is not None:
            write_answer(answer, self.out)
        found = answer.as_json()
        if self.emit is not None:
            launch = self._launch(answer)
            console.print(launch.text, markup=False, soft_wrap=True)
            found["emit"] = launch.as_json()
        return found

    def _launch(self, answer: Any) -> Any:
        """The answer's layout as settings of another tool."""
        from .interop.emit import emit
        from .report.optimization import as_scenario
        from .specs.errors import SpecError
        from .specs.scenario import validate_scenario

        if not answer.feasible:
            raise SpecError([f"--emit {self.emit}: {'; '.join(answer.reasons)}"])
        best = validate_scenario(as_scenario(answer), "the answer")
        return emit(best, self.emit or "", self.calibration)

    def _design(self, console: Console, budget: str) -> Any:
        from .optimization.codesign.design import codesign
        from .optimization.codesign.mix import shares_of
        from .report.codesign import codesign_tables, draw_codesign
        from .specs.errors import SpecError
        from .specs.scenario import load_scenario

        given = {"pin": self.pin, "try": self.try_, "devices": self.devices}
        given |= {"out": self.out, "certify": self.certify, "emit": self.emit}
        given |= {"no-certify": self.no_certify, "method": self.method != "auto"}
        if wrong := [f"--{name}: not with --budget" for name, v in given.items() if v]:
            raise SpecError(wrong)
        pairs = tuple(text if "=" in text else f"{text}=1" for text in self.also)
        weights = parse_numbers(pairs, "--also", float, several=True)
        changes = parse_changes(self.set)
        scenarios = [(load_scenario(self.scenario, changes), 1.0)]
        scenarios += [(load_scenario(name), w[0]) for name, w in weights.items()]
        found = codesign(
            shares_of(scenarios, self.limit, self.objective),
            budget,
            spend=self.spend,
            seed=self.seed,
            calibration=self.calibration,
        )
        console.print(codesign_tables(found))
        if self.picture is not None:
            draw_codesign(found, self.picture)
            console.print(f"written: {self.picture}")
        return found.as_json()

    def _pools(self, console: Console) -> Any:
        """The best sizes of the pools of a serving scenario."""
        from .optimization.pools import split_pools
        from .report.pools import split_tables
        from .report.scenario import write_scenario
        from .specs.errors import SpecError
        from .specs.scenario import load_scenario

        free = {"--pin": self.pin, "--try": self.try_, "--picture": self.picture}
        free |= {"--certify": self.certify, "--no-certify": self.no_certify}
        free |= {"--emit": self.emit, "--method": self.method != "auto"}
        mistakes = [
            f"{option}: the sizes of the pools are all that is free in phase serve;"
            " leave it out"
            for option, given in free.items()
            if given
        ]
        if self.objective not in (None, "request_capacity_rate"):
            mistakes.append(
                f"--objective {self.objective}: phase serve has request_capacity_rate"
            )
        if len(self.devices) > 1:
            mistakes.append("--devices: give one number of devices to split")
        if mistakes:
            raise SpecError(mistakes)
        changes = parse_changes(self.set) | serve_limits(self.limit)
        devices = self.devices[0] if self.devices else None
        scenario = load_scenario(self.scenario, changes)
        found = split_pools(scenario, devices, calibration=self.calibration)
        console.print(split_tables(found))
        if self.out is not None:
            write_scenario(found.scenario, {}, self.out)
        return found.as_json()


@dataclass(frozen=True)
class List:
    """List what ships with the package."""

    what: Annotated[
        Literal[
            "systems",
            "models",
            "measurements",
            "scenarios",
            "recipes",
            "calibrations",
            "budgets",
        ],
        tyro.conf.Positional,
    ]
    json: bool = False
    """Print JSON alone, in SI, with units in the keys."""

    def run(self, console: Console) -> Any:
        from .report.tables import names_table
        from .specs.calibration_file import calibration_names
        from .specs.files import shipped

        if self.what == "calibrations":
            names = calibration_names()
        else:
            names = shipped(self.what)
        console.print(names_table(self.what, names))
        return names


@dataclass(frozen=True)
class Show:
    """Show a system's or model's leaves with sources, or any shipped file."""

    name: Name
    """Whatever `list` lists, or a path."""
    json: bool = False
    """Print JSON alone, in SI, with units in the keys."""

    def run(self, console: Console) -> Any:
        from .report.show import show

        shown = show(self.name)
        console.print(shown.renderable)
        return shown.data


@dataclass(frozen=True)
class Calibrate:
    """Fit a system's physical parameters to measurements, with error bars."""

    system: Name
    """A shipped system or recipe, or the path of a recipe."""
    measurements: tuple[str, ...] = ()
    """Measurement files to fit besides those of the recipe."""
    out: str | None = None
    """Folder for the result; calibration-SYSTEM without it."""
    restarts: int = 32
    seed: int = 0
    json: bool = False

    def run(self, console: Console) -> Any:
        from pathlib import Path

        from .calibrate.result import as_calibration
        from .calibrate.run import fit
        from .report.calibration import calibration_tables, draw

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
        pictures = draw(report.result, Path(out))
        console.print(calibration_tables(report.result))
        written = ", ".join(str(path) for path in [*report.files, *pictures])
        console.print(f"written: {written}")
        console.print(f"use it with --calibration {report.files[0]}")
        return as_calibration(report.result, report.name).model_dump()


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

    def run(self, console: Console) -> Any:
        from pathlib import Path

        from .evaluate.sensitivity import sensitivity
        from .evaluate.solve import solve
        from .report.sensitivity import (
            draw_binding,
            draw_elasticities,
            sensitivity_tables,
            solution_table,
        )
        from .specs.errors import SpecError
        from .specs.scenario import load_scenario

        if (self.solve is None) != (self.target is None):
            raise SpecError(["--solve LEAF and --for QUANTITY=VALUE go together"])
        if self.over is not None and self.picture is None:
            raise SpecError(["--over: needs --picture FILE"])
        changes = parse_changes(self.set)
        scenario = load_scenario(self.scenario, changes)
        if self.solve is not None and self.target is not None:
            solution = solve(scenario, self.solve, self.target, self.calibration)
            console.print(solution_table(solution))
            return solution.as_json()
        if self.over is not None and self.picture is not None:
            key, values, found = self._binding(changes)
            draw_binding(key, values, found, Path(self.picture))
            console.print(f"written: {self.picture}")
            return {"key": key, "values": values, "picture": self.picture}
        result = sensitivity(scenario, self.quantity, self.calibration)
        console.print(sensitivity_tables(result))
        if self.picture is not None:
            draw_elasticities(result, Path(self.picture))
            console.print(f"written: {self.picture}")
        return result.as_json()

    def _binding(self, changes: dict[str, Any]) -> tuple[str, list[float], list]:
        from .evaluate.predict import predict
        from .evaluate.sensitivity import grid
        from .specs.scenario import load_scenario

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

    def run(self, console: Console) -> Any:
        from .calibrate.plan import plan_measurements
        from .report.sensitivity import plan_table
        from .specs.scenario import load_scenario

        scenario = load_scenario(self.scenario, parse_changes(self.set))
        base = scenario.system if isinstance(scenario.system, str) else "cloudmatrix384"
        plan = plan_measurements(
            scenario, self.candidates or base, self.quantity, self.calibration
        )
        console.print(plan_table(plan))
        return plan.as_json()


Commands = (
    Predict
    | Validate
    | Compare
    | Calibrate
    | Sensitivity
    | Optimize
    | PlanMeasurements
    | List
    | Show
)


def parse_changes(pairs: tuple[str, ...]) -> dict[str, Any]:
    """`key=value` pairs with TOML values; what is no TOML value is a string.

    Raises:
        SpecError: a pair has no equals sign or no key.
    """
    from .specs.errors import SpecError
    from .specs.files import parse_toml

    changes, mistakes = {}, []
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.strip() or "\n" in pair:
            mistakes.append(f"--set {pair!r}: write KEY=VALUE on one line")
            continue
        try:
            changes[key.strip()] = parse_toml(f"value = {text}", "--set")["value"]
        except SpecError:
            changes[key.strip()] = text
    if mistakes:
        raise SpecError(mistakes)
    return changes


def serve_limits(texts: tuple[str, ...]) -> dict[str, float]:
    """`ttft=2s` and `tpot=50ms` as keys of a serving scenario.

    Raises:
        SpecError: another quantity is limited.
    """
    from .evaluate.limits import parse_limit
    from .specs.errors import SpecError

    limits = [parse_limit(text) for text in texts]
    wrong = [limit.quantity for limit in limits if limit.quantity not in ("ttft", "tpot")]
    if wrong:
        raise SpecError(
            [f"--limit {name}: phase serve has limits on ttft and tpot" for name in wrong]
        )
    return {f"workload.{limit.quantity}_limit": limit.value for limit in limits}


def parse_numbers(
    pairs: tuple[str, ...], option: str, kind: type, *, several: bool
) -> dict[str, Any]:
    """`key=number` pairs, or `key=number,number,...`.

    Raises:
        SpecError: a pair has another form, or a number is not above 0.
    """
    from .specs.errors import SpecError

    found, mistakes = {}, []
    for pair in pairs:
        key, _, text = pair.partition("=")
        try:
            numbers = [kind(part) for part in text.split(",")]
            single = several or (len(numbers) == 1 and min(numbers) >= 1)
            if not single or not all(0 <= number < 1e12 for number in numbers):
                raise ValueError(pair)
        except ValueError:
            example = "KEY=NUMBER,NUMBER" if several else "AXIS=NUMBER"
            mistakes.append(f"{option} {pair!r}: write {example}")
            continue
        found[key] = tuple(numbers) if several else numbers[0]
    if mistakes:
        raise SpecError(mistakes)
    return found


def _gathered(arguments: list[str]) -> list[str]:
    """Several `--set a --set b` as one `--set a b`, wherever they stand."""
    several, rest = {"--set": [], "--limit": [], "--pin": [], "--try": []}, []
    current = None
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name in several:
            current = name
            if equals:
                several[name].append(value)
        elif current is not None and "=" in argument and argument[0] != "-":
            several[current].append(argument)
        else:
            current = None
            rest.append(argument)
    for name, values in several.items():
        if values:
            rest += [name, *values]
    return rest


def main(arguments: list[str] | None = None) -> int:
    """Run a command; the exit status is 0, or 2 for bad input."""
    given = _gathered(list(sys.argv[1:] if arguments is None else arguments))
    command = tyro.cli(
        tyro.conf.OmitArgPrefixes[Commands],  # pyright: ignore
        prog="cmxjax",
        description="A differentiable performance model of AI supernodes."
        " Start with `cmxjax list scenarios` and `cmxjax predict NAME`.",
        args=given,
    )
    from .settings import setup
    from .specs.errors import SpecError

    setup()
    width = None if sys.stdout.isatty() else 160
    console = Console(width=width, quiet=command.json, highlight=False)
    try:
        found = command.run(console)
        if command.json:
            print(json.dumps(found, allow_nan=False, indent=1), flush=True)
    except (SpecError, ArithmeticError) as error:
        print(error, file=sys.stderr)
        return BAD_INPUT
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
