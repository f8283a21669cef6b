"""Machines, models and layouts side by side in one program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jobs import all_finite, in_common_shape

import cmxjax as cmx
from cmxjax.job.stack import ALL_RANKS
from cmxjax.machine.pad import with_ways
from cmxjax.specs.build import build
from cmxjax.specs.scenario import load_scenario, validate_scenario
from cmxjax.work.held import data_ranks

EIGHT = (
    *("gb200-nvl72", "dgx-h100", "dgx-a100-80g", "hgx-h800"),
    *("hgx-h200", "hgx-h20", "atlas-800-a2", "cloudmatrix384"),
)
ENGINES = {"cloudmatrix384": "vllm-ascend"}


def decode(system, **layout):
    """Llama 3.1 70B; the only split of cores is that of CloudMatrix-Infer."""
    raw = {
        "system": system,
        "model": "llama-3.1-70b",
        "phase": "decode",
        "engine": ENGINES.get(system),
        "workload": {"sequences_per_device": 16, "kv_tokens": 4096},
        "layout": {"devices": 8, "tp": 8} | layout,
    }
    raw = {key: value for key, value in raw.items() if value is not None}
    return build(validate_scenario(raw, "test"), "none")


@pytest.fixture(scope="module")
def eight():
    return [decode(system) for system in EIGHT]


def tpot(machine, model, workload, layout):
    m = cmx.metrics(machine, model, workload, layout)
    return jnp.stack([m.tpot_s, m.memory_bytes, m.placement_excess])


def placements(problem, count):
    """Layouts of a machine whose tensor groups spread in many ways."""
    rng = np.random.default_rng(3)
    whole = np.asarray(problem.layout.factor)
    powers = rng.uniform(0.0, 1.0, (count, 1, whole.shape[1]))
    return whole[None] ** powers


@pytest.mark.slow
def test_eight_machines_by_a_thousand_layouts_are_one_call(eight):
    machines = cmx.stack([p.machine for p in eight])
    tiers = machines.tiers.size.shape[-1]
    layouts = cmx.stack([p.layout for p in eight], tiers=tiers)
    rows = [placements(p, 1000) for p in eight]
    wide = [np.ones((1000, 7, tiers)) for _ in rows]
    for own, padded in zip(rows, wide, strict=True):
        padded[..., : own.shape[-1]] = own
    layouts = layouts.replace(factor=jnp.asarray(np.stack(wide)))
    _, model, workload, _ = eight[0].inputs

    def of_machine(machine, layout, factors):
        def one(factor):
            return tpot(machine, model, workload, layout.replace(factor=factor))

        return jax.vmap(one)(factors)

    still = layouts.replace(factor=layouts.factor[:, 0])
    found = jax.jit(jax.vmap(of_machine))(machines, still, layouts.factor)
    assert found.shape == (8, 1000, 3)
    for p, factors, got in zip(eight, rows, found, strict=True):

        def one(factor, p=p):
            return tpot(*p.inputs[:3], p.layout.replace(factor=factor))

        alone = jax.jit(jax.vmap(one))(jnp.asarray(factors))
        np.testing.assert_allclose(got, alone, rtol=1e-12, atol=1e-15)


def test_machines_differ_in_a_stack(eight):
    machines = cmx.stack([p.machine for p in eight])
    layouts = cmx.stack([p.layout for p in eight])
    _, model, workload, _ = eight[0].inputs
    args = model, workload
    times = jax.vmap(lambda m, layout: tpot(m, *args, layout)[0])(machines, layouts)
    # two Ascend machines are bound by the launches of the same engine
    assert len(set(np.round(np.asarray(times), 9))) >= 7


def test_gradients_of_a_stack_are_finite(eight):
    machines = cmx.stack([p.machine for p in eight])
    layouts = cmx.stack([p.layout for p in eight])
    _, model, workload, _ = eight[0].inputs

    def total(machines, layouts):
        each = jax.vmap(lambda m, layout: tpot(m, model, workload, layout)[0])
        return jnp.log(each(machines, layouts)).sum()

    slopes = jax.jit(jax.grad(total, argnums=(0, 1)))(machines, layouts)
    assert all_finite(slopes)


@pytest.mark.parametrize(
    "name", ["gpt-3-175b-train-dgx-a100", "llama-3.1-70b-decode-gb200-nvl72"]
)
def test_the_common_shape_changes_no_number(name):
    problem = build(cmx.load_scenario(name), "none")
    one = cmx.metrics(*problem.inputs)
    other = cmx.metrics(*in_common_shape(problem))
    for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


@pytest.mark.parametrize("streams", [1, 2])
def test_switches_for_other_ways_change_no_number(streams):
    """Of two streams either: an exchange beside compute stays beside it."""
    changes = {"layout.overlapped_microbatches": streams}
    p = build(load_scenario("deepseek-r1-prefill-cloudmatrix384", changes))
    machine, *job = p.inputs
    own, filled = (cmx.metrics(m, *job) for m in (machine, with_ways(machine)))
    assert float(filled.ttft_s) == pytest.approx(float(own.ttft_s), rel=1e-12)


def test_models_stack(eight):
    small = build(
        validate_scenario(
            {
                "system": "gb200-nvl72",
                "model": "llama-3.1-8b",
                "phase": "decode",
                "workload": {"sequences_per_device": 16, "kv_tokens": 4096},
                "layout": {"devices": 8, "tp": 8},
            },
            "test",
        ),
        "none",
    )
    machine, large, workload, layout = eight[0].inputs
    models = cmx.stack([large, small.model])
    found = jax.vmap(lambda model: tpot(machine, model, workload, layout))(models)
    for model, got in zip((large, small.model), found, strict=True):
        expected = tpot(machine, model, workload, layout)
        np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_what_keeps_machines_apart_is_named(eight):
    split = build(cmx.load_scenario("deepseek-r1-decode-cloudmatrix384"), "none")
    with pytest.raises(ValueError, match=r"0 and 1 .*runtime.partitions_cores"):
        cmx.stack([eight[0].machine, split.machine])
    trainer = build(cmx.load_scenario("gpt-3-175b-train-dgx-a100"), "none")
    with pytest.raises(ValueError, match=r"runtime \(Engine, Trainer\)"):
        cmx.stack([eight[0].machine, trainer.machine])
    with pytest.raises(ValueError, match="give one at least"):
        cmx.stack([])


def test_acceptances_of_several_lengths_stack():
    base = {
        "system": "gb200-nvl72",
        "model": "deepseek-r1",
        "phase": "decode",
        "layout": {"devices": 8, "dp": 8, "ep": 8},
    }
    works = []
    for drafts, acceptance in ((1, [0.7]), (3, [0.7, 0.6, 0.5])):
        work = {"sequences_per_device": 8, "kv_tokens": 4096}
        work |= {"draft_tokens": drafts, "acceptance": acceptance}
        works.append(build(validate_scenario(base | {"workload": work}, "test"), "none"))
    machine, model, _, layout = works[0].inputs
    both = cmx.stack([p.workload for p in works])
    found = jax.vmap(lambda w: tpot(machine, model, w, layout))(both)
    for p, got in zip(works, found, strict=True):
        expected = tpot(machine, model, p.workload, layout)
        np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_layouts_with_and_without_a_shared_head_stack():
    raw = {
        "system": "gb200-nvl72",
        "model": "llama-3.1-70b",
        "phase": "decode",
        "workload": {"sequences_per_device": 8, "kv_tokens": 4096},
    }
    problems = [
        build(validate_scenario(raw | {"layout": {"dp": 8, "head": n}}, "test"), "none")
        for n in (1, 4)
    ]
    assert problems[0].placed.head is None
    machine, model, work, _ = problems[0].inputs
    both = cmx.stack([p.placed for p in problems])
    found = jax.vmap(lambda layout: tpot(machine, model, work, layout))(both)
    for p, got in zip(problems, found, strict=True):
        expected = tpot(machine, model, work, p.placed)
        np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_training_with_and_without_groups_of_zero_stacks():
    plain = build(load_scenario("deepseek-v3-train-hgx-h800"), "none")
    changes = {"workload.zero_group": 8}
    grouped = build(load_scenario("deepseek-v3-train-hgx-h800", changes), "none")
    both = cmx.stack([plain.workload, grouped.workload])
    assert both.zero_group.tolist() == [ALL_RANKS, 8.0]
    ranks, _ = data_ranks(both.replace(zero_group=both.zero_group[0]), plain.placed)
    assert float(ranks) == float(data_ranks(plain.workload, plain.placed)[0])
