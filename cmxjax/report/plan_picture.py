"""Pictures of a capacity plan: its fleets, and their cost over the rate of requests."""

from collections.abc import Sequence

import numpy as np

from ..planning.plan import Plan
from .labels import COST, metric_scale
from .pictures import save, subplots
from .tables import number


def draw_plan(plan: Plan, path: str) -> None:
    """Draw packages and cost an hour of each fleet, with one sigma of the price.

    Raises:
        SpecError: the file can't be written.
    """
    fleets = [fleet for fleet in plan.fleets if fleet.feasible]
    names = [fleet.name for fleet in fleets]
    figure, (left, right) = subplots(1, 2, figsize=(9, 1.6 + 0.5 * len(names)))
    rows = np.arange(len(fleets))
    serving = [fleet.packages for fleet in fleets]
    left.barh(rows, serving, label="serving")
    spare = [fleet.spare_packages for fleet in fleets]
    left.barh(rows, spare, left=serving, label="spare")
    left.set_yticks(rows, names)
    left.set_xlabel("packages")
    left.legend()
    hours = np.array([fleet.usd_per_hour or np.nan for fleet in fleets])
    sigma = np.array([fleet.usd_sigma for fleet in fleets])
    right.barh(rows, hours, xerr=hours * sigma, color="tab:green", capsize=3)
    right.set_yticks(rows, [])
    right.set_xlabel("USD an hour, one sigma of the price")
    for axes in (left, right):
        axes.invert_yaxis()
    rate = number("requests_per_s", plan.requests_per_s)
    figure.suptitle(f"fleets for {rate}")
    figure.tight_layout()
    save(figure, path)


def draw_costs(plan: Plan, over: Sequence[Plan], path: str) -> None:
    """Draw packages and the cost of a million tokens over the rate of requests, with one
    sigma of the price.

    Args:
        plan: whose rate is marked.
        over: plans of the same machines for other rates.

    Raises:
        SpecError: the file can't be written.
    """
    names = [fleet.name for fleet in plan.fleets]
    figure, (left, right) = subplots(1, 2, figsize=(11, 5), layout="constrained")
    none, unpriced = 0, []
    for place, name in enumerate(names):
        fleets = [next(f for f in one.fleets if f.name == name) for one in over]
        can = [i for i, fleet in enumerate(fleets) if fleet.feasible]
        none += len(fleets) - len(can)
        rates = [over[i].requests_per_s for i in can]
        style = {"marker": ".", "color": f"C{place % 10}"}
        left.plot(rates, [fleets[i].all_packages for i in can], label=name, **style)
        costs = np.array([fleets[i].usd_per_token or np.nan for i in can])
        if not np.isfinite(costs).any():
            unpriced.append(name)
            continue
        costs = costs / metric_scale(COST, costs).factor
        wide = costs * np.array([fleets[i].usd_sigma for i in can])
        right.plot(rates, costs, **style)
        band = costs - wide, costs + wide
        right.fill_between(rates, *band, color=style["color"], alpha=0.12, lw=0)
    left.set_ylabel("packages, spare ones included")
    right.set_ylabel("cost, USD per million tokens, one sigma of the price")
    for axes in (left, right):
        axes.axvline(plan.requests_per_s, color="gray", lw=0.8, ls="--")
        axes.set(xscale="log", yscale="log", xlabel="requests/s")
        axes.grid(alpha=0.3)
    notes = [f"dashed: the {number('requests_per_s', plan.requests_per_s)} planned for"]
    if none:
        notes.append(f"left out: {none} fleets that can't take their rate")
    if unpriced:
        notes.append(f"without a price: {', '.join(unpriced)}")
    figure.suptitle("fleets over the load that they take", fontsize=11)
    figure.legend(loc="outside upper center", ncols=min(3, len(names)), fontsize=8)
    figure.supxlabel("; ".join(notes), fontsize=8, color="dimgray")
    save(figure, path)
