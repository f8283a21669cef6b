"""What is free beside degrees and their placement, in whole steps.

Each setting has a menu of values for a layout, ascending; which menu depends on its
degrees. What is known of a setting is how the time of a step and the memory go with it:
that is what bounds rest on, and what the search checks.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from ..answers.capacity import SIZES
from ..job.layout import AXES
from ..job.workload import Prefill, Train
from ..model.flops import matrix_parameters
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


class Setting(NamedTuple):
    """A number that is chosen for each layout."""

    name: str
    time: int
    """+1 where a step never gets shorter as the value grows, -1 where it never gets
    longer, 0 where nothing is known and every value is looked at by itself."""
    memory: int
    """Likewise of memory."""
    counts: np.ndarray
    """Values of each menu, (menu,)."""
    table: np.ndarray
    """The menus, ascending, (menu, value); rows of shorter ones are filled up. Empty for
    a batch that may be any whole number."""
    per_group: float = 1.0
    """Of a whole number of requests, what each adds to the value of a group."""
    eased: bool = False
    """A range is priced as what is best of each of its values, though nothing is known
    of the time."""

    @property
    def whole(self) -> bool:
        return not self.table.size

    @property
    def settled(self) -> bool:
        """Whether one end of the menu is best for time and for memory."""
        return self.time == self.memory != 0 and not self.is_batch

    @property
    def is_batch(self) -> bool:
        return self.name in SIZES.values()

    def values(
        self, menu: np.ndarray, index: np.ndarray, group: np.ndarray
    ) -> np.ndarray:
        """Values at places of the menus, of layouts whose groups have so many ranks."""
        if self.whole:
            return (index + 1.0) * self.per_group / group
        return self.table[menu, index]


class Menus(NamedTuple):
    """A setting with the menu of every layout of a table of degrees."""

    setting: Setting
    menu: np.ndarray
    """-1 where a layout has no value at all, (degrees,)."""


def degree(degrees: np.ndarray, axis: str) -> np.ndarray:
    return degrees[:, AXES.index(axis)]


def free_settings(
    problem: Problem, given: Mapping[str, tuple], degrees: np.ndarray, within_s: float
) -> list[Menus]:
    """Settings of a job with the menus of layouts of these degrees, (layout, axis).

    Args:
        given: the values of a setting to choose from, by name.
        within_s: limit of TPOT or TTFT; infinite where there is none.
    """
    if isinstance(problem.workload, Train):
        return [*_of_training(problem, given, degrees)]
    return [*_of_serving(problem, given, degrees, within_s)]


SLACK = 2.0
"""Factor on the tokens that the peak allows within a limit."""


def _most_tokens(problem: Problem, within_s: float) -> float:
    """Tokens of a device beyond which its GEMMs take longer than a limit at the peak of
    any format, whatever the layout: the devices share the FLOP of all tokens."""
    a, w = problem.model, problem.workload
    machine = problem.machine
    if a is None or isinstance(machine, dict) or not math.isfinite(within_s):
        return math.inf
    head = a.vocabulary * a.hidden
    weights = matrix_parameters(a.replace(draft_layers=jnp.zeros(()))) - head
    peak = max(float(x) for x in machine.chip.matrix_flop_per_s.values())
    cached = float(w.cached_fraction) if isinstance(w, Prefill) else 0.0
    each = 2.0 * float(weights) * (1.0 - cached)
    return SLACK * within_s * peak / each if each > 0.0 else math.inf


def _listed(
    name: str,
    time: int,
    memory: int,
    menus: list[tuple],
    menu: np.ndarray,
    given,
    eased: bool = False,
) -> Menus:
    """A setting with menus, kept to the given values where there are any."""
    if name in given:
        kept = sorted({float(value) for value in given[name]})
        menus = [tuple(x for x in values if x in kept) for values in menus]
    counts = np.array([len(values) for values in menus])
    longest = max(1, counts.max())
    table = np.array([np.resize(values or (0.0,), longest) for values in menus], float)
    setting = Setting(name, time, memory, counts, table, eased=eased)
    return Menus(setting, np.where(counts[menu] > 0, menu, -1))


def _by(keys: np.ndarray, menu_of) -> tuple[list[tuple], np.ndarray]:
    """A menu for each distinct key, and which one each layout has."""
    distinct, place = np.unique(keys, return_inverse=True)
    return [tuple(menu_of(int(key))) for key in distinct], place.ravel()


def _of_serving(problem: Problem, given, degrees: np.ndarray, within_s: float):
    w = problem.workload
    group = degree(degrees, "tp") * degree(degrees, "cp")
    each = float(w.prompt_tokens) if isinstance(w, Prefill) else 1.0
    name = SIZES[w.kind]
    if name in given:
        values = sorted({float(value) for value in given[name]})

        def held(ranks: int) -> list[float]:
            return [x for x in values if _fits(x * ranks, each, w.kind)]

        yield _listed(name, 1, 1, *_by(group, held), {})
    else:
        groups, menu = np.unique(group, return_inverse=True)
        most = np.ceil(_most_tokens(problem, within_s) * groups / each)
        most = np.clip(most, 1, MOST_REQUESTS).astype(int)
        yield Menus(Setting(name, 1, 1, most, np.zeros((0, 0)), each), menu.ravel())
    a = problem.model
    if a is not None and a.experts is not None:
        routed = int(a.experts.routed)

        def spare(ep: int) -> range:
            if ep == 1:  # a copy beside the expert itself is of no use
                return range(1)
            most = 2 * routed // ep - math.ceil(routed / ep)
            return range(min(max(most, 1), MOST_SPARE) + 1)

        menus, menu = _by(degree(degrees, "ep"), spare)
        if "extra_slots" in given:
            menus = [tuple(map(float, given["extra_slots"]))] * len(menus)
        yield _listed("extra_slots", 0, 1, menus, menu, given, eased=True)
    # norms see fewer rows, and nothing else changes
    yield _along_sequence(degrees, given, -1)
    # the faster of 1 and 2, or 2, whose batches hold less
    same = np.zeros(len(degrees), int)
    yield _listed("overlapped_microbatches", 1, -1, [(1.0, 2.0)], same, given)


def _fits(count: float, least: float, phase: str) -> bool:
    """Whether a group has whole requests, or at least a prompt."""
    if phase == "prefill":
        return count >= least
    return count >= 1.0 and abs(count - round(count)) < 1e-9


def _along_sequence(degrees: np.ndarray, given, time: int) -> Menus:
    grouped = (degree(degrees, "tp") > 1).astype(int)
    menus = [(0.0,), (0.0, 1.0)]
    if "sequence_parallel" in given:  # without a tensor group there is nothing to split
        menus[0] = tuple(given["sequence_parallel"])
    return _listed("sequence_parallel", time, -1, menus, grouped, given)


def _of_training(problem: Problem, given, degrees: np.ndarray):
    w = problem.workload
    assert isinstance(w, Train)
    batch = round(float(w.global_batch))

    def micro(dp: int) -> tuple[int, ...]:
        return () if batch % dp else divisors(batch // dp)

    yield _listed("micro_batch", -1, 1, *_by(degree(degrees, "dp"), micro), given)
    shares = tuple(np.arange(SHARES + 1) / SHARES)
    if "recompute_fraction" in given:
        shares = tuple(sorted(map(float, given["recompute_fraction"])))
    # a fused kernel keeps no scores that could be computed again
    selective = (0.0,) if w.fused_attention else (0.0, 1.0)
    same = np.zeros(len(degrees), int)
    yield _listed("recompute_fraction", 1, -1, [shares], same, {})
    yield _listed("selective", 0, -1, [selective], same, given)
    ranks = degree(degrees, "dp") * degree(degrees, "cp") * degree(degrees, "edp")
    several = (ranks > 1).astype(int)
    stages = (0.0, 1.0, 2.0, 3.0)
    zero = [stages if "zero" in given else (0.0,), stages]
    yield _listed("zero", 0, -1, zero, several, given)
    yield _along_sequence(degrees, given, 0)
    # what overlaps is all that experts send, over tensor ranks of theirs too
    sends = (degree(degrees, "ep") * degree(degrees, "etp") > 1).astype(int)
    yield _listed("overlapped_microbatches", -1, -1, [(1.0,), (1.0, 2.0)], sends, given)


class Form(NamedTuple):
    """A pipeline's schedule and the chunks of a device."""

    schedule: str
    chunks: int


