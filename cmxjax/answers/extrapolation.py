"""What of a job lies outside of all that its machine's calibration was fitted to."""

import math
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import NamedTuple

from ..specs.build import Problem
from ..specs.calibration_file import UNCALIBRATED
from ..specs.evidence_file import GROWTH, shipped_runs
from ..specs.files import DATA, parse_json
from ..specs.relatives import NAME as RELATIVES
from ..specs.traits import Traits, traits_of

FARTHEST = 8.0
"""Doublings that count: few rows were left out from farther."""

WIDE_ALREADY = ("machine", "phase", "engine", "devices")
"""What the discrepancy widens by itself: without any row of it, errors are those of the
most alike, and more; they grow with the nodes of a job. See `discrepancy`."""


class Outside(NamedTuple):
    """One word or size that no fitted run has."""

    what: str
    value: str | float
    range: list
    """The words that fitted runs have, or their least and largest size."""

    def __str__(self) -> str:
        if isinstance(self.value, str):
            known = ", ".join(map(str, self.range))
            return f"{self.what} {self.value} (fitted: {known or 'none'})"
        low, high = self.range
        return f"{self.what} {self.value:.4g} (fitted: {low:.4g} to {high:.4g})"


def outside(problem: Problem) -> list[Outside]:
    """What no run has that the job's calibration was fitted to, of the same kind and,
    where there are any, of the same engine."""
    job, fitted = traits_of(problem.scenario), problem.fitted
    if problem.scenario.phase == "system":
        return []
    if fitted.name in (UNCALIBRATED, RELATIVES):
        known = fitted.provenance.get("relatives", [])
        return [Outside("machine", job.system, list(known))]  # pyright: ignore
    runs = _runs_of(tuple(fitted.provenance.get("fitted_rows", [])))  # pyright: ignore
    alike = [run for run in runs if run.kind == job.kind]
    if not runs:  # fitted to rows that don't ship
        return []
    if not alike:
        return [Outside("phase", job.kind, sorted({run.kind for run in runs}))]
    return beyond(job, alike)


@lru_cache(maxsize=64)
def _runs_of(ids: tuple[str, ...]) -> tuple[Traits, ...]:
    """What the shipped runs of some names are like."""
    wanted = set(ids)
    return tuple(run.traits for run in shipped_runs() if run.id in wanted)


def beyond(job: Traits, runs: Sequence[Traits]) -> list[Outside]:
    """What a job has that none of some runs of its kind has; sizes only of those of its
    engine, if there are any."""
    found = []
    for name, word in job.words.items():
        known = sorted({run.words[name] for run in runs if name in run.words})
        if known and word not in known:
            found.append(Outside(name, word, known))
    engine = job.words.get("engine")
    own = [run for run in runs if run.words.get("engine") == engine] or runs
    for name, size in job.sizes.items():
        sizes = [run.sizes[name] for run in own if name in run.sizes]
        if sizes and not min(sizes) <= size <= max(sizes):
            found.append(Outside(name, size, [min(sizes), max(sizes)]))
    return found


def steps(found: Sequence[Outside]) -> tuple[float, float]:
    """How far outside: doublings of sizes beyond their ranges, and other words."""
    doublings, words = 0.0, 0.0
    for part in found:
        if part.what in WIDE_ALREADY:
            continue
        if isinstance(part.value, str):
            words += 1.0
        else:
            low, high = part.range
            doublings += abs(math.log2(part.value / (low if part.value < low else high)))
    return min(doublings, FARTHEST), words


def widening(found: Sequence[Outside]) -> float:
    r"""Factor of error bars for what lies outside.

    The model's error wanders as a random walk does, so that its variance grows with each
    step by a share of what it is inside, which rows left out at such distances showed:

    $$ f^2 = 1 + g_s d + g_w w $$

    with d doublings of sizes and w other words.
    """
    growth = learned_growth()
    return math.sqrt(1.0 + sum(g * d for g, d in zip(growth, steps(found), strict=True)))


@cache
def learned_growth() -> tuple[float, float]:
    """Of the variance, for a doubling and for a word; see `calibrate.extrapolation`."""
    text = (DATA / GROWTH).read_text("utf-8")
    learned = parse_json(text, GROWTH)
    return learned["doubling"], learned["word"]  # pyright: ignore[reportReturnType]
