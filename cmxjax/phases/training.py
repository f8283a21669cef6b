"""Metrics of a training step: rates, utilization, memory, energy, goodput."""

import jax.numpy as jnp
import numpy as np
from flax import struct

from .. import smooth
from .._types import Leaf, Scalar, Sharpness
from ..cost import held_usd, of_a_token
from ..energy import job_power_w
from ..goodput import goodput_of
from ..job import layout as layouts
from ..job.layout import Layout
from ..job.workload import Train
from ..machine.machine import Machine
from ..memory.training import TrainMemory, train_memory
from ..model.architecture import Architecture, total_parameters
from ..model.flops import (
    FLOP_PER_WEIGHT,
    attention_flop_per_token,
    flop_per_token,
    flop_per_weight,
    outside_flop_per_token,
)
from ..step.costs import HIGHEST, Breakdown, Explained, times_in
from ..step.train_price import train_job, trainer_of
from ..step.training import TrainTimes, trained
from ..switch import either
from ..work.held import holding_of

TRILLION = 1e12

RUN = ("run_time_s", "run_energy_j", "run_cost_usd", "run_failures")

EXPOSED = {
    "exposed_tp_time_s": ("tensor_parallel", "expert_tensor"),
    "exposed_cp_time_s": ("context_parallel",),
    "exposed_ep_time_s": ("dispatch", "combine"),
    "exposed_dp_time_s": ("data_parallel", "expert_data_parallel"),
    "exposed_pp_time_s": ("pipeline",),
}
"""Communication that a step waits for, by axis: components of the breakdown."""


class TrainMetrics(Explained, struct.PyTreeNode, kw_only=True, frozen=True):
    """Metrics of a training step; suffixes are units, SI throughout."""

    step_time_s: Leaf
    layer_time_s: Leaf
    """Mean transformer layer, forward and backward, one micro-batch."""
    forward_time_s: Leaf
    backward_time_s: Leaf
    """Of the same layer, with what is recomputed."""
    pipeline_time_s: Leaf
    tokens_per_s_per_device: Leaf
    tokens_per_s_per_package: Leaf
    tokens_per_s: Leaf
    samples_per_s: Leaf
    flop_per_s_per_device: Leaf
    """Model FLOP by the workload's convention."""
    flop_per_token: Leaf
    mfu: Leaf
    hfu: Leaf
    """With the recomputed passes."""
    bubble: Leaf
    microbatches: Leaf
    memory_bytes: Leaf
    """Worst device."""
    memory_first_stage_bytes: Leaf
    memory_last_stage_bytes: Leaf
    memory_weights_bytes: Leaf
    memory_gradients_bytes: Leaf
    memory_optimizer_bytes: Leaf
    memory_activations_bytes: Leaf
    memory_communication_bytes: Leaf
    memory_excess_bytes: Leaf
    placement_excess: Leaf
    power_w: Leaf
    energy_per_token_j: Leaf
    """Of a step; so is the next."""
    tokens_per_s_per_kw: Leaf
    cost_per_token_usd: Leaf
    """Of a long run, what failures and checkpoints waste included."""
    mtbf_s: Leaf
    checkpoint_time_s: Leaf
    checkpoint_interval_s: Leaf
    goodput: Leaf
    """Useful work over wall clock in a long run with failures."""
    trillion_tokens_time_s: Leaf
    """Wall clock to train on 1e12 tokens, failures included."""
    trillion_tokens_cost_usd: Leaf
    run_time_s: Leaf | None
    """Wall clock of a run over the workload's `tokens`, failures included; None without
    such. Likewise the next."""
    run_energy_j: Leaf | None
    """At the power of a step all the time."""
    run_cost_usd: Leaf | None
    run_failures: Leaf | None
    """That interrupt it."""
    parameters: Leaf
    memory_of_stages: dict[str, Leaf] | None
    """Bytes on a device of each stage by class, (stage,): of those that the layout lists,
    or of the first stage, of the second and of the last."""
    exposed_tp_time_s: Leaf | None
    """Communication of an axis that the step waits for, from the breakdown; None
    without it. The next four likewise."""
    exposed_cp_time_s: Leaf | None
    exposed_ep_time_s: Leaf | None
    exposed_dp_time_s: Leaf | None
    exposed_pp_time_s: Leaf | None
    breakdown: Breakdown | None
    """Seconds of the step by component, by Euler's theorem; they sum to the step."""
    kind: str = struct.field(pytree_node=False, default="train_metrics")


def train_metrics(
    machine: Machine,
    a: Architecture,
    w: Train,
    layout: Layout,
    sharpness: Sharpness,
    explains: bool,
) -> TrainMetrics:
    """Predict one training step."""
    trainer = trainer_of(machine)
    holding = holding_of(a, w, layout, trainer.routing_skew, trainer.stages, sharpness)
    step = trained(train_job(machine, a, w, layout, holding), sharpness)
    times, breakdown = times_in(step, explains)
    memory = train_memory(trainer, a, w, layout, holding)
    return TrainMetrics(
        step_time_s=times.step_s,
        layer_time_s=times.layer.total,
        forward_time_s=times.layer.forward,
        backward_time_s=times.layer.backward + times.layer.weight,
        pipeline_time_s=times.pipeline_s,
        bubble=times.bubble,
        microbatches=times.microbatches,
        placement_excess=layouts.excess(layout, machine.tiers.size),
        breakdown=breakdown,
        memory_of_stages=memory._asdict() if explains else None,
        **_exposed(breakdown),
        **_rates(machine, a, w, layout, times),
        **_memory(machine, memory),
    )


