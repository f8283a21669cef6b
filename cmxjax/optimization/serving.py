"""What a job leaves free beside its degrees: batch, experts per device, recompute."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from .. import smooth
from .._types import Real, Scalar, Sharpness
from ..job.layout import AXES, Layout, Routing, degree
from ..job.workload import Decode, Prefill, Train
from ..model.architecture import Architecture
from ..specs.build import Problem
from ..work.held import microbatches_of
from .space import Setting

SEQUENCES = (
    *(0.125, 0.25, 0.5),
    *range(1, 64),
    *range(64, 128, 2),
    *range(128, 256, 4),
    *range(256, 512, 8),
    *range(512, 1025, 16),
)
"""Requests per device that are tried; fractions where several devices share one."""

TOKENS = tuple(base * 2**power for power in range(8) for base in (256, 320, 384, 448)) + (
    65536,
)
"""Prompt tokens per device and batch that are tried."""

MICRO_BATCHES = (1.0, 2.0, 4.0, 8.0, 16.0)
RECOMPUTED = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Shares of the layers whose forward pass runs again."""

EXTRA_SLOTS = (0.0, 1.0)
"""Expert slots per device beyond the fewest that hold all experts."""


class Family(NamedTuple):
    """What changes the shape of the computation, so that each needs a program."""

    attention: str = "tp"
    """`tp`, which is `dp` where tp = 1, or `sp_tp_sp`."""
    dispatches_shared: bool = False
    microbatches: str = "auto"
    schedule: str | None = None
    """Of a training step; None is the workload's."""
    chunks: int = 1
    """Model chunks of a device in training."""


def model_of(problem: Problem) -> Architecture:
    """The problem's model. Raises `TypeError` if the phase has none."""
    if problem.model is None:
        raise TypeError(f"phase {problem.workload.kind} has no model to lay out")
    return problem.model


def families(problem: Problem) -> tuple[Family, ...]:
    """The scenario's own way first, then what else the model and the phase allow."""
    a, layout = model_of(problem), problem.placed
    given = Family("sp_tp_sp" if layout.attention == "sp_tp_sp" else "tp")
    given = given._replace(dispatches_shared=layout.routing.dispatches_shared)
    if isinstance(problem.workload, Train):
        return (given._replace(microbatches=layout.microbatches),)
    ways = [given]
    if isinstance(problem.workload, Prefill) and any(
        mixer.shares_cache for mixer in a.mixers
    ):
        other = "tp" if given.attention == "sp_tp_sp" else "sp_tp_sp"
        ways.append(given._replace(attention=other))
    if isinstance(problem.workload, Decode) and a.experts is not None:
        if float(a.experts.shared) == 1.0:
            ways.append(given._replace(dispatches_shared=not given.dispatches_shared))
    return tuple(ways)


def settings(problem: Problem) -> tuple[Setting, ...]:
    """The batch, and spare expert slots of a mixture or what is recomputed."""
    if isinstance(problem.workload, Train):
        again = (0.0,) if bool(problem.workload.selective.on) else RECOMPUTED
        return (
            Setting("micro_batch", MICRO_BATCHES),
            Setting("recompute_fraction", again),
        )
    if isinstance(problem.workload, Decode):
        batch = Setting("sequences_per_device", tuple(map(float, SEQUENCES)))
    else:
        batch = Setting("tokens_per_device", tuple(map(float, TOKENS)))
    if model_of(problem).experts is None:
        return (batch,)
    return (batch, Setting("extra_slots", EXTRA_SLOTS))


def _above_zero(value: float) -> bool:
    return 0.0 < value < math.inf


def _whole(value: float) -> bool:
    return value >= 0.0 and float(value).is_integer()


ALLOWED: dict[str, tuple[Callable[[float], bool], str]] = {
    "micro_batch": (_above_zero, "numbers above 0"),
    "sequences_per_device": (_above_zero, "numbers above 0"),
    "tokens_per_device": (_above_zero, "numbers above 0"),
    "recompute_fraction": (lambda value: 0.0 <= value <= 1.0, "numbers from 0 to 1"),
    "extra_slots": (_whole, "whole numbers from 0"),
}
"""What may be tried of each setting, and how a message says so."""


class Slots(NamedTuple):
    """How the expert slots of all ranks are used."""

    redundant: Scalar
    shared: Scalar


def expert_slots(
    a: Architecture, family: Family, ep: Real | int, extra: Real, sharpness: Sharpness
) -> Slots:
    """The fewest whole slots per rank that hold all experts, and `extra` more.

    Shared experts that ranks of their own hold take one slot for each topk + 1 of the
    routed ones: 32 for 288, as CloudMatrix-Infer has it (arXiv 2506.12708, 4.2.1), so
    that a copy of theirs is about as busy as a routed slot.
    """
    e = a.experts
    if e is None:
        return Slots(jnp.zeros(()), jnp.zeros(()))
    parts = e.topk + 2.0
    held = e.routed * (parts / (parts - 1.0) if family.dispatches_shared else 1.0)
    slots = ep * (smooth.ceil(held / ep - 1e-9, sharpness) + extra)
    shared = jnp.zeros(())
    if family.dispatches_shared:
        shared = slots / parts
        if sharpness is None:
            shared = jnp.floor(shared + 1e-9)
    return Slots(slots - e.routed - shared, shared)


def layout_of(
    a: Architecture,
    base: Layout,
    family: Family,
    factor: Array,
    values: Mapping[str, Scalar],
    sharpness: Sharpness,
) -> Layout:
    """The layout of a point of the space."""
    ep = jnp.prod(factor[AXES.index("ep")])
    extra = values.get("extra_slots", jnp.zeros(()))
    slots = expert_slots(a, family, ep, extra, sharpness)
    return base.replace(
        factor=factor,
        routing=Routing(
            redundant_experts=slots.redundant,
            shared_replicas=slots.shared,
            dispatches_shared=family.dispatches_shared,
        ),
        attention=family.attention,
        microbatches=family.microbatches,
    )


def unshared(w: Decode | Prefill | Train, layout: Layout, sharpness: Sharpness) -> Scalar:
    """Positive where a group holds no whole request, not one prompt, or where a data-
    parallel rank doesn't get whole micro-batches or ZeRO's groups don't divide the ranks.

    The relaxation is the log of what is missing.
    """
    if isinstance(w, Train):
        batches = _missing(microbatches_of(w, layout), sharpness)
        if w.zero_group is None:
            return batches
        groups = degree(layout, "dp") * degree(layout, "cp") / w.zero_group
        return smooth.larger(batches, _missing(groups, sharpness))
    group = degree(layout, "tp") * degree(layout, "cp")
    if isinstance(w, Prefill):
        return jnp.log(w.prompt_tokens / (w.tokens_per_device * group))
    return _missing(w.sequences_per_device * group, sharpness)


def _missing(count: Scalar, sharpness: Sharpness) -> Scalar:
    """Positive unless a count is whole and at least one."""
    if sharpness is None:
        whole = jnp.abs(count - jnp.round(count)) < 1e-6
        return jnp.where(whole & (count > 0.5), -1.0, 1.0)
    return -jnp.log(count)
