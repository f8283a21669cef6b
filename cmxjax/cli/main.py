"""The command line. JSON goes to stdout alone; messages go to stderr."""

import json
import os
import sys
from collections.abc import Iterable
from importlib.metadata import version
from io import TextIOWrapper

import tyro
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from .._interrupt import INTERRUPTED, raise_again
from ..words import plain
from .calibrate import Calibrate, PlanMeasurements, Sensitivity
from .keys import Keys
from .optimize import Optimize
from .parse import parse
from .plan import Plan
from .predict import Budget, Compare, List, Predict, Show, Validate
from .sweep import Sweep

UNANSWERED, BAD_INPUT = 1, 2

Commands = (
    Predict
    | Validate
    | Compare
    | Calibrate
    | Sensitivity
    | Optimize
    | Plan
    | Sweep
    | PlanMeasurements
    | List
    | Show
    | Budget
    | Keys
)
NAMES = {
    "predict": Predict,
    "validate": Validate,
    "compare": Compare,
    "calibrate": Calibrate,
    "sensitivity": Sensitivity,
    "optimize": Optimize,
    "plan": Plan,
    "sweep": Sweep,
    "plan-measurements": PlanMeasurements,
    "list": List,
    "show": Show,
    "budget": Budget,
    "keys": Keys,
}
ABOUT = (
    "A differentiable performance model of AI supernodes."
    " Start with `cmxjax list scenarios` and `cmxjax predict NAME`."
)


class PlainConsole(Console):
    """Shows text from files as it is: no markup in it, nothing that steers a terminal."""

    def __init__(self, *, quiet: bool):
        width = None if sys.stdout.isatty() else 160
        super().__init__(
            width=width, quiet=quiet, highlight=False, markup=False, emoji=False
        )

    def print(self, *objects: object, **how: object) -> None:
        """Print, unless the command is quiet: then nothing is laid out either."""
        if not self.quiet:
            super().print(*objects, **how)  # pyright: ignore[reportArgumentType]

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else plain(text), style, control)


def main(arguments: list[str] | None = None) -> int:
    """Run a command; the exit status is 0, 1 where an optimization has no feasible
    answer, 2 for bad input or an output that can't be written, 130 where it was
    interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if sys.stdout is None or sys.stderr is None:  # closed before the start
        sys.stdout = sys.stdout or open(os.devnull, "w")
        sys.stderr = sys.stderr or open(os.devnull, "w")
    if isinstance(sys.stdout, TextIOWrapper):  # a name may not be in its encoding
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return _answered(words)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        _close_stdout()
        return 0
    except OSError as error:
        _close_stdout()
        _complain(f"standard output: {error.strerror}; what was asked isn't shown")
        return BAD_INPUT
    except KeyboardInterrupt:
        _complain("interrupted")
        return INTERRUPTED


def _answered(words: list[str]) -> int:
    """Run a command and print what it says."""
    if words == ["--version"]:
        _say(f"cmxjax {version('cmxjax')}\n")
        return 0
    try:
        command = parse(words, tyro.conf.OmitArgPrefixes[Commands], NAMES, ABOUT)
    except ValueError as error:
        _complain(str(error))
        return BAD_INPUT
    except SystemExit:  # help was asked for
        sys.stdout.flush()
        return 0
    from ..settings import setup_once
    from ..specs.errors import AnsweredError, NoAnswerError, SpecError

    setup_once()
    raise_again()
    console = PlainConsole(quiet=command.json)
    console.begin_capture()
    problem, unanswered = None, False
    try:
        answer = command.run(console)
    except AnsweredError as error:
        answer, problem = error.answer, error
    except NoAnswerError as error:
        answer, unanswered = {"feasible": False, "reason": str(error)}, True
        _complain(str(error))
    except (SpecError, ArithmeticError) as error:
        _complain(plain(str(error)))
        return BAD_INPUT
    finally:
        shown = console.end_capture()
    data = json.dumps(answer, allow_nan=False, indent=1) if command.json else ""
    _say(f"{data}\n" if command.json else shown)
    if problem is not None:
        _complain(str(problem))
        return BAD_INPUT
    if isinstance(command, Optimize | Sensitivity | Plan) and isinstance(answer, dict):
        unanswered = not (answer.get("feasible", True) and answer.get("solved", True))
    return UNANSWERED if unanswered else 0


def _say(text: str) -> None:
    """Print at once. Raises OSError if standard output takes no more."""
    sys.stdout.write(text)
    sys.stdout.flush()


def _complain(text: str) -> None:
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        pass  # there is nowhere left to say it; the exit status does


def _close_stdout() -> None:
    """Keep the interpreter from writing what is left once more when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
