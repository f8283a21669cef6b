"""Points of a job: one whole layout with its settings, and what it costs.

What `build` accepts is allowed, and `metrics` prices it; nothing here comes from the
search. Points that differ only in numbers go through one program together. A scenario's
own layout, batch, ZeRO stage, recomputation and schedule are not used.
"""

import itertools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

import cmxjax as cmx

AXES = ("tp", "cp", "dp", "pp", "etp", "ep", "edp")

ROWS = 4096
"""Points of one call; what is left over is padded to it."""

MEASURED = {
    "tokens_rate_per_package": ("tokens_per_s_per_package", 1.0),
    "tpot": ("tpot_s", -1.0),
    "ttft": ("ttft_s", -1.0),
    "step_time": ("step_time_s", -1.0),
    "energy_per_token": ("energy_per_token_j", -1.0),
    "mfu": ("mfu", 1.0),
    "memory": ("memory_bytes", -1.0),
}
"""The field of each quantity, and whether more (1) or less (-1) of it is better."""

MEMORY = ("memory_bytes", "memory_excess_bytes")

SPEED = ("tokens_per_s_per_package", "energy_per_token_j")

FIELDS = {
    "decode": (*SPEED, *MEMORY, "tpot_s"),
    "prefill": (*SPEED, *MEMORY, "ttft_s"),
    "train": (*SPEED, *MEMORY, "step_time_s", "mfu"),
}
"""That are computed of each point, by phase."""

SCHEDULES = ("1f1b", "zero_bubble", "dualpipe", "gpipe")
"""As programs are keyed: the interleaved one is 1F1B of several chunks."""

SIZES = {"decode": "sequences_per_device", "prefill": "tokens_per_device"}

ROUTING = ("redundant_experts", "shared_replicas")


class Job(NamedTuple):
    """What is asked."""

    name: str
    scenario: dict[str, Any]
    objective: str = "tokens_rate_per_package"
    limits: tuple[str, ...] = ()
    pinned: Mapping[str, int] = {}
    """Degrees that aren't free."""
    spread: bool = False
    """Groups that leave nodes emptier than they could be are tried too."""

    @property
    def phase(self) -> str:
        return self.scenario["phase"]

    @property
    def devices(self) -> int:
        return self.scenario["layout"]["devices"]


class Way(NamedTuple):
    """What isn't a number of the program."""

    attention: str
    sequence_parallel: bool
    overlapped: int | str
    apart: bool = False
    """Ranks of their own hold the shared expert."""
    schedule: str = ""
    shards: bool = False
    """ZeRO of some stage."""


class Point(NamedTuple):
    """One whole layout with its settings."""

    way: Way
    factor: tuple[tuple[int, ...], ...]
    """Ways that each axis splits within each tier."""
    numbers: dict[str, float]

    @property
    def degrees(self) -> dict[str, int]:
        return {axis: math.prod(row) for axis, row in zip(AXES, self.factor)}


Columns = dict[str, np.ndarray]
"""Numbers of many points by what they set, of one length."""


def divisors(number: int) -> list[int]:
    return [d for d in range(1, int(number) + 1) if number % d == 0]


def ways(job: Job) -> list[Way]:
    """Every way to run a job of this phase, allowed for its model or not.

    One device has no other to share with; pinned axes that don't split need no way.
    """
    trains, alone = job.phase == "train", job.devices == 1
    whole = alone or job.pinned.get("tp") == 1
    split = [("tp", False), ("tp", True)]
    if trains:
        groups = split[:1] if whole else split
        staged = not alone and job.pinned.get("pp") != 1
        schedules = SCHEDULES if staged else SCHEDULES[:1]
        every = itertools.product(
            groups, (1, 2), schedules, (False,) if alone else (False, True)
        )
        return [Way(*group, count, False, *rest) for group, count, *rest in every]
    if job.phase == "prefill":
        split.append(("sp_tp_sp", False))
    groups = [("dp", False), *(() if whole else split)]
    apart = (False, True) if job.phase == "decode" else (False,)
    every = itertools.product(groups, ("auto", 2), apart)
    return [Way(*group, count, beside) for group, count, beside in every]


def footprints(job: Job, sizes: list[int]) -> list[tuple[int, ...]]:
    """How many units of each tier the devices take. Those that leave an inner tier
    emptier than another footprint count only if the job asks for them."""
    ranges = [[d for d in divisors(job.devices) if d <= size] for size in sizes]
    every = [x for x in itertools.product(*ranges) if math.prod(x) == job.devices]
    inner = {x: np.cumprod(x) for x in every}
    if job.spread:
        return every
    return [
        x for x in every if not any((inner[y] >= inner[x]).all() for y in every if y != x)
    ]


