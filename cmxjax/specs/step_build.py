"""From a decode or prefill scenario, or a pool that encodes, to its workload."""

from typing import NamedTuple

from ..job.layout import Layout
from ..job.workload import Decode, Prefill, Software, balance_of, sizes_of
from ..machine.resolve import MULTIPLIED, Choices, exchange_library
from ..switch import switch
from .context import (
    Context,
    check_dtypes,
    default,
    dtype_of_file,
    dtypes_of,
    engine_of,
    expert_format,
    leaf,
    multiplied,
    pick,
    unpacks,
    usual,
)
from .degrees import check_division
from .errors import SpecError, all_of
from .images import pictures_of, prompt_tokens
from .layout_build import layout_of
from .scenario_file import DecodeScenario, PrefillScenario

CACHE_LINKS = {"ub": "cpu-pool", "vpc": "vpc", "none": ""}


class Encoding(NamedTuple):
    """What a pool that encodes images adds to a serving workload."""

    software: Software


def decode(context: Context, scenario: DecodeScenario) -> tuple[Decode, Layout, Choices]:
    """A step of decode. Raises `SpecError`."""
    w = scenario.workload
    acceptance = w.acceptance
    if len(acceptance) == 1:
        acceptance = acceptance * max(1, w.draft_tokens)
    (software, choices), layout, _ = all_of(
        lambda: served_software(context, "low_latency"),
        lambda: layout_of(context),
        lambda: _check_drafts(context, w.draft_tokens),
    )
    work = Decode(
        sequences_per_device=leaf(w.sequences_per_device),
        kv_tokens=leaf(w.kv_tokens),
        draft_tokens=leaf(w.draft_tokens),
        acceptance=leaf(acceptance),
        software=software,
    )
    return work, layout, choices


def prefill(
    context: Context, scenario: PrefillScenario
) -> tuple[Prefill, Layout, Choices]:
    """A batch of prompts. Raises `SpecError`."""
    w = scenario.workload
    pictures = pictures_of(context, w)
    tokens = prompt_tokens(w, pictures)
    (software, choices), layout, link, *_ = all_of(
        lambda: served_software(context, "normal"),
        lambda: layout_of(context),
        lambda: _cache_link(context, scenario),
        lambda: _check_prompt(context, scenario, tokens),
        lambda: pictures and _check_tower_split(context),
    )
    work = Prefill(
        tokens_per_device=leaf(w.tokens_per_device),
        prompt_tokens=leaf(tokens),
        cached_fraction=leaf(w.cached_fraction),
        software=software,
        images=None if pictures is None else pictures.images,
    )
    return work, layout, choices._replace(cache_link=link)


def encode(
    context: Context, scenario: DecodeScenario
) -> tuple[Encoding, Layout, Choices]:
    """A pool that encodes images; of the layout only tp and dp mean something."""
    tower = context._replace(model=None)
    (software, choices), layout, _ = all_of(
        lambda: served_software(tower, "normal"),
        lambda: layout_of(tower),
        lambda: _check_tower_split(context),
    )
    return Encoding(software), layout, choices


def served_software(context: Context, mode: str) -> tuple[Software, Choices]:
    """Formats and balance of a serving job, and what it uses of the system.

    Args:
        mode: of its expert exchange, where the library has it.

    Raises:
        SpecError: the machine lacks a format, an engine or a library.
    """
    scenario, system, where = context.scenario, context.system, context.where
    dtypes = dtypes_of(scenario, dtype_of_file(context.model, system))
    used = {f"dtypes.{k}": getattr(dtypes, k) for k in MULTIPLIED}
    if dtypes.indexer == dtypes.activation:  # as it is by itself: said once
        del used["dtypes.indexer"]
    if context.mixture:
        used["dtype of the router"] = "bf16"
    choices = usual(system)._replace(
        dtypes=multiplied(dtypes),
        experts=context.mixture,
        expert_format=expert_format(context, dtypes),
        collective_library=default(system, "serving_collective"),
        graphs=scenario.graphs or "",
    )
    _, engine = all_of(
        lambda: check_dtypes(used, system, where),
        lambda: engine_of(scenario, system, where),
    )
    library = scenario.exchange
    if library is None:
        library = exchange_library(system, engine, scenario.engine_version or "")
    pick(system.expert_parallel, library, "exchange", where)
    modes = system.expert_parallel[library]
    mode = mode if mode in modes else next(iter(modes))
    costs = modes[mode]
    return Software(
        sizes=sizes_of(dtypes),
        balance=balance_of(scenario.routing.balance or "typical", scenario.routing.skew),
        low_latency=switch(mode == "low_latency"),
        scale_slot_bytes=costs.scale_slot_bytes,
        scale_share=costs.scale_share,
        unpacks=unpacks(context, dtypes),
    ), choices._replace(engine=engine, expert_library=library, expert_mode=mode)


def _check_drafts(context: Context, drafts: int) -> None:
    """Drafts come from the model's own multi-token-prediction module."""
    if drafts and context.model is not None and not context.model.file.draft_layers:
        raise SpecError(
            [
                f"{context.where}: workload.draft_tokens = {drafts}:"
                f" {context.model.file.name} has no draft module; use 0, or set"
                " model.draft_layers = 1"
            ]
        )


def _check_prompt(context: Context, scenario: PrefillScenario, tokens: float) -> None:
    """A group of devices must admit at least one prompt of some tokens."""
    w, spec = scenario.workload, scenario.layout
    admitted = w.tokens_per_device * (spec.tp or 1) * (spec.cp or 1)
    more = tokens - w.prompt_tokens
    images = f" and {more:g} of images" if more else ""
    if tokens > admitted:
        raise SpecError(
            [
                f"{context.where}: workload.prompt_tokens = {w.prompt_tokens:g}{images}:"
                f" a tp x cp group admits only {admitted:g} tokens; raise"
                " workload.tokens_per_device"
            ]
        )


def _check_tower_split(context: Context) -> None:
    """The tower's heads must divide over the ranks that split them."""
    layout, model = context.scenario.layout, context.model
    if layout.vision == "tp" and model is not None and model.file.vision is not None:
        sizes = {"vision.heads": (model.file.vision.heads, "tp", layout.tp or 1)}
        check_division(sizes, context.where)


def _cache_link(context: Context, scenario: PrefillScenario) -> str:
    plane = scenario.workload.cache_plane
    link = CACHE_LINKS[plane]
    if link and link not in context.system.links:
        raise SpecError(
            [
                f"{context.where}: workload.cache_plane = {plane!r}:"
                f" {context.system.name} has no link {link!r}; use 'none'"
            ]
        )
    return link
