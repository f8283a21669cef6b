"""One model of each class through all that follows from a model: memory, layouts, all
phases, slopes, the search, and launch lines."""

import csv
import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import cmxjax as cmx
from cmxjax.interop.emit import emit
from cmxjax.job.layout import degree
from cmxjax.job.workload import Train
from cmxjax.machine.machine import Machine
from cmxjax.memory.serving import Memory, decode_memory
from cmxjax.specs.build import build
from cmxjax.specs.errors import SpecError
from cmxjax.specs.scenario import validate_scenario
from cmxjax.step.train_price import trainer_of
from cmxjax.work.stages import spans_of

MODELS = Path(__file__).parent / "models"
V4 = str(MODELS / "deepseek-v4-flash.json")

CLASSES = {
    "half layers of states": "nemotron-3-nano-30b",
    "states, latent experts": "nemotron-3-super-120b",
    "states and experts": "granite-4.0-h-small",
    "delta rule": "qwen3-next-80b-a3b",
    "layers without attention": "nemotron-super-49b",
    "windows": "gemma-3-27b",
    "windows, 4 bits": "gpt-oss-20b",
    "chunks": "llama-4-scout",
    "indexer": "deepseek-v3.2-fp8",
    "compressed": V4,
    "4 bits": "llama-3.3-70b-nvfp4",
    "parallel, one key head": "falcon-7b",
    "images": "qwen3.5-27b",
}

TOKENS, SEQUENCES = 16384, 4
WORKLOADS: dict[str, dict[str, Any]] = {
    "decode": {"sequences_per_device": SEQUENCES, "kv_tokens": TOKENS},
    "prefill": {"tokens_per_device": 8192, "prompt_tokens": 4096},
    "train": {"global_batch": 64, "micro_batch": 1, "sequence_tokens": 4096},
}
TIMES = {"decode": "tpot_s", "prefill": "ttft_s", "train": "step_time_s"}
SYSTEMS = {"decode": "gb200-nvl72", "prefill": "cloudmatrix384", "train": "dgx-h100"}


@functools.cache
def truth() -> dict[str, dict[str, str]]:
    """Counts made by hand."""
    with (MODELS / "truth.csv").open() as file:
        return {row["id"]: row for row in csv.DictReader(file)}


def scenario(
    name: str, phase: str, system: str = "", dtypes: dict | None = None, **layout: Any
):
    data: dict[str, Any] = {"dtypes": dtypes or {}}
    data |= {"system": system or SYSTEMS[phase], "model": name, "phase": phase}
    data |= {"workload": WORKLOADS[phase], "layout": {"ep": 1, **layout}}
    return validate_scenario(data, "job")


def problem(name: str, phase: str, system: str = "", **layout: Any) -> Any:
    return build(scenario(name, phase, system, **layout), "none")


def metrics(p: Any):
    return cmx.metrics(p.machine, p.model, p.workload, p.layout)


def memory(p: Any) -> Memory:
    """While decoding; not compiled."""
    return decode_memory(p.model, p.workload, p.layout)


def by_hand(name: str) -> tuple[float, float]:
    """Bytes of the weights, and of a sequence's cache."""
    if name == V4:
        # a window in all 43 layers; in 21 an entry, and one of an indexer, for 4 tokens,
        # in 20 an entry for 128
        entries = TOKENS * (21 * (512 + 128) / 4 + 20 * 512 / 128)
        return 0.0, 2.0 * (43 * 128 * 512 + entries)
    row = truth()[name]
    each = float(row["kv_bytes_per_token"]) + float(row["index_bytes_per_token"])
    constant = float(row["constant_state_bytes_per_sequence"])
    return float(row["weight_bytes"]), TOKENS * each + constant


@pytest.mark.parametrize("name", CLASSES.values(), ids=CLASSES)
def test_one_device_holds_the_checkpoint_and_the_cache_counted_by_hand(name):
    held = memory(problem(name, "decode", devices=1))
    weights, cache = by_hand(name)
    assert float(held.kv_cache) == pytest.approx(SEQUENCES * cache, rel=1e-3)
    if weights:
        # besides norms, which are left out, and expansions of latents, kept in 16 bits
        wider = 0.02 if name == "deepseek-v3.2-fp8" else 0.002
        assert float(held.weights) == pytest.approx(weights, rel=wider)


