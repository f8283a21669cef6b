"""What a training step moves and holds beyond one dense pipeline, counted by hand:
offload, expert tensor parallelism, context parallelism, and the memory of each stage."""

from typing import Any

import jax.numpy as jnp
import pytest
from test_train import DENSE, EVERYTHING, MIXTURE, holding_at, made, predict

from cmxjax.answers.predict import predict as predicted
from cmxjax.memory.training import train_memory
from cmxjax.phases.metrics import explain
from cmxjax.specs.build import build
from cmxjax.specs.errors import SpecError
from cmxjax.specs.scenario import validate_scenario, with_overrides
from cmxjax.step.train_price import train_job, trainer_of, update_bytes

SLOW_LINK = {"system.links.cpu-pool.bytes_per_s": 1e6}
"""So slow that a layer takes what its transfer takes."""


def state_of(raw: dict[str, Any], **changes: Any):
    """What devices hold of a job and its memory by stage."""
    p, holding = made(raw, **changes), holding_at(raw, **changes)
    trainer = trainer_of(p.machine)
    return holding, train_memory(trainer, p.model, p.workload, p.layout, holding)


# --- Offload


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_offload_moves_the_activations_that_are_kept(share):
    # two moves of a layer, each over 1 MB/s at 0.7: nothing else counts
    offload = {"workload.offload": {"activations": 1.0}, **SLOW_LINK}
    changes = {**offload, "workload.recompute": share, "workload.fused_attention": True}
    m = predict(DENSE, **changes)
    layer = state_of(DENSE, **changes)[0].activations
    kept = share * float(layer.entry) + (1.0 - share) * float(layer.whole[0])
    stretch = float(m.layer_time_s) / (2.0 * kept / 0.7e6)
    assert 1.0 < stretch < 1.05  # the slowest of all ranks


def test_offloaded_layers_come_back_before_they_are_used():
    # current and next layer stay, of weights in bf16 and of activations
    holding, all_here = state_of(DENSE, workload__recompute="none")
    offload = {"weights": 1.0, "activations": 1.0}
    _, away = state_of(DENSE, workload__recompute="none", workload__offload=offload)
    layer = float(sum(holding.layer_weights[0])) * 2.0
    assert float(away.weights[0]) == 0.0
    assert float(away.activations[0]) == pytest.approx(
        2.0 * float(holding.activations.whole[0])
    )
    slack = float(made(DENSE).system.trainers["megatron"].activation_slack)
    saved = slack * float(all_here.activations[0] - away.activations[0])
    more = float(away.communication[0] - all_here.communication[0])
    assert more == pytest.approx(2.0 * layer - saved)


def test_a_small_share_offloaded_saves_nothing():
    _, here = state_of(DENSE, workload__recompute="none")
    offload = {"weights": 0.1, "activations": 0.01}
    _, away = state_of(DENSE, workload__recompute="none", workload__offload=offload)
    assert float(away.total[0]) == pytest.approx(float(here.total[0]))


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_the_host_updates_what_it_keeps_in_its_own_memory(share):
    # gradient, master weight and moments read, 16 bytes; the last three and a bf16
    # weight written, 14: over 1 MB/s at 0.7, where all else takes little time
    slow = {"system.links.cpu-pool.memory_bytes_per_s": 1e6}
    changes = {**slow, "workload.offload": {"optimizer": share}}
    holding, _ = state_of(DENSE, **changes)
    fullest = float(sum(holding.weights).max()) / 4.0  # dp is 4, ZeRO 1
    step_s = float(predict(DENSE, **changes).step_time_s)
    stretch = step_s / (30.0 * share * fullest / 0.7e6)
    assert 1.0 < stretch < 1.05  # the slowest of all ranks


def test_what_the_host_updates_the_device_does_not():
    # a memory of 1 kB/s: the optimizer takes the step, but for the norm of gradients
    slow = {"system.chip.memory_bytes_per_s": 1.0, "workload.recompute": "none"}
    p, moved = made(DENSE, **slow), {"workload.offload": {"optimizer": 1.0}}
    here = explain(*p.inputs).busy["optimizer.step"]
    left = explain(*made(DENSE, **slow, **moved).inputs).busy["optimizer.step"]
    # ZeRO 1 over 4: 30 / 4 and 8 bytes of 8
    assert float(left) == pytest.approx(8.0 / 15.5 * float(here))


# --- Splits of heads and widths


