"""From a serving scenario to its workload and pools.

What the schema leaves to the pools has stated defaults: see the README's section on
serving. Each pool is built as a job of its phase, so that its layout is checked as
there.
"""

import math
from functools import partial
from typing import NamedTuple

import numpy as np

from ..job.layout import Layout, Pool, Pools, degree
from ..job.workload import Decode, Images, Prefill, Serve
from ..machine.resolve import Choices
from ..switch import switch
from .context import Context, leaf
from .errors import SpecError, all_of
from .images import pictures_of, prompt_tokens
from .scenario_file import (
    DecodeScenario,
    DecodeSpec,
    LayoutSpec,
    PoolSpec,
    PrefillScenario,
    PrefillSpec,
    RoutingSpec,
    ServeScenario,
)
from .serve_checks import cache_link, check_devices, check_keys, roles_of
from .step_build import Encoding, decode, encode, prefill, served_software

PREFILL_TOKENS = 8192.0
"""Prompt tokens per device and prefill batch, as published for CloudMatrix384 (16,384 on
a package of two; CloudMatrix-Infer, arXiv 2506.12708, Table 3)."""

ROUNDS = 10.0
"""Requests of a closed loop over its concurrency, as generators of load have it
(assumed; the first round begins at once)."""

SHARED = ("system", "model", "dtypes", "engine", "engine_version", "graphs", "exchange")
"""Keys that hold for all pools."""

SPLITS = ("devices", "tp", "cp", "dp", "pp", "ep", "etp", "edp")


Made = tuple[Decode | Prefill | Encoding, Layout, Choices]
"""Workload, layout and choices of one pool."""


def serve_job(
    context: Context, scenario: ServeScenario
) -> tuple[Serve, Pools, dict[str, Choices]]:
    """The workload and pools of a serving scenario, and what each uses of the system.

    Raises:
        SpecError: naming every mistake.
    """
    served_software(context, "low_latency")  # what all pools share is right first
    roles = roles_of(context, scenario)
    check_keys(context, scenario, roles)
    every = [partial(_pool, context, scenario, i) for i in range(len(roles))]
    links, built, _ = all_of(
        lambda: cache_link(context, scenario, roles),
        lambda: all_of(*every),
        lambda: check_devices(context, scenario),
    )
    w, decode = scenario.workload, None
    pools, software, choices = {}, {}, {}
    tokens = PREFILL_TOKENS
    for spec, made in zip(scenario.pools, built):
        if made is None:
            pools[spec.role] = Pool(devices=leaf(spec.devices), layout=_single(built))
            continue
        workload, layout, used = made
        pools[spec.role] = Pool(devices=leaf(spec.devices), layout=layout)
        software[spec.role] = workload.software
        choices[spec.role] = used._replace(cache_link=links)
        if isinstance(workload, Prefill):
            tokens = float(workload.tokens_per_device)
        elif isinstance(workload, Decode) and spec.role != "expert":
            decode = workload
            if "prefill" not in roles:
                engine = context.system.engines[used.engine]
                group = float(degree(layout, "tp") * degree(layout, "cp"))
                if context.model is not None and context.model.file.mixture:
                    ranks = float(degree(layout, "dp"))
                    group *= ranks ** float(engine.rank_wait_fraction)
                tokens = float(engine.max_tokens_per_step) / group
    assert decode is not None  # every accepted set of roles generates
    pictures = pictures_of(context, w)
    work = Serve(
        requests_per_s=None if w.request_rate is None else leaf(w.request_rate),
        concurrency=None if w.concurrency is None else leaf(w.concurrency),
        arrival_cv=leaf(w.arrival_cv),
        in_turn=switch(w.assignment == "in_turn"),
        rounds=leaf(
            w.requests / w.concurrency if w.requests and w.concurrency else ROUNDS
        ),
        prompt_tokens=leaf(prompt_tokens(w, pictures)),
        output_tokens=leaf(w.output_tokens),
        cached_fraction=leaf(w.cached_fraction),
        ttft_limit_s=None if w.ttft_limit is None else leaf(w.ttft_limit),
        tpot_limit_s=None if w.tpot_limit is None else leaf(w.tpot_limit),
        tokens_per_device=leaf(tokens),
        draft_tokens=decode.draft_tokens,
        acceptance=decode.acceptance,
        software=software,
        images=None if pictures is None else _split(pictures.images, scenario),
    )
    return work, Pools(pools=pools), choices


def _split(images: Images, scenario: ServeScenario) -> Images:
    """Images whose tower is split as the pool that computes prompts says."""
    said = {pool.role: pool.layout.vision for pool in scenario.pools}
    split = said.get("prefill", said.get("decode")) == "tp"
    return images.replace(splits_heads=split)


