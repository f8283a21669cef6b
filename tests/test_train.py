"""A training step: work, memory, communication and metrics against hand counts."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jobs import all_finite, explain, is_latency, is_rate, machine_at, metrics, scaled
from jobs import inputs_of as whole
from test_budgets import EQUATIONS, equations

from cmxjax.job.layout import AXES, degree
from cmxjax.model.architecture import MOST_LAYERS, total_parameters
from cmxjax.model.flops import flop_per_token
from cmxjax.parameters import is_fraction, leaf_paths
from cmxjax.phases.training import EXPOSED
from cmxjax.specs.build import build
from cmxjax.specs.errors import SpecError
from cmxjax.specs.scenario import validate_scenario, with_overrides
from cmxjax.step.train_price import trainer_of
from cmxjax.work.held import holding_of
from cmxjax.work.stages import end_spans
from cmxjax.work.table import matrix_flop, sizes_by_name
from cmxjax.work.training import declared, tabulate_passes, train_rows

WAITS = {part for parts in EXPOSED.values() for part in parts}

DENSE: dict[str, Any] = {
    "system": "dgx-a100-80g",
    "model": "megatron-22b",
    "phase": "train",
    "workload": {
        "global_batch": 64,
        "micro_batch": 2,
        "sequence_tokens": 2048,
        "recompute": "selective",
        "fused_attention": False,
        "zero": 1,
    },
    "layout": {"devices": 64, "tp": 4, "pp": 4, "sequence_parallel": True},
}
MIXTURE: dict[str, Any] = {
    "system": "hgx-h800",
    "model": "deepseek-v3",
    "phase": "train",
    "workload": {
        "global_batch": 1024,
        "sequence_tokens": 4096,
        "schedule": "dualpipe",
        "precision": "fp8",
    },
    "layout": {"devices": 512, "pp": 8, "ep": 32, "overlapped_microbatches": 2},
}
EVERYTHING: dict[str, Any] = {
    "system": "cloudmatrix384",
    "model": "pangu-ultra-moe-718b",
    "phase": "train",
    "workload": {
        "global_batch": 1024,
        "micro_batch": 2,
        "sequence_tokens": 8192,
        "recompute": 0.4,
        "offload": {"activations": 0.5, "weights": 0.1, "optimizer": 0.5},
    },
    "layout": {
        "devices": 1024,
        "tp": 4,
        "cp": 2,
        "pp": 8,
        "vpp": 2,
        "ep": 16,
        "etp": 2,
        "sequence_parallel": True,
    },
}
JOBS = {"dense": DENSE, "mixture": MIXTURE, "everything": EVERYTHING}


def made(raw: dict[str, Any], **changes: Any):
    dotted = {key.replace("__", "."): value for key, value in changes.items()}
    return build(validate_scenario(with_overrides(raw, dotted), "test"), "none", "test")


def inputs_of(raw: dict[str, Any], **changes: Any):
    p = made(raw, **changes)
    return whole(p)


@functools.cache
def job(name: str):
    return inputs_of(JOBS[name])


def predict(raw: dict[str, Any], **changes: Any):
    return metrics(*inputs_of(raw, **changes))


def holding_at(raw: dict[str, Any], **changes: Any):
    """What a device of the job holds."""
    system, a, w, layout, theta = inputs_of(raw, **changes)
    trainer = trainer_of(machine_at(system, theta))
    return holding_of(a, w, layout, trainer.routing_skew, trainer.stages, None)


# --- Work


def gpt_flop(batch, tokens, layers, hidden, vocabulary) -> float:
    """72 B s L h^2 (1 + s / 6h + V / 12hL), Narayanan et al., arXiv 2104.04473, eq. 3,
    without recompute."""
    tail = 1.0 + tokens / (6.0 * hidden) + vocabulary / (12.0 * hidden * layers)
    return 72.0 * batch * tokens * layers * hidden**2 * tail


def test_model_flop_are_those_of_the_formula_of_megatron():
    a = job("dense")[1]
    expected = gpt_flop(1.0, 2048.0, 48.0, 6144.0, 51200.0) / 2048.0
    got = float(flop_per_token(a, jnp.asarray(2048.0), "megatron"))
    assert got == pytest.approx(expected, rel=2e-4)  # biases count here


@pytest.mark.parametrize(
    ("model", "tokens", "convention", "gflop"),
    [
        # training_notes: Megatron-Bridge halves attention, NeMo and dgxc do not
        ("llama-3.1-8b", 8192.0, "megatron-bridge", 51.5),
        ("llama-3.1-70b", 8192.0, "megatron-bridge", 449.2),
        ("llama-3.1-405b", 8192.0, "megatron-bridge", 2524.0),
        ("deepseek-v3", 4096.0, "megatron-bridge", 260.0),
        ("qwen3-235b-a22b", 4096.0, "megatron-bridge", 148.0),
        ("llama-3.1-8b", 8192.0, "nemo", 57.9),
        ("llama-3.1-70b", 8192.0, "nemo", 481.6),
        ("gpt-3-175b", 2048.0, "nemo", 1076.0),
        ("llama-3.1-405b", 8192.0, "dgxc", 21702.0 / 8.192),
    ],
)
def test_flop_conventions_are_the_ones_of_their_sources(model, tokens, convention, gflop):
    from cmxjax.model.flops import convention_named
    from cmxjax.specs.model_load import load_model
    from cmxjax.specs.system_load import Reference

    a = load_model(Reference(model)).architecture
    got = flop_per_token(a, jnp.asarray(tokens), convention_named(convention))
    assert float(got) == pytest.approx(gflop * 1e9, rel=0.012)


def tables(name: str):
    _, a, w, layout, _ = job(name)
    rows = train_rows(a, w, layout)
    one = jnp.ones(())
    rows |= {"expert_rows": 64.0 * one, "experts": 4.0 * one, "copies": one}
    sizes, how = w.software.sizes, (w.fused_attention, w.quantized)
    found = declared(a, sizes, w.sequence_tokens, *how)
    named = sizes_by_name(a, sizes)
    return found, tabulate_passes([op for _, op in found], rows, named)


def work_of(passes):
    """FLOP of the operators of each pass."""
    return [*matrix_flop(passes.inputs), matrix_flop(passes.weights)]


@pytest.mark.parametrize("name", JOBS)
def test_both_gradients_of_a_gemm_are_as_much_work_as_the_gemm(name):
    found, passes = tables(name)
    count = len(passes.weights.names)
    forward, backward, weight = work_of(passes)
    np.testing.assert_allclose(backward[:count], forward[:count], rtol=1e-12)
    np.testing.assert_allclose(weight, forward[:count], rtol=1e-12)
    assert all(op.kind != "gemm" for _, op in found[count:])


def test_gradients_have_the_transposed_shapes():
    _, passes = tables("dense")
    i = passes.inputs.names.index("dense up")
    m, n, k = 2.0 * 2048.0, 24576.0 / 4.0, 6144.0
    shapes = [
        np.stack([table.rows, table.columns, table.depth])[..., i] for table in passes
    ]
    assert shapes[0] == pytest.approx(np.array([[m, m], [n, k], [k, n]]))
    assert shapes[1] == pytest.approx(np.array([k, n, m]))


def test_fused_attention_backward_is_five_products_for_two():
    found, passes = tables("mixture")
    i = [op.kind for _, op in found].index("attention")
    forward, backward, _ = work_of(passes)
    assert float(backward[i] / forward[i]) == pytest.approx(2.5)


def test_a_step_without_recompute_is_three_times_its_forward_work():
    _, a, w, layout, _ = job("dense")
    found, passes = tables("dense")
    work = {part: 0.0 for part, _ in found}
    for flops in work_of(passes):
        for (part, _), flop in zip(found, flops):
            work[part] += float(flop)
    per_layer = gpt_flop(2.0, 2048.0, 48.0, 6144.0, 0.0) / 48.0 / 4.0
    layer = work["mixer.0"] + work["core.0"] + work["half.0"]
    assert layer == pytest.approx(per_layer, rel=1e-9)
    head = 6.0 * 2.0 * 2048.0 * 51200.0 * 6144.0 / 4.0
    assert work["head"] == pytest.approx(head, rel=1e-9)


# --- Memory


def korthikanti(batch, tokens, hidden, heads, tp, parallel, selective) -> float:
    """Bytes a layer keeps, arXiv 2205.05198, table 2."""
    stream = 10.0 / (tp if parallel else 1.0)
    square = 0.0 if selective else 5.0 * heads * tokens / (hidden * tp)
    return tokens * batch * hidden * (stream + 24.0 / tp + square)


@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize("recompute", ["none", "selective"])
def test_activations_of_a_layer_are_those_of_korthikanti(parallel, recompute):
    changes = {"layout.sequence_parallel": parallel, "workload.recompute": recompute}
    expected = korthikanti(2.0, 2048.0, 6144.0, 64.0, 4.0, parallel, recompute != "none")
    holding = holding_at(DENSE, **changes)
    assert float(holding.activations.whole[0]) == pytest.approx(expected)


def test_full_recompute_keeps_the_inputs_of_layers_and_one_layer():
    plain, full = (predict(DENSE, workload__recompute=r) for r in ("none", "full"))
    layer = holding_at(DENSE, workload__recompute="none").activations
    assert float(plain.memory_activations_bytes) == pytest.approx(
        48.0 * float(layer.whole[0])
    )
    kept = 48.0 * 2.0 * 2048.0 * 2.0 * 6144.0 / 4.0 + float(layer.whole[0])
    assert float(full.memory_activations_bytes) == pytest.approx(kept)


@pytest.mark.parametrize(
    ("zero", "per_weight"),
    [(0, (2, 4, 12, 1, 1, 1)), (1, (2, 4, 12, 1, 1, 4)), (2, (2, 4, 12, 1, 4, 4))]
    + [(3, (2, 4, 12, 4, 4, 4))],
)
def test_states_are_divided_as_zero_says(zero, per_weight):
    # Rajbhandari et al., arXiv 1910.02054, section 5: 2 + 4 + 12 bytes with fp32
    # gradients; dp is 4
    m = predict(DENSE, workload__zero=zero)
    holding = holding_at(DENSE, workload__zero=zero)
    held = float(sum(holding.weights)[0])
    got = m.memory_weights_bytes, m.memory_gradients_bytes, m.memory_optimizer_bytes
    for value, size, ranks in zip(got, per_weight[:3], per_weight[3:]):
        assert float(value) == pytest.approx(held * size / ranks)


def test_stages_together_hold_the_model():
    listed = {"layout.stages": [12] * 4}
    a = made(DENSE, **listed).model
    held = sum(holding_at(DENSE, **listed).weights).sum() * 4.0
    # a tied head on another stage is a copy of the embedding; the final norm is left out
    extra = 51200.0 * 6144.0
    # norms and positions are on every device of a tp group
    copies = (4.0 * 48.0 * 6144.0 + 2048.0 * 6144.0) * 3.0
    expected = float(total_parameters(a)) + extra + copies
    assert float(held) == pytest.approx(expected, rel=3e-4)


def test_the_first_stage_holds_most_activations_and_the_last_one_the_logits():
    m = predict(DENSE, workload__recompute="none")
    assert float(m.memory_bytes) == float(m.memory_first_stage_bytes)
    assert float(m.memory_last_stage_bytes) < float(m.memory_first_stage_bytes)
    small = predict(DENSE, model__vocabulary=5.12e6, workload__recompute="full")
    assert float(small.memory_bytes) == float(small.memory_last_stage_bytes)


def test_offload_moves_state_out_and_takes_time():
    plain = predict(EVERYTHING, workload__offload={})
    moved = predict(EVERYTHING)
    assert float(moved.memory_bytes) < float(plain.memory_bytes)
    assert float(moved.step_time_s) > float(plain.step_time_s)


# --- Time


def test_listed_stages_that_are_even_are_the_even_ones():
    even = predict(DENSE)
    listed = predict(DENSE, **{"layout.stages": [12, 12, 12, 12]})
    for field in ("step_time_s", "bubble", "memory_bytes", "memory_last_stage_bytes"):
        assert float(getattr(listed, field)) == pytest.approx(float(getattr(even, field)))


@pytest.mark.parametrize(
    ("ends", "pp", "held"),
    [
        ((0.0, 0.0), 12, [6.0, 6.0, 4.0]),
        ((1.0, 1.0), 12, [5.0, 6.0, 5.0]),
        ((0.0, 4.0), 12, [7.0, 6.1, 2.0]),
        ((0.0, 9.0), 12, [7.0, 6.3, 0.0]),
        ((0.0, 0.0), 35, [2.0, 2.0, 2.0]),
        ((1.0, 1.0), 35, [2.0, 67.0 / 33.0, 1.0]),
        ((0.0, 0.0), 32, [3.0, 65.0 / 30.0, 2.0]),
        ((1.0, 1.0), 70, [1.0, 1.0, 1.0]),
        ((1.0, 1.0), 1, [70.0, 70.0, 70.0]),
        ((1.0, 1.0), 2, [35.0, 35.0, 35.0]),
    ],
)
def test_layers_spread_over_stages_by_rule(ends, pp, held):
    _, a, _, layout, _ = job("dense")
    depth = jnp.minimum(jnp.arange(MOST_LAYERS + 1.0), 70.0)
    a = a.replace(order=depth[None])
    axis = AXES.index("pp")
    factor = layout.factor.at[axis].set(1.0).at[axis, -1].set(pp)
    span = end_spans(a, layout.replace(factor=factor), ends, None)
    np.testing.assert_allclose(sum(span.layers), held, atol=1e-9)
    assert held[0] + (pp - 2) * held[1] + held[2] == pytest.approx(70.0) or pp < 2


def test_no_stage_is_empty_and_the_fullest_holds_whole_layers():
    """48 layers on 32 stages: some of those between the ends have two, not 1.5."""
    even = {"layout.pp": 32, "layout.devices": 256}
    plain = predict(DENSE, **even)
    listed = predict(DENSE, **even, **{"layout.stages": [2, *[2, 1] * 15, 1]})
    for field in ("memory_bytes", "memory_last_stage_bytes"):
        found, expected = float(getattr(plain, field)), float(getattr(listed, field))
        assert found == pytest.approx(expected, rel=1e-6), field
    found, expected = float(plain.step_time_s), float(listed.step_time_s)
    assert found == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize(("pp", "stages"), [(8, [8] * 7 + [5]), (16, [4] * 15 + [1])])
def test_the_last_stage_holds_what_the_others_leave(pp, stages):
    # 61 layers in whole ones: the stage with the head and the draft module has fewer
    plain = predict(MIXTURE, layout__pp=pp)
    listed = predict(MIXTURE, **{"layout.pp": pp, "layout.stages": stages})
    for field in ("step_time_s", "bubble", "memory_bytes", "memory_last_stage_bytes"):
        found, expected = float(getattr(plain, field)), float(getattr(listed, field))
        assert found == pytest.approx(expected, rel=1e-6), field


def test_relieving_the_stage_with_the_head_is_faster():
    even = predict(DENSE, model__vocabulary=256000)
    relieved = predict(
        DENSE, model__vocabulary=256000, **{"layout.stages": [13, 13, 13, 9]}
    )
    assert float(relieved.step_time_s) < float(even.step_time_s)


FASTER = [
    ({"workload__recompute": "full"}, {"workload__recompute": "selective"}),
    ({"workload__recompute": 0.6}, {"workload__recompute": 0.2}),
    ({"layout__sequence_parallel": False}, {"layout__sequence_parallel": True}),
    ({"workload__fused_attention": False}, {"workload__fused_attention": True}),
    ({"workload__schedule": "gpipe"}, {"workload__schedule": "zero_bubble"}),
    ({"workload__schedule": "1f1b"}, {"layout__vpp": 3}),
    ({"workload__zero": 3}, {"workload__zero": 1}),
    ({"workload__fabric": "jean-zay"}, {}),
]


@pytest.mark.parametrize(("slow", "fast"), FASTER, ids=lambda x: "-".join(x) or "none")
def test_what_should_be_faster_is(slow, fast):
    first, second = predict(DENSE, **slow), predict(DENSE, **fast)
    assert float(second.step_time_s) < float(first.step_time_s)


def test_the_bubble_shrinks_with_more_microbatches():
    few, many = predict(DENSE), predict(DENSE, workload__global_batch=512)
    assert float(many.bubble) < float(few.bubble)
    assert float(many.mfu) > float(few.mfu)
    assert float(few.microbatches) == 8.0


def test_metrics_of_rate_fit_together():
    m = predict(DENSE)
    tokens = 64.0 * 2048.0 / float(m.step_time_s)
    assert float(m.tokens_per_s) == pytest.approx(tokens)
    assert float(m.tokens_per_s_per_device) == pytest.approx(tokens / 64.0)
    assert float(m.samples_per_s) == pytest.approx(tokens / 2048.0)
    rate = tokens * float(m.flop_per_token) / 64.0
    assert float(m.flop_per_s_per_device) == pytest.approx(rate)
    assert float(m.mfu) == pytest.approx(rate / 312e12)
    assert float(m.mfu) < float(m.hfu) < 1.0
    wall = 1e12 / tokens / float(m.goodput)
    assert float(m.trillion_tokens_time_s) == pytest.approx(wall)
    assert float(m.energy_per_token_j) == pytest.approx(float(m.power_w) / tokens)


def test_hardware_utilization_counts_what_runs_again():
    # Korthikanti et al., table 5: MFU / HFU of 22B with selective recompute 41.5 / 43.7
    m = predict(DENSE)
    assert float(m.hfu / m.mfu) == pytest.approx(43.7 / 41.5, abs=0.04)
    # of the 6 N FLOP of layers a third runs again, of the head none
    _, a, w, _, _ = inputs_of(DENSE)
    total = float(flop_per_token(a, w.sequence_tokens, "megatron"))
    head = 6.0 * 51200.0 * 6144.0
    full = predict(DENSE, workload__recompute="full")
    expected = 1.0 + (1.0 - head / total) / 3.0
    assert float(full.hfu / full.mfu) == pytest.approx(expected)
    # and where the convention has it among model FLOP, it is not counted twice
    counted = predict(
        DENSE, workload__recompute="full", workload__flop_convention="bloom"
    )
    assert float(counted.hfu) == pytest.approx(float(full.hfu))


@pytest.mark.parametrize(
    "name",
    ["dense", *(pytest.param(n, marks=pytest.mark.slow) for n in list(JOBS)[1:])],
)
def test_shares_sum_to_the_step_and_hardly_any_is_negative(name):
    """DualPipe's first stage isn't the slowest: what it computes longer hides gradients
    and does not hold up the others, so the dense layers, all there, save a little."""
    least = -0.005 if name == "mixture" else -1e-12
    m = explain(*job(name))
    shares = {key: float(value) for key, value in m.breakdown.items()}
    assert sum(shares.values()) == pytest.approx(float(m.step_time_s), rel=1e-10)
    assert min(shares.values()) >= least * float(m.step_time_s)
    waits = [float(getattr(m, name)) for name in EXPOSED]
    busy = sum(float(x) for key, x in m.busy.items() if key.split(".")[0] in WAITS)
    assert 0.0 < sum(waits) <= min(busy, float(m.step_time_s))


def test_an_axis_of_one_rank_has_no_exposed_communication():
    m = explain(*job("dense"))
    one = {
        axis: degree(job("dense")[3], axis) == 1.0 for axis in ("tp", "cp", "dp", "pp")
    }
    for axis, alone in one.items():
        assert (float(getattr(m, f"exposed_{axis}_time_s")) == 0.0) == bool(alone)


def test_a_job_on_several_nodes_waits_for_a_host_that_issues_slowly():
    system, a, w, layout, theta = job("dense")
    trainer = system.trainers[theta.choices.trainer]
    plain = float(metrics(system, a, w, layout, theta).layer_time_s)

    def layer_s(host_s):
        slow = trainer.replace(tensor_host_s=jnp.asarray(host_s))
        changed = system.replace(trainers=system.trainers | {theta.choices.trainer: slow})
        return float(metrics(changed, a, w, layout, theta).layer_time_s)

    ranks = float(degree(layout, "tp"))
    assert layer_s(0.1 * plain / ranks) == pytest.approx(plain, rel=1e-12)
    # all ranks wait for the slowest: a few percent over the host's own time
    assert layer_s(4.0 * plain / ranks) == pytest.approx(4.0 * plain, rel=0.05)


@pytest.mark.parametrize(
    ("devices", "pp", "messages"), [(64, 4, 4), (64, 2, 2), (64, 1, 0), (8, 2, 0)]
)
def test_messages_that_block_occupy_the_stages_between_nodes(devices, pp, messages):
    # a middle stage takes two in and sends two for each micro-batch, an end half of
    # that; m + p - 1 rounds of 1F1B, each message 100 s: all else takes little time
    changes = {"layout.devices": devices, "layout.pp": pp, "workload.global_batch": 64}
    system, a, w, layout, theta = inputs_of(DENSE, **changes)

    def step_s(each_s):
        trainer = system.trainers[theta.choices.trainer]
        slow = trainer.replace(message_host_s=jnp.asarray(each_s))
        changed = system.replace(trainers=system.trainers | {theta.choices.trainer: slow})
        return float(metrics(changed, a, w, layout, theta).step_time_s)

    rounds = 64 / 2 / float(degree(layout, "dp")) + pp - 1
    blocked = (step_s(100.0) - step_s(0.0)) / (100.0 * rounds)
    assert messages <= blocked <= messages * 1.05  # the slowest of all ranks


@functools.cache
def slopes(name: str, sharpness: float | None):
    """Gradients of the log of time and of memory for every leaf."""

    @jax.jit
    def both(inputs, s):
        def value(field):
            return jax.grad(lambda x: jnp.log(getattr(metrics(*x, s), field)))(inputs)

        return value("step_time_s"), value("memory_bytes")

    return both(job(name), None if sharpness is None else jnp.asarray(sharpness))


@pytest.mark.parametrize(
    ("name", "sharpness"),
    [
        ("dense", None),
        pytest.param("everything", None, marks=pytest.mark.slow),
        pytest.param("mixture", 8.0, marks=pytest.mark.slow),
    ],
)
def test_every_leaf_has_a_finite_gradient(name, sharpness):
    assert all_finite(slopes(name, sharpness))


@pytest.mark.parametrize(
    ("name", "sharpness"),
    [("dense", None), pytest.param("mixture", 8.0, marks=pytest.mark.slow)],
)
def test_times_are_homogeneous_in_all_seconds(name, sharpness):
    machine = job(name)[0]
    leaves, found = leaf_paths(machine), leaf_paths(slopes(name, sharpness)[0][0])
    late = sum(float(leaves[p] * found[p]) for p in leaves if is_latency(p))
    fast = sum(float(leaves[p] * found[p]) for p in leaves if is_rate(p))
    assert late - fast == pytest.approx(1.0, rel=1e-9)


@pytest.mark.slow
def test_gradients_equal_finite_differences():
    names = ("micro_batch", "recompute_fraction", "global_batch", "sequence_tokens")
    system, a, w, layout, theta = job("everything")
    w = w.replace(sequence_tokens=w.sequence_tokens * 1.013, micro_batch=1.9 + 0.0)

    @jax.jit
    def log_time(x):
        changed = w.replace(**{n: x[i] for i, n in enumerate(names)})
        factor = layout.factor * x[len(names)]
        m = metrics(system, a, changed, layout.replace(factor=factor), theta, 8.0)
        return jnp.log(m.step_time_s)

    at = jnp.array([*(float(getattr(w, n)) for n in names), 1.003])
    gradient = jax.jit(jax.grad(log_time))(at)
    for i in range(len(at)):
        step = jnp.zeros_like(at).at[i].set(1e-7 * at[i])
        by_difference = (log_time(at + step) - log_time(at - step)) / (2.0 * step[i])
        np.testing.assert_allclose(gradient[i], by_difference, rtol=1e-5, atol=1e-7)


def test_faster_hardware_is_never_slower():
    machine = job("dense")[0]
    found = leaf_paths(slopes("dense", None)[0][0])
    for path in leaf_paths(machine):
        if is_rate(path) or path.endswith("efficiency"):
            assert float(found[path]) <= 1e-12, path
        if is_latency(path) and not is_fraction(path):
            assert float(found[path]) >= -1e-12, path


def test_relaxation_tends_to_the_exact_step():
    exact = float(metrics(*job("dense")).step_time_s)
    relaxed = jax.jit(lambda s: metrics(*job("dense"), s).step_time_s)
    close = float(relaxed(jnp.asarray(1e5)))
    assert close == pytest.approx(exact, rel=1e-3)


def test_a_batch_is_the_same_as_one_by_one():
    system, a, w, layout, theta = job("dense")
    sizes = jnp.linspace(32.0, 512.0, 16_385)

    def step(size):
        m = metrics(system, a, w.replace(global_batch=size), layout, theta)
        return m.step_time_s

    batched = jax.jit(jax.vmap(step))(sizes)
    one = jax.jit(step)
    for i in (0, 1, 8191, 16_384):
        assert float(batched[i]) == pytest.approx(float(one(sizes[i])), rel=1e-12)


def test_a_network_of_a_published_cluster_slows_with_its_nodes():
    raw = {**DENSE, "system": "dgx-h100", "layout": {"devices": 64, "tp": 1}}
    raw["workload"] = {**DENSE["workload"], "global_batch": 256, "zero": 3}
    raw["workload"]["fabric"] = "hf-h100"
    inputs = inputs_of(raw)
    system = inputs[0]
    steep = scaled(system, {"fabrics.hf-h100.node_exponent": 2.0})
    times = [float(metrics(s, *inputs[1:]).step_time_s) for s in (system, steep)]
    assert times[1] > times[0]


def zero(engine: str, **workload: Any):
    """A job of 64 A100 without model parallelism whose framework shards."""
    raw = {**DENSE, "engine": engine, "layout": {"devices": 64, "tp": 1}}
    workload = {"global_batch": 128, **workload}
    return inputs_of(raw | {"workload": {**DENSE["workload"], **workload}})


def test_a_gather_through_one_port_of_a_node_takes_as_long_as_all_ports_together():
    machine, a, w, *rest = zero("deepspeed", zero=3)
    name = "data_parallel.transfer"
    one, all_ports = (
        float(explain(machine, a, w.replace(gathers=how), *rest).busy[name])
        for how in ("one_port", "striped")
    )
    # 8 ports: each carries an eighth of what comes into the node, the one all of it; the
    # latency of 63 steps and the network's start are the same
    assert 7.0 < one / all_ports < 8.0


def test_owners_send_their_weights_in_turn():
    machine, a, w, *rest = zero("internevo", zero=1)
    times = [
        metrics(machine, a, w.replace(gathers=how), *rest)
        for how in ("by_owner", "striped")
    ]
    more = float(times[0].step_time_s - times[1].step_time_s)
    stretch = 1.0 + 0.005 * np.sqrt(2.0 * np.log(64.0))
    assert more == pytest.approx(63.0 * 2e-3 * stretch, rel=1e-3)


def test_a_group_of_zero_shares_the_state():
    whole, every, four = (
        explain(*zero("megatron", zero=1, **group))
        for group in ({}, {"zero_group": 64}, {"zero_group": 4})
    )
    assert float(every.step_time_s) == pytest.approx(float(whole.step_time_s))
    assert float(every.memory_bytes) == pytest.approx(float(whole.memory_bytes))
    state = float(four.memory_optimizer_bytes / whole.memory_optimizer_bytes)
    assert state == pytest.approx(64.0 / 4.0)
    # gradients of 4 bytes and weights of 2 share 8 ports of a node; of groups of four,
    # each rank sums a quarter of the gradients over 16 of them
    name = "data_parallel.transfer"
    assert 1.0 < float(four.busy[name] / whole.busy[name]) < 2.0 * 4.0 / 4.0 / (6.0 / 8.0)


def test_a_group_of_zero_divides_the_ranks():
    with pytest.raises(SpecError, match="zero_group = 5.*use a divisor"):
        zero("megatron", zero=1, zero_group=5)


@pytest.mark.parametrize("name", JOBS)
def test_the_phase_is_a_small_program(name):
    program = jax.make_jaxpr(metrics)(*job(name)).jaxpr
    # the traffic of all stages of ZeRO is in it, that of a tensor group with and without
    # sequence parallelism, and exchanges of several kernels
    assert equations(program) < 1.3 * EQUATIONS


# --- Bad input


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"workload__fabric": "there"}, "workload.fabric = 'there'"),
        ({"engine": "torch"}, "engine = 'torch'"),
        ({"workload__flop_convention": "mine"}, "workload.flop_convention = 'mine'"),
        ({"workload__precision": "fp8"}, "workload.precision = 'fp8'"),
        ({"layout.stages": [24, 24]}, "layout.stages: 2 entries for pp = 4"),
        ({"layout.stages": [24, 24, 24, 24]}, "layout.stages: hold 96 layers of 48"),
        ({"layout__vpp": 16}, "layout.vpp = 16"),
        ({"workload__global_batch": 4}, "workload.global_batch = 4"),
        ({"workload__offload": {"optimizer": 1, "link": "x"}}, "offload.link = 'x'"),
    ],
)
def test_mistakes_of_a_training_scenario_are_named(changes, said):
    with pytest.raises(SpecError, match="test") as caught:
        made(DENSE, **changes)
    assert said in str(caught.value)


def test_mistakes_of_layout_and_workload_are_told_together():
    changes = {"layout.ep": 8, "engine": "none", "workload.fabric": "mine"}
    changes |= {"workload.precision": "fp8", "layout.stages": [48]}
    with pytest.raises(SpecError) as caught:
        made(DENSE, **changes)
    said = ("layout.ep", "engine", "workload.fabric", "workload.precision", "stages")
    assert len(caught.value.mistakes) == len(said)
    for key in said:
        assert sum(key in mistake for mistake in caught.value.mistakes) == 1
    with pytest.raises(SpecError) as caught:  # one that stops both checks, once
        made(DENSE, layout__tp=3)
    assert len(caught.value.mistakes) == 1


PIPED = {"workload__schedule": "dualpipe"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"workload__schedule": "gpipe", "layout__vpp": 2}, ["layout.vpp = 2", "use 1"]),
        ({**PIPED, "layout__vpp": 2, "workload__global_batch": 128}, ["layout.vpp = 2"]),
        ({"workload__schedule": "zero_bubble", "layout__vpp": 3}, ["vpp = 3", "use 2"]),
        # four stages need eight micro-batches of two ranks' four sequences
        ({**PIPED, "workload__global_batch": 48}, ["6 micro-batches", "at least 8"]),
        ({**PIPED, "workload__global_batch": 72}, ["9 micro-batches", "even number"]),
        (
            {**PIPED, "layout__devices": 48, "layout__pp": 3},
            ["layout.pp = 3", "use 4 or another"],
        ),
        (
            {**PIPED, "layout__vpp": 2, "workload__global_batch": 16, "engine": "torch"},
            ["layout.vpp = 2", "2 micro-batches", "engine = 'torch'"],
        ),
    ],
)
def test_a_schedule_that_cannot_run_is_refused(changes, said):
    with pytest.raises(SpecError) as caught:
        made(DENSE, **changes)
    lines = str(caught.value).splitlines()
    assert all(line.startswith("test: ") for line in lines)
    for words in said:
        assert any(words in line for line in lines)


@pytest.mark.parametrize(
    "changes",
    [
        {"workload__schedule": "zero_bubble", "layout__vpp": 2},
        {**PIPED, "workload__global_batch": 64},
        # a single stage has nothing to schedule
        {**PIPED, "layout__pp": 1, "workload__global_batch": 192},
    ],
)
def test_a_schedule_that_can_run_is_taken(changes):
    assert made(DENSE, **changes).workload.schedule == changes["workload__schedule"]


@pytest.mark.parametrize(
    ("schedule", "chunks", "found"),
    [
        ("1f1b", 1, 1.0),
        ("1f1b", 2, 2.0),
        ("interleaved", 1, 1.0),
        ("interleaved", 2, 2.0),
    ],
)
def test_interleaving_is_a_matter_of_chunks(schedule, chunks, found):
    p = made(DENSE, workload__schedule=schedule, layout__vpp=chunks)
    assert (p.workload.schedule, float(p.workload.chunks)) == ("1f1b", found)