@pytest.mark.parametrize("name", CLASSES.values(), ids=CLASSES)
def test_ranks_that_split_heads_and_experts_hold_the_checkpoint_together(name):
    p = problem(name, "decode", devices=1)
    whole = float(memory(p).weights)
    ranks = 1 if p.model.attention.heads % 2 else 2
    ep = 1 if p.model.experts is None else ranks
    split = memory(problem(name, "decode", devices=ranks, tp=ranks, ep=ep))
    held = ranks * float(split.weights)
    # each rank has whole routers, shared experts, latents' down-projections
    assert whole * 0.999 <= held <= whole * (1.0 if p.model.experts is None else 1.06)


def test_ranks_beyond_the_heads_of_keys_each_hold_one():
    """48 layers of a model 6144 wide, 4 heads of keys and values over 8 ranks."""
    one, eight = (
        float(memory(problem("starcoder2-15b", "decode", "", **at)).weights)
        for at in ({"devices": 1}, {"devices": 8, "tp": 8})
    )
    assert eight - one / 8 == pytest.approx(40 * 6144 * 2 * 128 * 4 * 2 / 8, rel=1e-6)


@pytest.mark.parametrize("name", CLASSES.values(), ids=CLASSES)
@pytest.mark.parametrize("stages", [2, 4])
def test_stages_hold_all_layers_of_each_kind(name, stages):
    p = problem(name, "train", devices=8, pp=stages)
    assert isinstance(p.workload, Train)
    rule = trainer_of(p.machine).stages
    span = spans_of(rule, p.model, p.workload, p.layout, None)
    assert float(degree(p.layout, "pp")) == stages
    often = np.array([1.0, stages - 2.0, 1.0])
    for held, count in zip(span.layers, p.model.counts, strict=True):
        assert float((often * held).sum()) == pytest.approx(float(count))
        assert float(held.min()) >= 0.0


QUICK = {
    ("granite-4.0-h-small", "decode"),
    ("deepseek-v3.2-fp8", "decode"),
    (V4, "prefill"),
    ("qwen3-next-80b-a3b", "train"),
}
ALL = [
    pytest.param(
        *job, id=f"{label}-{job[1]}", marks=[] if job in QUICK else [pytest.mark.slow]
    )
    for label, name in CLASSES.items()
    for job in ((name, phase) for phase in TIMES)
]


@pytest.mark.parametrize(("name", "phase"), ALL)
def test_time_is_finite_and_longer_on_a_slower_machine(name, phase):
    p = problem(name, phase, devices=8)
    m = metrics(p)
    for leaf in jax.tree.leaves(m):
        assert np.isfinite(leaf).all()
    machine = p.machine
    assert isinstance(machine, Machine)
    chip = machine.chip
    slow = chip.replace(memory_bytes_per_s=chip.memory_bytes_per_s / 2)
    slower = cmx.metrics(machine.replace(chip=slow), p.model, p.workload, p.layout)
    assert float(getattr(slower, TIMES[phase])) > float(getattr(m, TIMES[phase])) > 0.0


SLOPES = [
    ("decode", "nemotron-3-nano-30b"),
    *(
        pytest.param(phase, name, marks=pytest.mark.slow)
        for phase, name in (
            ("prefill", "qwen3-next-80b-a3b"),
            ("train", "gemma-3-27b"),
            ("train", V4),
        )
    ),
]


@pytest.mark.parametrize(("phase", "name"), SLOPES)
def test_slopes_in_every_number_of_the_model_are_finite(phase, name):
    p = problem(name, phase, devices=8)

    def time(machine, model):
        m = cmx.metrics(machine, model, p.workload, p.layout)
        return getattr(m, TIMES[phase])

    slopes = jax.jit(jax.grad(time, argnums=(0, 1)))(p.machine, p.model)
    for path, leaf in jax.tree_util.tree_leaves_with_path(slopes):
        assert np.isfinite(leaf).all(), path
    assert float(slopes[0].chip.memory_bytes_per_s) < 0.0


@pytest.mark.parametrize(
    "name",
    [pytest.param("nemotron-h-56b", marks=pytest.mark.slow), "nemotron-super-49b"],
)
def test_cores_that_are_split_run_layers_that_move_nothing(name):
    """Layers of a dense network alone, or of nothing, without tensor parallelism."""
    m = metrics(problem(name, "decode", "cloudmatrix384", devices=8))
    assert 0.0 < float(m.tpot_s) < 1.0


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("nemotron-3-nano-30b", id="states"),
        pytest.param(V4, marks=pytest.mark.slow, id="blocks"),
    ],
)
def test_search_is_no_worse_than_a_layout_by_hand(name):
    by_hand = scenario(name, "decode", devices=16, tp=2, ep=16)
    best = cmx.optimize(by_hand, settings={"sequences_per_device": (float(SEQUENCES),)})
    given = cmx.predict(by_hand)
    assert given.memory_excess_bytes == 0.0
    assert best.feasible, best.reasons
    assert best.value is not None
    assert best.value >= given.tokens_per_s_per_device * (1 - 1e-9)