def _exposed(shares: Breakdown | None) -> dict[str, Leaf]:
    if shares is None:
        return dict.fromkeys(EXPOSED)
    member = [
        [float(name.split(".")[0] in components) for components in EXPOSED.values()]
        for name in shares.names
    ]
    sums = jnp.dot(shares.seconds[..., 0], np.array(member), precision=HIGHEST)
    return dict(zip(EXPOSED, jnp.unstack(sums), strict=True))


def peak_flop_per_s(machine: Machine, w: Train) -> Scalar:
    """What a utilization divides by: given, or the chip's for the GEMMs' format."""
    peak = machine.chip.matrix_flop_per_s["activation"]
    return either(w.peak_flop_per_s > 0.0, w.peak_flop_per_s, peak)


def _recompute_factor(a: Architecture, w: Train, per_token: Scalar) -> Scalar:
    """Hardware FLOP over model FLOP: a third is forward, and of the layers a share runs
    again; the head does not (Korthikanti et al., arXiv 2205.05198, appendix A).

    A convention that counts a recomputed pass as model FLOP has it in `per_token`. With
    selective recompute that paper's hardware utilizations are higher than these by
    about s / 9h: they add all passes of attention, of which only the forward one runs
    again.
    """
    convention = w.flop_convention
    outside = outside_flop_per_token(a, convention) / per_token
    again = w.recompute_fraction * (1.0 - outside) / 3.0
    attention = attention_flop_per_token(a, w.sequence_tokens, convention)
    again = again + w.selective.on * attention / per_token / 3.0
    return (1.0 + again) * FLOP_PER_WEIGHT / flop_per_weight(convention)


def _rates(
    machine: Machine, a: Architecture, w: Train, layout: Layout, times: TrainTimes
) -> dict[str, Leaf]:
    """Rates, utilization, energy, goodput and cost.

    Power takes the share of matrix work at its best rate, and that of a busy pipeline
    as the memory's.
    """
    devices = layouts.devices(layout)
    step = times.step_s
    samples = w.global_batch / step
    tokens = samples * w.sequence_tokens
    per_token = flop_per_token(a, w.sequence_tokens, w.flop_convention)
    rate = per_token * tokens / devices
    mfu = rate / peak_flop_per_s(machine, w)
    active = (1.0 - times.bubble) * times.pipeline_s / step
    hfu = mfu * _recompute_factor(a, w, per_token)
    power = job_power_w(machine, devices, hfu / machine.chip.gemm_efficiency, active)
    parameters = total_parameters(a)
    run = goodput_of(machine, parameters, devices)
    token_s, mtbf = 1.0 / tokens / run.fraction, run.mtbf_s
    costs = of_a_token(machine, devices, tokens, power)
    cost = costs.pop("cost_per_token_usd") / run.fraction
    return {
        "tokens_per_s_per_device": tokens / devices,
        "tokens_per_s_per_package": tokens / devices * machine.package_devices,
        "tokens_per_s": tokens,
        "samples_per_s": samples,
        "flop_per_s_per_device": rate,
        "flop_per_token": per_token,
        "mfu": mfu,
        "hfu": hfu,
        "power_w": power,
        **costs,
        "cost_per_token_usd": cost,
        "mtbf_s": mtbf,
        "checkpoint_time_s": run.checkpoint_s,
        "checkpoint_interval_s": run.interval_s,
        "goodput": run.fraction,
        "trillion_tokens_time_s": TRILLION * token_s,
        "trillion_tokens_cost_usd": TRILLION * cost,
        **_run(machine, w.tokens, devices, token_s=token_s, power_w=power, mtbf_s=mtbf),
        "parameters": parameters * jnp.ones(()),
    }


def _run(
    machine: Machine, tokens: Leaf | None, devices: Scalar, *, token_s, power_w, mtbf_s
) -> dict[str, Leaf | None]:
    """Time, energy, cost and failures of a whole run, if it is said how long it is.

    Args:
        token_s: wall clock of a token.
    """
    if tokens is None:
        return dict.fromkeys(RUN)
    wall = tokens * token_s
    of = wall, power_w * wall, held_usd(machine, devices, wall), wall / mtbf_s
    return dict(zip(RUN, of, strict=True))


def _memory(machine: Machine, memory: TrainMemory) -> dict[str, Leaf]:
    """Classes of the worst device, and the whole of the first and the last stage."""
    total = memory.total
    worst = TrainMemory(*jnp.unstack(jnp.stack(memory)[:, jnp.argmax(total)]))
    most, usable = worst.total, machine.chip.memory_usable_bytes
    return {
        "memory_bytes": most,
        "memory_first_stage_bytes": total[0],
        "memory_last_stage_bytes": total[-1],
        "memory_excess_bytes": smooth.larger(most - usable, 0.0),
        **{f"memory_{name}_bytes": part for name, part in worst._asdict().items()},
    }
