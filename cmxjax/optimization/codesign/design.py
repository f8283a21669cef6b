"""Co-design: the chip and the fabric that make most of a budget for some workloads."""

import math
import time
from functools import partial

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ...specs.budget_file import BudgetSpec
from ...specs.errors import SpecError
from ...specs.figures import parse_quantity
from ...units import format_si
from .ascent import ascend, polished, slopes
from .certificate import certify
from .cost import log_costs, shares, spend, to_budget
from .exact import SPAN, Rows, exact_rows, whole_batch
from .exchange import exchanges, improve, merit_of
from .result import Codesign, Design, Run
from .setup import Setup, setup_of, variable_box
from .workloads import Share

STARTS = 2
"""Ends of the ascent that are refined for each budget: tiles make many local optima."""

PATH = (0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0)
"""Budgets of a path, over the one asked for."""


def codesign(
    workloads: list[Share] | tuple[Share, ...],
    budget: str,
    *,
    spend: str | float | None = None,
    only: tuple[str, ...] = (),
    path: tuple[float, ...] = PATH,
    restarts: int = 4,
    seed: int = 0,
    calibration: str | None = None,
) -> Codesign:
    """The machine that makes most of a budget for a mix of workloads.

    The mix is the weighted geometric mean of the workloads' metrics. Their layouts stay;
    the batch of a decode job (of a prefill job with a TTFT limit too) follows its limits
    and the memory. Efficiencies stay as they are calibrated. The relaxed problem is
    ascended for all budgets of the path and all starts at once; the end is refined on the
    exact model, and no design is kept that a smaller budget betters.

    Args:
        workloads: at least one, all on the machine of the budget file.
        budget: a shipped budget or the path of one; see `cmxjax list budgets`.
        spend: what may be spent, such as `559 kW`; without it, what the file says.
        only: resources that may change; all if empty.
        path: further budgets, over that one.
        restarts: starts for each budget, at least one, beside the machine as it is.

    Raises:
        SpecError: (a `ValueError`) a scenario, an option or the file is wrong.
        ArithmeticError: the machine as it is has no finite metric.
    """
    if restarts < 1:
        raise SpecError([f"restarts = {restarts}: use at least 1"])
    begin = time.perf_counter()
    setup = setup_of(workloads, budget, calibration, only=only)
    amount = _amount(setup.spec, spend)
    factors = sorted({1.0, *_checked(path)})
    logs = np.log(amount) + np.log(factors)
    now = design_of(setup, np.zeros(setup.mix.resources), setup.spec.present)
    if not math.isfinite(now.mean):
        raise ArithmeticError("the mix is not finite on the machine as it is")
    starts = _starts(setup, logs, restarts, seed)
    owned = np.repeat(logs, restarts + 1)
    full = _with_batches(setup, starts, seed)
    low, high = variable_box(setup)
    ends = ascend(setup.mix, setup.data, jnp.asarray(owned), full, low, high)
    pool, machines = ends.x[:, : setup.mix.resources], 1 + len(starts)
    designs: list[Design] = []
    before = np.zeros((0, setup.mix.resources))
    for i, log_budget in enumerate(logs):
        own = slice(i * (restarts + 1), (i + 1) * (restarts + 1))
        order = np.lexsort((-ends.objective[own], np.round(ends.violation[own], 3)))
        terms = partial(slopes, setup.mix, setup.data, jnp.asarray(log_budget))
        relaxed = polished(terms, ends.x[own][order[0]], (low, high))
        rows = np.append(pool, relaxed[None, : setup.mix.resources], 0)
        paid = to_budget(setup.prices, rows, np.ones_like(rows), log_budget, setup.box)
        found, exchange, tried = _refined(setup, np.append(paid, before, 0), log_budget)
        machines, before = machines + tried, found[None]
        design = design_of(setup, found, math.exp(log_budget))._replace(
            certificate=certify(terms, relaxed, (low, high), setup.mix.resources),
            relaxed=terms(relaxed).objective,
            best_exchange=exchange,
        )
        designs.append(design)
    best = designs[factors.index(1.0)]
    seconds = time.perf_counter() - begin
    return Codesign(
        setup.spec,
        setup.leaves,
        setup.jobs,
        now,
        best,
        designs,
        ends.gradients,
        machines,
        seconds,
    )