def test_expert_tensor_ranks_keep_their_part_of_the_width():
    # 8 groups of 4 ranks instead of 32: each rank gets four times the tokens and has a
    # quarter of each expert's width, so what is kept of the width stays
    base = {"routing.balance": "uniform", "layout.ep": 32, "workload.precision": "bf16"}
    alone, _ = state_of(MIXTURE, **base)
    split, _ = state_of(MIXTURE, **{**base, "layout.ep": 8, "layout.etp": 4})
    copies = 4096.0 * 8.0
    tokens_in_and_out = copies * 7168.0 * (2.0 + 2.0)
    more = float(split.activations.whole[1] - alone.activations.whole[1])
    assert more == pytest.approx(3.0 * tokens_in_and_out, rel=1e-6)


def test_each_rank_keeps_a_head_of_keys_and_values():
    job = {**DENSE, "model": "llama-3.1-70b"}
    changes = {"layout.pp": 1, "layout.devices": 64}
    few, many = (state_of(job, **changes, **{"layout.tp": tp})[0] for tp in (8, 16))
    # 8 heads of 128: a rank of 16 has as much of them as one of 8
    own = 2.0 * 128.0 * 8192.0
    halved = float(few.layer_weights[0].shared) - 2.0 * 8192.0 - own
    expected = halved / 2.0 + 2.0 * 8192.0 + own
    assert float(many.layer_weights[0].shared) == pytest.approx(expected)


def test_a_tensor_group_splits_the_shared_expert_but_not_the_router():
    # DeepSeek-V3: three matrices of 7168 x 2048 a layer, on 8 ranks an eighth each
    few, many = (
        state_of(MIXTURE, **{"layout.pp": 1, "layout.devices": 256, "layout.tp": tp})
        for tp in (4, 8)
    )
    mixers = [dense.layer_weights[0].shared for dense, _ in (few, many)]
    dense = 3.0 * 7168.0 * 18432.0
    layers = [mixture.layer_weights[1].shared for mixture, _ in (few, many)]
    shared = 3.0 * 7168.0 * 2048.0
    split = float(layers[0] - layers[1]) - float(mixers[0] - mixers[1])
    assert split == pytest.approx((shared - dense) / 8.0)


# --- Context parallelism

LONG: dict[str, Any] = {
    "system": "dgx-h100",
    "model": "llama-3.1-70b",
    "phase": "train",
    "workload": {"global_batch": 8, "sequence_tokens": 32768},
    "layout": {"devices": 8, "tp": 2, "cp": 4, "sequence_parallel": True},
}


def context_payload(raw: dict[str, Any], kind: str, **changes: Any) -> float:
    p, holding = made(raw, **changes), holding_at(raw, **changes)
    asked = train_job(p.machine, p.model, p.workload, p.layout, holding).requests
    over_cp = [x for x in asked if x.name == "cp.0" and x.kind == kind]
    (payload,) = [float(x.payload_bytes) for x in over_cp]
    return payload


@pytest.mark.parametrize(("tp", "cp", "pairs"), [(2, 4, 8), (2, 8, 16), (8, 2, 16)])
def test_all_to_all_moves_queries_outputs_and_a_head_of_keys_for_each_rank(tp, cp, pairs):
    # Jacobs et al., arXiv 2309.14509: a device's queries, keys, values and outputs, in
    # bf16; 8 heads of keys and values are copied where more ranks split them
    changes = {"layout.devices": tp * cp, "layout.tp": tp, "layout.cp": cp}
    changes["workload.context_parallel"] = "all_to_all"
    tokens = 32768.0 / (tp * cp)
    expected = tokens * (2.0 * 64.0 + 2.0 * pairs) * 128.0 * 2.0
    assert context_payload(LONG, "all_to_all", **changes) == pytest.approx(expected)


@pytest.mark.parametrize(("tp", "pairs"), [(2, 8), (8, 8), (16, 16)])
def test_a_ring_moves_keys_and_values_alone(tp, pairs):
    changes = {"layout.devices": 4 * tp, "layout.tp": tp}
    expected = 32768.0 / (4 * tp) * 2.0 * pairs * 128.0 * 2.0
    assert context_payload(LONG, "all_gather", **changes) == pytest.approx(expected)


def test_attention_waits_for_an_all_to_all_and_hides_a_ring():
    found = {}
    for kind in ("ring", "all_to_all"):
        p = made(LONG, workload__context_parallel=kind)
        m = explain(*p.inputs)
        busy = sum(float(v) for k, v in m.busy.items() if k.startswith("context"))
        found[kind] = float(m.exposed_cp_time_s) / busy
    assert found["all_to_all"] == pytest.approx(1.0)
    assert found["ring"] < 0.5


