"""What the serving engines have in common: instances, batches, what they can't run."""

from typing import NamedTuple

from ..job.layout import head_ways
from ..job.workload import Decode, Dtypes, Prefill
from ..machine.resolve import Choices
from ..specs.build import Problem
from ..specs.context import dtypes_of
from ..specs.errors import SpecError
from .models import file_of, uneven_heads
from .ranks import degrees_of, order_notes


class Instance(NamedTuple):
    """One engine; a layout with several copies of the experts is as many engines."""

    degrees: dict[str, int]
    """Of the whole layout, but `dp` of one engine and `edp` = 1."""
    copies: int
    devices: int
    """Of one engine."""
    requests: int
    """At a time on one data-parallel rank; 0 in prefill."""
    tokens: int
    """Of a batch on one data-parallel rank."""
    drafts: int
    redundant: int
    """Copies of routed experts beside the first of each."""
    experts: bool
    head: int
    """Data-parallel ranks that share the output head; 1: each has it whole, or its
    tensor group."""
    microbatches: int
    notes: list[str]


def instance_of(problem: Problem, tool: str, microbatches: int) -> Instance:
    """The layout as an engine takes it.

    Args:
        problem: of phase decode or prefill.
        tool: its name in messages.
        microbatches: that overlap, 1 or 2.

    Raises:
        SpecError: no engine can run it, with the reasons.
    """
    w, a, degrees = problem.workload, problem.model, degrees_of(problem)
    if not isinstance(w, Decode | Prefill) or a is None:
        raise TypeError(f"phase {w.kind} is not served")
    group = degrees["tp"] * degrees["cp"]
    notes = order_notes(problem, tool)
    mistakes = uneven_heads(file_of(problem), degrees["tp"])
    several = a.experts is not None
    copies = degrees["edp"] if several else 1
    if degrees["dp"] % copies:
        mistakes.append(
            f"layout.edp = {copies}: copies of the experts must be whole engines, so edp"
            f" must divide dp = {degrees['dp']}; pin edp=1"
        )
    if isinstance(w, Decode) and degrees["cp"] > 1:
        mistakes.append(
            f"layout.cp = {degrees['cp']}: its decoding splits contexts over the ranks of"
            " tp instead; pin cp=1"
        )
    requests, drafts = 0, 0
    if isinstance(w, Decode):
        drafts = int(w.draft_tokens)
        total = float(w.sequences_per_device) * group * degrees["pp"]
        requests = round(total)
        if abs(total - requests) > 1e-6:
            mistakes.append(f"{total:g} requests on a group of tp {degrees['tp']}")
        tokens = requests * (drafts + 1)
    else:
        tokens = round(float(w.tokens_per_device) * group)
    if mistakes:
        raise SpecError([f"{tool} can't run this: {mistake}" for mistake in mistakes])
    if copies > 1:
        notes.append(f"{copies} engines with these options, each with its own experts")
    # a model without experts, or one rank that holds them all, has none to balance
    redundant = _redundant(problem, notes) if several and degrees["ep"] > 1 else 0
    if problem.placed.attention == "sp_tp_sp":
        notes.append("not expressed: sequence-parallel stages around attention")
    elif float(problem.placed.sequence_parallel.on) > 0.5 and degrees["tp"] > 1:
        notes.append(
            "not expressed: activations split along the sequence between tensor-parallel"
            " layers (predict the engine's default with layout.sequence_parallel=false)"
        )
    if any(float(mixer.state) for mixer in a.mixers):
        notes.append(
            f"not expressed: states in {dtypes_of(problem.scenario).state}; it keeps them"
            " as the model's own file or its defaults say"
        )
    if isinstance(w, Prefill) and w.images is not None:
        split = problem.scenario.layout.vision  # pyright: ignore
        notes.append(f"not expressed: vision tower split {split!r}")
    degrees |= {"dp": degrees["dp"] // copies, "edp": 1}
    devices = degrees["dp"] * group * degrees["pp"]
    return Instance(
        degrees,
        copies,
        devices,
        requests,
        tokens,
        drafts,
        redundant,
        several,
        round(float(head_ways(problem.placed))),
        microbatches,
        notes,
    )


def exchange_of(problem: Problem) -> str:
    """The library that sends tokens to experts, as the job is priced."""
    assert isinstance(problem.choices, Choices)
    return problem.choices.expert_library


def head_note(instance: Instance) -> list[str]:
    """What a tool says that can't share an output head, where a job does."""
    if instance.head == 1:
        return []
    return [
        f"not expressed: an output head that {instance.head} ranks of dp share; with"
        " these options each has it whole (predict that with layout.head=1)"
    ]


def _redundant(problem: Problem, notes: list[str]) -> int:
    """Redundant experts, in the place of shared ones that ranks of their own hold."""
    routing = problem.placed.routing
    shared = round(float(routing.shared_replicas))
    redundant = round(float(routing.redundant_experts))
    if shared:
        notes.append(
            f"not expressed: {shared} ranks' slots for the shared expert; every rank"
            " computes it on its own tokens, and these slots hold redundant experts"
            f" (predict that with routing.shared_replicas=0 and"
            f" routing.redundant_experts={redundant + shared})"
        )
    return redundant + shared


def stores_formats(problem: Problem) -> bool:
    """Whether the model's file says how its weights are stored, which an engine reads
    there; another quantization beside that is an error."""
    return bool(file_of(problem).weights)


def given_weights(problem: Problem, known: tuple[str, ...]) -> tuple[str, ...]:
    """Formats of weights that need no note: those that options can set, and any that
    the scenario leaves to the model's file."""
    given = problem.scenario.dtypes.weight  # pyright: ignore
    if given is None and stores_formats(problem):
        return (dtypes_of(problem.scenario).weight,)
    return known


def not_set(
    dtypes: Dtypes, weights: tuple[str, ...], caches: tuple[str, ...]
) -> list[str]:
    """Notes on formats of weights and cache beyond those that options can set."""
    notes = []
    if dtypes.weight not in weights:
        notes.append(f"not expressed: {dtypes.weight} weights, set by the checkpoint")
    if dtypes.kv not in caches:
        notes.append(f"not expressed: key-value cache in {dtypes.kv}")
    return notes
