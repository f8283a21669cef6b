"""What of a sweep a picture shows: which metrics, over what; or why it can't."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from ..quantities import PHASE_METRICS, field_of
from ..specs.errors import SpecError
from ..specs.keys import described
from ..specs.scenario_file import SCENARIOS
from ..specs.sweep_file import AxisSpec, SweepSpec, axis_keys, load_sweep
from ..sweeps.keep import more_is_better
from ..sweeps.plan import Plan
from ..sweeps.table import FEASIBLE, POINT, SIGMA
from ..sweeps.values import quantity
from ..words import choose
from .labels import COST

Show = Literal["front", "map", "cost"]

RATES = (
    "tokens_per_s_per_package",
    "tokens_per_s_per_device",
    "tokens_per_s",
    "requests_per_s",
    "samples_per_s",
    "flop_per_s",
    "bytes_per_s",
    "mfu",
    "utilization",
)
"""Metrics of throughput, the usual first."""

TIMES = ("tpot_s", "ttft_s", "step_time_s", "request_time_s", "time_s")
"""Metrics of latency."""

COST_RATES = ("requests_per_s", "tokens_per_s", *RATES[:2], "samples_per_s")
REQUESTS = "workload.request_rate"
"""The key that cost is drawn over where it varies."""


class Subject(NamedTuple):
    """A sweep as pictures know it: its file, the base scenario's keys, its metrics."""

    spec: SweepSpec
    raw: Mapping[str, object]
    fields: tuple[str, ...]

    @property
    def keys(self) -> list[str]:
        """Keys that vary."""
        return [key for axis in self.spec.axes for key in axis_keys(axis)]

    @property
    def phase(self) -> str:
        return str(self.raw.get("phase", ""))

    def axis_of(self, key: str) -> AxisSpec:
        return next(axis for axis in self.spec.axes if key in axis_keys(axis))

    def unit_of(self, key: str) -> str:
        """What the file writes behind the values of a key, in SI; empty for none."""
        axis = self.axis_of(key)
        drawn = (axis.keys or {}).get(key)
        values = axis.values or (axis.zip or {}).get(key) or (drawn and drawn.values)
        first = values[0] if values else (drawn.low if drawn else axis.low)
        known = quantity(first)
        return "" if known is None else known.unit

    def said_of(self, key: str) -> str:
        """The unit of plain numbers of a key, such as requests/s; empty for none."""
        known = {k.key: k.unit for k in described(SCENARIOS[self.phase])}
        return known.get(key, "").removesuffix("1")


def subject_of(plan: Plan) -> Subject:
    """A sweep that is to be evaluated, or was now."""
    return Subject(plan.sweep.spec, plan.jobs.raw, plan.keep.fields)


def subject_read(origin: Mapping, columns: Sequence[str]) -> Subject:
    """A sweep that is read back.

    Args:
        origin: what its rows are of, as `sweep.json` says.
        columns: of the rows.
    """
    spec = load_sweep(origin["sweep"]).spec
    keys = {key for axis in spec.axes for key in axis_keys(axis)}
    beside = {POINT, FEASIBLE, *keys}
    fields = [c for c in columns if c not in beside and not c.startswith(SIGMA)]
    return Subject(spec, origin["scenario"], tuple(fields))


class Chart(NamedTuple):
    """What is drawn."""

    show: Show
    metric: str
    """On the ordinate; of a map, its colors."""
    over: tuple[str, ...]
    """On the abscissa: a metric, or a key; of a map the keys of both axes."""
    largest: bool
    """Whether more of the metric is better."""


def chart_of(
    subject: Subject, show: Show, metric: str | None = None, over: Sequence[str] = ()
) -> Chart:
    """What a picture shows, before there is any row.

    Args:
        metric: a quantity or a metric; the usual one of the picture if left out.
        over: of a front the latency, of cost the rate, of a map the keys of its axes.

    Raises:
        SpecError: the sweep has no such metrics or axes.
    """
    chosen = None if metric is None else _metric(subject, metric, "--metric")
    if show == "map":
        return _map(subject, chosen, over)
    if len(over) > 1:
        said = f"takes one metric to draw over; {len(over)} are given"
        raise SpecError([f"--over: --show {show} {said}"])
    if show == "cost":
        return _cost(subject, chosen, over)
    return _front(subject, chosen, over)


def _front(subject: Subject, metric: str | None, over: Sequence[str]) -> Chart:
    fields = subject.fields
    pareto = [_metric(subject, name, "pareto") for name in subject.spec.keep.pareto or ()]
    if pareto and metric is None and not over:
        first, second = pareto
        if more_is_better(first) and not more_is_better(second):
            first, second = second, first
        return Chart("front", second, (first,), more_is_better(second))
    chosen = metric or _first(RATES, fields, "throughput", "tokens_rate_per_package")
    latency = (
        _metric(subject, over[0], "--over")
        if over
        else _first(TIMES, fields, "latency", "tpot, ttft or step_time", "--over")
    )
    if chosen == latency:
        raise SpecError([f"--over {over[0] if over else latency}: is what is drawn too"])
    return Chart("front", chosen, (latency,), more_is_better(chosen))


