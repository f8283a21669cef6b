"""Co-design: the chip and the fabric that make most of a budget for some workloads."""

import math
import time
from functools import partial

import numpy as np
from jaxtyping import Float

from ...specs.budget_file import BudgetSpec, unpriced
from ...specs.errors import SpecError
from ...specs.figures import parse_quantity
from ...units import format_si
from ..ascent import SHARPNESS, Slopes, ascend, slopes
from .certificate import certify
from .cost import to_budget
from .exact import SPAN, Rows, exact_rows, whole_batch
from .exchange import exchanges, improve, merit_of
from .mix import most_within
from .result import Codesign, Design, Run
from .setup import Setup, setup_of
from .workloads import Share

STARTS = 3
"""Ends of ascents that are refined for each budget: tiles make many local optima."""

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
    ascended from several starts for each budget of the path; the ends are refined on the
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
    if bad := [f for f in path if not (math.isfinite(f) and f > 0.0)]:
        raise SpecError([f"path = {f:g}: must be above 0" for f in bad])
    begin = time.perf_counter()
    setup = setup_of(workloads, budget, calibration, only)
    if mistakes := unpriced(setup.spec):
        raise SpecError([f"{budget}: {mistake}" for mistake in mistakes])
    factors, count, box = sorted({1.0, *path}), setup.mix.resources, setup.variables
    budgets = np.log(_amount(setup.spec, spend) * np.array(factors)).tolist()
    now = design_of(setup, np.zeros(count), setup.spec.present)
    if not math.isfinite(now.mean):
        raise ArithmeticError("the mix is not finite on the machine as it is")

    terms = [partial(slopes, most_within, setup.mix, log) for log in budgets]
    starts = _starts(setup, budgets, restarts, seed)
    ends = [[ascend(at, x, box) for x in some] for at, some in zip(terms, starts)]
    gradients = sum(spent for some in ends for _, spent in some)
    pool = np.array([x[:count] for some in ends for x, _ in some])
    machines, designs, before = 1 + len(pool), [], pool[:0]
    for log, at, own in zip(budgets, terms, ends):
        paid = to_budget(setup.mix.prices, pool, np.ones_like(pool), log, setup.box)
        z, exchange, tried = _refined(setup, np.append(paid, before, 0), log)
        near, first = ascend(at, _with_batches(setup, z[None])[0], box)
        relaxed = max([near, *(x for x, _ in own)], key=lambda x: _rank(at(x)))
        # some ends are short of where the conditions hold
        relaxed, second = ascend(at, relaxed, box, (SHARPNESS[-1],) * 2)
        design = design_of(setup, z, math.exp(log))._replace(
            certificate=certify(at, relaxed, box, count),
            relaxed=at(relaxed).objective,
            best_exchange=exchange,
        )
        designs.append(design)
        gradients, machines = gradients + first + second, machines + tried + 1
        before = z[None]
    best, seconds = designs[factors.index(1.0)], time.perf_counter() - begin
    shared = setup.spec, setup.leaves, setup.jobs
    return Codesign(*shared, now, best, designs, gradients, machines, seconds)


def _amount(spec: BudgetSpec, spend: str | float | None) -> float:
    """The budget in SI. Raises `SpecError` for a wrong unit or none of it."""
    if spend is None:
        return spec.amount
    try:
        value = parse_quantity(str(spend), spec.dimension)
        if not value > 0.0:
            raise ValueError("must be above 0")
    except ValueError as error:
        raise SpecError([f"--spend {spend!r}: {error}"]) from None
    return value


def _with_batches(
    setup: Setup, z: Float[np.ndarray, "row resource"]
) -> Float[np.ndarray, "row variable"]:
    """Machines with the free batches that suit them."""
    free = [k for k, work in enumerate(setup.mix.works) if work.form.batch]
    return np.append(z, np.log(exact_rows(setup.mix, z).batches[:, free]), 1)


