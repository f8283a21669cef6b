"""Costs and their composition: degree one, no machine inside, every cost by its name."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jobs import JOBS, TRAIN, explain, job, machine_at, on_machine
from test_serve_together import APART, COLOCATED, problem, prompts

import cmxjax as cmx
from cmxjax.machine.chip import Chip
from cmxjax.machine.libraries import CollectiveLibrary, ExpertMode
from cmxjax.machine.machine import Machine
from cmxjax.machine.tiers import Fabric
from cmxjax.serve.generation import decode_workload
from cmxjax.specs.build import build
from cmxjax.specs.files import shipped
from cmxjax.specs.scenario import load_scenario
from cmxjax.step.costs import PARTS, explained
from cmxjax.step.price import Pools, decode_job, prefill_job
from cmxjax.step.serving import served
from cmxjax.step.train_price import train_job, trainer_of
from cmxjax.step.training import trained
from cmxjax.work.chunk import chunk_of
from cmxjax.work.held import holding_of

HARDWARE = (Machine, Chip, Fabric, CollectiveLibrary, ExpertMode)


def composition(inputs, sharpness=None):
    """The priced step of a job and how it composes."""
    system, a, w, layout, theta = inputs
    machine = machine_at(system, theta)
    if w.kind == "train":
        trainer = trainer_of(machine)
        skew, stages = trainer.routing_skew, trainer.stages
        holding = holding_of(a, w, layout, skew, stages, sharpness)
        return trained(train_job(machine, a, w, layout, holding), sharpness)
    make = decode_job if w.kind == "decode" else prefill_job
    return served(make(machine, a, w, layout, sharpness), sharpness).step


@functools.cache
def of_pool(name, role, chunk, sharpness=None):
    """A decode step with prompts that ride along, or with experts apart."""
    p = problem(name)
    machine, layout = p.machine[role], p.layout.pools[role].layout
    work = decode_workload(p.workload, role, jnp.asarray(32.0))
    more = {}
    if chunk:
        more["chunk"] = chunk_of(prompts(p, chunk), layout)
    if "expert" in p.layout.pools:
        more["pools"] = Pools(p.layout.pools["expert"].layout, jnp.asarray(3.0))
    made = decode_job(machine, p.model, work, layout, sharpness, **more)
    return served(made, sharpness).step


STEPS = {
    **{name: functools.partial(composition, job(name)) for name in (*JOBS, *TRAIN)},
    "chunk": functools.partial(of_pool, COLOCATED, "decode", 512.0),
    "apart": functools.partial(of_pool, APART, "attention", 0.0),
}
over_steps = pytest.mark.parametrize("name", STEPS)


@over_steps
@pytest.mark.parametrize("sharpness", [None, 8.0])
def test_a_step_is_homogeneous_of_degree_one_in_its_costs(name, sharpness):
    step = STEPS[name](sharpness=sharpness)
    once, _ = step.compose(step.costs)
    thrice, _ = step.compose(jax.tree.map(lambda cost: 3.0 * cost, step.costs))
    np.testing.assert_allclose(thrice, 3.0 * once, rtol=1e-9)


@over_steps
def test_a_composition_sees_no_machine(name):
    """So nothing with a unit of time can hide in it beside the costs."""
    hardware = lambda x: isinstance(x, HARDWARE)
    known = STEPS[name]().compose.args
    assert not any(map(hardware, jax.tree.leaves(known, is_leaf=hardware)))


@over_steps
def test_shares_sum_to_the_step_with_nothing_left_over(name):
    step = STEPS[name]()
    _, breakdown = explained(step)
    whole, _ = step.compose(step.costs)
    np.testing.assert_allclose(sum(breakdown.values()), whole, rtol=1e-12)


def scenarios() -> list[str]:
    """Shipped scenarios of phases that have steps."""
    phases = {name: load_scenario(name).phase for name in shipped("scenarios")}
    return [n for n, phase in phases.items() if phase in ("decode", "prefill", "train")]


@pytest.mark.parametrize("name", scenarios())
def test_the_table_names_every_cost(name):
    p = build(load_scenario(name), "none")
    found = jax.eval_shape(cmx.explain, *p.inputs).breakdown.names
    assert found
    for public in found:
        component, part = public.split(".")
        assert part in PARTS[component]
    assert len(set(found)) == len(found)


# --- Where nothing overlaps

ALONE = {
    "mla-decode": {"layout__overlapped_microbatches": 1},
    "mla-prefill": {"layout__overlapped_microbatches": 1},
    "gqa-decode": {},
    "dense-train": {"workload__schedule": "1f1b", "layout__pp": 1, "layout__tp": 8},
}


def nothing_hides(system):
    """A machine of which every activity waits for the one before."""

    def exposed(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        if name.endswith("exposed_fraction"):
            return jnp.ones(())
        # beside the transfer of a dispatch its copies are posted, beside a layer the
        # next is launched
        beside = ("dispatch_copy_s", "layer_host_s")
        return jnp.zeros(()) if name.endswith(beside) else leaf

    return jax.tree_util.tree_map_with_path(exposed, system)


@pytest.mark.parametrize("name", ALONE)
def test_busy_times_sum_to_the_step_where_nothing_overlaps(name):
    system, *rest = job(name, **ALONE[name])
    step = composition((nothing_hides(system), *rest))
    whole, _ = step.compose(step.costs)
    _, breakdown = explained(step)
    np.testing.assert_allclose(sum(breakdown.busy.values()), whole, rtol=1e-9)


def test_a_slower_link_is_busier_and_the_rest_is_not():
    inputs = job("mla-decode", layout__overlapped_microbatches=1)
    slow = on_machine(inputs, {"expert_parallel.cann-ep.low_latency.efficiency": 0.5})
    before, after = (explain(*x).busy for x in (inputs, slow))
    changed = {name for name in before if abs(after[name] / before[name] - 1.0) > 1e-9}
    assert changed == {"dispatch.transfer", "combine.transfer"}
