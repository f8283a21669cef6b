"""Formats of weights, computation and caches: bytes and peaks by hand."""

import json
from typing import Any

import numpy as np
import pytest
from test_model_files import LLAMA

import cmxjax as cmx
from cmxjax.memory.serving import decode_memory
from cmxjax.rates.roofline import matrix_s
from cmxjax.specs.build import build
from cmxjax.specs.errors import SpecError
from cmxjax.specs.scenario import load_scenario, validate_scenario
from cmxjax.work.serving import declared
from cmxjax.work.table import sizes_by_name, tabulate

JOB: dict[str, Any] = {
    "system": "hgx-h800",
    "model": "llama-3.1-8b",
    "phase": "decode",
    "layout": {"devices": 1},
    "workload": {"sequences_per_device": 1, "kv_tokens": 4096},
}


def problem(system: str = "hgx-h800", model: Any = "llama-3.1-8b", **dtypes: Any) -> Any:
    raw = JOB | {"system": system, "model": str(model), "dtypes": dtypes}
    return cmx.build(validate_scenario(raw, "test"), "none")


def step_s(p: Any) -> float:
    return float(cmx.metrics(p.machine, p.model, p.workload, p.layout).step_time_s)


def held(p: Any) -> float:
    m = cmx.metrics(p.machine, p.model, p.workload, p.layout)
    return float(m.memory_weights_bytes)


@pytest.mark.parametrize(
    ("name", "size"), [("int4", 0.5), ("nvfp4", 0.5 + 1 / 16), ("mxfp4", 0.5 + 1 / 32)]
)
def test_four_bit_weights_are_held_with_the_scales_of_their_blocks(name, size):
    wide, narrow = held(problem()), held(problem(weight=name))
    tables = 2 * 128256 * 4096 * 2.0  # stay in 16 bits
    assert narrow - tables == pytest.approx((wide - tables) * size / 2, rel=2e-3)


@pytest.mark.parametrize("name", ["fp4", "nvfp4", "mxfp4"])
def test_four_bit_blocks_are_multiplied_in_four_bit_units(name):
    p = problem("gb200-nvl72", activation=name)
    assert float(p.machine.chip.matrix_flop_per_s["activation"]) == 10e15
    with pytest.raises(ValueError, match=f"dtypes.activation = '{name}'"):
        problem("hgx-h800", activation=name)


def test_weights_unpacked_apart_are_read_written_and_read_again():
    """4 bits under 16: 0.5 + 2 + 2 bytes a weight against 2, in a step that reads all."""
    times = {
        how: step_s(problem(weight="int4", unpacking=how)) for how in ("fused", "apart")
    }
    plain = step_s(problem())
    assert times["fused"] < plain < times["apart"]
    layers = 32 * (4096 * (4096 * 2 + 1024 * 2) + 3 * 4096 * 14336)
    rate = float(problem().machine.chip.memory_bytes_per_s)
    efficiency = float(problem().machine.chip.memory_efficiency)
    more = layers * (4.5 - 0.5) / rate / efficiency
    assert times["apart"] - times["fused"] == pytest.approx(more, rel=0.05)


def test_only_weights_narrower_than_activations_are_unpacked():
    assert problem(weight="int4", unpacking="apart").workload.software.unpacks
    same = problem(weight="int8", activation="int8", unpacking="apart")
    assert not same.workload.software.unpacks
    assert not problem(unpacking="apart").workload.software.unpacks


def test_a_machine_says_where_weights_are_unpacked():
    """Cube and vector cores of Ascend 910 share no memory but the device's."""
    assert problem("cloudmatrix384", weight="int4").workload.software.unpacks
    assert not problem("hgx-h800", weight="int4").workload.software.unpacks
    w4a8 = problem("cloudmatrix384", weight="int4", activation="int8")
    assert not w4a8.workload.software.unpacks


def test_a_file_of_packed_weights_is_unpacked_too(tmp_path):
    config = tmp_path / "config.json"
    packed = {"quant_method": "awq", "bits": 4, "group_size": 128}
    config.write_text(json.dumps(LLAMA | {"quantization_config": packed}))
    assert problem("cloudmatrix384", config).workload.software.unpacks
    wide = problem("cloudmatrix384", config, weight="bf16")
    assert not wide.workload.software.unpacks
    assert step_s(problem("cloudmatrix384", config)) > step_s(wide)


@pytest.mark.parametrize(
    ("said", "expected"), [("float16", "fp16"), ("bfloat16", "bf16"), ("float32", "bf16")]
)
def test_activations_have_the_format_of_the_file(tmp_path, said, expected):
    config = tmp_path / "config.json"
    config.write_text(json.dumps(LLAMA | {"torch_dtype": said}))
    assert problem(model=config).choices.dtypes[0] == expected
    assert problem(model=config, activation="fp8").choices.dtypes[0] == "fp8"


def test_a_format_of_a_file_that_nobody_knows_is_refused(tmp_path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps(LLAMA | {"torch_dtype": "float12"}))
    with pytest.raises(ValueError, match="torch_dtype"):
        problem(model=config)