def test_work_of_attention_is_the_same_for_both():
    # once the exchange costs nothing, only how long the rows of scores are differs
    fast = {"system.tiers.node.bytes_per_s": 1e18, "workload.fused_attention": True}
    ring, exchange = (
        float(predict(LONG, **fast, **{"workload.context_parallel": kind}).step_time_s)
        for kind in ("ring", "all_to_all")
    )
    assert exchange == pytest.approx(ring, rel=0.02)


@pytest.mark.parametrize(("cp", "most"), [(1, 1.0), (2, 1.5), (8, 1.875)])
def test_the_last_rank_of_a_ring_in_order_has_most_of_the_causal_work(cp, most):
    # of c parts the last one attends to c - 1/2, the mean one to c/2
    sizes = {
        "layout.cp": cp,
        "layout.devices": 2 * cp,
        "workload.context_parallel": "ring",
    }
    busy = [
        explain(*made(LONG, engine=engine, **sizes).inputs).busy["attention.matrix"]
        for engine in ("megatron", "torchtitan")
    ]
    fewer = made(
        LONG, engine="megatron", **sizes, **{"system.chip.attention_efficiency": 0.1}
    )
    more = float(explain(*fewer.inputs).busy["attention.matrix"])
    share = float(made(LONG).system.chip.attention_efficiency)
    core_s = (more - float(busy[0])) / (share / 0.1 - 1.0)
    assert float(busy[1]) - float(busy[0]) == pytest.approx(
        (most - 1.0) * core_s, rel=1e-6
    )


def test_all_to_all_needs_heads_to_split():
    changes = {"layout.cp": 12, "layout.devices": 24}
    changes["workload.context_parallel"] = "all_to_all"
    with pytest.raises(SpecError, match=r"tp 2 x cp 12 does not divide 64.*'ring'"):
        build(validate_scenario(with_overrides(LONG, changes), "test"), "none", "test")


# --- Stages


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({}, ["0", "1-2", "3"]),
        pytest.param({"layout.pp": 1}, ["0"], marks=pytest.mark.slow),
        pytest.param({"layout.pp": 2}, ["0", "1"], marks=pytest.mark.slow),
        ({"layout.stages": [12] * 4}, ["0", "1", "2", "3"]),
    ],
)
def test_memory_of_each_stage_is_told(changes, names):
    scenario = validate_scenario(with_overrides(DENSE, changes), "test")
    found = predicted(scenario, "none")
    assert list(found.stages) == names
    totals = [sum(classes.values()) for classes in found.stages.values()]
    assert max(totals) == pytest.approx(found.values["memory_bytes"])
    assert totals[0] == pytest.approx(found.values["memory_first_stage_bytes"])
    assert totals[-1] == pytest.approx(found.values["memory_last_stage_bytes"])
    assert found.as_json()["stages"] == found.stages


def test_states_of_all_axes_at_once_stay_finite():
    _, memory = state_of(EVERYTHING, workload__context_parallel="all_to_all")
    assert bool(jnp.isfinite(memory.total).all())
    assert float(memory.total.min()) > 0.0


# --- Gradients that add up in a wider format


@pytest.mark.parametrize(
    ("engine", "gradient", "size"),
    [
        ("megatron", "bf16", 2.0),
        ("megatron", "fp32", 4.0),
        ("megatron-deepspeed", "bf16", 2.0),
        ("megatron-deepspeed", "fp32", 6.0),
    ],
)
def test_gradients_take_the_bytes_of_each_copy(engine, gradient, size):
    # DeepSpeed's bf16 optimizer keeps those of a micro-batch beside their sum
    _, memory = state_of(DENSE, engine=engine, **{"dtypes.gradient": gradient})
    parameters = memory.weights / 2.0
    assert memory.gradients == pytest.approx(size * parameters)


@pytest.mark.parametrize(
    ("system", "engine", "size"),
    [
        ("dgx-h100", "megatron", 4.0),
        ("dgx-h100", "nanotron", 4.0),
        ("dgx-h100", "torchtitan", 4.0),
        ("dgx-h100", "fsdp", 2.0),
        ("dgx-a100-80g", "deepspeed", 2.0),
        ("atlas-800-a2", "mindspore", 4.0),
    ],
)
def test_a_framework_says_in_what_it_keeps_gradients(system, engine, size):
    job = {**DENSE, "system": system, "engine": engine}
    holding, memory = state_of(job)
    assert memory.gradients == pytest.approx(size * sum(holding.weights))
    _, told = state_of(job, **{"dtypes.gradient": "fp32"})
    assert told.gradients == pytest.approx(4.0 * sum(holding.weights))


