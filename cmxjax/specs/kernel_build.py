"""From a scenario of one kernel, one collective or a whole system to its workload."""

import numpy as np

from ..job.layout import AXES, Layout, Routing
from ..job.workload import (
    BYTES,
    Collective,
    Dtypes,
    Operator,
    SystemQuery,
    balance_of,
    scale_bytes,
)
from ..machine.pad import MOST_TIERS, padded
from ..machine.resolve import Choices
from ..machine.system import System
from ..model.feed_forwards import COUNTLESS
from ..switch import switch
from .context import (
    Context,
    check_dtypes,
    default,
    dtypes_of,
    engine_of,
    leaf,
    multiplied,
    pick,
    tier_sizes,
    usual,
)
from .errors import SpecError, all_of
from .scenario_file import (
    CollectiveScenario,
    CollectiveSpec,
    OpScenario,
    SystemScenario,
)

ASYMPTOTE_BYTES = 2.0**30
"""Payload that stands for an unlimited one where a scenario gives none."""


def operator(context: Context, scenario: OpScenario) -> tuple[Operator, Layout, Choices]:
    """One kernel on one device. Raises `SpecError`."""
    op = scenario.op
    if op.kind not in ("vector", "copy"):
        check_dtypes({"op.dtype": op.dtype}, context.system, context.where)
    prefill = op.kind == "attention_prefill"
    kv_tokens = op.kv_tokens or 1.0
    head_dim = op.head_dim or 1.0
    elements = (op.tokens or 1.0, op.hidden or 1.0)
    if op.kind == "vector" and op.bytes is not None:
        elements = (op.bytes / (BYTES[op.dtype] + BYTES[op.out_dtype or op.dtype]), 1.0)
    size = elements[0] * elements[1] * BYTES[op.dtype]
    workload = Operator(
        groups=leaf(op.groups),
        m=leaf(op.m or 1.0),
        n=leaf(op.n or 1.0),
        k=leaf(op.k or 1.0),
        heads=leaf(op.heads or 1.0),
        kv_heads=leaf(op.kv_heads or op.heads or 1.0),
        head_dim=leaf(head_dim),
        value_dim=leaf(op.value_dim or head_dim),
        latent_dim=leaf(op.latent_dim or 1.0),
        rope_dim=leaf(op.rope_dim or 0.0),
        sequences=leaf(op.sequences or 1.0),
        query_tokens=leaf(op.query_tokens or (kv_tokens if prefill else 1.0)),
        kv_tokens=leaf(kv_tokens),
        tokens=leaf(elements[0]),
        hidden=leaf(elements[1]),
        payload_bytes=leaf(op.bytes or size),
        launched=switch(op.launched),
        operator=op.kind,
        latent=op.latent_dim is not None and not (prefill and op.head_dim),
        causal=op.causal,
        element_bytes=leaf(BYTES[op.dtype]),
        out_bytes=leaf(
            BYTES[op.out_dtype or ("bf16" if "gemm" in op.kind else op.dtype)]
        ),
    )
    choices = usual(context.system)
    formats = multiplied(Dtypes(activation=op.dtype))
    return workload, _single(context.system), choices._replace(dtypes=formats, alike=True)


