"""Exact metrics of many points at once, and the relaxed score of one."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import smooth
from .._types import Leaf, Scalar, Sharpness
from ..job.layout import AXES, Layout, Routing, degree
from ..job.workload import Decode, Prefill, Train
from ..memory.serving import usable_bytes
from ..model.architecture import Architecture
from ..phases.metrics import metrics
from ..switch import Switch, either
from ..work.held import microbatches_of

ROWS = 512
"""Points of one call; calls are padded to it, so that there is one program."""

GRADIENT_COST = 4
"""Evaluations that one value with its gradient counts as: reverse mode takes about four
times the operations of the value."""

FAST_COMPILE: dict[str, bool | str] = {"xla_backend_optimization_level": "0"}
"""For programs that run for less time than they take to compile."""


class Family(NamedTuple):
    """What changes the shape of the computation, so that each needs a program."""

    attention: str = "tp"
    """`tp`, which is `dp` where tp = 1, or `sp_tp_sp`."""
    dispatches_shared: bool = False
    schedule: str = ""
    """Of a training step, `any` where it is chosen."""


def expert_slots(
    a: Architecture, family: Family, ep: Scalar | int, extra: Scalar, sharpness: Sharpness
) -> tuple[Scalar, Scalar]:
    """Expert slots of all ranks beyond the routed experts: the fewest whole ones of a
    rank that hold all experts, and `extra` more.

    Shared experts that ranks of their own hold take one slot for each topk + 1 of the
    routed ones: 32 for 288, as CloudMatrix-Infer has it (arXiv 2506.12708, 4.2.1), so
    that a copy of theirs is about as busy as a routed slot.

    Returns:
        Redundant experts, and replicas of the shared one.
    """
    e = a.experts
    if e is None:
        return jnp.zeros(()), jnp.zeros(())
    parts = e.topk + 2.0
    held = e.routed * (parts / (parts - 1.0) if family.dispatches_shared else 1.0)
    slots = ep * (smooth.ceil(held / ep - 1e-9, sharpness) + extra)
    shared = slots / parts if family.dispatches_shared else jnp.zeros(())
    if sharpness is None:
        shared = jnp.floor(shared + 1e-9)
    return slots - e.routed - shared, shared


def job_of(
    inputs: tuple,
    family: Family,
    factor: Float[Array, "axis tier"],
    chosen: Mapping[str, Leaf],
    sharpness: Sharpness,
) -> tuple[Decode | Prefill | Train, Layout]:
    """The workload and the layout of a point.

    Args:
        inputs: machine, model, workload, layout.
        chosen: settings by name; those left out stay as they are.
    """
    _, a, w, layout = inputs
    given, extra = dict(chosen), chosen.get("extra_slots", jnp.zeros(()))
    ep = jnp.prod(factor[AXES.index("ep")])
    redundant, shared = expert_slots(a, family, ep, extra, sharpness)
    overlaps = Switch(given.pop("overlapped_microbatches", 1.0) - 1.0)
    along = given.pop("sequence_parallel", layout.sequence_parallel.on)
    layout = layout.replace(
        factor=factor,
        routing=Routing(
            redundant_experts=redundant,
            shared_replicas=shared,
            dispatches_shared=family.dispatches_shared,
        ),
        attention=family.attention,
        sequence_parallel=Switch(along),
        microbatches="1" if isinstance(w, Train) else "auto",
        overlaps=overlaps,
    )
    if isinstance(w, Train):
        selective = Switch(given.pop("selective", w.selective.on))
        if "overlapped_microbatches" in chosen:
            w = w.replace(overlaps=overlaps)
        w = w.replace(selective=selective, schedule=family.schedule)
    return w.replace(**{k: v for k, v in given.items() if hasattr(w, k)}), layout


class Scores(NamedTuple):
    """How good a point is; or many, fetched, as columns of one length."""

    logs: Float[Leaf, "*row field"]
    """Of the fields asked for."""
    excess: Float[Leaf, "*row need"]
    """Logs of what is used over what is there: memory, then whole requests of a group or
    micro-batches of a rank; at most 0 where it can run."""
    filled: Float[Leaf, "*row"]
    """Log of the step without what the pipeline idles, over the step; 0 in serving."""


NEEDS = (
    "memory",
    "a whole number of requests, prompts or micro-batches for every group, and whole"
    " groups of workload.zero_group",
)


def score(
    inputs: tuple,
    family: Family,
    fields: tuple[str, ...],
    names: tuple[str, ...],
    factor: Float[Array, "axis tier"],
    values: Float[Array, " setting"],
    sharpness: Sharpness = None,
) -> Scores:
    """Score one point; differentiable in `factor` and `values` where relaxed.

    Args:
        inputs: machine, model, workload, layout.
        names: what the entries of `values` set, in order.
    """
    machine, a = inputs[:2]
    chosen = {name: values[i] for i, name in enumerate(names)}
    w, layout = job_of(inputs, family, factor, chosen, sharpness)
    m = metrics(machine, a, w, layout, sharpness)
    logs = jnp.log(jnp.stack([getattr(m, field) for field in fields]))
    memory = jnp.log(m.memory_bytes / usable_bytes(machine))
    filled = jnp.zeros(())
    if isinstance(w, Train):
        filled = jnp.log1p(-m.bubble * m.pipeline_time_s / m.step_time_s)
    return Scores(logs, jnp.stack([memory, unshared(w, layout, sharpness)]), filled)


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
        groups = either(w.zero > 0.5, _missing(groups, sharpness), -1.0)
        return smooth.larger(batches, groups)
    group = degree(layout, "tp") * degree(layout, "cp")
    if isinstance(w, Prefill):
        return jnp.log(w.prompt_tokens / (w.tokens_per_device * group))
    return _missing(w.sequences_per_device * group, sharpness)


def _missing(count: Scalar, sharpness: Sharpness) -> Scalar:
    """Positive unless a count is whole and at least one."""
    if sharpness is None:
        whole = jnp.abs(count - jnp.round(count)) < 1e-6 * count
        return jnp.where(whole & (count > 0.5), -1.0, 1.0)
    return -jnp.log(count)


@partial(jax.jit, static_argnames=("family", "fields", "names"))
def score_rows(
    inputs: tuple,
    factors: Array,
    values: Array,
    family: Family,
    fields: tuple[str, ...],
    names: tuple[str, ...],
) -> Scores:
    """Exact scores of many points: factors (row, axis, tier), values (row, setting)."""

    def one(factor: Array, chosen: Array) -> Scores:
        factor = factor.astype(chosen.dtype)
        return score(inputs, family, fields, names, factor, chosen)

    return jax.vmap(one)(factors, values)


def in_blocks(evaluate: Callable, size: int, *columns: np.ndarray):
    """What a function of many rows gives, fetched; called with as many rows each time, so
    that there is one program. The last row is repeated to fill up.

    Args:
        columns: arrays with one row for each candidate, at least one.
    """
    count = len(columns[0])
    rows = [
        np.minimum(np.arange(first, first + size), count - 1)
        for first in range(0, count, size)
    ]
    blocks = [evaluate(*(column[some] for column in columns)) for some in rows]
    joined = jax.tree.map(lambda *parts: np.concatenate(parts), *jax.device_get(blocks))
    return jax.tree.map(lambda part: part[:count], joined)


class Pricer:
    """Exact scores of points of one job, in calls of one size."""

    def __init__(self, inputs: tuple, fields: tuple[str, ...], names: tuple[str, ...]):
        self.inputs, self.fields, self.names = inputs, fields, names
        self.rows = 0
        """Points scored so far."""

    def __call__(self, family: Family, factors: np.ndarray, values: np.ndarray) -> Scores:
        """Scores of points, (row, ...)."""
        self.rows += len(values)
        static = {"family": family, "fields": self.fields, "names": self.names}
        program = partial(score_rows, self.inputs, **static)
        return in_blocks(program, ROWS, factors.astype(np.int32), values)
