"""What decode and prefill share: token counts on the layout, operators, exchanges."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import smooth
from .._types import Scalar, Sharpness
from ..job.layout import Layout, degree, splits
from ..job.workload import BYTES, Serving
from ..machine.libraries import ExpertMode
from ..machine.runtimes import Engine, Trainer
from ..machine.system import System
from ..model.architecture import ANY_GROUP, Architecture, GroupedQuery
from ..rates.collectives import collective_s, full_mesh_s, plane_loads_s
from ..rates.exchange import Copies, busiest_rank_load, copies_of, exchange_s
from ..rates.fabric import Fabric, Group, fabric_of, group_of, plane_s
from ..rates.roofline import filled_s, resources_s, roofline_s
from ..work.attention import attention_ops
from ..work.feed_forward import dense_ops, draft_ops, expert_ops, tail_ops
from ..work.table import Op, select, tabulate
from .shares import COLLECTIVE_PARTS, EXCHANGE_PARTS, MESH_PARTS, Scales

T = TypeVar("T")

HIGHEST = jax.lax.Precision.HIGHEST

ACTIVATION_BYTES = 2.0
"""Bytes per element of the activations that tensor-parallel collectives carry (bf16)."""


class Parts(NamedTuple):
    """One value for each part of a serving step."""

    attention: Scalar
    dense: Scalar
    experts: Scalar
    tail: Scalar
    draft: Scalar


Declarations = list[tuple[str, Op]]
"""The operators of a step, each with its part."""


def declared(
    a: Architecture, layout: Layout, serving: Serving, absorbed: bool
) -> Declarations:
    """The operators of a serving step, each with the part that it belongs to.

    `absorbed` says that this is decode: MLA in the latent space, and draft steps.
    """
    dtypes = serving.dtypes
    shared_here = not layout.routing.dispatches_shared
    lists = {
        "attention": attention_ops(a, dtypes, absorbed),
        "dense": dense_ops(a, dtypes),
        "experts": expert_ops(a, dtypes, shared_here),
        "tail": tail_ops(a, dtypes),
        "draft": draft_ops(a, dtypes) if absorbed else [],
    }
    return [(part, op) for part, ops in lists.items() for op in ops]


class ExpertLoad(NamedTuple):
    """Tokens of a mixture layer on one device."""

    copies_per_token: Scalar
    busiest: Scalar
    rows: Scalar
    """Rows of each active expert on the busiest rank."""
    active: Scalar


def expert_load(
    a: Architecture, layout: Layout, serving: Serving, skew: Scalar, tokens: Scalar
) -> ExpertLoad:
    """How routed tokens fall on a device's experts.

    Of the slots only those that get a token read their weights: a share 1 - exp(-r) of
    them if each gets r on average (Poisson).
    """
    e, routing = a.experts, layout.routing
    if e is None:
        one = jnp.ones(())
        return ExpertLoad(one, one, one, one)
    ep, etp = degree(layout, "ep"), degree(layout, "etp")
    copies = e.topk + (1.0 if routing.dispatches_shared else 0.0)
    slots = (e.routed + routing.redundant_experts + routing.shared_replicas) / ep
    received = tokens * etp * copies
    spare = routing.redundant_experts / ep
    busiest = busiest_rank_load(serving.balance, skew, received, ep, spare)
    per_slot = received / slots
    share = -jnp.expm1(-per_slot)
    return ExpertLoad(copies, busiest, per_slot / share * busiest, slots * share)


def kv_split(a: Architecture, tp: Scalar) -> Scalar:
    """Share of the key-value heads that a device of a tp group holds."""
    if isinstance(a.attention, GroupedQuery):
        return smooth.larger(1.0 / tp, 1.0 / a.attention.kv_heads)
    return jnp.ones(())  # the latent is shared by all heads


def row_features(a: Architecture, layout: Layout, tokens: Scalar) -> dict[str, Scalar]:
    """Rows and splits of the projections for each way to split attention.

    With `tp` every device of a group computes the group's tokens on its heads; with
    `sp_tp_sp` only between the down and output projections, which keep its own tokens.
    With sequence parallelism norms too see only the device's own tokens.
    """
    one = jnp.ones(())
    if layout.attention == "dp":
        tp, group_tokens, rows, split = one, tokens, tokens, one
    else:
        tp = degree(layout, "tp")
        group_tokens = tokens * tp
        whole = layout.attention == "tp"
        rows, split = (group_tokens, 1.0 / tp) if whole else (tokens, one)
    return {
        "one": one,
        "tp": tp,
        "tokens": tokens,
        "norm_rows": tokens if layout.sequence_parallel else rows,
        "down_rows": rows,
        "head_rows": group_tokens,
        "out_rows": rows,
        "ffn_rows": rows,
        "per_heads": 1.0 / tp,
        "per_kv": kv_split(a, tp),
        "per_out": split,
        "per_ffn": split,
        "per_head": split,
        "per_etp": 1.0 / degree(layout, "etp"),
        "local_heads": a.attention.heads / tp,
    }


class Stage(NamedTuple):
    """Settings of the machine that a serving step runs under."""

    system: System
    fabric: Fabric
    layout: Layout
    serving: Serving
    scales: Scales
    sharpness: Sharpness

    @property
    def engine(self) -> Engine:
        return self.system.engines[self.serving.engine]

    @property
    def software(self) -> Engine | Trainer:
        """The engine that serves, or the framework that trains."""
        if self.serving.trains:
            return self.system.trainers[self.serving.engine]
        return self.engine

    def skew(self, phase: str) -> Scalar:
        """Excess load of the busiest expert rank, as given or as the software has it.

        Args:
            phase: `decode`, `prefill` or `train`.
        """
        if self.serving.skew is not None:
            return self.serving.skew
        if phase == "prefill":
            return self.engine.prefill_routing_skew
        return self.software.routing_skew

    @property
    def beside_slowdown(self) -> Scalar:
        """Slowdown of compute beside an exchange whose copies some cores drive."""
        library = self.system.expert_parallel[self.serving.expert_library]
        left = 1.0 - library[self.serving.expert_mode].core_share
        return left**-self.system.chip.core_exponent

    @property
    def expert_mode(self) -> ExpertMode:
        library = self.system.expert_parallel[self.serving.expert_library]
        return library[self.serving.expert_mode]

    @property
    def library(self):
        return self.system.collectives[self.serving.collective_library]

    def group(self, axis: str) -> Group:
        return group_of(self.fabric, splits(self.layout, axis))

    def collective(
        self, kind: str, axis: str, payload_bytes: Scalar, prefix: str
    ) -> Scalar:
        scale = self.scales.prefixed(prefix)
        group, sharpness = self.group(axis), self.sharpness
        return collective_s(kind, group, self.library, payload_bytes, sharpness, scale)

    def copies(
        self, a: Architecture, group: Group, load: ExpertLoad, tokens: Scalar
    ) -> Copies:
        """What dispatch and combine of a micro-batch send."""
        limit = ANY_GROUP if a.experts is None else a.experts.limit
        mode, per_token = self.expert_mode, load.copies_per_token
        return copies_of(group, mode, tokens, per_token, load.busiest, limit)

    def exchange(self, kind: str, copies: Copies, size: Scalar) -> Scalar:
        """Dispatch or combine inside a step: benchmark time and the wait in situ."""
        chip = self.system.chip
        rate = chip.memory_bytes_per_s * chip.memory_efficiency
        scale, sharpness = self.scales.prefixed(kind), self.sharpness
        benchmark = exchange_s(
            kind, copies, self.expert_mode, size, rate, sharpness, scale
        )
        return benchmark * (1.0 + self.software.wait_excess)

    def full_mesh(self, axis: str, bytes_to_each: Scalar, prefix: str) -> Scalar:
        """Time of an exchange in which every rank of an axis sends to every other."""
        scale = self.scales.prefixed(prefix)
        group, sharpness = self.group(axis), self.sharpness
        return full_mesh_s(group, self.library, bytes_to_each, sharpness, scale)

    def exchanges(self, a: Architecture, load: ExpertLoad, tokens) -> list[Scalar]:
        """Dispatch and combine of one micro-batch.

        Ranks that split an expert between them also share the tokens that each got,
        and add up their parts of the results.
        """
        copies = self.copies(a, self.group("ep"), load, tokens)
        held = tokens * load.copies_per_token * load.busiest
        return [
            self.exchange(kind, copies, size)
            + self.full_mesh("etp", held * size, "expert_tensor")
            for kind, size in self.copy_bytes(a).items()
        ]

    def copy_bytes(self, a: Architecture) -> dict[str, Scalar]:
        """Bytes of a copy, dispatched and combined."""
        slot = self.expert_mode.scale_slot_bytes
        return {kind: copy_bytes(a, self.serving, kind, slot) for kind in EXCHANGES}

    def exchange_loads_s(self, a: Architecture, load: ExpertLoad, tokens):
        """Time that dispatch and combine keep each plane's port busy."""
        size = sum(
            size * self.scales(f"{kind}.transfer")
            for kind, size in self.copy_bytes(a).items()
        )
        sent = size * self.copies(a, self.group("ep"), load, tokens).tiers
        return plane_s(self.fabric, sent, self.expert_mode.efficiency)

    def collective_loads_s(self, kind: str, axis: str, payload_bytes, prefix: str):
        """Time that a collective keeps each plane's port busy."""
        sent = payload_bytes * self.scales(f"{prefix}.transfer")
        return plane_loads_s(kind, self.group(axis), self.library, sent)


