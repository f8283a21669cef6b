"""What programs are keyed on: a closed list, so that names can't creep back."""

from collections import defaultdict
from dataclasses import fields, is_dataclass
from typing import Any

import jax
import pytest
from test_collectives import KINDS

from cmxjax.model.architecture import Kind
from cmxjax.specs.build import build
from cmxjax.specs.files import shipped
from cmxjax.specs.measurement_file import load_measurements
from cmxjax.specs.scenario import load_scenario

FLAG = {True, False}
STATIC: dict[str, set] = {
    "Engine.partitions_cores": FLAG,
    "Engine.graphs": {""},
    "Engine.prefill_graphs": {""},
    "Engine.exchange": {()},
    "Engine.release_of": {""},
    "Engine.since": {""},
    "Trainer.context": {""},
    "Trainer.gradient": {""},
    "Trainer.release_of": {""},
    "Trainer.since": {""},
    "Trainer.gathers": {""},
    "Trainer.exchange": {""},
    "ExpertMode.plane": {""},
    "Architecture.kinds": {Kind((0,), (0,)), Kind((0,), (1,))}
    | {Kind((1,), (0,)), Kind((1,), (1,)), Kind((2,), (0,))}  # unlike mixers
    | {Kind((0,), ()), Kind((1,), ()), Kind((), (0,))},  # layers of one half
    "Architecture.draft": {(0,), (1,), (2,), (), False},
    "Indexer.scans": FLAG,
    "GroupedQuery.projects_values": {True},
    "Experts.has_shared": FLAG,
    "Operator.operator": {"gemm", "grouped_gemm", "vector", "copy", "index"}
    | {"attention_decode", "attention_prefill"},
    "Operator.latent": FLAG,
    "Operator.causal": FLAG,
    "Collective.collective": {*KINDS, "dispatch", "combine", "read", "write"},
    "Collective.driver": {"vector_cores", "sdma"},
    "Software.unpacks": FLAG,
    "Train.schedule": {"gpipe", "1f1b", "zero_bubble", "dualpipe"},
    "Train.gathers": {"striped", "one_port", "by_owner"},
    "Train.fused_attention": FLAG,
    "Train.quantized": FLAG,
    "Train.context": {"ring", "all_to_all"},
    "Train.flop_convention": {"megatron", "megatron-bridge", "nemo", "dgxc", "causal"}
    | {"bloom"},
    "Train.offloads": FLAG,
    "Images.splits_heads": FLAG,
    "Layout.attention": {"dp", "tp", "sp_tp_sp"},
    "Layout.microbatches": {"1", "2", "auto"},
    "Routing.dispatches_shared": FLAG,
}
"""Static fields of what programs take, with their values; `kind`, the tag of a class,
apart. Those of a tuple are those of its entries. Two more are no fields: how many tiers
there are, and which algorithms have a switch; see `machine/pad.py`.

What is a setting of a layout stays static where a mask takes more than 15 % of a rate:
attention over a group of one costs 9 % of decode and 30 % of its gradient. Reductions
beside gathers and scatters cost up to 20 % of training, but a search over stages of ZeRO
and sequence parallelism would need four programs."""


def statics(tree: Any, found: dict[str, set]) -> None:
    """Adds the static values of a tree by class and field."""
    if isinstance(tree, dict | list | tuple):
        for node in tree.values() if isinstance(tree, dict) else tree:
            statics(node, found)
    elif is_dataclass(tree):
        for field in fields(tree):
            value = getattr(tree, field.name)
            if field.metadata.get("pytree_node", True):
                statics(value, found)
            elif field.name != "kind":
                entries = value if isinstance(value, tuple) else [value]
                found[f"{type(tree).__name__}.{field.name}"] |= set(entries)


def _ways(change: tuple[str, Any]) -> bool:
    """Whether a changed key is more than a size."""
    key, value = change
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return not number or key.startswith(("layout.", "routing.", "model."))


def problems() -> list:
    """Every shipped scenario, and of the measured rows of each one for each way to split,
    store and run it."""
    made = [build(load_scenario(name), "none") for name in shipped("scenarios")]
    rows = {
        (name, row.spec.scenario, *map(repr, filter(_ways, row.spec.set.items()))): row
        for name in shipped("measurements")
        for row in load_measurements(name)
    }
    return made + [build(row.scenario, "none") for row in rows.values()]


@pytest.fixture(scope="module")
def shipped_problems() -> list:
    return problems()


def test_no_name_is_static(shipped_problems):
    found: dict[str, set] = defaultdict(set)
    for problem in shipped_problems:
        statics(problem.inputs, found)
    assert found.keys() == STATIC.keys()
    strange = {name: values - STATIC[name] for name, values in found.items()}
    assert {name: values for name, values in strange.items() if values} == {}


def test_shipped_problems_share_their_programs(shipped_problems):
    """Some machines, with all their engines and libraries."""
    structures = {
        (jax.tree.structure(p.inputs), tuple(x.shape for x in jax.tree.leaves(p.inputs)))
        for p in shipped_problems
        if getattr(p.workload, "images", None) is None
    }
    assert len(shipped_problems) > 600
    # two of them with a ring or a tree alone; one more for each kind of job with images;
    # those that train differ by mixers, mixture, format and schedule; pools that draft by
    # mixers, splits and the number of drafts
    assert len(structures) <= 137
