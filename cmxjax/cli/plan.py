"""Plan capacity."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console

from .arguments import Names, parse_changes, parse_numbers, serve_limits

if TYPE_CHECKING:
    from ..planning.plan import Plan as Found
else:
    Found = object  # it is loaded when first used


@dataclass(frozen=True)
class Plan:
    """How many packages of each machine serve a load of requests within limits, at what
    price, and how surely."""

    names: Names
    """Serving scenarios, shipped or paths, one for each machine. What their pools do
    stays; how instances are laid out and how many there are is found."""
    rate: str | None = None
    """Requests that arrive, such as 100/s; as the mix or the scenario says if left out
    of the command."""
    limit: tuple[str, ...] = ()
    """ttft=2s and tpot=50ms; a mix's own limits hold for its classes."""
    mix: str | None = None
    """File of several classes of requests, with lengths, rates and limits."""
    trace: str | None = None
    """File of requests that arrived (CSV, or Azure's or Mooncake's traces): its classes
    and rate are planned for, and the fleet is judged by simulating it."""
    layouts: Literal["search", "given"] = "search"
    """Lay instances out anew, or keep them as the scenarios have them."""
    pin: tuple[str, ...] = ()
    """Degrees that are given where layouts are searched, such as pp=1."""
    growth: float = 1.0
    """Factor of all rates to have room for."""
    confidence: float | None = None
    """Probability with which every pool must take the load by its error bar, such as
    0.9; left out, as the model says."""
    available: float = 0.999
    """Probability with which as many hosts must work as are needed, which sets the
    spares."""
    repair: str = "4h"
    """From a failure to a repaired host; assumed."""
    set: tuple[str, ...] = ()
    """Dotted keys to change in all scenarios, such as workload.cached_fraction=0.5."""
    picture: str | None = None
    """Draw the fleets into this file."""
    show: Literal["fleets", "cost"] | None = None
    """Packages and price of each fleet (if left out), or packages and the cost of a
    million tokens over the rate of requests, which plans for ten rates."""
    out: str | None = None
    """Write the fleet of fewest packages as a scenario that predict takes; of several
    classes the one that most requests are of, at the rate that loads the pools as all do
    together."""
    calibration: str | None = None
    """A calibration's name, or none for the spec as printed."""
    json: bool = False

    def run(self, console: Console) -> object:
        from ..planning.plan import plan
        from ..report.plan import plan_tables
        from ..specs.errors import SpecError, afterwards
        from ..specs.output import check_outputs, inputs_of

        changes = parse_changes(self.set) | serve_limits(self.limit)
        read = [inputs_of(name, changes, self.calibration) for name in self.names]
        others = [file for file in (self.mix, self.trace) if file is not None]
        inputs = [path for paths in read for path in paths] + others
        check_outputs({"--picture": self.picture, "--out": self.out}, inputs)
        if self.mix is not None and self.trace is not None:
            raise SpecError(["--mix and --trace: give one of them"])
        if self.show is not None and self.picture is None:
            raise SpecError(["--show: needs --picture FILE"])
        asked: dict[str, Any] = dict(
            per_s=None if self.rate is None else _quantity(self.rate, "--rate"),
            mix=self.mix,
            trace=self.trace,
            layouts=self.layouts,
            pinned=parse_numbers(self.pin, "--pin", int, several=False),
            growth=self.growth,
            confidence=self.confidence,
            available=self.available,
            repair_s=_quantity(self.repair, "--repair"),
            changes=changes,
            calibration=self.calibration,
        )
        found = plan(list(self.names), **asked)
        console.print(plan_tables(found))
        out = self.out
        return afterwards(
            found.as_json(),
            lambda: self._draw(found, asked),
            lambda: out is None or self._write(console, found, out),
        )

    def _draw(self, found: Found, asked: dict[str, Any]) -> None:
        from ..planning.plan import over_rates
        from ..report.plan_picture import draw_costs, draw_plan

        if self.picture is None:
            return
        if self.show == "cost":
            over = over_rates(found, list(self.names), **asked)
            draw_costs(found, over, self.picture)
        else:
            draw_plan(found, self.picture)

    def _write(self, console: Console, found: Found, path: str) -> None:
        """The fleet of fewest packages as a scenario. Raises `SpecError`."""
        from ..specs.errors import SpecError
        from ..specs.scenario_write import write_scenario

        if not found.feasible:
            raise SpecError([f"--out {path}: nothing takes the load"])
        scenario = found.fleets[0].problem.scenario
        write_scenario(scenario, {}, path)
        console.print(f"written: {path}, {found.fleets[0].name}")


DIMENSIONS = {"--rate": "request_rate", "--repair": "time"}


def _quantity(text: str, option: str) -> float:
    """A positive quantity in SI; requests may be left out of a rate.

    Raises:
        SpecError: a wrong unit, or none.
    """
    from ..specs.errors import SpecError
    from ..specs.figures import parse_quantity

    dimension = DIMENSIONS[option]
    number = text.strip().removesuffix("/s")
    whole = text
    if dimension == "request_rate" and number != text.strip() and _is_number(number):
        whole = f"{number} requests/s"
    try:
        value = parse_quantity(whole, dimension)
    except ValueError as error:
        raise SpecError([f"{option} {text}: {error}"]) from None
    if not value > 0.0:
        raise SpecError([f"{option} {text}: must be above 0"])
    return value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