REFUSED = {
    ("megatron", V4): "model.mixers.chosen.kind",
    ("megatron", "llama-4-scout"): "model.mixers.chunk.chunk",
    ("mindspeed", V4): "model.mixers.chosen.kind",
    ("mindspeed", "llama-4-scout"): "model.mixers.chunk.chunk",
    ("mindspeed", "qwen3-next-80b-a3b"): "model.mixers.linear.delta",
    ("mindspeed", "qwen3.5-27b"): "model.mixers.linear.delta",
    ("mindspeed", "gemma-3-27b"): "model.mixers.window.window",
    ("mindspeed", "gpt-oss-20b"): "model.mixers.window.window",
    ("mindspeed", "deepseek-v3.2-fp8"): "model.attention.indexer",
    ("mindspeed", "nemotron-3-super-120b"): "model.feed_forwards.experts.latent",
}
"""What a trainer has no layers for, by the key."""


@pytest.mark.parametrize("name", CLASSES.values(), ids=CLASSES)
@pytest.mark.parametrize("tool", ["megatron", "mindspeed"])
def test_trainers_take_a_model_or_name_the_key_that_they_can_not(tool, name):
    job = scenario(name, "train", devices=8)
    if key := REFUSED.get((tool, name)):
        with pytest.raises(SpecError, match=key):
            emit(job, tool, "none")
        return
    launch = emit(job, tool, "none")
    states = name.startswith(("nemotron-3", "granite"))
    program = "pretrain_mamba.py" if states else "pretrain_gpt.py"
    assert program in launch.text
    assert any("--hybrid-override-pattern" in note for note in launch.notes) is states
    uneven = name == "nemotron-super-49b"
    assert any("--heterogeneous-layers" in note for note in launch.notes) is uneven


def test_state_space_layers_have_even_stages_of_one_chunk():
    with pytest.raises(SpecError, match=r"layout.pp = 8"):
        emit(scenario("nemotron-3-nano-30b", "train", devices=8, pp=8), "megatron")
    with pytest.raises(SpecError, match=r"layout.vpp = 2"):
        emit(scenario("granite-4.0-h-small", "train", devices=8, pp=2, vpp=2), "megatron")


@pytest.mark.parametrize("name", CLASSES.values(), ids=CLASSES)
@pytest.mark.parametrize("tool", ["vllm", "sglang"])
def test_engines_say_what_becomes_of_states(tool, name):
    launch = emit(scenario(name, "decode", devices=1), tool, "none")
    recurs = name.startswith(("nemotron-3", "granite", "qwen3"))
    assert any("states in bf16" in note for note in launch.notes) is recurs


@pytest.mark.parametrize("tool", ["vllm", "sglang", "megatron"])
def test_heads_of_keys_that_no_rank_count_fits_are_refused(tool):
    phase = "train" if tool == "megatron" else "decode"
    job = scenario("starcoder2-15b", phase, devices=6, tp=6)
    with pytest.raises(SpecError, match="layout.tp = 6.*kv_heads = 4"):
        emit(job, tool, "none")


@pytest.mark.parametrize("tool", ["vllm", "sglang"])
def test_a_checkpoint_with_formats_of_its_own_is_not_quantized_again(tool):
    """As a job that computes in fp8 would be, and one that gives all weights a format."""
    name = "llama-3.3-70b-nvfp4"
    for dtypes, told in (({"activation": "fp8"}, False), ({"weight": "fp8"}, True)):
        job = scenario(name, "decode", dtypes=dtypes, devices=1)
        launch = emit(job, tool, "none")
        assert "--quantization" not in launch.arguments
        assert any("fp8 weights" in note for note in launch.notes) is told


def test_how_a_tower_is_split_is_said():
    data: dict[str, Any] = {
        "system": "gb200-nvl72",
        "model": "qwen3.5-27b",
        "phase": "prefill",
        "workload": WORKLOADS["prefill"] | {"images_per_prompt": 1, "image_size": 512},
        "layout": {"devices": 8, "tp": 2},
    }
    launch = emit(validate_scenario(data, "job"), "vllm", "none")
    assert any("vision tower split 'dp'" in note for note in launch.notes)