EXCHANGES = ("dispatch", "combine")


def stage_of(
    system: System,
    layout: Layout,
    serving: Serving,
    scales: Scales,
    sharpness: Sharpness,
) -> Stage:
    """Bundle a step's settings, with the fabric's arrays made once."""
    return Stage(system, fabric_of(system), layout, serving, scales, sharpness)


class Work(NamedTuple):
    """What the operators of a step use, whatever cores each part has."""

    used: dict[str, Float[Array, " op"]]
    """Seconds of each operator by resource."""
    busy_s: Float[Array, "2 part"]
    """Seconds that each part would fill the matrix units, and the memory."""

    @property
    def memory_s(self) -> Parts:
        return Parts(*jnp.unstack(self.busy_s[1]))


class Busy(NamedTuple):
    """Seconds that a step's work would fill a device's matrix units and its memory."""

    compute_s: Scalar
    memory_s: Scalar


def busy_s(work: Work, counts: Parts) -> Busy:
    """Busy times of a step that runs each part `counts` times, hidden or not."""
    return Busy(*jnp.unstack(jnp.dot(work.busy_s, jnp.stack(counts), precision=HIGHEST)))


def work_of(
    stage: Stage, declarations: Declarations, features: dict[str, Scalar]
) -> Work:
    """All operators in one table, priced."""
    chip = stage.system.chip
    table = tabulate([op for _, op in declarations], features)
    used = resources_s(chip, table, stage.scales("operators"), stage.sharpness)
    busy = jnp.stack([filled_s(chip, table), used["memory"]])
    return Work(used, _by_part(busy, declarations))