def _single(built: tuple[Made | None, ...]) -> Layout:
    """A layout of one device, for a cache: it computes nothing."""
    layout = next(made[1] for made in built if made is not None)
    return layout.replace(factor=layout.factor * 0.0 + 1.0)


def instance_spec(pool: PoolSpec) -> LayoutSpec:
    """The layout of one instance; one that names no size takes the whole pool, or a
    device where that encodes images."""
    spec = pool.layout
    if all(getattr(spec, name) is None for name in SPLITS):
        whole = 1 if pool.role == "encode" else pool.devices
        return spec.model_copy(update={"devices": whole})
    return spec


def _pool(context: Context, scenario: ServeScenario, i: int) -> Made | None:
    """Workload, layout and choices of one pool, built as a job of its phase."""
    pool = scenario.pools[i]
    if pool.role == "cache":
        return None
    where = f"{context.where}: pools[{i}]"
    layout = instance_spec(pool)
    ranks = _ranks(layout)
    if pool.devices % ranks:
        raise SpecError(
            [
                f"{where}.devices = {pool.devices}: not a multiple of its layout's"
                f" {ranks} devices; use {max(1, pool.devices // ranks) * ranks}"
            ]
        )
    w, model = scenario.workload, context.model
    tokens = prompt_tokens(w, pictures_of(context, w))
    encodes = pool.role == "encode"
    common = {name: getattr(scenario, name) for name in SHARED}
    routing = RoutingSpec() if encodes else _routing(context, scenario, layout)
    if encodes:
        tp = "tp" if (layout.tp or 1) > 1 else "dp"
        layout = layout.model_copy(update={"vision": tp})
    common |= {"layout": layout, "routing": routing}
    if pool.role == "prefill":
        group = (layout.tp or 1) * (layout.cp or 1)
        job = PrefillScenario.model_construct(
            phase="prefill",
            workload=PrefillSpec.model_construct(
                tokens_per_device=max(PREFILL_TOKENS, tokens / group),
                prompt_tokens=w.prompt_tokens,
                cached_fraction=w.cached_fraction,
                images_per_prompt=w.images_per_prompt,
                image_size=w.image_size,
            ),
            **common,
        )
        return prefill(context._replace(scenario=job, where=where), job)
    drafts = w.draft_tokens
    if drafts is None:
        drafts = 0 if model is None else min(1, int(model.file.draft_layers))
    job = DecodeScenario.model_construct(
        phase="decode",
        workload=DecodeSpec.model_construct(
            sequences_per_device=1.0,
            kv_tokens=tokens + 0.5 * w.output_tokens,
            draft_tokens=drafts,
            acceptance=w.acceptance,
        ),
        **common,
    )
    builder = encode if encodes else decode
    return builder(context._replace(scenario=job, where=where), job)


def _ranks(spec: LayoutSpec) -> int:
    """Devices of an instance, from its degrees where they aren't given."""
    if spec.devices is not None:
        return spec.devices
    attention = math.prod(getattr(spec, axis) or 1 for axis in ("tp", "cp", "dp", "pp"))
    experts = math.prod(getattr(spec, axis) or 1 for axis in ("etp", "ep", "edp", "pp"))
    return max(attention, experts)


def _routing(
    context: Context, scenario: ServeScenario, layout: LayoutSpec
) -> RoutingSpec:
    """Experts of one pool, whose last slots are filled."""
    routing = scenario.routing
    experts = None if context.model is None else context.model.file.mixture
    if experts is None:
        return routing
    ranks = layout.ep or _ranks(layout) // (
        (layout.etp or 1) * (layout.edp or 1) * (layout.pp or 1)
    )
    slots = filled_slots(experts.routed, routing, np.array(max(1, ranks)))
    return routing.model_copy(
        update={
            "redundant_experts": float(slots.redundant),
            "shared_replicas": float(slots.shared),
        }
    )


class Slots(NamedTuple):
    """What the expert slots of pools hold beside routed experts, (pool,)."""

    redundant: np.ndarray
    shared: np.ndarray


def filled_slots(routed: float, routing: RoutingSpec, ranks: np.ndarray) -> Slots:
    """The experts that are asked for, and copies that fill the last slots.

    Where each rank would hold a replica of the shared expert it computes that on its own
    tokens instead.

    Args:
        ranks: over which experts are spread, (pool,).
    """
    shared = np.where(routing.shared_replicas < ranks, routing.shared_replicas, 0.0)
    held = routed + routing.redundant_experts + shared
    return Slots(np.ceil(held / ranks) * ranks - routed - shared, shared)