@pytest.mark.parametrize(("kv", "attention"), [("fp8", "bf16"), ("bf16", "fp8")])
def test_caches_and_attention_have_formats_of_their_own(kv, attention):
    """What is kept and read follows the cache, and the rate the attention."""
    plain, other = problem(), problem(kv=kv, attention=attention)
    caches, peaks = [], []
    for p in (plain, other):
        m = cmx.metrics(p.machine, p.model, p.workload, p.layout)
        caches.append(float(m.memory_kv_cache_bytes))
        peaks.append(float(p.machine.chip.matrix_flop_per_s["attention"]))
        assert np.isfinite(float(m.step_time_s))
    assert caches[1] / caches[0] == (0.5 if kv == "fp8" else 1.0)
    assert peaks[1] / peaks[0] == pytest.approx(2.0 if attention == "fp8" else 1.0, 0.01)


@pytest.mark.parametrize(
    ("activation", "index"), [("bf16", "bf16"), ("fp8", "fp8"), ("fp4", "fp8")]
)
def test_an_indexer_has_the_format_of_activations_in_8_bits_at_least(activation, index):
    """What is kept of its keys follows: latents of 576 and keys of 128 elements a layer
    and token, of a request of 4,096."""
    p = problem("gb200-nvl72", "deepseek-v3.2-fp8", activation=activation, kv="bf16")
    assert p.choices.dtypes[-1] == index
    m = cmx.metrics(p.machine, p.model, p.workload, p.layout)
    width = 576 * 2 + 128 * (2 if index == "bf16" else 1)
    assert float(m.memory_kv_cache_bytes) == pytest.approx(61 * width * 4096)


def test_a_job_may_store_modules_in_formats_of_their_own():
    """Weight bytes of a mixture by hand: experts in int4, the rest as the job says."""
    layout = {"devices": 8, "tp": 8, "ep": 8}
    base = JOB | {"system": "dgx-h100", "model": "deepseek-v2", "layout": layout}

    def held(**dtypes):
        p = build(load_scenario(base | {"dtypes": dtypes}), "none")
        memory = decode_memory(p.model, p.workload, p.layout)
        return float(memory.weights), p.model

    plain, model = held(weight="bf16")
    mixed, _ = held(weight="bf16", weights={"experts": "int4", "shared": "bf16"})
    e = model.experts
    network = 3 * float(model.hidden) * float(e.intermediate)
    layers = float(model.half_counts.feed_forwards[-1])
    routed = layers * float(e.routed) / 8 * network
    assert plain - mixed == pytest.approx(routed * (2.0 - 0.5), rel=1e-9)
    others = dict.fromkeys(("attention", "dense", "shared"), "bf16")
    all_of, _ = held(weight="int4", weights=others)
    assert all_of == pytest.approx(mixed, rel=0.01)  # but for tables and norms


@pytest.mark.parametrize(
    ("stored", "peak", "share"),
    [("bf16", "bf16", None), ("fp8", "fp8", "eight_bit_efficiency")],
)
def test_modules_wider_than_activations_are_multiplied_in_their_own_format(
    stored, peak, share
):
    """Attention in 16 or 8 bits beside a network in 4, as published checkpoints are."""
    plain = {"weight": "nvfp4", "activation": "nvfp4"}
    narrow = problem("gb200-nvl72", **plain)
    wide = problem("gb200-nvl72", **plain, weights={"attention": stored})
    system = cmx.build(load_scenario(JOB | {"system": "gb200-nvl72"}), "none").system
    peaks, chip = system.chip.matrix_flop_per_s, wide.machine.chip

    def seconds(p: Any) -> dict[str, float]:
        a, sizes = p.model, p.workload.software.sizes
        ops = [op for _, op in declared(a, p.layout, sizes, decodes=False)]
        rows = {"one": 1.0} | {op.rows: 4096.0 for op in ops} | {"tokens": 4096.0}
        names = {x for op in ops for x in (op.groups, op.split_columns, op.split_depth)}
        rows |= dict.fromkeys([*names, *(op.extra[0] for op in ops)], 1.0)
        table = tabulate(ops, rows, sizes_by_name(a, sizes))
        return dict(zip(table.names, map(float, matrix_s(chip, table, None))))

    ratio = peaks["fp4"] * chip.four_bit_efficiency / peaks[peak]
    ratio = float(ratio / (getattr(chip, share) if share else 1.0))
    before, after = seconds(narrow), seconds(wide)
    changed = {name for name in before if after[name] != pytest.approx(before[name])}
    projections = {"query projection", "key and value projection", "output projection"}
    assert changed == projections
    for name in changed:
        assert after[name] / before[name] == pytest.approx(ratio, rel=1e-9)


def test_weights_in_16_bits_make_a_step_of_16_bits():
    """Nothing is quantized for them but what norms put out."""
    p = problem("gb200-nvl72", weight="bf16", activation="nvfp4")
    assert step_s(p) == pytest.approx(step_s(problem("gb200-nvl72")), rel=0.01)


def test_formats_of_modules_are_refused_in_training():
    raw = {
        "system": "dgx-h100",
        "model": "llama-3.1-8b",
        "phase": "train",
        "workload": {"global_batch": 8, "sequence_tokens": 2048},
        "layout": {"devices": 8},
        "dtypes": {"weights": {"attention": "fp8"}},
    }
    with pytest.raises(SpecError, match=r"dtypes\.weights"):
        build(load_scenario(raw), "none")
