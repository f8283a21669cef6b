"""Arguments of Megatron-LM and MindSpeed-LLM for a training layout."""

import math

from ..job.workload import Train
from ..machine.machine import Machine
from ..specs.build import Problem
from ..specs.errors import SpecError
from ..step.train_price import trainer_of
from .launch import Launch, Options, Tool
from .models import file_of, is_mamba, is_uneven, uneven_heads, untrainable
from .ranks import degrees_of, order_notes
from .stages import even, layers_of_chunks, layout_string
from .tools import MEGATRON, MINDSPEED

SHARDING = {2: "optim_grads", 3: "optim_grads_params"}
"""Megatron FSDP's name for each ZeRO stage."""

ATTENTION_EXCHANGE = {
    "ring": ("p2p", "megatron_cp_algo"),
    "all_to_all": ("a2a", "ulysses_cp_algo"),
}
"""Context parallelism in Megatron-LM and in MindSpeed."""


OVERLAP_LOST = "not expressed: dispatch and combine beside another micro-batch's compute"


HETEROGENEOUS = (
    "the model's options must set --heterogeneous-layers-config-path, as layers differ in"
    " heads or widths"
)


def megatron(problem: Problem) -> Launch:
    """Arguments of Megatron-LM. Raises `SpecError` for what it can't run."""
    w, degrees = _train(problem), degrees_of(problem)
    tool, about = _program(problem, MEGATRON)
    _check(problem, w, degrees, MEGATRON)
    options, notes = Options(tool), order_notes(problem, tool.name) + about
    _shared(options, problem, w, degrees)
    chunks = layers_of_chunks(problem, degrees["pp"])
    per_rank = len(chunks) // degrees["pp"]
    if even(problem, degrees["pp"]):
        if per_rank > 1:
            options.add("--num-layers-per-virtual-pipeline-stage", chunks[0])
    else:
        drafts = _drafts(problem)
        options.add("--pipeline-model-parallel-layout", layout_string(chunks, drafts))
    if degrees["cp"] > 1:
        options.add("--cp-comm-type", ATTENTION_EXCHANGE[_exchange(problem)][0])
    notes += _recompute(options, problem, w, chunks) + _schedule(w, MEGATRON.name)
    if _overlaps(problem, degrees):
        obstacles = _no_overlap(problem, w, degrees["pp"], per_rank)
        if obstacles:
            notes.append(f"{OVERLAP_LOST}: {MEGATRON.name} can't with {obstacles}")
        else:
            options.add("--overlap-moe-expert-parallel-comm")
    zero = int(w.zero)
    if zero > 1:
        options.add("--use-megatron-fsdp")
        options.add("--data-parallel-sharding-strategy", SHARDING[zero])
        if w.zero_bucket is not None:
            options.add("--suggested-communication-unit-size", int(w.zero_bucket))
        notes.append("Megatron FSDP also needs its own checkpoint format")
    else:
        _data_parallel(options, problem, w)
    options.add("--bf16")
    precision = _precision(problem)
    if precision == "nvfp4":
        options.add("--fp4-format", "e2m1")
        options.add("--fp4-recipe", "nvfp4")
    elif precision != "bf16":
        mx = precision == "mxfp8"
        options.add("--fp8-format", "e4m3" if mx else "hybrid")
        options.add("--fp8-recipe", "mxfp8" if mx else "delayed")
    if share := float(w.offload_optimizer):
        options.add("--optimizer-cpu-offload")
        options.add("--optimizer-offload-fraction", share)
    return options.launch(notes + _left_out(problem, w))


def mindspeed(problem: Problem) -> Launch:
    """Arguments of MindSpeed-LLM. Raises `SpecError` for what it can't run."""
    w, degrees = _train(problem), degrees_of(problem)
    tool, about = _program(problem, MINDSPEED)
    _check(problem, w, degrees, MINDSPEED)
    options, notes = Options(tool), order_notes(problem, tool.name) + about
    chunks = layers_of_chunks(problem, degrees["pp"])
    mistakes = []
    zero = int(w.zero)
    if zero > 1:
        mistakes.append(f"workload.zero = {zero}: use 0 or 1")
    if _precision(problem) != "bf16":
        mistakes.append(f"workload.precision = {_precision(problem)!r}: use 'bf16'")
    uneven = not even(problem, degrees["pp"])
    if uneven and len(chunks) > degrees["pp"]:
        mistakes.append("layout.vpp: its chunks must hold equally many layers; use 1")
    _refuse(mistakes, MINDSPEED.name)
    _shared(options, problem, w, degrees)
    if uneven:
        options.add("--num-layer-list", ",".join(map(str, chunks)))
    elif len(chunks) > degrees["pp"]:
        options.add("--num-layers-per-virtual-pipeline-stage", chunks[0])
    if degrees["cp"] > 1:
        algorithm = ATTENTION_EXCHANGE[_exchange(problem)][1]
        options.add("--context-parallel-algo", algorithm)
    notes += _recompute(options, problem, w, chunks) + _schedule(w, MINDSPEED.name)
    if _overlaps(problem, degrees):
        notes.append(OVERLAP_LOST)
    _data_parallel(options, problem, w)
    options.add("--bf16")
    if share := float(w.offload_optimizer):
        notes.append(f"not expressed: {share:.0%} of the optimizer state on the host")
    return options.launch(notes + _left_out(problem, w))


