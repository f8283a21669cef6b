"""A differentiable performance model of AI supernodes.

    import cmxjax as cmx

    p = cmx.build(cmx.load_scenario("deepseek-r1-decode-cloudmatrix384"))
    m = cmx.metrics(p.machine, p.model, p.workload, p.layout)
    m.tpot_s  # cmx.explain(...) adds m.breakdown and m.busy

Names are loaded when first used, so the command line starts without JAX. What computes
calls `setup` first, unless that was done: float64, and compiled programs kept on disk.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from . import _quiet  # noqa: F401

if TYPE_CHECKING:
    from .answers.compare import compare as compare
    from .answers.limits import largest as largest
    from .answers.limits import parse_limit as parse_limit
    from .answers.predict import predict as predict
    from .answers.sensitivity import sensitivity as sensitivity
    from .answers.validate import validate as validate
    from .answers.versus import versus as versus
    from .calibrate.run import fit as fit
    from .job.stack import stack as stack
    from .optimization.answer import optimize as optimize
    from .optimization.codesign.design import codesign as codesign
    from .optimization.codesign.match import match as match
    from .optimization.codesign.workloads import Share as Share
    from .optimization.experts.place import place_experts as place_experts
    from .optimization.pools import split_pools as split_pools
    from .optimization.stages import partition as partition
    from .phases.metrics import explain as explain
    from .phases.metrics import metrics as metrics
    from .planning.plan import plan as plan
    from .settings import setup as setup
    from .specs.build import build as build
    from .specs.errors import SpecError as SpecError
    from .specs.layout_make import layout as layout
    from .specs.scenario import load_scenario as load_scenario
    from .sweeps.run import read_sweep as read_sweep
    from .sweeps.run import sweep as sweep

_HOMES = {
    "Share": "optimization.codesign.workloads",
    "SpecError": "specs.errors",
    "build": "specs.build",
    "codesign": "optimization.codesign.design",
    "compare": "answers.compare",
    "explain": "phases.metrics",
    "fit": "calibrate.run",
    "largest": "answers.limits",
    "layout": "specs.layout_make",
    "load_scenario": "specs.scenario",
    "match": "optimization.codesign.match",
    "metrics": "phases.metrics",
    "optimize": "optimization.answer",
    "partition": "optimization.stages",
    "place_experts": "optimization.experts.place",
    "parse_limit": "answers.limits",
    "plan": "planning.plan",
    "predict": "answers.predict",
    "read_sweep": "sweeps.run",
    "sensitivity": "answers.sensitivity",
    "setup": "settings",
    "split_pools": "optimization.pools",
    "stack": "job.stack",
    "sweep": "sweeps.run",
    "validate": "answers.validate",
    "versus": "answers.versus",
}
_PLAIN = {"SpecError", "load_scenario", "read_sweep", "setup"}
"""Names that compute nothing."""

__all__ = sorted([*_HOMES, "__version__"])  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version  # slow to load

        return version("cmxjax")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    settings = import_module(".settings", __name__)  # before anything imports JAX
    if name not in _PLAIN:
        settings.setup_once()
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value  # also where a submodule has the same name
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
