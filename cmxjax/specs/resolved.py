"""The job as it was understood: its scenario with what it leaves out filled in."""

from collections.abc import Iterator, Mapping

import numpy as np

from ..job.layout import ATTENTION_AXES, AXES, Layout, Pools
from .build import Problem
from .context import SERVES, default, dtype_of_file, dtypes_of, unpacking_of
from .model_load import load_model
from .scenario_file import Scenario, TrainScenario
from .train_build import training_dtypes

PLACED = ("decode", "prefill", "train")

Table = dict[str, object]


def written(scenario: Scenario) -> Table:
    """The keys of a scenario as a file has them, defaults included."""
    raw = scenario.model_dump(mode="json", exclude_none=True)
    for name in ("system", "model"):
        if name in raw:
            base, leaves = raw[name]
            raw[name] = {"base": base, **dict(leaves)} if leaves else base
    return {key: value for key, value in raw.items() if value not in ({}, [])}


def resolved(problem: Problem) -> Table:
    """A scenario that loads to the same job and says all that it takes for granted:
    formats, degrees and where they lie, engine, its caps, and the balance of experts."""
    scenario = problem.scenario
    job = written(scenario)
    phase = scenario.phase
    if phase in (*SERVES, "train"):
        job["engine"] = scenario.engine or default(
            problem.system, "trainer" if phase == "train" else "engine"
        )
        job["dtypes"] = _formats(problem)
    if phase in SERVES:
        engine = problem.system.engines[_engine(problem)]
        job["graphs"] = scenario.graphs or engine.graphs
        caps = ("max_sequences", "max_tokens_per_step", "memory_fraction")
        job["limits"] = {name: float(getattr(engine, name)) for name in caps}
    mixture = problem.model is not None and problem.model.experts is not None
    if mixture:
        routing = {"balance": scenario.routing.balance or "typical"}
        job["routing"] = {**_table(job.get("routing")), **routing}
    tiers = len(problem.system.tier_order)
    if isinstance(problem.layout, Layout) and phase in PLACED:
        job["layout"] = _placed(job.get("layout"), problem.layout, tiers, mixture)
    if isinstance(problem.layout, Pools):
        listed = job["pools"]
        assert isinstance(listed, list)
        job["pools"] = [_pool(pool, problem.layout, tiers, mixture) for pool in listed]
    return {key: value for key, value in job.items() if value not in ("", {})}


def _table(value: object) -> Table:
    return dict(value) if isinstance(value, Mapping) else {}


def _engine(problem: Problem) -> str:
    """The entry of the engine that the job runs on."""
    choices = problem.choices
    one = next(iter(choices.values())) if isinstance(choices, Mapping) else choices
    return one.engine


def _formats(problem: Problem) -> Table:
    """Formats of tensors. Weights stay as the model's file stores each module, where it
    says so and the job doesn't."""
    scenario, system = problem.scenario, problem.system
    given = scenario.dtypes.model_dump(exclude_none=True)
    if isinstance(scenario, TrainScenario):
        return given | training_dtypes(scenario, system)._asdict()
    model = load_model(scenario.model)  # pyright: ignore
    formats: Table = dtypes_of(scenario, dtype_of_file(model, system))._asdict()
    for name in ("master", "gradient", "state"):  # of training
        formats.pop(name)
    if not any(getattr(x, "indexer", None) for x in model.file.mixer_specs.values()):
        formats.pop("indexer")
    if model.file.weights and scenario.dtypes.weight is None:
        formats.pop("weight")
    formats["unpacking"] = unpacking_of(scenario, system, str(formats["activation"]))
    return {k: v for k, v in (given | formats).items() if v != {}}


def _placed(given: object, layout: Layout, tiers: int, mixture: bool) -> Table:
    """A layout's keys with all degrees, and how far each axis splits within each tier."""
    axes = AXES if mixture else ATTENTION_AXES
    factor = np.asarray(layout.factor)[:, :tiers]
    rows = dict(zip(AXES, factor, strict=True))
    degrees: Table = {axis: round(float(np.prod(rows[axis]))) for axis in axes}
    devices = round(float(np.prod([np.prod(rows[axis]) for axis in ATTENTION_AXES])))
    known = _table(given) | degrees
    known |= {"devices": devices, "attention": layout.attention}
    if (factor == np.round(factor)).all():
        split = {axis: row.astype(int).tolist() for axis, row in rows.items()}
        known["placement"] = {a: row for a, row in split.items() if max(row) > 1}
        known.pop("order", None)
    return {key: value for key, value in known.items() if value != {}}


def _pool(pool: Table, pools: Pools, tiers: int, mixture: bool) -> Table:
    role = pool["role"]
    if role == "cache":
        return {key: value for key, value in pool.items() if key != "layout"}
    placed = pools.pools[str(role)].layout
    whole = mixture and role not in ("attention", "encode")
    return pool | {"layout": _placed(pool.get("layout"), placed, tiers, whole)}


def assumed(problem: Problem) -> list[str]:
    """Keys that no source states: those that the scenario lists, and those that it leaves
    out."""
    listed = problem.scenario.assumed
    return [*listed, *(key for key in unstated(problem) if key not in listed)]


def unstated(problem: Problem) -> list[str]:
    """Keys of the resolved job that the scenario leaves out, but for degrees that follow
    from others."""
    stated = problem.scenario.model_dump(
        mode="json", exclude_unset=True, exclude_none=True
    )
    known = {*_paths(stated)}
    found = dict.fromkeys(_paths(resolved(problem)))
    return [k for k in found if k not in known and k.split(".")[-1] not in _FOLLOW]


_FOLLOW = ("devices", *AXES)


def _paths(node: object, above: str = "") -> Iterator[str]:
    """Dotted keys of all values."""
    items = enumerate(node) if isinstance(node, list) else _table(node).items()
    whole = above.endswith("placement.")  # its axes follow from one another
    nested = (
        not whole
        and isinstance(node, dict)
        or (isinstance(node, list) and any(isinstance(item, dict) for item in node))
    )
    if not nested:
        yield above.removesuffix(".")
        return
    for key, item in items:
        yield from _paths(item, f"{above}{key}.")
