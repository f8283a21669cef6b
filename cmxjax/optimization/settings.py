"""What is free beside degrees and their placement, in whole steps.

Each setting has a menu of values for a layout, ascending; which menu depends on its
degrees. What is known of a setting is how the time of a step and the memory go with it:
that is what bounds rest on, and what the search checks.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from ..answers.capacity import SIZES
from ..job.layout import AXES
from ..job.workload import Prefill, Train
from ..specs.build import Problem
from ..specs.errors import SpecError
from ..specs.schedules import MOST_CHUNKS, schedule_of
from ..step.pipeline import SCHEDULES, chunks_filled
from .factors import divisors

MOST_REQUESTS = 2**24
"""Requests or prompts of a tensor and context group that are considered at most."""

SHARES = 4096
"""Steps in which the share of recomputed layers is chosen."""

MOST_SPARE = 4
"""Expert slots of a device beyond the fewest that hold all experts."""

Menu = Sequence[float | int]
Given = Mapping[str, tuple]
"""Values of settings to choose from, by name; those left out are free."""


ABOVE_0 = (lambda x: 0.0 < x < math.inf), "numbers above 0"
SWITCH = (lambda x: x in (0.0, 1.0)), "0 or 1"
REQUESTS = "any whole number of requests of a tensor and context group"
FREE = {
    "sequences_per_device": (*ABOVE_0, REQUESTS),
    "tokens_per_device": (*ABOVE_0, REQUESTS.replace("requests", "prompts")),
    "extra_slots": (
        lambda x: 0.0 <= x <= 1e9 and x % 1.0 == 0.0,
        "whole numbers from 0",
        f"0 to {MOST_SPARE} spare expert slots of a device, shared experts on every"
        " device or on ranks of their own",
    ),
    "micro_batch": (*ABOVE_0, "every micro-batch that divides a rank's sequences"),
    "recompute_fraction": (
        lambda x: 0.0 <= x <= 1.0,
        "numbers from 0 to 1",
        f"recomputation of none, all or any share in steps of 1/{SHARES}",
    ),
    "selective": (*SWITCH, "or of attention's scores"),
    "zero": (lambda x: x in (0.0, 1.0, 2.0, 3.0), "0, 1, 2 or 3", "ZeRO 0 to 3"),
    "sequence_parallel": (*SWITCH, "sequence parallelism"),
    "overlapped_microbatches": (
        lambda x: x in (1.0, 2.0),
        "1 or 2",
        "one micro-batch at a time or two that overlap",
    ),
    "schedule": (
        lambda x: x in SCHEDULES,
        f"one of {', '.join(SCHEDULES)}",
        "1F1B, GPipe, zero bubble (H1, V) and DualPipe",
    ),
    "vpp": (
        lambda x: 1.0 <= x <= 1e9 and x % 1.0 == 0.0,
        "whole numbers from 1",
        "any number of chunks",
    ),
}
"""What may be given of each setting, how a message says so, and what is searched where
nothing is given."""

OF_TRAINING = ("micro_batch", "recompute_fraction", "selective", "zero")
OF_ALL = ("sequence_parallel", "overlapped_microbatches")


def free_names(problem: Problem) -> tuple[str, ...]:
    """Settings that may be given values in this phase."""
    w = problem.workload
    if isinstance(w, Train):
        return (*OF_TRAINING, *OF_ALL, "schedule", "vpp")
    mixture = problem.model is not None and problem.model.experts is not None
    return (SIZES[w.kind], *(("extra_slots",) if mixture else ()), *OF_ALL)


def checked(problem: Problem, given: Given) -> dict[str, tuple]:
    """The given values, numbers as floats.

    Raises:
        SpecError: a name is not free in this phase, or a value can't be.
    """
    known, mistakes, good = free_names(problem), [], {}
    for name, values in given.items():
        if name not in known:
            names = ", ".join((*AXES, *known))
            mistakes.append(f"{name}: not free here; use one of {names}")
            continue
        allows, remedy, _ = FREE[name]
        taken = values if name == "schedule" else tuple(map(_number, values))
        mistakes += [
            f"{name} = {value}: use {remedy}"
            for value, number in zip(values, taken)
            if not allows(number)
        ]
        good[name] = taken if name == "schedule" else tuple(sorted(taken))
    if mistakes:
        raise SpecError(mistakes)
    return good


def _number(value: object) -> float:
    """A number as a float; of 400 digits it is infinite, and a word is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf


