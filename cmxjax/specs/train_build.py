"""From a training scenario to its workload."""

from ..job.layout import Layout
from ..job.workload import BYTES, NO_COPY, Dtypes, Software, Train, balance_of, sizes_of
from ..machine.resolve import Choices
from ..machine.runtimes import Trainer
from ..machine.system import System
from ..model.flops import convention_named
from ..step.pipeline import chunks_filled
from ..switch import switch
from .context import (
    Context,
    check_dtypes,
    dtypes_of,
    framework_of,
    leaf,
    multiplied,
    pick,
    usual,
)
from .degrees import Degrees, derive
from .errors import SpecError, all_of
from .layout_build import layout_of
from .scenario_file import TrainScenario
from .schedules import program_of, schedule_mistakes

OFFLOAD_LINK = "cpu-pool"
WORKING = "bf16"
"""Format of the weights that passes read, before they are quantized."""


def train_job(context: Context, scenario: TrainScenario) -> tuple[Train, Layout, Choices]:
    """A step of training.

    Raises:
        SpecError: with every mistake.
    """

    def workload() -> tuple[Train, Choices]:
        degrees = derive(scenario.layout, context.mixture, context.where)
        return all_of(
            lambda: _check_stages(context, scenario, degrees),
            lambda: _workload(context, scenario, degrees, usual(context.system)),
        )[1]

    layout, (made, choices) = all_of(lambda: layout_of(context), workload)
    return made, layout, choices


def _workload(
    context: Context, scenario: TrainScenario, degrees: Degrees, choices: Choices
) -> tuple[Train, Choices]:
    """The workload of a training scenario, and what it uses of the system.

    Args:
        choices: what a job uses unless it says otherwise.

    Raises:
        SpecError: with every mistake.
    """
    w, spec = scenario.workload, scenario.layout
    (software, trainer, context_exchange, dtypes), link, networks, convention, _ = all_of(
        lambda: _software(context, scenario, degrees),
        lambda: _offload_link(context, scenario),
        lambda: all_of(
            lambda: _fabric(context, scenario),
            lambda: _exchange(context, scenario, choices.expert_library),
        ),
        lambda: _convention(context, scenario),
        lambda: _check_batch(context, scenario, degrees),
    )
    fabric, library = networks
    chunks = float(spec.vpp or 1)
    full = {"none": 0.0, "selective": 0.0, "full": 1.0}
    share = full[w.recompute] if isinstance(w.recompute, str) else w.recompute
    modes = context.system.expert_parallel[library]
    work = Train(
        global_batch=leaf(w.global_batch),
        micro_batch=leaf(w.micro_batch),
        sequence_tokens=leaf(w.sequence_tokens),
        recompute_fraction=leaf(share),
        chunks=leaf(chunks),
        stage_layers=None if spec.stages is None else leaf(spec.stages),
        offload_activations=leaf(w.offload.activations),
        offload_weights=leaf(w.offload.weights),
        offload_optimizer=leaf(w.offload.optimizer),
        peak_flop_per_s=leaf(w.peak or 0.0),
        software=software,
        selective=switch(w.recompute == "selective"),
        overlaps=switch(spec.overlapped_microbatches != 1),
        schedule=program_of(w.schedule),
        order=leaf(0.0),
        zero=leaf(w.zero),
        zero_group=None if w.zero_group is None else leaf(w.zero_group),
        zero_bucket=None if w.zero_bucket is None else leaf(w.zero_bucket),
        tokens=None if w.tokens is None else leaf(w.tokens),
        zero_prefetch=None if w.zero_prefetch == 1 else leaf(w.zero_prefetch),
        gathers=context.system.trainers[trainer].gathers,
        fused_attention=w.fused_attention,
        context=context_exchange,
        flop_convention=convention,
        offloads=bool(link),
        quantized=BYTES[dtypes.activation] < BYTES["bf16"],
    )
    return work, choices._replace(
        dtypes=multiplied(dtypes),
        experts=context.mixture,
        trainer=trainer,
        expert_library=library,
        expert_mode="normal" if "normal" in modes else next(iter(modes)),
        offload_link=link,
        cluster=fabric,
    )


def _software(
    context: Context, scenario: TrainScenario, degrees: Degrees
) -> tuple[Software, str, str, Dtypes]:
    """Balance, the framework, the exchange of context parallelism, and formats.

    Tokens are exchanged in bf16 unless said.
    """
    system, where = context.system, context.where
    dtypes = training_dtypes(scenario, system)
    used = {"workload.precision": dtypes.activation}
    used |= {f"dtypes.{k}": getattr(dtypes, k) for k in ("attention", "head")}
    all_of(
        lambda: check_dtypes(used, system, where),
        lambda: framework_of(scenario, system, where),
    )
    engine = framework_of(scenario, system, where)
    exchange = scenario.workload.context_parallel or system.trainers[engine].context
    _check_heads(context, degrees, exchange)
    software = Software(
        sizes=sizes_of(dtypes),
        balance=balance_of(scenario.routing.balance or "typical", scenario.routing.skew),
        low_latency=switch(False),
        scale_slot_bytes=leaf(0.0),  # no buffers are counted
        scale_share=leaf(0.0),
    )
    return software, engine, exchange, dtypes


