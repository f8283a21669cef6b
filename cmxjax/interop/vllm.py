"""Arguments of vLLM and vLLM-Ascend for a serving layout."""

from ..specs.build import Problem
from ..specs.context import dtypes_of
from ..specs.errors import SpecError
from .launch import Launch, Options, Tool
from .serving import (
    Instance,
    exchange_of,
    given_weights,
    head_note,
    instance_of,
    not_set,
    stores_formats,
)
from .tools import VLLM, VLLM_ASCEND

ALL_TO_ALL = {"decode": "deepep_low_latency", "prefill": "deepep_high_throughput"}


def vllm(problem: Problem, microbatches: int) -> Launch:
    """Arguments of vLLM. Raises `SpecError` for what it can't run."""
    options, instance, notes = _shared(problem, VLLM, microbatches)
    phase, dtypes = problem.scenario.phase, dtypes_of(problem.scenario)
    spread = instance.experts and instance.degrees["ep"] > 1
    if spread:
        gathers = exchange_of(problem) == "gather"
        backend = "allgather_reducescatter" if gathers else ALL_TO_ALL[phase]
        options.add("--all2all-backend", backend)
        if exchange_of(problem) == "megamoe":
            notes.append("not expressed: one kernel for experts and both exchanges")
    if microbatches == 2 and spread:
        options.add("--enable-dbo")
    elif microbatches == 2:
        notes.append("not expressed: two overlapped micro-batches, which need experts")
    if instance.redundant:
        options.add("--enable-eplb")
        options.add("--eplb-config", {"num_redundant_experts": instance.redundant})
    notes += head_note(instance)
    stored = stores_formats(problem)
    if dtypes.weight == "fp8" and not stored:
        options.add("--quantization", "fp8")
    if dtypes.kv == "fp8":
        options.add("--kv-cache-dtype", "fp8")
    weights = given_weights(problem, () if stored else ("bf16", "fp8"))
    notes += not_set(dtypes, weights, caches=("bf16", "fp8"))
    return options.launch(notes)


def vllm_ascend(problem: Problem, microbatches: int) -> Launch:
    """Arguments of vLLM-Ascend. Raises `SpecError` for what it can't run."""
    options, instance, notes = _shared(problem, VLLM_ASCEND, microbatches)
    dtypes = dtypes_of(problem.scenario)
    if instance.degrees["cp"] > 1:
        options.add("--prefill-context-parallel-size", instance.degrees["cp"])
    if microbatches == 2:
        notes.append("not expressed: two overlapped micro-batches")
    environment, config = {}, {}
    if instance.redundant:
        balanced = {"dynamic_eplb": True, "num_redundant_experts": instance.redundant}
        config["eplb_config"] = balanced
        environment["DYNAMIC_EPLB"] = "true"
    if not instance.experts or instance.degrees["dp"] % instance.head:
        notes += head_note(instance)
    elif instance.head > 1:
        split = {"lmhead_tensor_parallel_size": instance.head}
        config["finegrained_tp_config"] = split
    if config:
        options.add("--additional-config", config)
    stored = stores_formats(problem)
    if dtypes.weight == "int8" and not stored:
        options.add("--quantization", "ascend")
        notes.append("--quantization ascend takes a checkpoint made by ModelSlim")
    weights = given_weights(problem, () if stored else ("bf16", "int8"))
    notes += not_set(dtypes, weights, caches=("bf16",))
    return options.launch(notes, **environment)


def _shared(
    problem: Problem, tool: Tool, microbatches: int
) -> tuple[Options, Instance, list[str]]:
    """Degrees and batch, which both spell alike."""
    instance = instance_of(problem, tool.name, microbatches)
    degrees, notes = instance.degrees, list(instance.notes)
    _check(degrees, instance, tool)
    if degrees["pp"] > 1:
        notes.append("its ranks of a pipeline are neighbors, inside data parallelism")
    options = Options(tool)
    options.add("--tensor-parallel-size", degrees["tp"])
    options.add("--pipeline-parallel-size", degrees["pp"])
    options.add("--data-parallel-size", degrees["dp"])
    if instance.experts and degrees["ep"] > 1:
        options.add("--enable-expert-parallel")
    if instance.requests:
        options.add("--max-num-seqs", instance.requests)
    options.add("--max-num-batched-tokens", instance.tokens)
    chip = problem.system.chip
    share = float(chip.memory_usable_bytes) / float(chip.memory_bytes)
    if share < 1.0:
        options.add("--gpu-memory-utilization", round(share, 3))
    if instance.drafts:
        draft = {"method": "mtp", "num_speculative_tokens": instance.drafts}
        options.add("--speculative-config", draft)
    if problem.scenario.phase == "decode":
        notes.append("a decode pool also needs --kv-transfer-config for its connector")
    notes.append("--max-model-len is left to the model: the job gives mean lengths only")
    return options, instance, notes


def _check(degrees: dict[str, int], instance: Instance, tool: Tool) -> None:
    """vLLM spreads experts over all ranks of a stage, or splits each over all of them."""
    mistakes, ranks = [], instance.devices // degrees["pp"]
    if instance.experts and (degrees["ep"], degrees["etp"]) not in (
        (ranks, 1),
        (1, ranks),
    ):
        mistakes.append(
            f"layout.ep = {degrees['ep']}, etp = {degrees['etp']}: experts are spread"
            f" over all {ranks} ranks (ep) or split over them (etp); pin etp=1"
        )
    if tool is VLLM and degrees["cp"] > 1:
        mistakes.append(f"layout.cp = {degrees['cp']}: pin cp=1")
    if mistakes:
        raise SpecError([f"{tool.name} can't run this: {m}" for m in mistakes])
