"""Two or more systems side by side."""

from typing import TYPE_CHECKING, NamedTuple

from ..specs.errors import SpecError
from ..specs.files import canonical, is_path, load, shipped
from ..specs.scenario import load_scenario, validate_scenario
from ..specs.scenario_file import Scenario
from ..words import choose
from .predict import Prediction, predict

if TYPE_CHECKING:
    import pandas as pd


class Comparison(NamedTuple):
    """Predictions of the same phase, in the order asked for."""

    names: list[str]
    predictions: list[Prediction]

    def as_json(self) -> dict[str, object]:
        return {
            name: prediction.as_json()
            for name, prediction in zip(self.names, self.predictions, strict=True)
        }

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
        SpecError: a name is neither a system nor a scenario.
    """
    predictions = [predict(scenario_named(name), calibration) for name in names]
    return Comparison(names, predictions)
