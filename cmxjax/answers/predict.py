"""Predict one scenario, as numbers in SI."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from typing import TYPE_CHECKING

import jax
import numpy as np

from ..job.layout import degree
from ..phases.metrics import explain
from ..serve.pools import PoolMetrics
from ..specs.build import Problem, build
from ..specs.resolved import assumed, resolved
from ..specs.scenario_file import Scenario
from ..units import dimension_of, format_si
from .operations import is_cost, operations_lines, priced, rests_on
from .spread import numbers_of
from .trust import BREAKDOWN, BUSY, POOLS, Trust, trust_of

if TYPE_CHECKING:
    import pandas as pd


IMAGE_NUMBERS = ("per_prompt", "tiles", "patches", "tokens")
"""Of a workload's images, as answers echo them: patches are those of a tile, tokens those
of an image in the language model."""


ENDLESS = (
    "ttft_s",
    "ttft_p90_s",
    "ttft_excess_s",
    "waiting_time_s",
    "waiting_time_p90_s",
    "encode_waiting_time_s",
    "decode_waiting_time_s",
    "request_time_s",
)
"""Metrics that grow without end where more arrives than can be served."""


@dataclass(frozen=True)
class Prediction:
    """Metrics of one scenario and whether it can run at all."""

    problem: Problem
    values: dict[str, float]
    """Every metric in SI; the unit is the suffix of its name."""
    breakdown: dict[str, float]
    busy: dict[str, float]
    pools: dict[str, dict[str, object]] = field(default_factory=dict)
    """Of phase `serve`: every metric of each pool, and what it is bound by."""
    stages: dict[str, dict[str, float]] = field(default_factory=dict)
    """Of phase `train`: bytes on a device by class, of each stage. A range of stages with
    as many layers, such as `1-6`, has those of its first stage, which holds most."""
    endless: tuple[str, ...] = ()
    """Metrics that have no value, as more arrives than can be served or as nobody knows
    a price; None in answers."""

    def __getattr__(self, name: str) -> float:
        """A metric by its name, such as `tpot_s`, in SI; None for one that is endless."""
        if name in self.endless:
            return None  # pyright: ignore
        try:
            return self.values[name]
        except KeyError:
            known = get_close_matches(name, self.values)
            hint = f"; did you mean {' or '.join(known)}" if known else ""
            raise AttributeError(f"no metric {name!r}{hint}") from None

    @cached_property
    def trust(self) -> Trust:
        """Error bars, origins of parameters and evidence, made when first asked for."""
        return trust_of(self.problem, self._numbers)

    @property
    def sigma(self) -> dict[str, float]:
        """Relative one sigma of each metric."""
        return self.trust.sigma

    @property
    def _numbers(self) -> dict[str, float]:
        """Every number, as `trust.flat` has them."""
        groups = {BREAKDOWN: self.breakdown, BUSY: self.busy}
        groups |= {f"{POOLS}{role}.": pool for role, pool in self.pools.items()}
        return self.values | {
            f"{prefix}{name}": value
            for prefix, group in groups.items()
            for name, value in group.items()
            if isinstance(value, float)
        }

    def __str__(self) -> str:
        p = self.problem
        width = max(map(len, self.values))
        rows = (
            f"  {name:<{width}}  {format_si(value, dimension_of(name), self.sigma[name])}"
            for name, value in self.values.items()
        )
        rows = [*rows, *(f"  {name:<{width}}  -" for name in self.endless)]
        verdict = (
            "; ".join(["not feasible", *self.reasons]) if self.reasons else "feasible"
        )
        title = f"{p.scenario.phase} on {p.system.name} (calibration: {p.calibration})"
        images = [] if self.images is None else [self.images_line]
        notes = [*images, *self.operations, *self.warnings]
        return "\n".join([title, *rows, *notes, verdict])

    @property
    def operations(self) -> list[str]:
        """What prices and failures rest on, a line for each."""
        return operations_lines(self.problem, [*self.values, *self.endless])

    @property
    def warnings(self) -> list[str]:
        """What to know of the machine, see `Problem.warnings`."""
        return self.problem.warnings

    @property
    def images(self) -> dict[str, float] | None:
        """What a prompt is made of, if it has images."""
        images = getattr(self.problem.workload, "images", None)
        if images is None:
            return None
        total = float(self.problem.workload.prompt_tokens)  # pyright: ignore
        each = {name: float(getattr(images, name)) for name in IMAGE_NUMBERS}
        of_images = each["per_prompt"] * each["tokens"]
        return {
            "text_tokens": total - of_images,
            "image_tokens": of_images,
            "prompt_tokens": total,
            **each,
        }

    @property
    def images_line(self) -> str:
        """The same in words; empty without images."""
        of = self.images
        if of is None:
            return ""
        tiles = "" if of["tiles"] == 1.0 else f"{of['tiles']:g} tiles of "
        return (
            f"a prompt of {of['prompt_tokens']:g} tokens: {of['text_tokens']:g} of text,"
            f" {of['image_tokens']:g} of {of['per_prompt']:g} images ({tiles}"
            f"{of['patches']:g} patches, {of['tokens']:g} tokens each)"
        )

    def to_dict(self) -> dict[str, object]:
        """What `predict --json` prints."""
        return self.as_json()

    def to_frame(self) -> "pd.DataFrame":
        """One row with every metric in SI, to be put together with others."""
        import pandas as pd  # half a second that only tables should pay

        p = self.problem
        names = {"phase": p.scenario.phase, "system": p.system.name}
        return pd.DataFrame([names | self.values | dict.fromkeys(self.endless, math.nan)])

    @property
    def reasons(self) -> list[str]:
        """Why the scenario can't run; empty where it can."""
        reasons = []
        excess = self.values.get("memory_excess_bytes", 0.0)
        if excess > 0.0:
            usable = float(self.problem.system.chip.memory_usable_bytes)
            reasons.append(
                f"needs {format_si(usable + excess, 'bytes')} a device, of which"
                f" {format_si(usable, 'bytes')} are there"
            )
        if self.values.get("placement_excess", 0.0) > 1e-9:
            reasons.append("the layout puts more ranks into a tier than it joins")
        return [*reasons, *self._unserved()]

    def _unserved(self) -> list[str]:
        """What requests are refused or served too late."""
        reasons, values = [], self.values
        if overloaded(values):
            excess = values["excess_requests_per_s"]
            arrive = format_si(excess + values["served_requests_per_s"], "request_rate")
            most = format_si(values["served_requests_per_s"], "request_rate")
            reasons.append(f"{arrive} arrive, of which at most {most} can be served")
        for name in ("ttft", "tpot"):
            late = values.get(f"{name}_excess_s", 0.0)
            if late > 1e-9 * values.get(f"{name}_s", 1.0):
                value = values[f"{name}_s"]
                reasons.append(
                    f"{name.upper()} is {format_si(value, 'time')}, over its limit of"
                    f" {format_si(value - late, 'time')}"
                )
        return reasons

    def as_json(self) -> dict[str, object]:
        """The contract of `predict --json`."""
        return {
            "phase": self.problem.scenario.phase,
            "system": self.problem.system.name,
            "calibration": self.problem.calibration,
            **({"warnings": self.warnings} if self.warnings else {}),
            **self.values,
            **dict.fromkeys(self.endless),
            **({} if self.images is None else {"images": self.images}),
            **({"pools": self._pools()} if self.pools else {}),
            **({"stages": self.stages} if self.stages else {}),
            "sigma": self.sigma,
            "breakdown": self.breakdown,
            "breakdown_sigma": self.trust.breakdown,
            "origin": self.trust.origin,
            "busy": self.busy,
            "feasible": not self.reasons,
            "reason": "; ".join(self.reasons),
            "assumed": assumed(self.problem),
            "operations": {
                f"system.{path}": {"si": figure.si, **figure.model_dump()}
                for path, figure in rests_on(self.problem, self.values).items()
            },
            "job": resolved(self.problem),
            "evidence": [run._asdict() for run in self.trust.evidence],
            "extrapolates": [part._asdict() for part in self.trust.outside],
        }

    def _pools(self) -> dict[str, dict[str, object]]:
        """Each pool with the error bars of its metrics."""
        bars = self.trust.pools
        return {role: pool | {"sigma": bars[role]} for role, pool in self.pools.items()}


