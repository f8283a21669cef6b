"""The command line. JSON goes to stdout alone; messages go to stderr."""

import json
import os
import sys
from importlib.metadata import version

import tyro
from rich.console import Console

from .arguments import gathered
from .calibrate import Calibrate, PlanMeasurements, Sensitivity
from .optimize import Optimize
from .predict import Compare, List, Predict, Show, Validate

UNANSWERED, BAD_INPUT = 1, 2

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


def main(arguments: list[str] | None = None) -> int:
    """Run a command; the exit status is 0, 1 where an optimization has no feasible
    answer, or 2 for bad input."""
    given = gathered(list(sys.argv[1:] if arguments is None else arguments))
    if given == ["--version"]:
        print(f"cmxjax {version('cmxjax')}")
        return 0
    command = tyro.cli(
        tyro.conf.OmitArgPrefixes[Commands],  # pyright: ignore
        prog="cmxjax",
        description="A differentiable performance model of AI supernodes."
        " Start with `cmxjax list scenarios` and `cmxjax predict NAME`.",
        args=given,
    )
    from ..settings import setup_once
    from ..specs.errors import SpecError

    setup_once()
    width = None if sys.stdout.isatty() else 160
    console = Console(width=width, quiet=command.json, highlight=False)
    try:
        answer = command.run(console)
        if command.json:
            print(json.dumps(answer, allow_nan=False, indent=1), flush=True)
        unanswered = isinstance(answer, dict) and not answer.get("feasible", True)
        if isinstance(command, Optimize) and unanswered:
            return UNANSWERED
    except (SpecError, ArithmeticError) as error:
        print(error, file=sys.stderr)
        return BAD_INPUT
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
