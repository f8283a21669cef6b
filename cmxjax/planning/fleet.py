"""A fleet of one machine that takes a load: packages, spares, price, and how surely."""

import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import NamedTuple

from ..answers.batch import loose
from ..answers.extrapolation import outside, widening
from ..answers.operations import PRICE
from ..answers.spread import slopes_of, widths
from ..answers.trust import POOLS, flat
from ..answers.uncertainty import discrepancy, probability_above
from ..cost import HOUR_S
from ..goodput import failures_per_s
from ..machine.machine import Machine
from ..optimization.pool_split import with_devices
from ..specs.build import Problem
from ..specs.errors import SpecError
from .fewest import Sized, fewest_instances, predicted
from .lay_out import LaidOut, as_given, laid_out
from .load import RequestClass
from .replay import Replayed

ENOUGH = 0.999
"""Probability that as many hosts work as are needed, unless another is asked for."""

REPAIR_S = 4.0 * HOUR_S
"""From a failure to a repaired host, unless another time is given; assumed."""

ROUNDS = 4
"""Times that sizes follow the error bars, which follow sizes."""


class Served(NamedTuple):
    """What one class sees, as if all requests were of it at the same load of pools."""

    problem: Problem
    values: dict[str, float]
    """Every metric in SI, those of a pool as `pools.ROLE.NAME`."""
    sigma: dict[str, float]
    """Relative one sigma of each."""
    slopes: dict[str, dict[str, float]]


class Fleet(NamedTuple):
    """What takes a load on one machine; nothing but `reasons` where nothing does."""

    name: str
    """Of the scenario."""
    problem: Problem
    """Of the class that most requests are of."""
    laid: LaidOut
    packages: float
    """That serve."""
    spare_packages: float
    """Beside them, of whole hosts, for those that are repaired."""
    hosts_down: float
    """Mean number of hosts that are repaired at a time."""
    sufficient: float
    """Probability that the pool likeliest to fall short takes the load."""
    capacity_sigma: float
    """Relative one sigma of what that pool serves."""
    unsure: str
    """What would make that surer."""
    classes: dict[str, Served]
    tokens_per_s: float
    """That are generated today."""
    usd_per_hour: float | None
    """None where no price is known."""
    usd_per_token: float | None
    usd_sigma: float
    """Relative one sigma of both."""
    energy_per_token_j: float
    replayed: Replayed | None = None
    """What the requests of a trace would see, where there is one."""

    @property
    def sized(self) -> Sized:
        return self.laid.sized

    @property
    def reasons(self) -> list[str]:
        return self.sized.reasons

    @property
    def feasible(self) -> bool:
        return not self.reasons

    @property
    def all_packages(self) -> float:
        return self.packages + self.spare_packages


class Sure(NamedTuple):
    """Pools that take the load as surely as asked for, and what each class sees."""

    laid: LaidOut
    seen: dict[str, Served]
    """Empty where nothing takes the load."""


def fleet_of(
    name: str,
    classes: list[RequestClass],
    *,
    searches: bool = True,
    pinned: Mapping[str, int] | None = None,
    growth: float = 1.0,
    confidence: float | None = None,
    available: float = ENOUGH,
    repair_s: float = REPAIR_S,
) -> Fleet:
    """The fewest packages of a machine that take some classes of requests.

    Args:
        name: of the scenario.
        classes: at the rates to plan for.
        searches: lay instances out anew; those of the scenario if not, or where no other
            needs fewer packages.
        pinned: degrees of layouts that are searched, by axis.
        growth: factor in these rates that isn't there yet; tokens are paid by those that
            are.
        confidence: probability with which every pool must take the load, by its error
            bar; a half, as the model says, if left out.
        available: probability with which as many hosts must work as are needed.
        repair_s: from a failure to a repaired host.
    """
    laid, seen = _laid_surely(classes, searches, pinned, confidence)
    largest = max(classes, key=lambda c: c.per_s)
    problem = seen[largest.name].problem if seen else largest.problem
    machine = next(iter(largest.inputs[0].values()))  # prices are those of all pools
    packages = sum(laid.sized.pools.values()) / float(machine.package_devices)
    down, spares = spare_hosts(machine, packages, available, repair_s)
    spare = spares * float(machine.operations.host_packages)
    tokens = _tokens_per_s(classes) / growth
    price = problem.figures.get(PRICE)
    hour = (packages + spare) * price.si if price and price.si > 0.0 else None
    worst = _scarcest(classes, laid.sized, seen)
    return Fleet(
        name=name,
        problem=problem,
        laid=laid,
        packages=packages,
        spare_packages=spare,
        hosts_down=down,
        sufficient=worst.sufficient,
        capacity_sigma=worst.sigma,
        unsure=_unsure(seen[largest.name], worst.role) if worst.role else "",
        classes=seen,
        tokens_per_s=tokens,
        usd_per_hour=hour,
        usd_per_token=None if hour is None else hour / HOUR_S / tokens,
        usd_sigma=price.prior_sigma if price else 0.0,
        energy_per_token_j=_energy_j(classes, seen),
    )


def _laid_surely(
    classes: list[RequestClass],
    searches: bool,
    pinned: Mapping[str, int] | None,
    confidence: float | None,
) -> Sure:
    """Laid out and sized; with error bars, which differ between layouts, still not worse
    than with the scenario's layouts."""
    found = laid_out(classes, pinned) if searches else as_given(classes)
    sure = _surely(found, confidence)
    if confidence is None or not found.changed:
        return sure
    given = _surely(as_given(classes), confidence)
    if _fewer(given.laid.sized, sure.laid.sized):
        return given._replace(laid=given.laid._replace(searched=found.searched))
    return sure