def slots(job: Job, model, way: Way, ep: int) -> list[tuple[int, int]]:
    """Redundant experts and replicas of the shared one: the fewest whole slots of a rank
    that hold all, and one more. A single rank has no use for copies.

    Shared experts apart take one slot for each topk + 1 of routed ones, as on
    CloudMatrix384: 32 beside 288 (arXiv 2506.12708, section 4.2.1).
    """
    e = model.experts
    if e is None or job.phase == "train" or ep == 1:
        return [] if way.apart else [(0, 0)]
    routed, parts = int(e.routed), int(e.topk) + 2
    if not way.apart:
        return [(ep * (-(-routed // ep) + more) - routed, 0) for more in (0, 1)]
    if float(e.shared) != 1.0:
        return []
    found = []
    for more in (0, 1):
        count = ep * (-(-routed * parts // ((parts - 1) * ep)) + more)
        shared = count // parts
        found.append((count - routed - shared, shared))
    return [pair for pair in found if pair[1] > 0]


def recomputed(layers: int) -> list[tuple[float, float]]:
    """Share of the layers that run again, and whether only attention's core does."""
    shares = {k / 8 for k in range(9)} | {k / layers for k in range(layers + 1)}
    return [(share, 0.0) for share in sorted(shares)] + [(0.0, 1.0)]


def chunk_counts(way: Way, pp: int, layers: int) -> list[int]:
    """Chunks of a device that a schedule may have."""
    most = {"1f1b": layers, "zero_bubble": 2}.get(way.schedule, 1) if pp > 1 else 1
    counts = [d for d in divisors(layers) if d <= most] if way.schedule == "1f1b" else [1]
    if most == 2:
        counts = [1, 2]
    return [count for count in counts if pp * count <= layers + 2 or count == 1]


def micro_batches(job: Job, way: Way, degrees: dict) -> list[int]:
    """Divisors of a data-parallel rank's sequences that the schedule can have."""
    batch, dp, pp = job.scenario["workload"]["global_batch"], degrees["dp"], degrees["pp"]
    if batch % dp:
        return []
    counts = {size: batch // dp // size for size in divisors(batch // dp)}
    if way.schedule != "dualpipe":
        return list(counts)
    return [size for size, n in counts.items() if n % 2 == 0 and n >= 2 * pp]


def priced(inputs: tuple, factors, numbers):
    """Fields of many points that one program prices."""
    machine, model, workload, layout = inputs

    def one(factor, given):
        given = dict(given)
        routing = {name: given.pop(name) for name in ROUTING if name in given}
        if "selective" in given:
            selective = given.pop("selective")
            given["selective"] = workload.selective.replace(on=selective)
        where = layout.replace(factor=factor, routing=layout.routing.replace(**routing))
        m = cmx.metrics(machine, model, workload.replace(**given), where)
        return {name: getattr(m, name) for name in FIELDS[workload.kind]}

    return jax.vmap(one)(factors, numbers)


compiled = jax.jit(priced, compiler_options={"xla_backend_optimization_level": "0"})
"""Made in half the time, and three times as slow: most programs price few points."""


def price(
    inputs: tuple, factors: np.ndarray, numbers: Columns, rows: int = ROWS
) -> Columns:
    """Fields of at most `rows` points."""
    count = len(factors)
    pad = lambda x: np.concatenate([x, np.repeat(x[-1:], rows - count, axis=0)])
    columns = {name: pad(np.asarray(x, float)) for name, x in numbers.items()}
    fields = compiled(inputs, pad(np.asarray(factors, float)), columns)
    return {name: np.asarray(x)[:count] for name, x in fields.items()}


def inputs_of(job: Job, way: Way) -> tuple | None:
    """What `metrics` takes, of the job on one device; None where a way isn't allowed."""
    work: dict[str, Any] = {}
    if job.phase == "train":
        work = {"micro_batch": 1, "recompute": "none", "zero": int(way.shards)}
        work["schedule"] = way.schedule
    elif job.phase == "prefill":
        work["tokens_per_device"] = job.scenario["workload"]["prompt_tokens"]
    alone = {"devices": 1, "attention": way.attention}
    alone["sequence_parallel"] = way.sequence_parallel
    alone["overlapped_microbatches"] = way.overlapped
    changes = {"layout": alone, "workload": job.scenario["workload"] | work}
    if way.apart:
        changes["routing"] = {"shared_replicas": 1}
    return attempt(job, changes)


def attempt(job: Job, changes: dict[str, Any]) -> tuple | None:
    """What `metrics` takes of a job with keys changed; None if it is refused."""
    try:
        problem = cmx.build(cmx.load_scenario(job.scenario, changes), "none")
    except cmx.SpecError:
        return None
    return problem.inputs


def changes_of(job: Job, point: Point) -> dict[str, Any]:
    """Keys that turn the job's scenario into a point."""
    way, numbers = point.way, point.numbers
    layout: dict[str, Any] = {
        **point.degrees,
        "placement": {axis: list(row) for axis, row in zip(AXES, point.factor)},
        "sequence_parallel": way.sequence_parallel,
        "overlapped_microbatches": way.overlapped,
    }
    if job.phase != "train":
        size = SIZES[job.phase]
        routing = {name: numbers[name] for name in ROUTING if name in numbers}
        layout["attention"] = way.attention
        return {"layout": layout, "workload": {size: numbers[size]}, "routing": routing}
    layout["vpp"] = int(numbers["chunks"])
    work = {"micro_batch": numbers["micro_batch"], "zero": int(numbers["zero"])}
    share = numbers["recompute_fraction"]
    work["recompute"] = "selective" if numbers["selective"] else share
    return {"layout": layout, "workload": work | {"schedule": way.schedule}}


def feasible(job: Job, fields: Columns) -> np.ndarray:
    """Which points fit into memory and keep the limits."""
    good = fields["memory_excess_bytes"] <= 0.0
    for text in job.limits:
        limit = cmx.parse_limit(text)
        field, sign = MEASURED[limit.quantity]
        good &= sign * (fields[field] / limit.value - 1.0) >= -1e-12
    return good
