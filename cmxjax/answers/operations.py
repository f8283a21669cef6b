"""What prices and failures rest on, beside what follows from them."""

from collections.abc import Collection, Mapping

from ..phases.training import RUN
from ..specs.build import Problem
from ..specs.errors import SpecError
from ..specs.figures import LARGEST, Figure
from ..specs.system_load import OVERRIDE
from ..units import dimension_of, format_si

PRICE = "operations.package_hour_usd"

FAILURES = (
    "operations.package_mtbf_s",
    "operations.host_mtbf_s",
    "operations.optical_module_mtbf_s",
    "operations.restart_s",
)

FAILING = ("mtbf_s", "goodput")
"""Metrics, besides those of a whole run, that follow from failures."""


def is_cost(field: str) -> bool:
    """Whether a metric is an amount of money."""
    return field.endswith("_usd")


def priced(problem: Problem) -> bool:
    """Whether a price of a package of the machine is known."""
    return problem.figures[PRICE].si > 0.0


def check_known(problem: Problem, *fields: str) -> None:
    """Raises `SpecError` if the job doesn't say what a metric follows from."""
    for field in fields:
        if is_cost(field) and not priced(problem):
            raise SpecError(
                [f"{field}: no price of {problem.system.name} is known; {SET_PRICE}"]
            )
        if field in RUN and getattr(problem.workload, "tokens", None) is None:
            said = "of a run of unknown length; set workload.tokens, such as 15e12"
            raise SpecError([f"{field}: {said}"])


SET_PRICE = f"set system.{PRICE}, such as 2USD"


def rests_on(problem: Problem, fields: Collection[str]) -> dict[str, Figure]:
    """The figures that costs and failures among some metrics rest on, by leaf path."""
    costs = any(map(is_cost, fields)) and priced(problem)
    fails = any(field in FAILING or field in RUN for field in fields)
    paths = (*((PRICE,) if costs else ()), *(FAILURES if fails else ()))
    found = {path: problem.figures[path] for path in paths}
    return {path: figure for path, figure in found.items() if figure.si < LARGEST}


def operations_lines(problem: Problem, fields: Collection[str]) -> list[str]:
    """The same in words, with the keys that change what is assumed."""
    found = rests_on(problem, fields)
    price = {path: figure for path, figure in found.items() if path == PRICE}
    failures = {path: figure for path, figure in found.items() if path != PRICE}
    lines = []
    if price:
        lines.append(f"costs: {_said(price)} a package-hour; {_origin(price)}")
    elif any(map(is_cost, fields)):
        lines.append(f"costs: no price of a package is known; {SET_PRICE}")
    if failures:
        lines.append(f"mean times: {_said(failures)}; {_origin(failures)}")
    return lines


NAMES = {"package_mtbf_s": "package fails", "host_mtbf_s": "host fails"}
NAMES |= {"optical_module_mtbf_s": "optical module fails", "restart_s": "restart"}


def _said(figures: Mapping[str, Figure]) -> str:
    parts = []
    for path, figure in figures.items():
        name = NAMES.get(path.rpartition(".")[2], "")
        shown = format_si(figure.si, dimension_of(path))
        sigma = f" ±{figure.prior_sigma:.0%}" if figure.prior_sigma else ""
        parts.append(f"{name} {shown}{sigma}".lstrip())
    return ", ".join(parts)


def _origin(figures: Mapping[str, Figure]) -> str:
    """What is assumed with its keys, and the sources of the rest."""
    guessed = [
        path
        for path, figure in figures.items()
        if figure.kind == "assumed" and figure.source != OVERRIDE
    ]
    read = [figure for path, figure in figures.items() if path not in guessed]
    first = {f.source: f.locator for f in reversed(read)}
    parts = [f"{of}: {at}".removeprefix(f"{OVERRIDE}: ") for of, at in first.items()]
    if guessed:
        keys = ", ".join(f"system.{path}" for path in guessed)
        parts.append(f"assumed, change with --set: {keys}")
    return "; ".join(parts)