def _starts(
    setup: Setup, budgets: list[float], restarts: int, seed: int
) -> Float[np.ndarray, "budget start variable"]:
    """For each budget the machine as it is and random ones, scaled to cost as much, with
    about the batches that suit them."""
    rng, (low, high) = np.random.default_rng(seed), setup.box
    rows = []
    for log in budgets:
        drawn = 0.5 * rng.uniform(low, high, (restarts, len(low)))
        z = np.append(np.zeros((1, len(low))), drawn, 0)
        rows.append(to_budget(setup.mix.prices, z, np.ones_like(z), log, setup.box))
    every = _with_batches(setup, np.concatenate(rows))
    logs = every[:, len(low) :]
    logs += rng.normal(0.0, 0.3, logs.shape)  # batches rest on many kinks
    np.clip(logs, -SPAN, SPAN, out=logs)
    return every.reshape(len(budgets), restarts + 1, -1)


def _refined(
    setup: Setup, rows: Float[np.ndarray, "row resource"], log_budget: float
) -> tuple[Float[np.ndarray, " resource"], float, int]:
    """The best machine that exchanges lead to from the best rows, the gain of the best
    exchange left, and the machines that were evaluated."""

    def merits(rows: np.ndarray) -> np.ndarray:
        return merit_of(exact_rows(setup.mix, rows))

    neighbors = partial(exchanges, setup.mix.prices, setup.box, log_budget)
    best = np.argsort(-merits(rows))[:STARTS]
    ends = [improve(rows[k], neighbors, merits) for k in best]
    z, gain, _ = ends[merits(np.array([end[0] for end in ends])).argmax()]
    return z, gain, len(rows) + sum(tried for _, _, tried in ends)


def _rank(end: Slopes) -> tuple[float, float]:
    """Ends that meet the constraints better first, then those of the larger mix."""
    return -round(max(float(end.constraints.max()), 0.0), 3), end.objective


def design_of(setup: Setup, z: Float[np.ndarray, " resource"], budget: float) -> Design:
    """What a machine costs and does, exactly."""
    spec, prices, exact = setup.spec, setup.mix.prices, exact_rows(setup.mix, z[None])
    multipliers = dict(zip(spec.resources, np.exp(z).tolist()))
    spent = np.exp(prices.logs + prices.powers @ z)
    cost = float(spent.sum())
    runs = [_run(setup, z, exact, k) for k in range(len(setup.jobs))]
    reasons = [
        f"{job.share.scenario.phase}: {name} is {used:.3g} times the limit"
        for job, run in zip(setup.jobs, runs)
        for name, used in run.limits.items()
        if used > 1.0 + 1e-5
    ]
    if cost > budget * (1.0 + 1e-6):
        shown = [format_si(v, spec.dimension) for v in (cost, budget)]
        reasons.append(f"the smallest machine costs {shown[0]}, over {shown[1]}")
    return Design(
        budget=budget,
        cost=cost,
        multipliers=multipliers,
        values={
            path: setup.known[path] * multipliers[name] ** spec.resources[name].power
            for name, paths in setup.leaves.items()
            for path in paths
        },
        spent=dict(zip(spec.items, spent.tolist())),
        shares=dict(zip(multipliers, (prices.powers.T @ spent / cost).tolist())),
        runs=runs,
        mean=float(exact.value[0]),
        reasons=reasons,
    )


def _run(setup: Setup, z: Float[np.ndarray, " resource"], exact: Rows, k: int) -> Run:
    """One workload on a machine whose outcomes are the first row of `exact`."""
    job, work, batch = setup.jobs[k], setup.mix.works[k], None
    names = [quantity.partition("=")[0] for quantity in job.share.limits]
    names += ["memory", "devices", "requests of a group"]
    limits = dict(zip(names, np.exp(exact.constraints[k][0]).tolist()))
    if job.form.batch:
        given = float(getattr(job.problem.workload, job.form.batch))
        batch = given * float(exact.batches[0, k])
    metric, whole = float(exact.objectives[0, k]), whole_batch(work, z)
    if whole is not None:
        whole = math.exp(job.form.sign * whole[0]), whole[1]
    return Run(math.exp(job.form.sign * metric), batch, whole, limits)
