"""Choose layouts, pools and machines."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich.console import Console

from .arguments import Name, number_or_word, parse_changes, parse_numbers, serve_limits

if TYPE_CHECKING:
    from ..interop.launch import Launch
    from ..optimization.answer import Answer
    from ..specs.scenario_file import Scenario
else:
    Answer = Launch = Scenario = object  # they are loaded when first used


@dataclass(frozen=True)
class Optimize:
    """Choose degrees, placement and batch of a job together; of serving, the pools;
    with --budget the chip and the fabric of the machine."""

    scenario: Name
    set: tuple[str, ...] = ()
    """Dotted keys to change, such as workload.kv_tokens=8192."""
    objective: tuple[str, ...] = ()
    """A quantity; rates are maximized, all else minimized. Several give the best of the
    first under limits on each other one, with a proof of each."""
    limit: tuple[str, ...] = ()
    """Bounds that must hold, such as tpot=50ms; rates are bounded from below."""
    pin: tuple[str, ...] = ()
    """Degrees that are given, such as tp=1."""
    try_: Annotated[tuple[str, ...], tyro.conf.arg(name="try")] = ()
    """Values of a setting to choose from, such as sequences_per_device=16,32,48; in
    training also schedule=1f1b,zero_bubble, vpp=1,2 and overlapped_microbatches=1,2."""
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

    def run(self, console: Console) -> dict[str, object]:
        from ..interop.emit import check_phase
        from ..optimization.answer import optimize
        from ..report.optimization import (
            answer_tables,
            as_scenario,
            write_answer,
            write_picture,
        )
        from ..specs.errors import AnsweredError, SpecError, afterwards, all_of
        from ..specs.scenario import load_scenario, validate_scenario

        self._check_options()
        if self.certify and self.no_certify:
            raise SpecError(["--certify and --no-certify: give one of them"])
        if self.budget is not None:
            return self._design(console, self.budget)
        if self.spend is not None or self.also:
            raise SpecError(["--spend and --also: need --budget"])
        scenario = load_scenario(self.scenario, parse_changes(self.set))
        if scenario.phase == "serve":
            return self._pools(console)
        emit = self.emit
        pinned, settings, _ = all_of(
            lambda: parse_numbers(self.pin, "--pin", number_or_word, several=False),
            lambda: parse_numbers(self.try_, "--try", number_or_word, several=True),
            lambda: None if emit is None else check_phase(scenario.phase, emit),
        )
        answer = optimize(
            scenario,
            objective=self.objective,
            limits=self.limit,
            pinned=pinned,
            settings=settings,
            devices=self.devices,
            method=self.method,
            certify=False if self.no_certify else self.certify or None,
            seed=self.seed,
            calibration=self.calibration,
        )
        console.print(answer_tables(answer))
        data = answer.as_json()
        if answer.feasible:
            best = validate_scenario(as_scenario(answer), scenario.where)
            data["job"] = self._echo(console, best)
        try:  # what can't be expressed or run is refused before anything is written
            launch = None if self.emit is None else self._launch(answer)
        except SpecError as error:
            raise AnsweredError(data, error.mistakes) from None
        if launch is not None:
            console.print(launch.text, soft_wrap=True)
            data["emit"] = launch.as_json()
        return afterwards(
            data,
            lambda: self.out is None or write_answer(answer, self.out),
            lambda: self.picture is None or write_picture(answer, self.picture),
        )

    def _echo(self, console: Console, scenario: Scenario) -> dict[str, object]:
        """Print and give the job of a scenario as it is understood."""
        from ..report.job import job_text
        from ..specs.build import build
        from ..specs.resolved import resolved

        problem = build(scenario, self.calibration)
        console.print(job_text(problem))
        return resolved(problem)

    def _check_options(self) -> None:
        """Refuse, before the work, numbers and words that no search takes and outputs
        that couldn't be written. Raises `SpecError`."""
        from ..specs.errors import SpecError
        from ..specs.figures import MOST_DEVICES
        from ..specs.measurement_file import QUANTITIES
        from ..specs.output import check_outputs, inputs_of
        from ..words import choose

        counts = f"a whole number from 1 to {MOST_DEVICES}"
        mistakes = [
            f"--devices {count}: use {counts}"
            for count in self.devices
            if not 1 <= count <= MOST_DEVICES
        ]
        if self.seed < 0:
            mistakes.append(f"--seed {self.seed}: use a whole number from 0")
        mistakes += [
            f"--objective {name}: no such quantity; {choose(name, QUANTITIES)}"
            for name in self.objective
            if name not in (*QUANTITIES, "devices")
        ]
        if mistakes:
            raise SpecError(mistakes)

        given = self.scenario, parse_changes(self.set), self.calibration, self.budget
        others = [text.partition("=")[0] for text in self.also]
        outputs = {"--out": self.out, "--picture": self.picture}
        check_outputs(outputs, inputs_of(*given, others))

    def _launch(self, answer: Answer) -> Launch:
        """The answer's layout as settings of another tool."""
        from ..interop.emit import emit
        from ..report.optimization import as_scenario
        from ..specs.errors import SpecError
        from ..specs.scenario import validate_scenario

        if not answer.feasible:
            raise SpecError([f"--emit {self.emit}: {'; '.join(answer.reasons)}"])
        best = validate_scenario(as_scenario(answer), "the answer")
        return emit(best, self.emit or "", self.calibration)

    def _design(self, console: Console, budget: str) -> dict[str, object]:
        from ..optimization.codesign.design import codesign
        from ..optimization.codesign.workloads import shares_of
        from ..report.codesign import codesign_tables, draw_codesign
        from ..specs.errors import SpecError, afterwards
        from ..specs.scenario import load_scenario

        given = {"pin": self.pin, "try": self.try_, "devices": self.devices}
        given |= {"out": self.out, "certify": self.certify, "emit": self.emit}
        given |= {"no-certify": self.no_certify, "method": self.method != "auto"}
        wrong = [f"--{name}: not with --budget" for name, v in given.items() if v]
        if len(self.objective) > 1:
            wrong.append("--objective: give one with --budget")
        if wrong:
            raise SpecError(wrong)
        pairs = tuple(text if "=" in text else f"{text}=1" for text in self.also)
        weights = parse_numbers(pairs, "--also", float, several=True)
        changes = parse_changes(self.set)
        scenarios = [(load_scenario(self.scenario, changes), 1.0)]
        scenarios += [(load_scenario(name), w[0]) for name, w in weights.items()]
        design = codesign(
            shares_of(scenarios, self.limit, *self.objective),
            budget,
            spend=self.spend,
            seed=self.seed,
            calibration=self.calibration,
        )
        console.print(codesign_tables(design))
        data, picture = design.as_json(), self.picture
        data["job"] = [self._echo(console, scenario) for scenario, _ in scenarios]
        if picture is None:
            return data

        def draw() -> None:
            draw_codesign(design, picture)
            console.print(f"written: {picture}")

        return afterwards(data, draw)

    def _pools(self, console: Console) -> dict[str, object]:
        """The best sizes of the pools of a serving scenario."""
        from ..optimization.pools import split_pools
        from ..report.pools import split_tables
        from ..specs.errors import SpecError, afterwards
        from ..specs.scenario import load_scenario
        from ..specs.scenario_write import write_scenario

        free = {"--pin": self.pin, "--try": self.try_, "--picture": self.picture}
        free |= {"--certify": self.certify, "--no-certify": self.no_certify}
        free |= {"--emit": self.emit, "--method": self.method != "auto"}
        mistakes = [
            f"{option}: the sizes of the pools are all that is free in phase serve;"
            " leave it out"
            for option, given in free.items()
            if given
        ]
        known = (), ("request_capacity_rate",), ("devices",)
        if self.objective not in known:
            mistakes.append(
                f"--objective {' '.join(self.objective)}: phase serve has"
                " request_capacity_rate, or devices for the fewest that serve the"
                " request rate"
            )
        if len(self.devices) > 1:
            mistakes.append("--devices: give one number of devices to split")
        if mistakes:
            raise SpecError(mistakes)
        changes = parse_changes(self.set) | serve_limits(self.limit)
        devices = self.devices[0] if self.devices else None
        scenario = load_scenario(self.scenario, changes)
        fewest = self.objective == ("devices",)
        split = split_pools(
            scenario, devices, fewest=fewest, calibration=self.calibration
        )
        console.print(split_tables(split))
        data, out = split.as_json(), self.out
        data["job"] = self._echo(console, split.scenario)
        if out is None or not split.feasible:
            return data
        return afterwards(data, lambda: write_scenario(split.scenario, {}, out))