def predict(
    scenario: Scenario | str | Mapping[str, object], calibration: str | None = None
) -> Prediction:
    """Predict a scenario.

    Args:
        scenario: from `load_scenario`, or what that takes.
        calibration: a calibration's name, "none", or None for what ships.

    Raises:
        SpecError: (a `ValueError`) the scenario can't be built.
        ArithmeticError: a metric is not finite.
    """
    problem = build(scenario, calibration)
    result = jax.device_get(explain(*problem.inputs))
    values = numbers_of(result)
    breakdown = {
        k: float(v) for k, v in (getattr(result, "breakdown", None) or {}).items()
    }
    busy = {k: float(v) for k, v in (getattr(result, "busy", None) or {}).items()}
    pools = {k: _of_pool(v) for k, v in getattr(result, "pools", {}).items()}
    stages = _of_stages(problem, getattr(result, "memory_of_stages", None))
    endless = ()
    if overloaded(values):
        endless = tuple(name for name in ENDLESS if name in values)
        values = {k: v for k, v in values.items() if k not in endless}
        breakdown, busy = (
            {k: v for k, v in parts.items() if "waiting" not in k}
            for parts in (breakdown, busy)
        )
    if not priced(problem):
        unknown = tuple(filter(is_cost, values))
        endless += unknown
        values = {k: v for k, v in values.items() if k not in unknown}
    found = Prediction(problem, values, breakdown, busy, pools, stages, endless)
    bad = [k for k, v in found._numbers.items() if not math.isfinite(v)]
    if bad:
        raise ArithmeticError(
            f"not finite: {', '.join(bad)}; check the scenario for extreme values"
        )
    return found


