"""Which rows are kept: within limits, the best by a metric, or a Pareto front."""

import re
from functools import partial
from typing import NamedTuple

import numpy as np

from ..answers.limits import Limit, parse_limit
from ..quantities import PHASE_METRICS, field_of
from ..specs.errors import SpecError, all_of
from ..specs.measurement_file import QUANTITIES
from ..specs.sweep_file import Sweep
from ..words import choose

USUAL = {
    "system": ("peak_flop_per_s", "memory_bytes", "memory_bandwidth_bytes_per_s"),
    "op": ("time_s", "flop_per_s", "bytes_per_s", "utilization"),
    "collective": ("time_s", "bytes_per_s"),
    "decode": ("tpot_s", "tokens_per_s_per_package", "memory_bytes"),
    "prefill": ("ttft_s", "tokens_per_s_per_package", "memory_bytes"),
    "train": ("step_time_s", "tokens_per_s_per_package", "mfu", "memory_bytes"),
    "serve": ("ttft_s", "tpot_s", "requests_per_s", "tokens_per_s_per_package"),
}
"""Metrics of a sweep that names none, by phase."""

SHARES = ("mfu", "hfu", "utilization", "goodput", "mtbf_s")
"""Metrics that are best when large and no rates, as `limits.RATIOS` of quantities."""

Columns = dict[str, np.ndarray]


class Keep(NamedTuple):
    """What is kept of the rows of a phase."""

    fields: tuple[str, ...]
    """Metrics that are written."""
    feasible: bool
    limits: tuple[tuple[str, Limit], ...]
    """Each with the metric that it bounds."""
    scores: tuple[tuple[str, bool], ...]
    """Metrics that rows are chosen by, and whether they are best when large."""
    best_of: int
    """Best rows by one score; 0 for the front of two, or all."""

    @property
    def evaluated(self) -> tuple[str, ...]:
        """Every metric that is needed."""
        bounded = (field for field, _ in self.limits)
        scored = (field for field, _ in self.scores)
        return tuple(dict.fromkeys((*self.fields, *bounded, *scored)))

    def good(self, found: Columns, feasible: np.ndarray) -> np.ndarray | None:
        """Rows that pass by themselves; None for all."""
        good = feasible if self.feasible else None
        for field, limit in self.limits:
            held = limit.holds(found[field], limit.value)
            good = held if good is None else good & held
        for field, _ in self.scores:
            known = np.isfinite(found[field])
            good = known if good is None else good & known
        return good

    def best(self, found: Columns, point: np.ndarray) -> np.ndarray:
        """Places of the rows that are chosen, best first; of equal ones the first."""
        signs = [-1.0 if large else 1.0 for _, large in self.scores]
        costs = [s * found[field] for s, (field, _) in zip(signs, self.scores)]
        if self.best_of:
            (cost,) = costs
            if len(cost) > 2 * self.best_of:  # what can't be among them needs no order
                worst = np.partition(cost, self.best_of - 1)[self.best_of - 1]
                rows = np.flatnonzero(cost <= worst)
                order = np.lexsort((point[rows], cost[rows]))
                return rows[order[: self.best_of]]
            return np.lexsort((point, cost))[: self.best_of]
        first, second = costs
        order = np.lexsort((point, second, first))
        least = np.minimum.accumulate(second[order])
        before = np.concatenate([[np.inf], least[:-1]])
        return order[second[order] < before]


def keep_of(sweep: Sweep, phase: str) -> Keep:
    """What a sweep keeps.

    Raises:
        SpecError: the phase doesn't predict a metric, or a limit is none.
    """
    spec, keep = sweep.spec, sweep.spec.keep
    named = partial(_field, sweep.where, phase)
    chosen = [keep.top.metric] if keep.top else keep.pareto or []
    fields, limits, scored = all_of(
        lambda: all_of(*(partial(named, "metrics", name) for name in spec.metrics or ())),
        lambda: all_of(*(partial(_limit, sweep.where, phase, x) for x in keep.limits)),
        lambda: all_of(*(partial(named, "keep", name) for name in chosen)),
    )
    fields = tuple(dict.fromkeys(fields or USUAL[phase]))
    larger = [more_is_better(field) for field in scored]
    if keep.top is not None and keep.top.largest is not None:
        larger = [keep.top.largest]
    return Keep(
        fields=tuple(dict.fromkeys((*fields, *scored))),
        feasible=keep.only_feasible,
        limits=limits,
        scores=tuple(zip(scored, larger)),
        best_of=keep.top.count if keep.top else 0,
    )


def more_is_better(field: str) -> bool:
    """Whether a metric is a rate, a share of a peak, or time between failures."""
    rate = re.search(r"_per_s(_per_|$)", field) and not field.startswith("excess")
    return bool(rate) or field in SHARES


def _field(where: str, phase: str, key: str, name: str) -> str:
    """The metric that a quantity or its own name says."""
    kind = PHASE_METRICS[phase].__dataclass_fields__
    fields = [f for f in kind if f not in ("breakdown", "busy", "kind", "pools")]
    if name in fields:
        return name
    if name in QUANTITIES and name != "stream_time":
        try:
            return field_of(name, None, phase)
        except ValueError as error:
            raise SpecError([f"{where}: {key}: {error}"]) from None
    said = f"phase {phase} has no such metric; {choose(name, fields)}"
    raise SpecError([f"{where}: {key}: {name!r}: {said}"])


def _limit(where: str, phase: str, text: str) -> tuple[str, Limit]:
    limit = parse_limit(text, f"{where}: keep.limits:")
    return _field(where, phase, "keep.limits", limit.quantity), limit
