"""From a validated scenario to the pytrees of one prediction."""

from collections.abc import Mapping
from typing import NamedTuple

from jax import Array

from ..job.layout import Layout, Pools
from ..job.workload import BYTES, Workload
from ..machine.machine import Machine
from ..machine.resolve import Meets, machine_of
from ..machine.system import System
from ..model.architecture import Architecture
from ..parameters import apply
from .calibration_file import UNCALIBRATED, Calibration, calibration_for
from .context import (
    SERVES,
    Context,
    dtype_of_file,
    dtypes_of,
    leaf,
    limited,
    module_bytes,
)
from .errors import all_of
from .figures import Figure
from .files import version
from .kernel_build import collective, operator, query
from .model_load import load_model, stored_in
from .related import relatives_of, warning_of
from .relatives import relatives
from .scenario import load_scenario
from .scenario_file import Scenario
from .serve_build import serve_job
from .step_build import decode, prefill
from .system_load import LoadedSystem, load_system
from .train_build import train_job


class Problem(NamedTuple):
    """Everything that `metrics` takes, and what the specs say about it."""

    system: System
    choices: Meets
    """What the job uses of the system; of phase `serve` by role of the pool."""
    model: Architecture | None
    workload: Workload
    layout: Layout | Pools
    """A Layout; of phase `serve` the Pools."""
    theta: dict[str, Array]
    """Calibrated parameters by leaf path of the system."""
    calibration: str
    fitted: Calibration
    figures: dict[str, Figure]
    scenario: Scenario

    @property
    def machine(self) -> Machine | dict[str, Machine]:
        """The calibrated machine; of phase `serve` by role of the pool."""
        return machine_of(apply(self.system, self.theta), self.choices)

    @property
    def warnings(self) -> list[str]:
        """What to know of the machine, such as that it is announced only."""
        line = warning_of(load_system(self.scenario.system).file)
        return [line] if line else []

    @property
    def architecture(self) -> Architecture | None:
        """The model, by its former name."""
        return self.model

    @property
    def placed(self) -> Layout:
        """The layout of a phase without pools."""
        assert isinstance(self.layout, Layout)
        return self.layout

    @property
    def inputs(
        self,
    ) -> tuple[
        Machine | dict[str, Machine], Architecture | None, Workload, Layout | Pools
    ]:
        """What `metrics` takes."""
        return self.machine, self.model, self.workload, self.layout


Job = tuple[Workload, Layout | Pools, Meets]
"""A workload, its layout, and what it uses of the system."""


_BUILDERS = {
    "system": query,
    "op": operator,
    "collective": collective,
    "decode": decode,
    "prefill": prefill,
    "train": train_job,
    "serve": serve_job,
}


class _Fitted(NamedTuple):
    """A calibration with its shifts as arrays, and the system that it is for."""

    calibration: Calibration
    theta: dict[str, Array]
    loaded: LoadedSystem


_FITTED: dict[tuple, _Fitted] = {}


def _fitted(loaded: LoadedSystem, name: str | None, phase: str) -> _Fitted:
    """What `_calibration` finds, kept: it is the same for all jobs on a system."""
    key = id(loaded), None if name is None else version(name), phase
    if key not in _FITTED:
        if len(_FITTED) >= 64:
            _FITTED.clear()
        chosen = _calibration(loaded, name, phase)
        theta = {path: leaf(value) for path, value in chosen.theta.items()}
        _FITTED[key] = _Fitted(chosen, theta, loaded)
    return _FITTED[key]


def _calibration(loaded: LoadedSystem, name: str | None, phase: str) -> Calibration:
    """The calibration of a system; without one, what its calibrated relatives say."""
    system = loaded.system.name
    chosen = calibration_for(system, name, phase)
    chosen.check(loaded.figures)
    if name == UNCALIBRATED or chosen.name != UNCALIBRATED:
        return chosen
    others, groups = relatives_of(loaded, phase)
    return relatives(system, loaded.figures, others, groups) if others else chosen


def build(
    scenario: Scenario | str | Mapping[str, object],
    calibration: str | None = None,
    where: str | None = None,
) -> Problem:
    """Turn a scenario into the pytrees that `metrics` takes.

    Args:
        scenario: validated, from `load_scenario` or a measurement; or what that takes.
        calibration: a shipped calibration's name; "none" for the spec as printed; None
            for the one that ships for the system.
        where: how messages name the scenario; its file if left out.

    Raises:
        SpecError: (a `ValueError`) naming every mistake found.
    """
    if isinstance(scenario, str | Mapping):
        scenario = load_scenario(scenario)
    reference, where = getattr(scenario, "model", None), where or scenario.where
    loaded, model = all_of(
        lambda: load_system(scenario.system, where),
        lambda: None if reference is None else load_model(reference, where),
    )
    system = limited(scenario, loaded.system, where)
    context = Context(scenario, system, model, where)
    workload, layout, choices = _BUILDERS[scenario.phase](context, scenario)
    chosen, theta, _ = _fitted(loaded, calibration, scenario.phase)
    architecture = None
    if model is not None:
        architecture = model.architecture
        if getattr(workload, "images", None) is None:  # the tower isn't loaded
            architecture = architecture.replace(vision=None)
        if scenario.phase in SERVES:
            computed = dtype_of_file(model, loaded.system)
            size = BYTES[dtypes_of(scenario, computed).weight]
            stored = module_bytes(scenario, model)
            architecture = stored_in(architecture, stored, size)
    return Problem(
        system=system,
        choices=choices,
        model=architecture,
        workload=workload,
        layout=layout,
        theta=theta,
        calibration=chosen.name,
        fitted=chosen,
        figures=loaded.figures,
        scenario=scenario,
    )
