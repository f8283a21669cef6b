"""What the pools of a serving scenario may be together."""

import math

from ..machine.system import System
from .context import Context
from .errors import SpecError
from .scenario_file import LayoutSpec, ServeScenario

TOGETHER = (
    {"prefill", "decode"},
    {"decode"},
    {"prefill", "attention", "expert"},
    {"attention", "expert"},
)
"""Roles that make a scenario, a cache apart."""


def roles_of(context: Context, scenario: ServeScenario) -> list[str]:
    """The roles of the pools, if they make sense together."""
    roles = [pool.role for pool in scenario.pools]
    mistakes = [
        f"{context.where}: pools: {roles.count(role)} of role {role!r}; join them"
        for role in dict.fromkeys(roles)
        if roles.count(role) > 1
    ]
    if set(roles) - {"cache", "encode"} not in TOGETHER:
        mistakes.append(
            f"{context.where}: pools: roles {', '.join(roles)} don't serve requests; use"
            " prefill and decode, decode alone (co-located), or attention and expert with"
            " prefill or without; each with a cache or not, and with encode for images"
        )
    mistakes += _encode_mistakes(context, scenario, roles)
    if mistakes:
        raise SpecError(mistakes)
    return roles


def _encode_mistakes(
    context: Context, scenario: ServeScenario, roles: list[str]
) -> list[str]:
    """What a pool that encodes images needs, and can't have."""
    images, mistakes = scenario.workload.images_per_prompt, []
    where = f"{context.where}: pools: role 'encode'"
    if "encode" not in roles:
        if images and not {"prefill", "decode"} & set(roles):
            mistakes.append(
                f"{context.where}: workload.images_per_prompt = {images:g}: no pool"
                " computes prompts; add prefill and encode pools, or use 0"
            )
        return mistakes
    if scenario.workload.concurrency is not None:
        mistakes.append(
            f"{where}: not in a closed loop; use workload.request_rate instead of"
            " workload.concurrency"
        )
    if not images:
        mistakes.append(f"{where}: no images; add workload.images_per_prompt")
    if not {"prefill", "decode"} & set(roles):
        mistakes.append(f"{where}: no pool computes prompts; add a prefill pool")
    for i, pool in enumerate(scenario.pools):
        given = {axis: getattr(pool.layout, axis) or 1 for axis in NOT_ENCODING}
        if pool.role == "encode":
            mistakes += [
                f"{context.where}: pools[{i}].layout.{axis} = {size}: a vision tower"
                " splits over tp and dp alone; use 1"
                for axis, size in given.items()
                if size > 1
            ]
    return mistakes


NOT_ENCODING = ("cp", "pp", "ep", "etp", "edp")
"""Axes that a vision tower doesn't split over."""


def check_keys(context: Context, scenario: ServeScenario, roles: list[str]) -> None:
    """Keys that say nothing here, or more than the pools can hold."""
    where, mistakes = context.where, []
    if scenario.layout != LayoutSpec():
        mistakes.append(f"{where}: layout: each pool has its own; move it to pools")
    if scenario.routing.experts_per_device is not None:
        mistakes.append(
            f"{where}: routing.experts_per_device ="
            f" {scenario.routing.experts_per_device:g}: differs between pools; leave it"
            " out"
        )
    if scenario.workload.cached_fraction == 1.0:
        mistakes.append(
            f"{where}: workload.cached_fraction = 1: nothing is left to compute; use < 1"
        )
    if scenario.workload.ttft_limit is not None and not {"prefill", "decode"} & set(
        roles
    ):
        mistakes.append(
            f"{where}: workload.ttft_limit = {scenario.workload.ttft_limit:g}: no pool"
            " computes prompts; add a prefill pool, or leave it out"
        )
    if "expert" in roles and context.model is not None:
        mistakes += _apart_mistakes(context, scenario)
    for i, pool in enumerate(scenario.pools):
        if pool.role == "cache" and pool.layout != LayoutSpec():
            mistakes.append(f"{where}: pools[{i}].layout: a cache has none; leave it out")
    if mistakes:
        raise SpecError(mistakes)


def _apart_mistakes(context: Context, scenario: ServeScenario) -> list[str]:
    """What attention and experts on pools of their own can't have."""
    assert context.model is not None
    file, where = context.model.file, context.where
    mistakes = []
    if file.mixture is None:
        mistakes.append(
            f"{where}: pools: role 'expert': {file.name} has no experts; use decode"
        )
    for i, pool in enumerate(scenario.pools):
        given = {"pp": pool.layout.pp or 1, "cp": pool.layout.cp or 1}
        if pool.role in ("attention", "expert"):
            mistakes += [
                f"{where}: pools[{i}].layout.{axis} = {size}: attention and experts apart"
                " don't split so; use 1"
                for axis, size in given.items()
                if size > 1
            ]
    return mistakes


def check_devices(context: Context, scenario: ServeScenario) -> None:
    """All pools must fit into the machine; a cache lies in the hosts of its devices."""
    room = math.prod(float(tier.size) for tier in context.system.tiers.values())
    computing = sum(p.devices for p in scenario.pools if p.role != "cache")
    cache = max((p.devices for p in scenario.pools if p.role == "cache"), default=0)
    if max(computing, cache) > room:
        raise SpecError(
            [
                f"{context.where}: pools: {max(computing, cache)} devices;"
                f" {context.system.name} has {room:g}; use fewer"
            ]
        )


def cache_link(context: Context, scenario: ServeScenario, roles: list[str]) -> str:
    """A cache pool is host memory over UB; without one prefixes come over the VPC."""
    if not scenario.workload.cached_fraction and "cache" not in roles:
        return ""
    link = "cpu-pool" if "cache" in roles else "vpc"
    return _known_link(context.system, link, context.where)


def _known_link(system: System, link: str, where: str) -> str:
    if link not in system.links:
        raise SpecError(
            [
                f"{where}: workload.cached_fraction: {system.name} has no link {link!r}"
                " to load prefixes over; use 0"
            ]
        )
    return link
