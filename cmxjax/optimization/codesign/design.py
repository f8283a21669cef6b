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
from .ascent import ascend, slopes
from .certificate import certify
from .cost import log_costs, shares, spend, to_budget
from .exact import SPAN, Rows, exact_rows, whole_batch
from .exchange import Refined, refine
from .mix import Share
from .result import Codesign, Design, Run
from .setup import Setup, setup_of, variable_box

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
    machines, answers = 1 + len(starts), []
    pool = ends.x[:, : setup.mix.resources]
    for _ in range(2):  # once more from what was found for the other budgets
        answers = _refined(setup, pool, logs)
        machines += sum(answer.evaluations for answer in answers)
        pool = np.array([answer.z for answer in answers])
    designs = []
    for i, answer in enumerate(answers):
        rows = np.arange(i * (restarts + 1), (i + 1) * (restarts + 1))
        rows = rows[ends.sharp[rows]]
        order = np.lexsort((-ends.objective[rows], np.round(ends.violation[rows], 3)))
        x = ends.x[rows[order[0]]]
        terms = partial(slopes, setup.mix, setup.data, jnp.asarray(logs[i]))
        design = design_of(setup, answer.z, math.exp(logs[i]))._replace(
            certificate=certify(terms, x, (low, high), setup.mix.resources),
            relaxed=terms(x).objective,
            best_exchange=answer.best_exchange,
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
    setup: Setup,
    pool: Float[np.ndarray, "row resource"],
    logs: Float[np.ndarray, " budget"],
) -> list[Refined]:
    """The best exact machine of each budget, from all of the pool made to cost it."""
    refined: list[Refined] = []
    for log_budget in logs:
        smaller = [refined[-1].z] if refined else []
        rows = _tried(setup, pool, smaller, log_budget)
        args = setup.mix, setup.data, setup.prices, rows, setup.box, log_budget
        refined.append(refine(*args))
    return refined


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


def _tried(
    setup: Setup,
    ends: Float[np.ndarray, "start resource"],
    previous: list[np.ndarray],
    log_budget: float,
) -> Float[np.ndarray, "row resource"]:
    """Ends of the ascent, for all budgets, made to cost this one; and the answer of a
    smaller one as it is."""
    rows = np.array([*ends, *previous])
    paid = to_budget(setup.prices, rows, np.ones_like(rows), log_budget, setup.box)
    return np.concatenate([paid, rows[len(ends) :]])


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