def totals_s(
    stage: Stage, declarations: Declarations, work: Work, slowdown: Parts
) -> Parts:
    """Time of each part, its compute slowed for want of cores."""
    slow = select(slowdown._asdict(), [part for part, _ in declarations])
    total = roofline_s(stage.system.chip, work.used, slow, stage.sharpness)
    return Parts(*jnp.unstack(_by_part(total, declarations)))


def _by_part(
    values: Float[Array, "*sort op"], declarations: Declarations
) -> Float[Array, "*sort part"]:
    """Sums over the operators of each part.

    A product with a constant matrix, not a sum for each part: the compiler would
    compute the whole table again for every sum.
    """
    member = [[float(part == name) for name in Parts._fields] for part, _ in declarations]
    return jnp.dot(values, np.array(member), precision=HIGHEST)


def copy_bytes(a: Architecture, serving: Serving, kind: str, slot: Scalar) -> Scalar:
    """Bytes of one token copy in dispatch or combine, scales of 8-bit tokens included."""
    dtype = serving.dtypes.dispatch if kind == "dispatch" else serving.dtypes.combine
    size = BYTES[dtype]
    return a.hidden * size + (slot if size <= 1.0 else 0.0)


def components(a: Architecture, layout: Layout) -> tuple[str, ...]:
    """Names of the step's components that are not operators."""
    names = ["host.step", "pipeline.start", "pipeline.transfer"]
    names += [f"context_parallel.{part}" for part in MESH_PARTS]
    if layout.attention != "dp":
        names += [f"tensor_parallel.{part}" for part in COLLECTIVE_PARTS]
    if a.experts is not None:
        names += [f"{kind}.{p}" for kind in EXCHANGES for p in EXCHANGE_PARTS[kind]]
        names += [f"expert_tensor.{part}" for part in MESH_PARTS]
    return tuple(names)


def slowest_stage(a: Architecture, pp: Scalar, sharpness: Sharpness) -> Scalar:
    """Layers of the fullest pipeline stage over the mean: 1 where pp divides them."""
    excess = smooth.ceil(a.layers / pp, sharpness) * pp / a.layers - 1.0
    return 1.0 + excess * smooth.positive(pp - 1.0, sharpness)


def weighed(layout: Layout, serial: T, double: T) -> T:
    """The modes of overlap that a layout weighs, along a leading axis of every leaf.

    Args:
        serial: settings of one micro-batch in sequence; `double` of two overlapped.
    """
    chosen = {"1": [serial], "2": [double], "auto": [serial, double]}
    return jax.tree.map(lambda *x: jnp.stack(x), *chosen[layout.microbatches])


def in_each(modes: Any, function: Callable[..., T]) -> T:
    """`function` of each mode; a lone one is not worth a `vmap`, which traces slowly."""
    if jax.tree.leaves(modes)[0].shape[0] > 1:
        return jax.vmap(function)(*modes)
    alone = function(*jax.tree.map(lambda x: x[0], modes))
    return jax.tree.map(lambda x: jnp.asarray(x)[None], alone)


def faster(
    layout: Layout, seconds: Float[Array, " mode"], values: T, sharpness: Sharpness
) -> tuple[Scalar, T]:
    """Time of the layout's mode, for `auto` of the faster one, and its values.

    Args:
        seconds: time of each mode that is weighed.
        values: a tree whose leaves have an entry for each mode.
    """
    if layout.microbatches != "auto":
        return seconds[0], jax.tree.map(lambda x: x[0], values)
    first = seconds[0] <= seconds[1]
    best = smooth.minimum(seconds[0], seconds[1], sharpness)
    return best, jax.tree.map(lambda x: jnp.where(first, x[0], x[1]), values)


def overlapped_s(
    first: Scalar, second: Scalar, count: Scalar, exposed: Scalar, sharpness: Sharpness
) -> Scalar:
    """`count` micro-batches through two streams that run side by side.

    In the steady state one micro-batch is in each stream; `exposed = 1` with one
    micro-batch is the plain sequence.
    """
    return count * smooth.overlap_s(first, second, exposed, sharpness)
