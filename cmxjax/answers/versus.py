r"""Which of two jobs wins, and how sure that is.

The log of the ratio of two metrics is taken as normal:

$$ P(a > b) = \Phi\Bigl(\frac{\ln a - \ln b}{\sigma}\Bigr), \qquad
\sigma^2 = \sigma_a^2 + \sigma_b^2 + \sum_w (s_{aw} - s_{bw})^2 \sigma_w^2 $$

Calibrations of two systems are independent, so their variances add; what is not known of
the workload is one number for both, so only the difference of the slopes counts. Each
metric is at the best batch that its limits and the memory allow, searched anew for each
shift of a parameter.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..job.workload import Decode
from ..parameters import shift_all
from ..phases.metrics import metrics
from ..quantities import field_of
from ..specs.build import Problem, build
from ..specs.errors import SpecError
from ..specs.measurement_file import QUANTITIES
from ..specs.scenario_file import Scenario
from .batch import STEP, moved_up_and_down, steps_of
from .extrapolation import outside, widening
from .limits import Limit, parse_limit
from .uncertainty import probability_above, ratio_sigma, relative_sigma, shared_error

LEVELS, POINTS, SPAN = 5, 24, 6.0
"""Nested grids of log batch, the first from e^-6 to e^6 times the scenario's."""

SLACK = 1e-9
"""Limits hold within this, relative."""


class Side(NamedTuple):
    """One job at its best batch."""

    problem: Problem
    value: float
    """In SI; 0 where no batch meets the limits."""
    batch: float | None
    """Mean batch of a device; None where it is the scenario's."""
    sigma: float
    """Of the log: calibration, priors, the model's discrepancy; not the workload."""
    slopes: dict[str, float]
    """d ln value / d parameter of the system."""
    workload_slopes: dict[str, float]
    """d ln value / d ln workload key."""
    widening: float
    """Factor of sigma for what lies outside of all that was fitted."""

    @property
    def feasible(self) -> bool:
        return self.value > 0.0


class Versus(NamedTuple):
    """The first job over the second."""

    first: Side
    second: Side
    ratio: float
    sigma: float
    """Of the log of the ratio."""
    probability: float
    """That the first has the larger value; 0 or 1 where one can't run at all."""


def versus(
    first: Scenario,
    second: Scenario,
    quantity: str,
    *,
    limits: tuple[str, ...] = (),
    scale: tuple[float, float] = (1.0, 1.0),
    workload_sigmas: dict[str, float] | None = None,
    calibration: str | None = None,
) -> Versus:
    """Compare a metric of two jobs of one phase with the error bars of both.

    Args:
        quantity: such as `tokens_rate_per_package`; larger is better.
        limits: bounds that both meet, such as `tpot=50ms`; the batch of a decode job
            follows them and the memory, other jobs keep theirs.
        scale: what each value is multiplied by, such as packages over kilowatts.
        workload_sigmas: relative uncertainty of workload keys, such as `acceptance`,
            shared by both sides.

    Raises:
        SpecError: (a `ValueError`) phases differ, a quantity or key isn't there, or
            neither job can meet the limits.
        ArithmeticError: limits are met as things are but not a step away.
    """
    if first.phase != second.phase:
        phases = f"{first.phase!r} and {second.phase!r}"
        raise SpecError([f"versus: phases {phases}: name two of one phase"])
    if quantity not in QUANTITIES:
        raise SpecError([f"versus: {quantity!r}: no such quantity"])
    parsed = [parse_limit(text) for text in limits]
    try:
        field = field_of(quantity, None, first.phase)
        bounds = [(field_of(p.quantity, None, first.phase), p) for p in parsed]
    except ValueError as error:
        raise SpecError([f"versus: {error}"]) from None
    widths = workload_sigmas or {}
    sides = [
        _side(scenario, field, bounds, tuple(widths), factor, calibration)
        for scenario, factor in zip((first, second), scale)
    ]
    one, other = sides
    if not one.feasible and not other.feasible:
        raise SpecError([f"versus: neither job meets {', '.join(limits)} within memory"])
    if not (one.feasible and other.feasible):
        ratio = math.inf if one.feasible else 0.0
        return Versus(one, other, ratio, 0.0, float(one.feasible))
    both = one.problem, one.slopes, other.problem, other.slopes
    of_workload = sum(
        ((one.workload_slopes[key] - other.workload_slopes[key]) * sigma) ** 2
        for key, sigma in widths.items()
    )
    factors = one.widening, other.widening
    shared = shared_error(one.problem, other.problem)
    of_system = ratio_sigma(*both, field, shared, factors)
    sigma = math.sqrt(of_system**2 + of_workload)
    log = math.log(one.value / other.value)
    return Versus(one, other, math.exp(log), sigma, probability_above(log, sigma))