PLAIN = Form("1f1b", 1)
ORDER = ("1f1b", "gpipe", "zero_bubble", "dualpipe", "interleaved")


def forms_of(problem: Problem, given: Mapping[str, tuple]) -> list[Form]:
    """Every way to run a pipeline; those with several chunks last, by their number."""
    a = problem.model
    layers = 1 if a is None else int(a.layers)
    most = max(2, int(chunks_filled(float(layers))) // 2)
    schedules = given.get("schedule", ORDER[:4])
    if 2.0 not in given.get("overlapped_microbatches", (2.0,)):
        schedules = [name for name in schedules if name != "dualpipe"]  # which overlaps
    forms = []
    for schedule in schedules:
        for count in given.get("vpp", tuple(range(1, most + 1))):
            held = min(int(count), MOST_CHUNKS.get(schedule, int(count)))
            forms.append(Form(schedule_of(schedule, held), held))
    key = {name: i for i, name in enumerate(ORDER)}
    return sorted(dict.fromkeys(forms), key=lambda f: (key[f.schedule], f.chunks))


def free_names(problem: Problem) -> tuple[str, ...]:
    """Settings that may be given values in this phase."""
    w = problem.workload
    if isinstance(w, Train):
        first = ("micro_batch", "recompute_fraction", "selective", "zero")
        return (*first, *SHARED, "schedule", "vpp")
    batch = SIZES[w.kind]
    mixture = problem.model is not None and problem.model.experts is not None
    return (batch, *(("extra_slots",) if mixture else ()), *SHARED)


SHARED = ("sequence_parallel", "overlapped_microbatches")

ALLOWED = {
    "micro_batch": (lambda x: 0.0 < x < math.inf, "numbers above 0"),
    "sequences_per_device": (lambda x: 0.0 < x < math.inf, "numbers above 0"),
    "tokens_per_device": (lambda x: 0.0 < x < math.inf, "numbers above 0"),
    "recompute_fraction": (lambda x: 0.0 <= x <= 1.0, "numbers from 0 to 1"),
    "extra_slots": (lambda x: x >= 0.0 and x % 1.0 == 0.0, "whole numbers from 0"),
    "selective": (lambda x: x in (0.0, 1.0), "0 or 1"),
    "sequence_parallel": (lambda x: x in (0.0, 1.0), "0 or 1"),
    "zero": (lambda x: x in (0.0, 1.0, 2.0, 3.0), "0, 1, 2 or 3"),
    "overlapped_microbatches": (lambda x: x in (1.0, 2.0), "1 or 2"),
    "vpp": (lambda x: 1.0 <= x <= 1e9 and x % 1.0 == 0.0, "whole numbers from 1"),
}
"""What may be tried of each setting, and how a message says so."""


def check(problem: Problem, given: Mapping[str, tuple]) -> None:
    """Raises `SpecError` where a name is not free in this phase, or a value can't be."""
    known, mistakes = free_names(problem), []
    for name, values in given.items():
        if name not in known:
            names = ", ".join((*AXES, *known))
            mistakes.append(f"{name}: not free here; use one of {names}")
            continue
        for value in values:
            if name == "schedule":
                if value not in SCHEDULES:
                    names = ", ".join(SCHEDULES)
                    mistakes.append(f"schedule = {value}: use one of {names}")
                continue
            allowed, remedy = ALLOWED[name]
            if isinstance(value, str | bool) or not allowed(_float(value)):
                mistakes.append(f"{name} = {value}: use {remedy}")
    if mistakes:
        raise SpecError(mistakes)


def _float(value: float | int) -> float:
    """A number as a float; one of 400 digits is infinite."""
    try:
        return float(value)
    except OverflowError:
        return math.inf