def _refined(
    setup: Setup, rows: Float[np.ndarray, "row resource"], log_budget: float
) -> tuple[Float[np.ndarray, " resource"], float, int]:
    """The best exact machine that exchanges lead to from the best rows, what the last
    exchange gained, and the machines tried."""

    def merits(rows: np.ndarray) -> np.ndarray:
        return merit_of(exact_rows(setup.mix, setup.data, rows))

    neighbors = partial(exchanges, setup.prices, setup.box, log_budget)
    best = np.argsort(-merits(rows))[:STARTS]
    ends = [improve(rows[k], neighbors, merits) for k in best]
    z, gain, _ = ends[merits(np.array([end[0] for end in ends])).argmax()]
    return z, gain, len(rows) + sum(tried for _, _, tried in ends)


def _amount(spec: BudgetSpec, spend: str | float | None) -> float:
    """The budget in SI. Raises `SpecError` for a wrong unit or none of it."""
    if spend is None:
        return spec.amount
    try:
        value = parse_quantity(str(spend), spec.dimension)
    except ValueError as error:
        raise SpecError([f"--spend {spend!r}: {error}"]) from None
    if not value > 0.0:
        raise SpecError([f"--spend {spend!r}: must be above 0"])
    return value


def _checked(path: tuple[float, ...]) -> tuple[float, ...]:
    if bad := [f for f in path if not (math.isfinite(f) and f > 0.0)]:
        raise SpecError([f"path = {f:g}: must be above 0" for f in bad])
    return path


def _starts(
    setup: Setup, logs: Float[np.ndarray, " budget"], restarts: int, seed: int
) -> Float[np.ndarray, "start resource"]:
    """For each budget the machine as it is and random ones, scaled to cost as much."""
    rng = np.random.default_rng(seed)
    low, high = setup.box
    count = setup.mix.resources
    rows = []
    for log_budget in logs:
        drawn = 0.5 * rng.uniform(low, high, (restarts, count))
        z = np.concatenate([np.zeros((1, count)), drawn])
        ones = np.ones_like(z)
        rows.append(to_budget(setup.prices, z, ones, log_budget, setup.box))
    return np.concatenate(rows)


def _with_batches(
    setup: Setup, z: Float[np.ndarray, "row resource"], seed: int
) -> Float[np.ndarray, "row variable"]:
    """Machines with about the batches that suit them, for batches rest on many kinks."""
    exact = exact_rows(setup.mix, setup.data, z)
    free = [k for k, form in enumerate(setup.mix.forms) if form.batch]
    logs = np.log(exact.batches[:, free])
    logs += np.random.default_rng(seed).normal(0.0, 0.3, logs.shape)
    return np.concatenate([z, np.clip(logs, -SPAN, SPAN)], axis=1)


def design_of(setup: Setup, z: Float[np.ndarray, " resource"], budget: float) -> Design:
    """What a machine costs and does, exactly."""
    names = list(setup.spec.resources)
    exact = exact_rows(setup.mix, setup.data, z[None])
    multipliers = {name: math.exp(v) for name, v in zip(names, z)}
    values = {
        path: setup.known[path] * multipliers[name] ** setup.spec.resources[name].power
        for name, paths in setup.leaves.items()
        for path in paths
    }
    runs = [_run(setup, exact, z, k) for k in range(len(setup.jobs))]
    cost = float(np.exp(log_costs(setup.prices, z[None])[0]))
    spent = dict(zip(setup.spec.items, spend(setup.prices, z).tolist()))
    parts = dict(zip(names, shares(setup.prices, z).tolist()))
    reasons = [
        f"{setup.jobs[k].share.scenario.phase}: {name} is {used:.3g} times the limit"
        for k, run in enumerate(runs)
        for name, used in run.limits.items()
        if used > 1.0 + 1e-5
    ]
    if cost > budget * (1.0 + 1e-6):
        shown = [format_si(v, setup.spec.dimension) for v in (cost, budget)]
        reasons.append(f"the smallest machine costs {shown[0]}, over {shown[1]}")
    return Design(
        budget,
        cost,
        multipliers,
        values,
        spent,
        parts,
        runs,
        float(exact.value[0]),
        None,
        None,
        0.0,
        reasons,
    )


def _run(setup: Setup, exact: Rows, z: np.ndarray, k: int) -> Run:
    job, form = setup.jobs[k], setup.mix.forms[k]
    names = [quantity.partition("=")[0] for quantity in job.share.limits]
    names += ["memory", "devices", "requests of a group"]
    used = np.exp(exact.constraints[k][0])
    batch = None
    if form.batch:
        given = float(getattr(job.problem.workload, form.batch))
        batch = given * float(exact.batches[0, k])
    whole = whole_batch(setup.mix, setup.data, z, k)
    if whole is not None:
        whole = math.exp(form.sign * whole[0]), whole[1]
    metric = math.exp(form.sign * float(exact.objectives[0, k]))
    return Run(metric, batch, whole, dict(zip(names, used.tolist())))
