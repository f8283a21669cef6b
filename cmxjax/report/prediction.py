"""A picture of one prediction: where its time goes, with one sigma."""

from pathlib import Path

from ..answers.predict import Prediction
from ..answers.sensitivity import USUAL
from ..quantities import field_of
from ..specs.errors import SpecError
from .pictures import save, subplots
from .tables import value_of

BARS = 20
COLORS = {"fitted": "C0", "relative": "C1", "assumed": "C3", "printed": "C7"}


def draw_prediction(prediction: Prediction, path: Path) -> None:
    """A bar with its one sigma for each of the largest components of the breakdown,
    colored by where their parameters come from.

    Raises:
        SpecError: the phase has no breakdown.
    """
    problem, trust = prediction.problem, prediction.trust
    phase = problem.scenario.phase
    if not prediction.breakdown:
        raise SpecError([f"--picture: phase {phase} has no breakdown to draw"])
    parts = sorted(prediction.breakdown.items(), key=lambda item: -item[1])
    parts = [(name, 1e3 * value) for name, value in parts[:BARS] if value > 0.0][::-1]
    figure, axes = subplots(figsize=(9, 1.4 + 0.28 * len(parts)), layout="constrained")
    for origin, color in COLORS.items():
        own = [i for i, (name, _) in enumerate(parts) if trust.origin[name] == origin]
        values = [parts[i][1] for i in own]
        bars = [parts[i][1] * trust.breakdown[parts[i][0]] for i in own]
        if own:
            style = {"ecolor": "black", "capsize": 2, "color": color}
            axes.barh(own, values, xerr=bars, label=f"parameters {origin}", **style)
    axes.set_yticks(range(len(parts)), [name for name, _ in parts])
    axes.legend(loc="lower right", fontsize=8)
    axes.set(xlabel="ms of the whole, bars of one sigma", xlim=(0, None))
    field = field_of(USUAL[phase], None, phase)
    value = value_of(prediction, field)
    axes.set_title(f"{phase} on {problem.system.name}: {USUAL[phase]} {value}")
    save(figure, path)
