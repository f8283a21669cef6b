"""Arguments of SGLang for a serving layout."""

from ..specs.build import Problem
from ..specs.context import dtypes_of
from ..specs.errors import SpecError
from .launch import Launch, Options
from .serving import (
    Instance,
    exchange_of,
    given_weights,
    head_note,
    instance_of,
    not_set,
    stores_formats,
)
from .tools import SGLANG

QUANTIZED = {"fp8": "fp8", "int8": "w8a8_int8"}
ASCEND_QUANTIZED = {"int8": "modelslim"}
MODES = {"decode": "low_latency", "prefill": "normal"}


def sglang(problem: Problem, microbatches: int) -> Launch:
    """Arguments of SGLang. Raises `SpecError` for what it can't run.

    Its `--tp-size` counts all ranks of a pipeline stage, of which attention takes groups
    of data and context parallelism, and the experts those of `--ep-size`.
    """
    instance = instance_of(problem, SGLANG.name, microbatches)
    notes = list(instance.notes)
    options, phase = Options(SGLANG), problem.scenario.phase
    _degrees(options, instance)
    _exchange(options, instance, problem, notes)
    _head(options, instance, problem, notes)
    # both are counted for all groups of attention together
    groups = instance.degrees["dp"] if instance.experts else 1
    if instance.requests:
        options.add("--max-running-requests", instance.requests * groups)
    else:
        options.add("--chunked-prefill-size", instance.tokens * groups)
    options.add("--disaggregation-mode", phase)
    if instance.drafts:
        options.add("--speculative-algorithm", "EAGLE")
        options.add("--speculative-num-steps", instance.drafts)
        options.add("--speculative-eagle-topk", 1)
        options.add("--speculative-num-draft-tokens", instance.drafts + 1)
    _formats(options, problem, notes)
    notes.append("--mem-fraction-static is left to the engine")
    return options.launch(notes)


def _degrees(options: Options, instance: Instance) -> None:
    degrees = instance.degrees
    groups = degrees["dp"] if instance.experts else 1
    options.add("--tp-size", groups * degrees["tp"] * degrees["cp"])
    options.add("--pp-size", degrees["pp"])
    if not instance.experts:
        options.add("--dp-size", degrees["dp"])
    elif groups > 1:
        options.add("--attn-dp-size", groups)
    if degrees["cp"] > 1:
        options.add("--attn-cp-size", degrees["cp"])
        options.add("--enable-prefill-cp")
    if instance.experts and degrees["ep"] > 1:
        options.add("--ep-size", degrees["ep"])


def _exchange(
    options: Options, instance: Instance, problem: Problem, notes: list[str]
) -> None:
    """The experts' exchange, which needs all ranks of a stage in the expert group: DeepEP
    or, where the job has it, one kernel with the experts' own work."""
    degrees = instance.degrees
    sent = instance.experts and degrees["ep"] > 1 and degrees["etp"] == 1
    if sent and exchange_of(problem) == "megamoe":
        options.add("--moe-a2a-backend", "megamoe")
    elif sent:
        options.add("--moe-a2a-backend", "deepep")
        options.add("--deepep-mode", MODES[problem.scenario.phase])
    elif instance.experts and degrees["ep"] > 1:
        notes.append("not expressed: all-to-all with split experts; it gathers tokens")
    if instance.microbatches == 2 and sent:
        options.add("--enable-two-batch-overlap")
    elif instance.microbatches == 2:
        notes.append("not expressed: two overlapped micro-batches, which need experts")
    if instance.redundant:
        options.add("--enable-eplb")
        options.add("--ep-num-redundant-experts", instance.redundant)


def _head(
    options: Options, instance: Instance, problem: Problem, notes: list[str]
) -> None:
    """The output head: all groups of attention that run the experts together share it,
    unless each is told to have its own. Engines beside each other share none.

    Raises:
        SpecError: the job says that some of them share it.
    """
    groups = instance.degrees["dp"] if instance.experts else 1
    if instance.head == groups:
        return
    if groups > 1:
        options.add("--enable-dp-lm-head")
    said = problem.scenario.layout.head  # pyright: ignore
    if instance.head > 1 and said is not None:
        key = f"{SGLANG.name} can't run this: layout.head = {instance.head}"
        why = "engines beside each other share no output head; use 1"
        if groups > 1:
            why = f"all {groups} groups of attention share the output head or none does"
            why = f"{why}; use 1 or {groups}"
        raise SpecError([f"{key}: {why}"])
    notes += head_note(instance)


def _formats(options: Options, problem: Problem, notes: list[str]) -> None:
    dtypes = dtypes_of(problem.scenario)
    ascend = "fp8" not in problem.system.chip.matrix_flop_per_s
    known = ASCEND_QUANTIZED if ascend else QUANTIZED
    stored = stores_formats(problem)
    if dtypes.weight in known and not stored:
        options.add("--quantization", known[dtypes.weight])
    if dtypes.kv == "fp8":
        options.add("--kv-cache-dtype", "fp8_e4m3")
    weights = given_weights(problem, () if stored else ("bf16", *known))
    notes += not_set(dtypes, weights, caches=("bf16", "fp8"))
