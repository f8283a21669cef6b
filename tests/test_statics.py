"""What programs are keyed on: a closed list, so that names can't creep back."""

from collections import defaultdict
from dataclasses import fields, is_dataclass
from typing import Any

import jax
import pytest
from test_collectives import KINDS

from cmxjax.job.workload import BYTES, Dtypes
from cmxjax.machine.chip import FORMATS
from cmxjax.specs.build import build
from cmxjax.specs.files import shipped
from cmxjax.specs.measurement_file import load_measurements
from cmxjax.specs.scenario import load_scenario

FLAG = {True, False}
FORMAT = set(FORMATS)
STATIC: dict[str, set] = {
    "Tiers.planes": set("0123"),
    "Machine.scale_up_tiers": {1, 2, 3},
    "Engine.partitions_cores": FLAG,
    "Trainer.context": {"ring", "all_to_all"},
    "Trainer.stages": {"even", "with_ends", "by_cost"},
    "Trainer.keeps_working_gradients": FLAG,
    "CollectiveLibrary.algorithms": {"direct", "ring", "striped_ring", "staged", "tree"}
    | {"in_switch"},
    "CollectiveLibrary.pipelined": FLAG,
    "ExpertMode.plane": set("0123") | {""},
    "ExpertMode.deduplicates": FLAG,
    "Architecture.gated": FLAG,
    "Architecture.tied": FLAG,
    "Architecture.biased": FLAG,
    "Experts.has_shared": FLAG,
    "Experts.groups": {1, 8, 64},
    "Experts.topk_groups": {1, 4, 8},
    "Software.low_latency": FLAG,
    "Software.balance": {"uniform", "random", "typical"},
    "Software.dtypes": FORMAT,
    "SystemQuery.dtypes": FORMAT,
    "Operator.operator": {"gemm", "grouped_gemm", "vector", "copy"}
    | {"attention_decode", "attention_prefill"},
    "Operator.latent": FLAG,
    "Operator.causal": FLAG,
    "Operator.dtype": FORMAT,
    "Operator.out_dtype": FORMAT,
    "Collective.collective": {*KINDS, "dispatch", "combine", "read", "write"},
    "Collective.driver": {"vector_cores", "sdma"},
    "Collective.balance": {"uniform", "random", "typical"},
    "Collective.dtype": FORMAT,
    "Train.schedule": {"gpipe", "1f1b", "interleaved", "zero_bubble", "dualpipe"},
    "Train.selective": FLAG,
    "Train.zero": {0, 1, 2, 3},
    "Train.fused_attention": FLAG,
    "Train.context": {"ring", "all_to_all"},
    "Train.flop_convention": {"megatron", "megatron-bridge", "nemo", "dgxc", "causal"},
    "Train.offloads": FLAG,
    "Layout.attention": {"dp", "tp", "sp_tp_sp"},
    "Layout.sequence_parallel": FLAG,
    "Layout.microbatches": {"1", "2", "auto"},
    "Routing.dispatches_shared": FLAG,
}
"""Static fields of what programs take, with their values; `kind`, the tag of a class,
apart. Those of a tuple are those of its entries."""


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
                entries = value if isinstance(value, tuple | Dtypes) else [value]
                found[f"{type(tree).__name__}.{field.name}"] |= set(entries)


def problems() -> list:
    """Every shipped scenario and measured row."""
    made = [build(load_scenario(name), "none") for name in shipped("scenarios")]
    rows = (row for name in shipped("measurements") for row in load_measurements(name))
    return made + [build(row.scenario, "none") for row in rows]


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


def test_formats_are_those_with_a_size():
    assert FORMATS == tuple(BYTES)


def test_shipped_problems_share_their_programs(shipped_problems):
    """A thousand problems on fifteen machines, with all their engines and libraries."""
    structures = {
        (jax.tree.structure(p.inputs), tuple(x.shape for x in jax.tree.leaves(p.inputs)))
        for p in shipped_problems
    }
    assert len(shipped_problems) > 900
    assert len(structures) <= 114
