"""Points drawn at random and moved a step, for searches that are no cleverer."""

import math
from typing import Any, NamedTuple

import numpy as np
from points import (
    AXES,
    SIZES,
    Job,
    Point,
    Way,
    chunk_counts,
    micro_batches,
    recomputed,
    slots,
)

MOST_REQUESTS = 1e5

SCHEDULES = ("1f1b", "1f1b", "zero_bubble", "dualpipe", "gpipe")
"""1F1B twice, as it has two forms."""

EXPERT = (4, 5, 6)

PIPELINE = AXES.index("pp")


class Task(NamedTuple):
    """What drafts are drawn for."""

    job: Job
    model: Any
    footprints: list[tuple[int, ...]]


class Draft(NamedTuple):
    """What is drawn and moved; a point is made of it, if it can be one."""

    factor: np.ndarray
    """Ways that each axis splits within each tier, (axis, tier)."""
    sequence_parallel: bool
    latent: bool
    """Attention is split `sp_tp_sp`."""
    overlapped: int | str
    apart: bool
    schedule: str
    zero: int
    requests: float
    """Of a tp x cp group."""
    more: int
    """Expert slots of a rank beyond the fewest."""
    micro: float
    """Place among the possible sizes, 0 to 1; likewise the next two."""
    chunks: float
    again: float


def trains(job: Job) -> bool:
    return job.phase == "train"


