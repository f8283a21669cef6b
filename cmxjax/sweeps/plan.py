"""A sweep made ready: what is fast in it, its grid, its constraints, what it keeps."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..quantities import PHASE_METRICS
from ..specs.errors import SpecError, all_of
from ..specs.files import load
from ..specs.scenario import load_scenario, with_overrides
from ..specs.scenario_file import schema_keys
from ..specs.sweep_file import MOST_POINTS, Sweep
from ..words import hint
from .axes import Axis, axes_of
from .expression import Expression, parse
from .fast import may_be_fast
from .grid import PART, SLOW_PART, Grid, grid_of
from .jobs import Group, Job, Jobs, with_values
from .keep import Keep, keep_of
from .values import quantity

TRIED_JOINTLY = 6
"""Points at which all fast keys are checked together."""


@dataclass(frozen=True)
class Plan:
    """What it takes to evaluate any part of a sweep."""

    sweep: Sweep
    phase: str
    axes: tuple[Axis, ...]
    grid: Grid
    jobs: Jobs
    keep: Keep
    constraints: tuple[Expression, ...]

    @property
    def fast(self) -> tuple[str, ...]:
        return self.jobs.fast

    @property
    def slow(self) -> tuple[str, ...]:
        """Keys of numbers that jobs are built one by one for."""
        return tuple(
            key
            for axis in self.axes
            for key in axis.keys
            if axis.is_number(key) and key not in self.fast
        )

    def axis_of(self, key: str) -> Axis:
        return next(axis for axis in self.axes if key in axis.keys)


def plan_of(sweep: Sweep) -> Plan:
    """Make a sweep ready: a few jobs are built to see which keys are fast.

    Raises:
        SpecError: with every mistake of the file, or what the builder says of a value
            that it takes nowhere.
    """
    axes, constraints, raw = all_of(
        lambda: axes_of(sweep), lambda: _constraints(sweep), lambda: _base(sweep)
    )
    phase = str(raw.get("phase", ""))
    for axis in axes:
        if "phase" in axis.keys:
            raise SpecError(
                [
                    f"{sweep.where}: axes: phase: has metrics of its own; sweep"
                    " one phase at a time"
                ]
            )
    keys = [key for axis in axes for key in axis.keys]
    _check_keys(sweep, keys)
    asked = [k for e in constraints for k in e.keys if k not in keys]
    _check_asked(sweep, constraints, asked)
    keep = keep_of(sweep, _phase(raw, axes, sweep))
    slow = set(sweep.spec.one_by_one)
    if unknown := slow - set(keys):
        said = f"varies on no axis; {hint(min(unknown), keys)}leave it out"
        raise SpecError([f"{sweep.where}: one_by_one: {min(unknown)}: {said}"])
    candidates = [
        key
        for axis in axes
        for key in axis.keys
        if axis.is_number(key) and may_be_fast(key, phase) and key not in slow
    ]
    while True:
        jobs = Jobs(raw, sweep.where, sweep.spec.calibration, candidates, asked)
        wrong = _not_fast(axes, jobs)
        if not wrong:
            break
        candidates = [key for key in candidates if key not in wrong]
    grid = grid_of(axes, set(candidates), SLOW_PART if phase == "serve" else PART)
    if grid.points > MOST_POINTS:
        said = f"{grid.points:.3g} points, of at most {MOST_POINTS:g}; take fewer values"
        raise SpecError([f"{sweep.where}: axes: {said}"])
    return Plan(sweep, phase, tuple(axes), grid, jobs, keep, tuple(constraints))


def _base(sweep: Sweep) -> dict[str, object]:
    """Keys of the base scenario, with those that are set for all points."""
    named = sweep.spec.scenario
    if isinstance(named, dict):
        raw, where = dict(named), f"{sweep.where}: scenario"
    else:
        raw, where = load("scenarios", str(named))
    return with_overrides(raw, sweep.spec.set, where)


def _phase(raw: dict[str, object], axes: Sequence[Axis], sweep: Sweep) -> str:
    """The phase of all points; the base scenario is validated with first values."""
    first = {key: axis.trial(key)[0] for axis in axes for key in axis.keys}
    phase = raw.get("phase")
    try:
        return load_scenario(raw, first).phase
    except SpecError as error:
        if isinstance(phase, str) and phase in PHASE_METRICS:
            return phase  # other values may be right
        lines = [line.removeprefix("scenario: ") for line in error.mistakes]
        raise SpecError([f"{sweep.where}: scenario: {line}" for line in lines]) from None


def _constraints(sweep: Sweep) -> list[Expression]:
    found, mistakes = [], []
    for text in sweep.spec.constraints:
        try:
            found.append(parse(text))
        except ValueError as error:
            mistakes.append(f"{sweep.where}: constraints: {text!r}: {error}")
    if mistakes:
        raise SpecError(mistakes)
    return found


def _check_keys(sweep: Sweep, keys: Sequence[str]) -> None:
    """Raises `SpecError` for a key that no scenario has; leaves are checked when set."""
    known = schema_keys()
    mistakes = []
    for key in keys:
        first, _, rest = key.partition(".")
        if key not in known and not (first in ("system", "model", "pools") and rest):
            meant = hint(key, known)
            said = f"no key of a scenario; {meant}see `cmxjax keys`"
            mistakes.append(f"{sweep.where}: axes: {key}: {said}")
    if mistakes:
        raise SpecError(mistakes)


def _check_asked(
    sweep: Sweep, constraints: Sequence[Expression], asked: Sequence[str]
) -> None:
    known = schema_keys()
    mistakes = []
    for expression in constraints:
        for key in expression.keys:
            if key in asked and key not in known and not key.startswith("system."):
                meant = hint(key, known)
                mistakes.append(
                    f"{sweep.where}: constraints: {expression.text!r}: {key}: no key of a"
                    f" scenario; {meant}see `cmxjax keys`"
                )
    if mistakes:
        raise SpecError(mistakes)


def _not_fast(axes: Sequence[Axis], jobs: Jobs) -> set[str]:
    """Fast keys of which the builder makes more than is set directly, seen on a sample of
    jobs: each value of each key that they are built for, and some combinations."""
    built = [(a, key) for a in axes for key in a.keys if key not in jobs.fast]
    first = {key: a.trial(key)[0] for a in axes for key in a.keys}
    samples = [{}]
    samples += [{key: value} for a, key in built for value in a.trial(key)]
    rng = np.random.default_rng(0)
    for _ in range(16 if len(built) > 1 else 0):
        samples.append({k: _any(rng, a.trial(k)) for a, k in built})
    wrong, refused = set(), None
    for number, changes in enumerate(samples):
        job = jobs.job(("sample", number), first | changes)
        if isinstance(job, str):
            refused = refused or job
        elif not job.group.checked:
            wrong |= mismatched(axes, jobs, job, first | changes)
            job.group.checked = True
        if wrong:
            return wrong
    if not jobs.groups:
        assert refused is not None
        if len(built) < 2:
            raise SpecError([refused])
    return wrong


def _any(rng: np.random.Generator, values: list) -> object:
    return values[int(rng.integers(len(values)))]


def mismatched(
    axes: Sequence[Axis], jobs: Jobs, job: Job, changes: dict[str, object]
) -> set[str]:
    """Fast keys whose values, set directly, don't make what the builder makes.

    Args:
        changes: values of the keys that the job is built for, and some of the others.

    Raises:
        SpecError: the builder takes a value nowhere.
    """
    of = {key: axis for axis in axes for key in axis.keys if key in jobs.fast}
    trials = {key: axis.trial(key) for key, axis in of.items()}
    rng = np.random.default_rng(1)
    whole = len(jobs.groups) == 1
    some = {k: v if whole else [v[0], v[len(v) // 2], v[-1]] for k, v in trials.items()}
    center = {key: values[len(values) // 2] for key, values in trials.items()}
    joint = [{k: _any(rng, v) for k, v in trials.items()} for _ in range(TRIED_JOINTLY)]
    wrong: set[str] = set()
    found = [_seen(jobs, job, changes | point, point) for point in (center, *joint)]
    valid = [p for p, seen in zip((center, *joint), found) if seen == SAME]
    around = valid[0] if valid else center
    for key, values in some.items():
        for value in values:
            point = around | {key: value}
            seen = _seen(jobs, job, changes | point, point)
            if seen == UNFORESEEN:
                _check_alone(jobs, key, value)
            if seen not in (SAME, REFUSED):
                wrong.add(key)
                break
    if not wrong and {*found} - {SAME, REFUSED}:
        return set(jobs.fast)  # several together do what none does alone
    return wrong


SAME, REFUSED, DIFFERS, UNFORESEEN = "same", "refused", "differs", "unforeseen"


def _seen(
    jobs: Jobs, job: Job, changes: dict[str, object], values: dict[str, object]
) -> str:
    """Whether a job with values set directly is what the builder makes, or both refuse
    it, or only the builder does."""
    numbers = {key: q.si for key, x in values.items() if (q := quantity(x)) is not None}
    columns = {key: np.asarray(x) for key, x in numbers.items()}
    refuses = job.rules.refuses(columns)
    denied = refuses is not None and bool(refuses)
    try:
        problem = jobs.problem(changes, exact=True)
    except SpecError:
        return REFUSED if denied else UNFORESEEN
    if denied:
        return DIFFERS
    leaves, structure, _ = jobs.flat(problem)
    if structure != job.group.structure:
        return DIFFERS
    direct = with_values(job, numbers)
    pairs = zip(leaves, direct)  # most are one array
    same = all(x is y or np.array_equal(x, y) for x, y in pairs)
    return SAME if same else DIFFERS


def _check_alone(jobs: Jobs, key: str, value: object) -> None:
    """Raises `SpecError` if the base scenario doesn't take a value either."""
    try:
        jobs.problem({}, exact=True)
    except SpecError:
        return  # it takes nothing as it is
    jobs.problem({key: value}, exact=True)


def check_group(plan: Plan, job: Job, changes: dict[str, object]) -> None:
    """Check a group of jobs that the sample of the plan had not seen.

    Raises:
        SpecError: a fast key isn't fast there.
    """
    group: Group = job.group
    if group.checked:
        return
    group.checked = True
    if wrong := mismatched(plan.axes, plan.jobs, job, changes):
        raise SpecError(
            [
                f"{plan.sweep.where}: {key}: changes more of some jobs than its own"
                f" value; add one_by_one = [{key!r}]"
                for key in sorted(wrong)
            ]
        )
