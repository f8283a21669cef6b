"""Two or more systems side by side."""

import math
from typing import TYPE_CHECKING, NamedTuple

from ..specs.errors import SpecError
from ..specs.files import canonical, is_path, load, shipped
from ..specs.scenario import load_scenario, validate_scenario
from ..specs.scenario_file import Scenario
from ..units import dimension_of
from ..words import choose
from .predict import Prediction, predict
from .uncertainty import probability_above, ratio_sigma, shared_error

if TYPE_CHECKING:
    import pandas as pd


KEYS = {"ratio": "ratio", "sigma": "sigma", "probability_better": "better"}


class Odds(NamedTuple):
    """One metric of a job over that of another."""

    ratio: float
    sigma: float
    """Of the log of the ratio."""
    better: float | None
    """Probability of being the better one; None where neither more nor less is better."""


MORE = ("token_rate", "request_rate", "sample_rate", "flop_rate")
MORE_OF = ("tokens_per_s_per_device", "tokens_per_s_per_package", "mfu", "goodput")
MORE_OF += ("tokens_per_s_per_kw", "mtbf_s")
LESS = ("time", "energy", "cost", "token_cost")
LESS_OF = ("run_failures",)
NEITHER = ("checkpoint_interval_s",)


def better_sign(name: str) -> float:
    """1 for a metric of which more is better, -1 where less is, else 0."""
    dimension = dimension_of(name)
    if dimension in MORE or name in MORE_OF:
        return 1.0
    less = name in LESS_OF or dimension in LESS
    return -1.0 if less and name not in NEITHER else 0.0


def odds_of(one: Prediction, other: Prediction) -> dict[str, Odds]:
    """Of each metric that is positive in both."""
    found = {}
    factors = one.trust.widening, other.trust.widening
    shared = shared_error(one.problem, other.problem)
    for name, value in one.values.items():
        if min(value, other.values.get(name, 0.0)) <= 0.0:
            continue
        slopes, below = one.trust.slopes[name], other.trust.slopes[name]
        sides = one.problem, slopes, other.problem, below
        sigma = ratio_sigma(*sides, name, shared, factors)
        log, sign = math.log(value / other.values[name]), better_sign(name)
        compared = sign != 0.0 and one.problem.scenario.phase != "system"
        better = probability_above(sign * log, sigma) if compared else None
        found[name] = Odds(math.exp(log), sigma, better)
    return found


class Comparison(NamedTuple):
    """Predictions of the same phase, in the order asked for."""

    names: list[str]
    predictions: list[Prediction]

    @property
    def odds(self) -> list[dict[str, Odds]]:
        """Of each but the first, how its metrics compare with the first's."""
        first, *others = self.predictions
        return [odds_of(other, first) for other in others]

    def as_json(self) -> dict[str, object]:
        """The contract of `compare --json`: predictions by name, all but the first with
        how they compare with it."""
        found = [prediction.as_json() for prediction in self.predictions]
        for other, odds in zip(found[1:], self.odds, strict=True):
            other["versus"] = {"to": self.names[0]} | {
                key: {name: getattr(o, field) for name, o in odds.items()}
                for key, field in KEYS.items()
            }
        return dict(zip(self.names, found, strict=True))

    def to_dict(self) -> dict[str, object]:
        """What `compare --json` prints."""
        return self.as_json()

    def to_frame(self) -> "pd.DataFrame":
        """Every metric in SI, a row for each name."""
        import pandas as pd  # half a second that only tables should pay

        rows = [prediction.to_frame() for prediction in self.predictions]
        return pd.concat(rows).set_index(pd.Index(self.names, name="name"))


def scenario_named(name: str) -> Scenario:
    """A scenario, or the totals of a system if `name` is a system, shipped or a path."""
    raw = load("systems", name)[0] if is_path(name) else {}
    machine = ("chip" in raw or "base" in raw) and "phase" not in raw
    if machine or canonical("systems", name) in shipped("systems"):
        return validate_scenario({"system": name, "phase": "system"}, name)
    known = [*shipped("systems"), *shipped("scenarios")]
    if not is_path(name) and name not in known:
        said = "no system or scenario of this name ships"
        raise SpecError([f"compare {name}: {said}; {choose(name, known)}, or a path"])
    return load_scenario(name)


def compare(names: list[str], calibration: str | None = None) -> Comparison:
    """Predict several systems (their totals) or scenarios for a table.

    Raises:
        SpecError: a name is neither a system nor a scenario, or there are both.
    """
    scenarios = [scenario_named(name) for name in names]
    systems = [s.phase == "system" for s in scenarios]
    if any(systems) and not all(systems):
        system, other = (names[systems.index(of)] for of in (True, False))
        said = f"{system} is a system, {other} is a job"
        raise SpecError([f"compare: {said}; give systems alone (their totals) or jobs"])
    predictions = [predict(scenario, calibration) for scenario in scenarios]
    return Comparison(names, predictions)
