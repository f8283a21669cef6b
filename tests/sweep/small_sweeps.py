"""Sweeps that tests share, and points of them evaluated one by one."""

from typing import Any

import numpy as np

import cmxjax as cmx
from cmxjax.specs.sweep_file import load_sweep
from cmxjax.sweeps.evaluate import mesh_of
from cmxjax.sweeps.part import Evaluator
from cmxjax.sweeps.plan import Plan, plan_of
from cmxjax.sweeps.sigma import changes_of

GEMM: dict[str, Any] = {
    "scenario": {
        "system": "dgx-h100",
        "phase": "op",
        "op": {"kind": "gemm", "m": 64, "n": 4096, "k": 4096},
    },
    "axes": [
        {"key": "op.dtype", "values": ["bf16", "fp8"]},
        {"key": "op.m", "low": 1, "high": 8192, "points": 64, "spacing": "log"},
        {"key": "op.n", "values": [1024, 4096, 5120]},
        {"key": "system.chip.memory_efficiency", "values": [0.5, 0.7, 0.9]},
    ],
    "keep": {"sigma": False},
}
"""An operator, whose program compiles at once: 1,152 points."""


def points_of(plan: Plan) -> dict[int, dict[str, float]]:
    """Metrics of every point that is kept, by its number."""
    evaluator = Evaluator(plan, mesh_of())
    found = {}
    for part in range(plan.grid.parts):
        rows = evaluator.part(part)
        for i, point in enumerate(rows.point.tolist()):
            values = {field: float(x[i]) for field, x in rows.columns.items()}
            found[point] = values | {"feasible": bool(rows.feasible[i])}
    return found


def planned(raw: dict[str, Any], **more: Any) -> Plan:
    return plan_of(load_sweep(raw | more))


def predicted(plan: Plan, raw: dict[str, Any], point: int) -> Any:
    """What `predict` gives for a point as a scenario."""
    changes = raw.get("set", {}) | changes_of(plan, point)
    return cmx.predict(cmx.load_scenario(raw["scenario"], changes))


def some(rng: np.random.Generator, plan: Plan, count: int) -> list[int]:
    return rng.choice(plan.grid.points, count, replace=False).tolist()