def _train(problem: Problem) -> Train:
    if not isinstance(problem.workload, Train):
        raise TypeError(f"phase {problem.workload.kind} is no training")
    return problem.workload


def _precision(problem: Problem) -> str:
    return problem.scenario.workload.precision  # pyright: ignore


def _exchange(problem: Problem) -> str:
    return _train(problem).context


def _drafts(problem: Problem) -> int:
    return int(problem.model.draft_layers) if problem.model else 0


def _refuse(mistakes: list[str], tool: str) -> None:
    if mistakes:
        raise SpecError([f"{tool} can't run this: {mistake}" for mistake in mistakes])


def _has_states(problem: Problem) -> bool:
    """Whether some layers are Mamba-2, which a program of their own trains."""
    return problem.model is not None and any(
        is_mamba(spec) for spec in file_of(problem).mixer_specs.values()
    )


def _program(problem: Problem, tool: Tool) -> tuple[Tool, list[str]]:
    """The tool with the program that trains the model, and what is to be known of it."""
    if not _has_states(problem):
        several = problem.model is not None and is_uneven(file_of(problem))
        return tool, [HETEROGENEOUS] if several else []
    program = tool.program.replace("pretrain_gpt.py", "pretrain_mamba.py")
    notes = [
        "the model's options must set --hybrid-override-pattern, whose layers are one"
        " half each: mixer or feed-forward network"
    ]
    if _drafts(problem):
        notes.append("not expressed: draft layers, which it has for no such model")
    return tool._replace(program=program), notes


def _check_model(
    problem: Problem, w: Train, degrees: dict[str, int], tool: Tool
) -> list[str]:
    """What of the model, or of the model in this layout, a tool has no layers for."""
    if problem.model is None:
        return []
    file = file_of(problem)
    mistakes = untrainable(file, recent=tool is MEGATRON)
    mistakes += uneven_heads(file, degrees["tp"])
    if _has_states(problem):
        if not even(problem, degrees["pp"]):
            mistakes.append(
                f"layout.pp = {degrees['pp']}: stages of a model with state-space layers"
                " must hold equally many; pin another pp"
            )
        if float(w.chunks) > 1.0:
            mistakes.append(
                f"layout.vpp = {float(w.chunks):g}: stages of a model with state-space"
                " layers have one chunk; use 1"
            )
    return mistakes


def _check(problem: Problem, w: Train, degrees: dict[str, int], tool: Tool) -> None:
    """What both tools refuse."""
    a, mistakes = problem.model, _check_model(problem, w, degrees, tool)
    batch, micro = float(w.global_batch), float(w.micro_batch)
    step = micro * degrees["dp"]
    if micro % 1.0 or batch % 1.0 or batch % step:
        mistakes.append(
            f"workload.global_batch = {batch:g}: must be a whole multiple of"
            f" micro_batch x dp = {micro:g} x {degrees['dp']}; change one of them"
        )
    elif float(w.chunks) > 1.0 and batch / step % degrees["pp"]:
        mistakes.append(
            f"layout.vpp = {float(w.chunks):g}: {batch / step:g} micro-batches of a rank"
            f" must be a multiple of pp = {degrees['pp']}; use vpp = 1 or another batch"
        )
    if float(w.chunks) > 1.0 and degrees["pp"] == 1:
        mistakes.append("layout.vpp: needs pp > 1; use 1")
    experts = None if a is None else a.experts
    if experts is not None:
        along = float(problem.placed.sequence_parallel.on) > 0.5
        if degrees["tp"] > 1 and not along:
            mistakes.append(
                "layout.sequence_parallel = false: experts with tp > 1 need it; set true"
            )
        spare = float(problem.placed.routing.redundant_experts)
        if spare or float(problem.placed.routing.shared_replicas):
            mistakes.append("routing: no spare or shared replicas in training; use 0")
        routed = float(experts.routed)
        if routed % degrees["ep"]:
            mistakes.append(
                f"layout.ep = {degrees['ep']}: must divide {routed:g} experts"
            )
    if _precision(problem) == "int8":
        mistakes.append("workload.precision = 'int8': use 'bf16' or 'fp8'")
    _refuse(mistakes, tool.name)