@partial(jax.jit, static_argnums=0)
def _outcomes(
    fields: tuple[str, ...], inputs: tuple, shifts: Array, logs: dict[str, Array]
) -> tuple[Array, Array]:
    """Metrics and memory excess of many rows, from shifts of the machine, (row, number),
    and logs of what workload keys are multiplied by."""

    def one(shift: Array, sizes: dict[str, Array]) -> tuple[Array, Array]:
        machine, model, workload, layout = inputs
        sizes = {k: getattr(workload, k) * jnp.exp(z) for k, z in sizes.items()}
        moved = shift_all(machine, shift), model, workload.replace(**sizes), layout
        m = metrics(*moved)
        return jnp.stack([getattr(m, f) for f in fields]), m.memory_excess_bytes

    return jax.vmap(one)(shifts, logs)


def _side(
    scenario: Scenario,
    field: str,
    bounds: list[tuple[str, Limit]],
    keys: tuple[str, ...],
    scale: float,
    calibration: str | None,
) -> Side:
    """A job's best value, and what it depends on.

    Args:
        field: of the metrics.
    """
    problem = build(scenario, calibration)
    workload = problem.workload
    if bad := [key for key in keys if not hasattr(workload, key)]:
        raise SpecError([f"versus: {key!r}: not a key of the workload" for key in bad])
    paths = steps_of(problem)
    steps = paths | dict.fromkeys(keys, STEP)
    moves = [(name, s) for name, step in steps.items() for s in (step, -step)]
    # the job as it is, then every parameter and workload key up and down
    shifts = moved_up_and_down(problem, paths, 1 + len(moves))
    logs = {key: np.array([0.0, *(s * (n == key) for n, s in moves)]) for key in keys}
    values, batches = _best(problem, field, bounds, shifts, logs)
    batch = float(batches[0]) if isinstance(workload, Decode) else None
    if not values[0] > 0.0:
        return Side(problem, 0.0, batch, 0.0, {}, {}, 1.0)
    each = enumerate(steps.items())
    slopes = {name: _slope(values, k, step) for k, (name, step) in each}
    system = {path: slopes[path] for path in paths}
    return Side(
        problem,
        scale * float(values[0]),
        batch,
        relative_sigma(problem, system, field, factor := widening(outside(problem))),
        system,
        {key: slopes[key] for key in keys},
        factor,
    )


def _slope(values: np.ndarray, k: int, step: float) -> float:
    """d ln value along parameter k, from one side where the other breaks the limits."""
    up, down = values[1 + 2 * k], values[2 + 2 * k]
    ends = [(v, s) for v, s in ((up, step), (down, -step)) if v > 0.0]
    if len(ends) == 2:
        return math.log(up / down) / (2.0 * step)
    if not ends:
        raise ArithmeticError("versus: no batch meets the limits a step away either way")
    return math.log(ends[0][0] / values[0]) / ends[0][1]


def _best(
    problem: Problem,
    field: str,
    bounds: list[tuple[str, Limit]],
    shifts: np.ndarray,
    logs: dict[str, np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """Value and batch of each row; 0 where no batch meets the limits."""
    fields = (field, *(name for name, _ in bounds))
    rows, inputs = len(shifts), problem.inputs
    batched = isinstance(problem.workload, Decode)
    low, high = np.full(rows, -SPAN), np.full(rows, SPAN)
    chosen, k = np.arange(rows), np.zeros(rows, int)
    merit, grid = np.zeros((rows, 1)), np.zeros((rows, 1))
    for _ in range(LEVELS if batched else 1):
        grid = np.linspace(low, high, POINTS, axis=1) if batched else grid
        points = grid.shape[1]
        sizes = {key: np.repeat(log, points) for key, log in logs.items()}
        if batched:
            sizes["sequences_per_device"] = grid.reshape(-1)
        args = np.repeat(shifts, points, axis=0), sizes
        values, excess = jax.device_get(_outcomes(fields, inputs, *args))
        good = excess <= 0.0
        for i, (_, limit) in enumerate(bounds):
            slack = 1.0 - SLACK if limit.holds(1, 0) else 1.0 + SLACK
            good &= limit.holds(values[:, 1 + i], limit.value * slack)
        merit = np.where(good, values[:, 0], 0.0).reshape(rows, points)
        # where nothing fits, small batches come closest
        k = np.where((merit > 0.0).any(axis=1), merit.argmax(axis=1), 0)
        best, step = grid[chosen, k], (high - low) / (POINTS - 1)
        low, high = best - step, best + step
    given = float(getattr(problem.workload, "sequences_per_device", 1.0))
    return merit[chosen, k], given * np.exp(grid[chosen, k])