def training_dtypes(scenario: TrainScenario, system: System) -> Dtypes:
    """Formats by tensor class; gradients as the framework keeps them, unless told."""
    precision = scenario.workload.precision
    peaks = system.chip.matrix_flop_per_s
    # block scales aside, mxfp8 and fp8 run at one rate
    known = "fp8" if precision == "mxfp8" and precision not in peaks else precision
    dtypes = dtypes_of(scenario, known)
    given = scenario.dtypes
    if given.dispatch is None:
        dtypes = dtypes._replace(dispatch="bf16")
    if given.indexer is None:
        dtypes = dtypes._replace(indexer=dtypes.attention)
    trainer = _trainer(scenario, system)
    if given.gradient is None and trainer is not None:
        wide = WORKING if trainer.gradient == "weight" else "fp32"
        dtypes = dtypes._replace(gradient=wide)
    return _of_optimizer(dtypes)


def _trainer(scenario: TrainScenario, system: System) -> Trainer | None:
    """The framework; None where its name or version is wrong, which `_software` says."""
    try:
        return system.trainers[framework_of(scenario, system, "")]
    except SpecError:
        return None


def _of_optimizer(dtypes: Dtypes) -> Dtypes:
    """No second copy of the weights where the optimizer's are as wide as those."""
    same = BYTES.get(dtypes.master) == BYTES[WORKING]
    return dtypes._replace(master=NO_COPY) if same else dtypes


def _check_heads(context: Context, degrees: Degrees, exchange: str) -> None:
    """All-to-all context parallelism splits the heads that a tp rank has once more."""
    if exchange != "all_to_all" or context.model is None:
        return
    split = degrees.tp * degrees.cp
    mistakes = [
        f"{context.where}: layout.cp = {degrees.cp}: all-to-all context parallelism"
        f" splits heads, and tp {degrees.tp} x cp {degrees.cp} does not divide"
        f" {mixer.heads:g} of them; lower one, or use"
        " workload.context_parallel = 'ring'"
        for mixer in context.model.file.mixer_specs.values()
        if mixer.heads % split
    ]
    if mistakes:
        raise SpecError(mistakes)


def _offload_link(context: Context, scenario: TrainScenario) -> str:
    """The host link that offloaded state moves over; empty where nothing is."""
    offload, links = scenario.workload.offload, context.system.links
    used = offload.activations or offload.weights or offload.optimizer
    if not used and offload.link is None:
        return ""
    name = offload.link or OFFLOAD_LINK
    return pick(links, name, "workload.offload.link", context.where)


def _exchange(context: Context, scenario: TrainScenario, usual: str) -> str:
    """The library that sends tokens to experts, with gradients on their way back."""
    libraries, key = context.system.expert_parallel, f"{context.where}: exchange"
    if scenario.exchange is None:
        trainer = _trainer(scenario, context.system)
        return (trainer and trainer.exchange) or usual
    name = pick(libraries, scenario.exchange, "exchange", context.where)
    if any(m.fused_exposed_fraction is not None for m in libraries[name].values()):
        said = "one kernel for experts and exchanges serves only; name another"
        raise SpecError([f"{key} = {name!r}: {said}, or leave it out"])
    return name


def _fabric(context: Context, scenario: TrainScenario) -> str:
    name = scenario.workload.fabric
    if name is None:
        return ""
    return pick(context.system.fabrics, name, "workload.fabric", context.where)


def _convention(context: Context, scenario: TrainScenario) -> str:
    name = scenario.workload.flop_convention
    try:
        return convention_named(name or "megatron")
    except ValueError as error:
        key = f"{context.where}: workload.flop_convention = {name!r}"
        raise SpecError([f"{key}: {error}"]) from None


def _check_batch(context: Context, scenario: TrainScenario, degrees: Degrees) -> None:
    """A data-parallel rank must get at least one micro-batch, and groups of ZeRO are of
    one size."""
    w, where, mistakes = scenario.workload, context.where, []
    least = w.micro_batch * degrees.dp
    if w.global_batch < least:
        mistakes.append(
            f"{where}: workload.global_batch = {w.global_batch:g}: dp"
            f" {degrees.dp} x micro_batch {w.micro_batch:g} = {least:g} sequences at"
            " least; raise it"
        )
    group, ranks = w.zero_group, degrees.dp * degrees.cp
    if group is not None and ranks % group:
        mistakes.append(
            f"{where}: workload.zero_group = {group}: does not divide the {ranks}"
            f" data-parallel ranks (dp {degrees.dp} x cp {degrees.cp}); use a divisor, or"
            " leave it out for all"
        )
    if mistakes:
        raise SpecError(mistakes)


def _check_stages(context: Context, scenario: TrainScenario, degrees: Degrees) -> None:
    """Stages given one by one must hold all layers, and there must be such a schedule
    for them. Raises `SpecError`."""
    w = scenario.workload
    stages, chunks = scenario.layout.stages, scenario.layout.vpp or 1
    mistakes: list[str] = []
    where = context.where
    layers = 0.0 if context.model is None else context.model.file.layers
    if stages is not None and len(stages) != degrees.pp:
        mistakes.append(
            f"{where}: layout.stages: {len(stages)} entries for pp = {degrees.pp}; give"
            " the layers of each stage"
        )
    if stages is not None and sum(stages) != layers:
        mistakes.append(
            f"{where}: layout.stages: hold {sum(stages)} layers of {layers:g}; correct"
            " them"
        )
    if degrees.pp * chunks > chunks_filled(layers):
        mistakes.append(
            f"{where}: layout.vpp = {chunks}: pp {degrees.pp} x vpp {chunks} chunks for"
            f" {layers:g} layers; use fewer"
        )
    count = w.global_batch / (w.micro_batch * degrees.dp)
    wrong = schedule_mistakes(w.schedule, chunks, degrees.pp, count)
    mistakes += [f"{where}: {mistake}" for mistake in wrong]
    if mistakes:
        raise SpecError(mistakes)