class Setting(NamedTuple):
    """A number that is chosen for each layout."""

    name: str
    time: int
    """+1 where a step never gets shorter as the value grows, -1 where it never gets
    longer, 0 where nothing is known and every value is looked at by itself."""
    memory: int
    """Likewise of memory."""
    menu: np.ndarray
    """Which menu a layout has, -1 where it has no value at all, (layout,)."""
    counts: np.ndarray
    """Values of each menu, (menu,)."""
    table: np.ndarray
    """The menus, ascending, (menu, value); rows of shorter ones are filled up. Empty for
    a batch that may be any whole number."""
    each: np.ndarray | None = None
    """What a request of a group adds to a batch that may, (layout,)."""

    @property
    def settled(self) -> bool:
        """Whether the last value is best for time and for memory."""
        return self.time == self.memory == -1

    def values(self, rows: np.ndarray, index: np.ndarray) -> np.ndarray:
        """Values of layouts at places of their menus."""
        if self.each is not None:
            return (index + 1.0) * self.each[rows]
        return self.table[self.menu[rows], index]


def degree(degrees: np.ndarray, axis: str) -> np.ndarray:
    return degrees[:, AXES.index(axis)]


class Form(NamedTuple):
    """A pipeline's schedule and the chunks of a device."""

    schedule: str
    chunks: int


ORDER = ("1f1b", "gpipe", "zero_bubble", "dualpipe", "interleaved")