def collective(
    context: Context, scenario: CollectiveScenario
) -> tuple[Collective, Layout, Choices]:
    """One collective, exchange or access among ranks. Raises `SpecError`."""
    c, system, where = scenario.collective, context.system, context.where
    exchange = c.kind in ("dispatch", "combine")
    options = system.expert_parallel if exchange else system.collectives
    library = c.library or default(system, "expert" if exchange else "collective")
    _, engine, factor = all_of(
        lambda: pick(options, library, "collective.library", where),
        lambda: engine_of(scenario, system, where),
        lambda: _group_factor(context, scenario),
    )
    if exchange:
        pick(system.expert_parallel[library], c.mode, "collective.mode", where)
    scale = c.scale_bytes or 0.0
    if c.scale_bytes is None and c.kind == "dispatch" and BYTES[c.dtype] <= 1.0:
        mode = system.expert_parallel[library][c.mode]
        scales = float(mode.scale_slot_bytes), float(mode.scale_share)
        scale = float(scale_bytes(c.hidden or 1.0, BYTES[c.dtype], *scales))
    payload = c.payload_bytes or ASYMPTOTE_BYTES
    if c.tokens_per_rank is not None and not exchange:
        copies = (c.topk or 1.0) if c.kind == "all_to_all" else 1.0
        token = (c.hidden or 1.0) * BYTES[c.dtype] + scale
        payload = c.tokens_per_rank * copies * token
    routing = scenario.routing
    workload = Collective(
        payload_bytes=leaf(payload),
        tokens_per_rank=leaf(c.tokens_per_rank or 1.0),
        hidden=leaf(c.hidden or 1.0),
        topk=leaf(c.topk or 1.0),
        experts=leaf(c.experts or COUNTLESS),
        cores=leaf(c.cores or (_cores(system, library, c.mode) if exchange else 1.0)),
        scale_bytes=leaf(scale),
        element_bytes=leaf(BYTES[c.dtype]),
        balance=balance_of(routing.balance or "uniform", routing.skew),
        collective=c.kind,
        driver=c.engine,
    )
    choices = usual(system)._replace(engine=engine, alike=True)
    if exchange:
        choices = choices._replace(expert_library=library, expert_mode=c.mode)
    else:
        choices = choices._replace(
            collective_library=library,
            algorithm=_algorithm(context, c, library),
            network_reduces=c.network_reduces,
        )
    if c.path == "npu-cpu":
        choices = choices._replace(endpoint="cpu")
    elif c.kind in ("read", "write"):
        choices = choices._replace(endpoint="npu")
    return workload, _group_layout(factor), choices


def query(
    context: Context, scenario: SystemScenario
) -> tuple[SystemQuery, Layout, Choices]:
    """The system itself. Raises `SpecError`."""
    dtypes = dtypes_of(scenario)
    used = {"dtypes.activation": dtypes.activation}
    check_dtypes(used, context.system, context.where)
    system = context.system
    choices = usual(system)._replace(dtypes=multiplied(dtypes), alike=True)
    return SystemQuery(), _single(system), choices


def _cores(system: System, library: str, mode: str) -> float:
    """Cores that an exchange takes by itself."""
    return float(system.expert_parallel[library][mode].cores)


def _algorithm(context: Context, c: CollectiveSpec, library: str) -> str:
    """What the library calls the algorithm that is asked for; empty where none is."""
    if c.algorithm is None:
        return ""
    has = context.system.collectives[library].algorithms
    called = {name.removeprefix("striped_"): name for name in has}
    return called[pick(called, c.algorithm, "collective.algorithm", context.where)]


def _group_factor(context: Context, scenario: CollectiveScenario) -> np.ndarray:
    """Where the ranks of a collective sit.

    They are contiguous from the innermost tier. A `scope` that they would not reach is
    filled first instead, so that the collective crosses it.
    """
    c, system, where = scenario.collective, context.system, context.where
    ranks, sizes = float(c.ranks or 2), tier_sizes(system)
    pair = c.kind in ("read", "write", "p2p")
    if pair and ranks != 2.0:
        problem = f"{c.kind} takes 2; leave ranks out"
        raise SpecError([f"{where}: collective.ranks = {ranks:g}: {problem}"])
    scope = c.scope or (system.scale_up_tier if pair else system.tier_order[-1])
    if scope not in system.tier_order:
        raise SpecError(
            [
                f"{where}: collective.scope = {scope!r}: {system.name} has no such tier;"
                f" use one of {', '.join(system.tier_order)}"
            ]
        )
    top = system.tier_order.index(scope)
    if ranks > np.prod(sizes[: top + 1]):
        raise SpecError(
            [
                f"{where}: collective.ranks = {ranks:g}: {scope} of {system.name} holds"
                f" {np.prod(sizes[: top + 1]):g} devices in all; use fewer"
            ]
        )
    inside = ranks <= np.prod(sizes[:top])
    inwards = (pair or c.scope is not None) and inside
    tiers = range(top, -1, -1) if inwards else range(top + 1)
    factor, left = np.ones((len(AXES), len(sizes))), ranks
    for t in tiers:
        factor[AXES.index("ep"), t] = min(left, sizes[t])
        left /= factor[AXES.index("ep"), t]
    return factor


def _single(system: System) -> Layout:
    """A layout of one device, for phases that have none."""
    factor = np.ones((len(AXES), len(system.tier_order)))
    return _group_layout(factor)


def _group_layout(factor: np.ndarray) -> Layout:
    zero = leaf(0.0)
    return Layout(
        factor=padded(leaf(factor), MOST_TIERS, 1.0),
        routing=Routing(redundant_experts=zero, shared_replicas=zero),
    )