def _shared(
    options: Options, problem: Problem, w: Train, degrees: dict[str, int]
) -> None:
    """Degrees and batch, which both tools spell alike."""
    options.add("--tensor-model-parallel-size", degrees["tp"])
    options.add("--pipeline-model-parallel-size", degrees["pp"])
    options.add("--context-parallel-size", degrees["cp"])
    if problem.model is not None and problem.model.experts is not None:
        options.add("--expert-model-parallel-size", degrees["ep"])
        options.add("--expert-tensor-parallel-size", degrees["etp"])
        options.add("--moe-token-dispatcher-type", "alltoall")
        options.add("--moe-grouped-gemm")
    if float(problem.placed.sequence_parallel.on) > 0.5 and degrees["tp"] > 1:
        options.add("--sequence-parallel")
    options.add("--micro-batch-size", int(w.micro_batch))
    options.add("--global-batch-size", int(w.global_batch))
    options.add("--seq-length", int(w.sequence_tokens))


def _data_parallel(options: Options, problem: Problem, w: Train) -> None:
    """Gradients and the optimizer of ZeRO 0 and 1. Buckets need the overlap."""
    machine = problem.machine
    assert isinstance(machine, Machine)
    overlaps = float(trainer_of(machine).data_exposed_fraction) < 1.0
    splits = float(w.zero) > 0.0
    if splits:
        options.add("--use-distributed-optimizer")
    if overlaps and (splits or w.zero_bucket is not None):
        options.add("--overlap-grad-reduce")
    if overlaps and splits:
        options.add("--overlap-param-gather")
    if w.zero_bucket is not None:
        options.add("--ddp-bucket-size", int(w.zero_bucket))


def _recompute(
    options: Options, problem: Problem, w: Train, chunks: list[int]
) -> list[str]:
    """Recompute options; notes where whole layers miss the wanted share."""
    if bool(w.selective.on):
        options.add("--recompute-granularity", "selective")
        return []
    share = float(w.recompute_fraction)
    if not share:
        return []
    options.add("--recompute-granularity", "full")
    if share == 1.0:
        options.add("--recompute-method", "uniform")
        options.add("--recompute-num-layers", 1)
        return []
    # the option counts layers of a chunk; rounded up, as memory must not overflow
    layers = math.ceil(share * max(chunks) - 1e-9)
    options.add("--recompute-method", "block")
    options.add("--recompute-num-layers", layers)
    if layers == share * max(chunks):
        return []
    return [f"{layers} of {max(chunks)} layers of a chunk recompute, not {share:.0%}"]


def _schedule(w: Train, tool: str) -> list[str]:
    if w.schedule in ("1f1b", "interleaved"):
        return []
    return [f"not expressed: schedule {w.schedule}; {tool} runs 1F1B with these options"]


def _overlaps(problem: Problem, degrees: dict[str, int]) -> bool:
    """Whether expert exchanges run beside another micro-batch's compute."""
    return degrees["ep"] > 1 and problem.placed.microbatches != "1"


def _no_overlap(problem: Problem, w: Train, pp: int, chunks: int) -> str:
    """What keeps Megatron-LM from overlapping micro-batches; empty where nothing does.

    Source: `transformer_config.py` of megatron-core 0.16.1, which checks all but FSDP:
    nothing there says that both go together, so they aren't printed together.
    """
    obstacles = {
        "pp > 1 without vpp > 1": pp > 1 and chunks == 1,
        "layers recomputed in full": float(w.recompute_fraction) > 0.0,
        "more than one draft layer": _drafts(problem) > 1,
        "a draft layer and pp = 1": _drafts(problem) == 1 and pp == 1,
        "FSDP": int(w.zero) > 1,
    }
    return ", ".join(reason for reason, holds in obstacles.items() if holds)


def _left_out(problem: Problem, w: Train) -> list[str]:
    """What a step has beside the layout."""
    notes = []
    if float(w.offload_activations) or float(w.offload_weights):
        notes.append("not expressed: activations or weights on the host")
    if w.zero_group is not None:
        notes.append("not expressed: groups of ranks that share the optimizer's state")
    if w.zero == 3.0 and w.zero_prefetch is not None:
        ahead = f"{float(w.zero_prefetch):g} buckets or layers gathered ahead"
        notes.append(f"not expressed: {ahead}, which the unit of communication decides")
    if _drafts(problem) and not _has_states(problem):
        notes.append("the model's options must set --mtp-num-layers, which is assumed")
    return [*notes, "options of the model, data and learning rate are to be added"]