def forms_of(problem: Problem, given: Given) -> tuple[Form, ...]:
    """Every way to run a pipeline; those with several chunks last, by their number."""
    a = problem.model
    layers = 1 if a is None else int(a.layers)
    most = max(2, int(chunks_filled(float(layers))) // 2)
    overlapped, forms = given.get("overlapped_microbatches", (2.0,)), set()
    for schedule in given.get("schedule", ORDER[:4]):
        if schedule == "dualpipe" and 2.0 not in overlapped:
            continue
        for count in given.get("vpp", range(1, most + 1)):
            held = min(int(count), MOST_CHUNKS.get(schedule, int(count)))
            forms.add(Form(schedule_of(schedule, held), held))
    return tuple(sorted(forms, key=lambda f: (ORDER.index(f.schedule), f.chunks)))


def free_settings(
    problem: Problem, given: Given, degrees: np.ndarray, forms: tuple[Form, ...]
) -> Iterator[Setting]:
    """Settings of a job with the menus of layouts of these degrees, (layout, axis)."""
    if isinstance(problem.workload, Train):
        yield from _of_training(problem, given, degrees)
        # a single stage has no schedule; all are priced with what plain 1F1B holds, and a
        # range of them as the shortest
        menus, staged = [range(1), range(len(forms))], degree(degrees, "pp") > 1
        yield _listed(given, "form", 1, 1, 1 * staged, menus.__getitem__)
    else:
        yield from _of_serving(problem, given, degrees)


def _listed(
    given: Given, name: str, time: int, memory: int, keys: np.ndarray, menu_of: Callable
) -> Setting:
    """A setting with a menu for each distinct key, (layout,); of given values only those
    that are on it."""
    distinct, menu = np.unique(keys, return_inverse=True)
    every, kept = map(menu_of, distinct.tolist()), given.get(name)
    menus = [[x for x in values if kept is None or x in kept] for values in every]
    counts = np.array([len(values) for values in menus])
    longest = max(1, counts.max())
    table = np.array([np.resize(values or [0.0], longest) for values in menus], float)
    menu = np.where(counts[menu.ravel()] > 0, menu.ravel(), -1)
    return Setting(name, time, memory, menu, counts, table)


def _of_serving(problem: Problem, given: Given, degrees: np.ndarray) -> Iterator[Setting]:
    a, w, listed = problem.model, problem.workload, partial(_listed, given)
    group, none = degree(degrees, "tp") * degree(degrees, "cp"), 0 * degrees[:, 0]
    prompts = isinstance(w, Prefill)
    each = (float(w.prompt_tokens) if isinstance(w, Prefill) else 1.0) / group

    def fits(count: float) -> bool:
        """Whether a group has whole requests, or at least a prompt."""
        return count >= 1.0 and (prompts or abs(count - round(count)) < 1e-9)

    name = SIZES[w.kind]
    if name in given:
        # as many ranks of a group, as many tokens of a request
        yield listed(
            name, 1, 1, each, lambda one: [x for x in given[name] if fits(x / one)]
        )
    else:
        most = np.array([MOST_REQUESTS])
        yield Setting(name, 1, 1, none, most, np.zeros((0, 0)), each)
    if a is not None and a.experts is not None:
        routed = int(a.experts.routed)

        def spare(ep: int) -> Menu:
            if "extra_slots" in given:
                return given["extra_slots"]
            if ep == 1:  # a copy beside the expert itself is of no use
                return (0.0,)
            most = 2 * routed // ep - math.ceil(routed / ep)
            return range(min(max(most, 1), MOST_SPARE) + 1)

        # balanced better, with more weights to read and other tiles of tokens to fill
        yield listed("extra_slots", 0, 1, degree(degrees, "ep"), spare)
    # norms see fewer rows, and nothing else changes
    yield _along_sequence(given, degrees, -1)
    # the faster of 1 and 2, or 2, whose batches hold less
    yield listed("overlapped_microbatches", 1, -1, none, lambda _: (1.0, 2.0))


def _along_sequence(given: Given, degrees: np.ndarray, time: int) -> Setting:
    # without a tensor group there is nothing to split
    menus = [given.get("sequence_parallel", (0.0,)), (0.0, 1.0)]
    grouped = 1 * (degree(degrees, "tp") > 1)
    return _listed(given, "sequence_parallel", time, -1, grouped, menus.__getitem__)


def _of_training(
    problem: Problem, given: Given, degrees: np.ndarray
) -> Iterator[Setting]:
    w, none, listed = problem.workload, 0 * degrees[:, 0], partial(_listed, given)
    assert isinstance(w, Train)
    batch = round(float(w.global_batch))

    def micro(dp: int) -> Menu:
        return () if batch % dp else divisors(batch // dp)

    yield listed("micro_batch", -1, 1, degree(degrees, "dp"), micro)
    shares = given.get("recompute_fraction", np.arange(SHARES + 1) / SHARES)
    yield listed("recompute_fraction", 1, -1, none, lambda _: shares)
    # a fused kernel keeps no scores that could be computed again
    scores = (0.0,) if w.fused_attention else (0.0, 1.0)
    yield listed("selective", 0, -1, none, lambda _: scores)
    ranks = degree(degrees, "dp") * degree(degrees, "cp") * degree(degrees, "edp")
    stages = (0.0, 1.0, 2.0, 3.0)
    zero = [stages if "zero" in given else (0.0,), stages]
    yield listed("zero", 0, -1, 1 * (ranks > 1), zero.__getitem__)
    yield _along_sequence(given, degrees, 0)
    # what overlaps is all that experts send, over tensor ranks of theirs too
    sends, ways = degree(degrees, "ep") * degree(degrees, "etp") > 1, [(1.0,), (1.0, 2.0)]
    yield listed("overlapped_microbatches", -1, -1, 1 * sends, ways.__getitem__)
