"""Launch settings of a scenario for a tool."""

from ..answers.predict import predict
from ..specs.build import build
from ..specs.errors import SpecError
from ..specs.scenario_file import Scenario, TrainScenario
from .launch import Launch
from .sglang import sglang
from .tools import TOOLS
from .training import megatron, mindspeed
from .vllm import vllm, vllm_ascend

TRAINERS = {"megatron": megatron, "mindspeed": mindspeed}
ENGINES = {"vllm": vllm, "vllm-ascend": vllm_ascend, "sglang": sglang}


def check_phase(phase: str, name: str) -> None:
    """Raises `SpecError` if the tool doesn't run jobs of this phase."""
    if phase not in TOOLS[name].phases:
        fitting = [n for n, tool in TOOLS.items() if phase in tool.phases]
        remedy = f"use {', '.join(fitting)}" if fitting else "no tool runs it"
        raise SpecError([f"--emit {name}: doesn't run phase {phase!r}; {remedy}"])


def emit(scenario: Scenario, name: str, calibration: str | None = None) -> Launch:
    """Settings that give a tool the scenario's layout.

    Args:
        scenario: of phase train, decode or prefill.
        name: `megatron`, `mindspeed`, `vllm`, `vllm-ascend` or `sglang`.
        calibration: as in `predict`, by which 1 or 2 micro-batches are chosen where the
            scenario leaves it open.

    Raises:
        SpecError: the tool can't run the layout.
    """
    check_phase(scenario.phase, name)
    problem = build(scenario, calibration)
    if isinstance(scenario, TrainScenario):
        return TRAINERS[name](problem)
    return ENGINES[name](problem, _microbatches(scenario, calibration))


def _microbatches(scenario: Scenario, calibration: str | None) -> int:
    """How many micro-batches overlap: as given, or the faster of 1 and 2."""
    given = scenario.layout.overlapped_microbatches  # pyright: ignore
    if given != "auto":
        return given
    times = {}
    for count in (1, 2):
        layout = scenario.layout.model_copy(  # pyright: ignore
            update={"overlapped_microbatches": count}
        )
        tried = predict(scenario.model_copy(update={"layout": layout}), calibration)
        field = "tpot_s" if scenario.phase == "decode" else "ttft_s"
        times[count] = tried.values[field]
    return min(times, key=times.__getitem__)