def test_gradients_that_nobody_told_of_are_assumed():
    silent = validate_scenario(DENSE, "test")
    told = validate_scenario(with_overrides(DENSE, {"dtypes.gradient": "fp32"}), "test")
    key = "dtypes.gradient"
    assert key in predicted(silent, "none").as_json()["assumed"]
    assert key not in predicted(told, "none").as_json()["assumed"]


# --- Master weights


@pytest.mark.parametrize(
    ("engine", "master", "weights", "states"),
    [
        ("megatron", "fp32", 2.0, 12.0),
        ("megatron", "none", 2.0, 8.0),
        ("megatron", "bf16", 2.0, 8.0),
        ("fsdp", "fp32", 4.0, 8.0),
        ("fsdp", "none", 2.0, 8.0),
    ],
)
def test_weights_and_states_take_the_bytes_of_each_copy(engine, master, weights, states):
    # Adam has two moments in fp32 whatever it updates; ZeRO 3 over 4 ranks
    changes = {"engine": engine, "dtypes.master": master, "workload.zero": 3}
    holding, memory = state_of(DENSE, **changes)
    held = sum(holding.weights) / 4.0
    assert memory.weights == pytest.approx(weights * held)
    assert memory.optimizer == pytest.approx(states * held)


@pytest.mark.parametrize(
    ("master", "gradient", "moved"),
    [("fp32", "fp32", 30.0), ("none", "fp32", 24.0), ("none", "bf16", 22.0)],
)
def test_an_update_moves_what_it_reads_and_writes(master, gradient, moved):
    # moments 8 + 8; the gradient once; a master weight 4 + 4 and the bf16 weight 2, or
    # without one that weight 2 + 2
    formats = {"dtypes.master": master, "dtypes.gradient": gradient}
    assert float(update_bytes(made(DENSE, **formats).workload)) == moved


def test_weights_that_are_cast_are_kept_with_the_state():
    # ZeRO 1 over 4 ranks: 4 / 4 bytes of fp32, and 2 that all passes read
    holding, memory = state_of(DENSE, engine="fsdp", **{"workload.zero": 1})
    assert memory.weights == pytest.approx(3.0 * sum(holding.weights))


# --- Logits


@pytest.mark.parametrize(
    ("engine", "tp", "size"),
    [("megatron", 1, 6), ("megatron", 4, 6), ("torchtitan", 4, 12)],
)
def test_the_last_stage_holds_logits_and_their_gradient(engine, tp, size):
    # 4 + 2 bytes a token and entry of the vocabulary, of one micro-batch; torch copies
    # bf16 logits to fp32 and back: 2 + 4 + 4 + 2
    def last(vocabulary: float):
        changes = {"model.vocabulary": vocabulary, "layout.tp": tp, "engine": engine}
        changes["system"] = "dgx-h100"
        return state_of(DENSE, **changes)[1].activations

    more = last(2.0 * 51200.0) - last(51200.0)
    tokens = 2.0 * 2048.0
    assert float(more[-1]) == pytest.approx(size * tokens * 51200.0 / tp)
    assert float(abs(more[:-1]).max()) == 0.0


@pytest.mark.parametrize("tp", [1, 4])
def test_sequence_parallelism_gathers_an_input_and_a_gradient(tp):
    # three quarters of 4096 tokens of 6144 in bf16 are other ranks', twice
    changes = {"layout.tp": tp, "workload.recompute": "full"}
    p = made(DENSE, **changes)
    slack = float(p.system.trainers["megatron"].activation_slack)
    fixed = float(p.system.trainers["megatron"].memory_overhead_bytes)
    _, memory = state_of(DENSE, **changes)
    buffers = float(memory.communication[0] - slack * memory.activations[0]) - fixed
    expected = 2.0 * 4096.0 * (1.0 - 1.0 / tp) * 6144.0 * 2.0
    assert buffers == pytest.approx(expected)


# --- A host that issues kernels one by one


@pytest.mark.parametrize("again", ["none", "selective", "full"])
def test_a_layer_is_no_shorter_than_its_host_takes(again):
    # a third for each of three passes, and one more where the forward pass runs again
    slow = {"system.trainers.megatron.layer_host_s": 10.0, "workload.recompute": again}
    passes = 4.0 if again == "full" else 3.0
    layer_s = float(predict(DENSE, **slow).layer_time_s)
    assert 1.0 < layer_s / (10.0 * passes / 3.0) < 1.05  # the slowest of all ranks
