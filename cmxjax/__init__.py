"""A differentiable performance model of AI supernodes.

    import cmxjax as cmx

    scenario = cmx.load_scenario("deepseek-r1-decode-cloudmatrix384")
    p = cmx.build(scenario)
    m = cmx.metrics(p.machine, p.model, p.workload, p.layout)
    m.tpot_s  # cmx.explain(...) adds m.breakdown and m.busy

Names are loaded when first used, so the command line starts without JAX.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .answers.compare import compare as compare
    from .answers.limits import largest as largest
    from .answers.limits import parse_limit as parse_limit
    from .answers.predict import predict as predict
    from .answers.validate import validate as validate
    from .answers.versus import versus as versus
    from .calibrate.run import fit as fit
    from .optimization.answer import optimize as optimize
    from .optimization.codesign.design import codesign as codesign
    from .optimization.codesign.match import match as match
    from .optimization.codesign.mix import Share as Share
    from .optimization.experts.place import place_experts as place_experts
    from .optimization.pools import split_pools as split_pools
    from .optimization.stages import partition as partition
    from .phases.metrics import explain as explain
    from .phases.metrics import metrics as metrics
    from .settings import setup as setup
    from .specs.build import build as build
    from .specs.errors import SpecError as SpecError
    from .specs.scenario import load_scenario as load_scenario

_HOMES = {
    "Share": "optimization.codesign.mix",
    "SpecError": "specs.errors",
    "build": "specs.build",
    "codesign": "optimization.codesign.design",
    "compare": "answers.compare",
    "explain": "phases.metrics",
    "fit": "calibrate.run",
    "largest": "answers.limits",
    "load_scenario": "specs.scenario",
    "match": "optimization.codesign.match",
    "metrics": "phases.metrics",
    "optimize": "optimization.answer",
    "partition": "optimization.stages",
    "place_experts": "optimization.experts.place",
    "parse_limit": "answers.limits",
    "predict": "answers.predict",
    "setup": "settings",
    "split_pools": "optimization.pools",
    "validate": "answers.validate",
    "versus": "answers.versus",
}
__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value  # also where a submodule has the same name
    return value
