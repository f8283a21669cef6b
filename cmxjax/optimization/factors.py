"""Whole factorizations: how a tier of `u` units can be split among the axes."""

from functools import cache

import numpy as np

from ..job.layout import AXES

PIPELINE = AXES.index("pp")


@cache
def divisors(number: int) -> tuple[int, ...]:
    """All divisors, ascending."""
    small = [d for d in range(1, int(number**0.5) + 1) if number % d == 0]
    return tuple(sorted({*small, *(number // d for d in small)}))


@cache
def factorizations(number: int, parts: int) -> tuple[tuple[int, ...], ...]:
    """All ways to write a number as an ordered product of `parts` whole factors."""
    if parts == 1:
        return ((number,),)
    return tuple(
        (first, *rest)
        for first in divisors(number)
        for rest in factorizations(number // first, parts - 1)
    )


@cache
def tier_splits(units: int, has_experts: bool) -> np.ndarray:
    """Every way to split one tier among all axes, (way, axis).

    `tp cp dp pp` multiply to `units` and so do `etp ep edp pp`. A dense model has no
    experts to spread: all that is not a stage is `edp`.
    """
    rows = []
    for tp, cp, dp, pp in factorizations(units, 4):
        inside = units // pp
        expert = factorizations(inside, 3) if has_experts else ((1, 1, inside),)
        rows += [(tp, cp, dp, pp, *split) for split in expert]
    return np.array(rows, np.int16 if units < 2**15 else np.int64)


def footprints(devices: int, sizes: tuple[float, ...]) -> list[tuple[int, ...]]:
    """How many units of each tier a job of `devices` takes, innermost first.

    Whole units of equal extent; of two footprints the one that fills every inner
    level at least as well replaces the other, since traffic is never slower further
    in. Empty where the devices can't be arranged in whole units.
    """
    every = [
        units
        for units in factorizations(devices, len(sizes))
        if all(n <= size for n, size in zip(units, sizes))
    ]
    inner = {units: np.cumprod(units) for units in every}
    return [
        f
        for f in every
        if not any(g != f and (inner[g] >= inner[f]).all() for g in every)
    ]