def overloaded(values: Mapping[str, float]) -> bool:
    """Whether more requests arrive than can be served, limits or not."""
    excess = values.get("excess_requests_per_s", 0.0)
    return excess > ROUNDED * values.get("served_requests_per_s", 0.0)


ROUNDED = 1e-5
"""Share of a rate beyond what float32 loses in the root that it follows from."""


def _of_stages(
    problem: Problem, memory: Mapping[str, np.ndarray] | None
) -> dict[str, dict[str, float]]:
    """Memory by class of each stage, named by its number or range of numbers."""
    if not memory:
        return {}
    listed = len(next(iter(memory.values())))
    names = [str(stage) for stage in range(listed)]
    if problem.workload.stage_layers is None:  # pyright: ignore
        last = round(float(degree(problem.placed, "pp"))) - 1
        names = ["0", _range_name(1, last - 1), _range_name(max(last, 1), last)]
    return {
        name: {f"memory_{part}_bytes": float(of[stage]) for part, of in memory.items()}
        for stage, name in enumerate(names)
        if name
    }


def _range_name(first: int, last: int) -> str:
    """Of the stages from `first` to `last`; empty where there are none."""
    if first == last:
        return str(first)
    return f"{first}-{last}" if first < last else ""


def _of_pool(pool: PoolMetrics) -> dict[str, object]:
    """Metrics of a pool, the shares of its limits, and the largest of those."""
    values: dict[str, object] = dict(numbers_of(pool))
    limits = {name: float(share) for name, share in pool.limits.items()}
    return values | {"limits": limits, "bound": max(limits, key=lambda k: limits[k])}