def primes(number: int) -> list[int]:
    """Prime factors with their multiplicity."""
    for d in range(2, number + 1):
        if number % d == 0:
            return [d, *primes(number // d)]
    return []


def random_factor(task: Task, rng: np.random.Generator) -> np.ndarray:
    """Prime factors of each tier, each given to an axis."""
    units = task.footprints[int(rng.integers(len(task.footprints)))]
    factor = np.ones((len(AXES), len(units)), int)
    dense = task.model.experts is None
    for tier, count in enumerate(units):
        for prime in primes(count):
            axis = int(rng.integers(4))
            factor[axis, tier] *= prime
            if axis != PIPELINE:
                factor[EXPERT[-1] if dense else int(rng.choice(EXPERT)), tier] *= prime
    return factor


def random_draft(task: Task, rng: np.random.Generator) -> Draft:
    job = task.job
    return Draft(
        factor=random_factor(task, rng),
        sequence_parallel=bool(rng.integers(2)),
        latent=job.phase == "prefill" and bool(rng.integers(2)),
        overlapped=(1, 2)[rng.integers(2)]
        if trains(job)
        else ("auto", 2)[rng.integers(2)],
        apart=job.phase == "decode" and bool(rng.integers(2)),
        schedule=SCHEDULES[rng.integers(len(SCHEDULES))],
        zero=int(rng.integers(4)),
        requests=float(np.exp(rng.uniform(0.0, math.log(MOST_REQUESTS)))),
        more=int(rng.integers(2)),
        micro=rng.random(),
        chunks=rng.random(),
        again=rng.random(),
    )


def sound_draft(task: Task, rng: np.random.Generator) -> Draft:
    """One of a point, if a hundred draws have any."""
    draft = random_draft(task, rng)
    for _ in range(100):
        if point_of(task, draft) is not None:
            break
        draft = random_draft(task, rng)
    return draft


def picked(values: list, place: float) -> Any:
    return values[min(int(place * len(values)), len(values) - 1)]


def point_of(task: Task, draft: Draft) -> Point | None:
    """The point of a draft; None if its degrees don't divide what they split."""
    job, model = task.job, task.model
    degrees = dict(zip(AXES, draft.factor.prod(axis=1).tolist()))
    tp, pp = degrees["tp"], degrees["pp"]
    if any(degrees[axis] != given for axis, given in job.pinned.items()):
        return None
    if any(int(mixer.heads) % tp for mixer in model.mixers) or pp > int(model.layers):
        return None
    rows = tuple(tuple(row) for row in draft.factor.tolist())
    parallel = draft.sequence_parallel and tp > 1
    if not trains(job):
        attention = "sp_tp_sp" if draft.latent else "tp" if tp > 1 else "dp"
        parallel = parallel and attention == "tp"
        way = Way(attention, parallel, draft.overlapped, draft.apart)
        counts = slots(job, model, way, degrees["ep"])
        if not counts:
            return None
        name, work = SIZES[job.phase], job.scenario["workload"]
        size = max(1.0, round(draft.requests)) * work.get("prompt_tokens", 1)
        redundant, shared = counts[draft.more % len(counts)]
        numbers = {name: size / (tp * degrees["cp"])}
        numbers |= {
            "redundant_experts": float(redundant),
            "shared_replicas": float(shared),
        }
        return Point(way, rows, numbers)
    experts = model.experts
    if job.scenario["workload"]["global_batch"] % degrees["dp"]:
        return None
    if experts is not None and int(experts.routed) % degrees["ep"]:
        return None
    schedule = draft.schedule if pp > 1 else "1f1b"
    way = Way("tp", parallel, draft.overlapped, False, schedule, draft.zero > 0)
    micro = micro_batches(job, way, degrees)
    if not micro:
        return None
    layers = int(model.layers)
    share, selective = picked(recomputed(layers), draft.again)
    numbers = {
        "micro_batch": float(picked(micro, draft.micro)),
        "zero": float(draft.zero),
        "chunks": float(picked(chunk_counts(way, pp, layers), draft.chunks)),
        "recompute_fraction": share,
        "selective": selective,
    }
    return Point(way, rows, numbers)


def moved(draft: Draft, task: Task, rng: np.random.Generator) -> Draft:
    """A draft nearby: a prime factor on another axis, or another setting."""
    if rng.random() < 0.5:
        return draft._replace(factor=moved_factor(draft.factor, task, rng))
    other = random_draft(task, rng)
    step = lambda place: float(np.clip(place + rng.normal(0.0, 0.1), 0.0, 1.0))
    choices: list[dict[str, Any]] = [
        {"requests": np.clip(draft.requests * np.exp(rng.normal(0.0, 0.2)), 1, None)},
        {"requests": max(1.0, draft.requests + rng.integers(-2, 3))},
        {"more": other.more},
        {"apart": other.apart},
        {"latent": other.latent},
    ]
    if trains(task.job):
        choices = [{name: step(getattr(draft, name))} for name in ("micro", "chunks")]
        choices += [{"again": step(draft.again)}, {"again": other.again}]
        choices += [{"schedule": other.schedule}, {"zero": other.zero}]
    choices += [{"sequence_parallel": other.sequence_parallel}]
    choices += [{"overlapped": other.overlapped}]
    return draft._replace(**choices[int(rng.integers(len(choices)))])


def moved_factor(factor: np.ndarray, task: Task, rng: np.random.Generator) -> np.ndarray:
    """A prime factor goes to another axis within its tier, of either folding or of both
    where stages get or lose it; half the time one comes back in another tier."""
    result, dense = factor.copy(), task.model.experts is None
    tiers = [t for t in range(factor.shape[1]) if factor[:4, t].prod() > 1]
    picked_tiers = rng.permutation(tiers)[: 1 + int(rng.random() < 0.5)]
    axes = rng.permutation(4)[:2] if dense or rng.random() < 0.5 else None
    back = False
    for tier in picked_tiers:
        if axes is None:
            a, b = rng.permutation(EXPERT)[:2]
        else:
            a, b = axes
        a, b = (b, a) if back else (a, b)
        back = True
        shared = int(result[a, tier])
        if PIPELINE in (a, b):
            e = EXPERT[-1] if dense else int(rng.choice(EXPERT))
            shared = shared if a == PIPELINE else math.gcd(shared, int(result[e, tier]))
        if shared == 1:
            continue
        prime = int(rng.choice(primes(shared)))
        result[a, tier] //= prime
        result[b, tier] *= prime
        if a == PIPELINE:
            result[e, tier] *= prime
        elif b == PIPELINE:
            result[e, tier] //= prime
    return result