def _cost(subject: Subject, metric: str | None, over: Sequence[str]) -> Chart:
    if metric not in (None, COST):
        said = "is left out with --show cost, or cost_per_token"
        raise SpecError([f"--metric {metric}: {said}"])
    if COST not in subject.fields:
        remedy = "add cost_per_token to its metrics and evaluate it again"
        raise SpecError([f"--show cost: the sweep has no cost_per_token; {remedy}"])
    if over:
        keyed = over[0] == REQUESTS and REQUESTS in subject.keys
        rate = REQUESTS if keyed else _metric(subject, over[0], "--over")
        if not keyed and not more_is_better(rate):
            raise SpecError([f"--over {over[0]}: cost is drawn over a rate"])
    elif REQUESTS in subject.keys:
        rate = REQUESTS
    else:
        usual = "tokens_rate, or vary workload.request_rate"
        rate = _first(COST_RATES, subject.fields, "rate", usual, "--over", "cost")
    return Chart("cost", COST, (rate,), False)


def _map(subject: Subject, metric: str | None, over: Sequence[str]) -> Chart:
    grid = [key for key in subject.keys if _listed(subject, key)]
    if over:
        if len(over) != 2 or over[0] == over[1]:
            raise SpecError(["--over: a map has two axes; name two keys, as A B"])
        for key in over:
            if key not in grid:
                raise SpecError([f"--over {key}: {_no_axis(subject, key, grid)}"])
        if subject.axis_of(over[0]) is subject.axis_of(over[1]):
            said = "vary side by side, so that they make no map; name others"
            raise SpecError([f"--over {over[0]} {over[1]}: {said}"])
        keys = (over[0], over[1])
    else:
        firsts = {id(subject.axis_of(key)): key for key in reversed(grid)}
        usual = [key for key in grid if key in firsts.values()]
        if len(usual) < 2:
            known = f"only {usual[0]}" if usual else "none"
            raise SpecError(
                [
                    "--show map: needs two axes with values that are listed or evenly"
                    f" spaced, and the sweep has {known}; add one, or use --show front"
                ]
            )
        keys = (usual[0], usual[1])
    keep = subject.spec.keep
    picked = keep.top.metric if keep.top else (keep.pareto or [None])[0]
    if metric is None:
        named = None if picked is None else _metric(subject, picked, "keep")
        metric = named or subject.fields[0]
    large = more_is_better(metric)
    if keep.top is not None and keep.top.largest is not None and picked is not None:
        if _metric(subject, picked, "keep") == metric:
            large = keep.top.largest
    return Chart("map", metric, keys, large)


def _listed(subject: Subject, key: str) -> bool:
    """Whether a key takes some of a few values, more than one."""
    axis = subject.axis_of(key)
    if axis.keys:
        values = axis.keys[key].values or []
    else:
        values = axis.values or (axis.zip or {}).get(key) or []
        if axis.points is not None:
            return axis.points > 1
    return len({str(value) for value in values}) > 1


def _no_axis(subject: Subject, key: str, grid: list[str]) -> str:
    """Why a key is no axis of a map."""
    if key not in subject.keys:
        return f"does not vary; {choose(key, grid)}"
    drawn = subject.axis_of(key).sample
    why = "is drawn from a range" if drawn else "has one value"
    return f"{why}, so that it makes no map; use some of {', '.join(grid)}"


def _metric(subject: Subject, name: str, option: str) -> str:
    """The metric of the sweep that a quantity or its own name says."""
    if name in subject.fields:
        return name
    try:
        field = field_of(name, None, subject.phase)
    except (ValueError, KeyError):
        field = ""
    if field in subject.fields:
        return field
    if field or name in getattr(
        PHASE_METRICS.get(subject.phase), "__dataclass_fields__", {}
    ):
        said = "the sweep did not keep it; add it to its metrics, or"
        raise SpecError([f"{option} {name}: {said} {choose(name, subject.fields)}"])
    said = f"the sweep has no such metric; {choose(name, subject.fields)}"
    raise SpecError([f"{option} {name}: {said}"])


def _first(
    usual: Sequence[str],
    fields: Sequence[str],
    what: str,
    example: str,
    option: str = "--metric",
    show: Show = "front",
) -> str:
    """The first of the usual metrics that a sweep has."""
    for field in usual:
        if field in fields:
            return field
    said = f"the sweep has no metric of {what}; add {example} to its metrics, or name"
    raise SpecError([f"--show {show}: {said} one that it has with {option}"])