class Scarcest(NamedTuple):
    """The pool likeliest to fall short."""

    role: str
    """Empty where nothing takes the load."""
    sufficient: float
    """Probability that it takes the load."""
    sigma: float
    """Relative one sigma of what it serves."""


def _scarcest(
    classes: list[RequestClass], sized: Sized, seen: dict[str, Served]
) -> Scarcest:
    pools = [Scarcest("", 0.0, 0.0)] if not seen else []
    for role, used in (sized.load if seen else {}).items():
        if used > 0.0:
            sigma = _sigma(classes, seen, role)
            pools.append(Scarcest(role, probability_above(-math.log(used), sigma), sigma))
    return min(pools, key=lambda pool: pool.sufficient)


def _surely(laid: LaidOut, confidence: float | None) -> Sure:
    """Pools enlarged until each takes the load with a probability by its error bar."""
    classes, sized = laid.classes, laid.sized
    seen: dict[str, Served] = {}
    for _ in range(0 if sized.reasons else ROUNDS):
        try:  # more than a machine has can't be built
            seen = {c.name: _served(c, sized, i) for i, c in enumerate(classes)}
        except SpecError as error:
            return Sure(laid.lacking(sized, error.mistakes), {})
        if confidence is None:
            break
        before, reach = sized.instances, NormalDist().inv_cdf(confidence)
        share = {r: math.exp(-reach * _sigma(classes, seen, r)) for r in sized.load}
        sized = fewest_instances(classes, share)
        if sized.reasons or sized.instances == before:
            break
    return Sure(laid._replace(sized=sized), {} if sized.reasons else seen)


def _fewer(one: Sized, other: Sized) -> bool:
    """Whether pools take the load with fewer devices than others do."""
    if one.reasons or other.reasons:
        return bool(other.reasons) and not one.reasons
    return sum(one.pools.values()) < sum(other.pools.values())


def _tokens_per_s(classes: list[RequestClass]) -> float:
    return sum(c.per_s * c.scenario.workload.output_tokens for c in classes)


def _energy_j(classes: list[RequestClass], seen: dict[str, Served]) -> float:
    """Of a token, the mean of what the classes would need alone; 0 of none."""
    power = sum(
        seen[c.name].values["energy_per_token_j"] * _tokens_per_s([c])
        for c in classes
        if c.name in seen
    )
    return power / _tokens_per_s(classes)


def _served(c: RequestClass, sized: Sized, place: int) -> Served:
    """What a class sees on those pools at the load of the busiest."""
    capacity = float(sized.metrics[place].capacity_requests_per_s)
    rate = capacity * max(sized.load.values())
    workload = c.scenario.workload.model_copy(update={"request_rate": rate})
    scenario = with_devices(c.scenario, sized.pools)
    problem = c.built(scenario.model_copy(update={"workload": workload}))
    values = flat(predicted(*problem.inputs))
    values = {name: x for name, x in values.items() if math.isfinite(x)}
    slopes = slopes_of(problem, values, predicted, flat, counted=True)
    sigma = widths(problem, slopes, values, widening(outside(problem)))
    return Served(problem, values, sigma, slopes)


def _sigma(classes: list[RequestClass], seen: dict[str, Served], role: str) -> float:
    """Relative one sigma of a pool's capacity: the mean of the classes by their load, as
    what is uncertain moves them together."""
    key = f"{POOLS}{role}.requests_per_s"
    weights = [c.per_s / seen[c.name].values[key] for c in classes]
    sigmas = [seen[c.name].sigma[key] for c in classes]
    return sum(w * s for w, s in zip(weights, sigmas)) / sum(weights)


def spare_hosts(
    machine: Machine, packages: float, available: float, repair_s: float
) -> tuple[float, int]:
    r"""Hosts that are repaired at a time, and spare ones for them.

    Failures that come at a rate $\lambda$ and are each repaired in a time R keep a number
    of hosts down that has a Poisson distribution of mean $\lambda R$, however the repair
    times are distributed (Palm's theorem; Palm, Ericsson Technics 44, 1943). So many
    spares are enough with the probability that no more are down.
    """
    hosts = math.ceil(packages / float(machine.operations.host_packages) - 1e-9)
    each = machine.operations.host_packages * machine.package_devices
    down = hosts * float(failures_per_s(machine, each)) * repair_s
    term = total = math.exp(-down)
    spares = 0
    while total < available and spares < hosts + 1000:
        spares += 1
        term *= down / spares
        total += term
    return down, spares


def _unsure(seen: Served, role: str) -> str:
    """What a pool's capacity owes most of its error bar to, and what would narrow it."""
    key = f"{POOLS}{role}.requests_per_s"
    slopes, problem = seen.slopes.get(key, {}), seen.problem
    own = discrepancy(problem, slopes, "requests_per_s") ** 2
    priors = {
        path: (slopes.get(path, 0.0) * sigma) ** 2
        for path, sigma in loose(problem).items()
    }
    path = max(priors, key=lambda path: priors[path], default="")
    if path and priors[path] > own:
        return f"measure system.{path}, which is assumed"
    return "measure a whole serving run on this machine, with this engine and model"
