"""Scenarios: overrides by dotted keys, user files, derived degrees, defaults."""

import os
from pathlib import Path

import jax.numpy as jnp
import pytest

from cmxjax.job.layout import AXES, degree, devices
from cmxjax.job.workload import BYTES, balance_of, tokens_per_step
from cmxjax.phases.metrics import metrics
from cmxjax.specs.build import build
from cmxjax.specs.context import dtypes_of
from cmxjax.specs.files import shipped
from cmxjax.specs.kernel_build import ASYMPTOTE_BYTES
from cmxjax.specs.measurement_file import load_measurements
from cmxjax.specs.scenario import load_scenario, validate_scenario, with_overrides
from cmxjax.specs.system_load import Reference, load_system

DECODE = "deepseek-r1-decode-cloudmatrix384"
DENSE = "llama-3.1-70b-decode-gb200-nvl72"
PREFILL = "deepseek-r1-prefill-cloudmatrix384"


def made(name: str = DECODE, **changes):
    """A shipped scenario, built with dotted keys changed; __ stands for a dot."""
    dotted = {key.replace("__", "."): value for key, value in changes.items()}
    return build(load_scenario(name, dotted), "none")


def leaf(path: str, value, name: str = DECODE):
    """One system leaf of a scenario after it is set."""
    node = build(load_scenario(name, {path: value}), "none").system
    for part in path.split(".")[1:]:
        node = node[part] if isinstance(node, dict) else getattr(node, part)
    return float(node)


def collective(**keys):
    raw = {"system": "cloudmatrix384", "phase": "collective", "collective": keys}
    return build(validate_scenario(raw, "test"), "none")


def operator(**keys):
    raw = {"system": "cloudmatrix384", "phase": "op", "op": keys}
    return build(validate_scenario(raw, "test"), "none")


def degrees(problem) -> dict[str, float]:
    return {axis: float(degree(problem.layout, axis)) for axis in AXES}


def laid_out(name: str = DENSE, **layout):
    raw = {
        "system": "cloudmatrix384",
        "model": "llama-3.1-70b" if name == DENSE else "deepseek-r1",
        "phase": "decode",
        "workload": {"sequences_per_device": 8, "kv_tokens": 1024},
        "layout": layout,
    }
    return build(validate_scenario(raw, "test"), "none")


# --- Overrides


def test_a_dotted_key_changes_one_value_and_no_other():
    changed = load_scenario(DECODE, {"workload.kv_tokens": 8192})
    default = load_scenario(DECODE)
    assert changed.workload.kv_tokens == 8192.0
    assert changed.workload.sequences_per_device == default.workload.sequences_per_device
    assert changed.layout == default.layout


def test_a_nested_table_means_the_same_as_dotted_keys():
    nested = load_scenario(DECODE, {"workload": {"kv_tokens": 8192}, "layout": {"pp": 1}})
    dotted = load_scenario(DECODE, {"workload.kv_tokens": 8192, "layout.pp": 1})
    assert nested == dotted


def test_overrides_do_not_change_the_scenario_they_start_from():
    raw = {"system": "cloudmatrix384", "workload": {"kv_tokens": 1}}
    with_overrides(raw, {"workload.kv_tokens": 2, "system.power.all_in_w": 3})
    assert raw == {"system": "cloudmatrix384", "workload": {"kv_tokens": 1}}


def test_a_table_that_is_not_there_is_made():
    changed = with_overrides({"phase": "system"}, {"dtypes.activation": "int8"})
    assert changed["dtypes"] == {"activation": "int8"}


def test_no_overrides_leave_the_scenario_as_it_is():
    assert load_scenario(DECODE, {}) == load_scenario(DECODE)


def test_a_later_override_of_the_same_key_wins():
    once = with_overrides({"phase": "system", "system": "a"}, {"workload.x": 1})
    assert with_overrides(once, {"workload.x": 2})["workload"] == {"x": 2}


@pytest.mark.parametrize("order", [1, -1])
def test_a_system_and_a_leaf_of_it_can_be_set_in_any_order(order):
    changes = {"system.power.all_in_w": 1000.0, "system": "gb200-nvl72"}
    raw = with_overrides(
        {"phase": "system", "system": "cloudmatrix384"},
        dict(list(changes.items())[::order]),
    )
    system = build(validate_scenario(raw, "test"), "none").system
    assert (system.name, float(system.power.all_in_w)) == ("gb200-nvl72", 1000.0)


# --- Leaves of the system


def test_a_number_sets_a_leaf_in_si():
    assert leaf("system.chip.memory_bytes_per_s", 2e12) == 2e12


@pytest.mark.parametrize(
    ("path", "text", "si"),
    [
        ("system.chip.memory_bytes_per_s", "1.8 TB/s", 1.8e12),
        ("system.chip.memory_bytes_per_s", "1.8TB/s", 1.8e12),
        ("system.chip.memory_bytes", "80 GiB", 80 * 2.0**30),
        ("system.chip.matrix_flop_per_s.bf16", "500 TFLOP/s", 500e12),
        ("system.tiers.supernode.bytes_per_s", "400 Gb/s", 50e9),
        ("system.tiers.supernode.latency_s", "3 us", 3e-6),
        ("system.engines.cloudmatrix-infer.decode_step_s", "1.5ms", 1.5e-3),
        ("system.chip.gemm_efficiency", "90 %", 0.9),
        ("system.power.all_in_w", "600 kW", 600e3),
        ("system.parts.optical_modules", "5760", 5760.0),
    ],
)
def test_a_string_sets_a_leaf_with_its_unit(path, text, si):
    assert leaf(path, text) == pytest.approx(si, rel=1e-12)


def test_a_set_leaf_changes_the_prediction():
    raw = {"system": "cloudmatrix384", "phase": "system"}
    twice = with_overrides(raw, {"system.chip.memory_bytes": "128 GB"})
    p = build(validate_scenario(twice, "test"), "none")
    m = metrics(*p.inputs)
    assert float(m.memory_bytes) == 768 * 128e9


def test_a_leaf_that_the_user_sets_is_certain_and_says_so():
    figure = made(system__chip__memory_bytes=1e11).figures["chip.memory_bytes"]
    assert figure.prior_sigma == 0.0
    assert (figure.source, figure.kind) == ("override", "assumed")


def test_usable_memory_follows_the_fitted_memory_where_no_file_has_it():
    p = made(system__chip__memory_bytes="100 GB")
    assert float(p.system.chip.memory_usable_bytes) == 100e9


def test_usable_memory_stays_where_it_is_stated():
    p = made(DENSE, system__chip__memory_bytes="288 GB")
    assert float(p.system.chip.memory_usable_bytes) == 186e9
    both = {"chip.memory_bytes": "100 GB", "chip.memory_usable_bytes": "96 GB"}
    p = made(system={"base": "cloudmatrix384", **both})
    assert float(p.system.chip.memory_usable_bytes) == 96e9


def test_other_leaves_keep_their_values():
    default, changed = made(), made(system__chip__memory_bytes_per_s=1e12)
    assert {p for p in default.figures if default.figures[p] != changed.figures[p]} == {
        "chip.memory_bytes_per_s"
    }


@pytest.mark.parametrize(
    "keys",
    [
        {"chip.memory_bytes": 1e11, "tiers.node.latency_s": "1 us"},
        {"chip": {"memory_bytes": 1e11}, "tiers": {"node": {"latency_s": "1 us"}}},
    ],
    ids=["dotted", "nested"],
)
def test_a_base_with_changes_takes_dotted_and_nested_keys(keys):
    p = made(system={"base": "cloudmatrix384", **keys})
    assert float(p.system.chip.memory_bytes) == 1e11
    assert float(p.system.tiers["node"].latency_s) == pytest.approx(1e-6, rel=1e-12)


def test_a_dotted_override_replaces_the_leaf_of_a_changed_base():
    base = {"base": "cloudmatrix384", "chip": {"memory_bytes": 1e11}}
    raw = {"phase": "system", "system": base}
    changed = with_overrides(raw, {"system.chip.memory_bytes": 2e11})
    p = build(validate_scenario(changed, "test"), "none")
    assert float(p.system.chip.memory_bytes) == 2e11


def test_an_alternative_is_chosen_by_its_name():
    p = made(system__alternatives="semianalysis")
    assert float(p.system.chip.matrix_flop_per_s["bf16"]) == 390e12


def test_a_leaf_set_beside_an_alternative_wins_over_it():
    p = made(
        system__alternatives="semianalysis", system__chip__matrix_flop_per_s__bf16=1e15
    )
    assert float(p.system.chip.matrix_flop_per_s["bf16"]) == 1e15
    assert float(p.system.tiers["node"].bytes_per_s) == 175e9


# --- Leaves of the model


def test_a_model_leaf_is_set_by_its_path():
    p = made(model__vocabulary=1000, model__experts__topk=4)
    assert float(p.model.vocabulary) == 1000.0
    assert float(p.model.experts.topk) == 4.0


def test_a_model_takes_a_base_with_changes():
    p = made(model={"base": "deepseek-v3", "attention": {"heads": 64}})
    assert float(p.model.attention.heads) == 64.0
    assert float(p.model.layers) == 61.0


# --- Ratios in measurement files


MEASUREMENTS = """
[sources.me]
title = "Mine"

[scenarios.decode]
system = "cloudmatrix384"
model = "deepseek-r1"
phase = "decode"
workload = { sequences_per_device = 48, kv_tokens = 4224, draft_tokens = 1 }
layout = { devices = 320 }
routing = { redundant_experts = 32, shared_replicas = 32 }

[[measurements]]
id = "row"
scenario = "decode"
set = { "workload.kv_tokens" = 1000, layout = { overlapped_microbatches = 2 } }
ratio_to = { system = "gb200-nvl72", "workload.draft_tokens" = 0, "layout.devices" = 64, \
"routing.shared_replicas" = 0 }
quantity = "tpot"
value = 1.5
unit = "1"
source = "me"
locator = "page 1"
"""


@pytest.fixture
def row(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(MEASUREMENTS)
    (only,) = load_measurements(str(path))
    return only


def test_set_applies_above_and_below_the_line(row):
    for side in (row.scenario, row.below):
        assert side.workload.kv_tokens == 1000.0
        assert side.layout.overlapped_microbatches == 2


def test_ratio_to_applies_below_the_line_alone(row):
    assert (row.scenario.system.base, row.below.system.base) == (
        "cloudmatrix384",
        "gb200-nvl72",
    )
    assert (row.scenario.workload.draft_tokens, row.below.workload.draft_tokens) == (1, 0)


@pytest.mark.parametrize(
    ("extra", "sigma"),
    [
        ("", 0.03),
        ('confidence = "B"', 0.06),
        ('confidence = "C"', 0.1),
        ('confidence = "C"\nrelative_sigma = 0.2', 0.2),
    ],
)
def test_a_measurement_is_as_uncertain_as_its_confidence(tmp_path, extra, sigma):
    path = tmp_path / "mine.toml"
    path.write_text(MEASUREMENTS + extra)
    (only,) = load_measurements(str(path))
    assert only.relative_sigma == sigma


# --- A user's own system


def figure(value: float, unit: str) -> str:
    return (
        f'{{ value = {value}, unit = "{unit}", source = "sheet", locator = "page 1",'
        ' kind = "published" }'
    )


SYSTEM = f"""
name = "mine"
title = "My machine"
scale_up_tier = "node"

[sources.sheet]
title = "My datasheet"

[chip]
vector_flop_per_s = {figure(10, "TFLOP/s")}
memory_bytes = {figure(64, "GB")}
memory_bytes_per_s = {figure(2, "TB/s")}
matrix_cores = {figure(24, "1")}

[chip.matrix_flop_per_s]
bf16 = {figure(300, "TFLOP/s")}

[[tiers]]
name = "node"
plane = "fabric"
size = {figure(8, "1")}
bytes_per_s = {figure(100, "GB/s")}

[power]
all_in_w = {figure(10, "kW")}
"""


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(SYSTEM)
    return str(path)


def test_a_system_file_needs_only_what_a_datasheet_has(own):
    loaded = load_system(Reference(own))
    assert loaded.system.name == "mine"
    assert float(loaded.system.chip.memory_bytes) == 64e9


def test_leaves_left_out_are_assumed_with_a_prior(own):
    figures = load_system(Reference(own)).figures
    for path, found in figures.items():
        if found.source == "sheet":
            assert found.kind == "published", path
            assert found.prior_sigma == 0.0, path
        else:
            assert found.kind == "assumed", path
            assert found.source in ("practice", "llama-3"), path
    assert figures["chip.gemm_efficiency"].prior_sigma > 0.0
    stated = [path for path, found in figures.items() if found.source == "sheet"]
    assert len(stated) == 8 + 1  # usable memory follows the fitted memory


def test_defaults_bring_libraries_an_engine_and_both_endpoints(own):
    system = load_system(Reference(own)).system
    assert set(system.endpoints) == {"npu", "cpu"}
    assert set(dict(system.defaults)) == {
        "collective",
        "serving_collective",
        "expert",
        "engine",
        "trainer",
        "unpacking",
    }
    (library,) = system.expert_parallel.values()
    assert set(library) == {"low_latency", "normal"}


def test_one_stated_endpoint_leaves_the_other_to_the_defaults(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(SYSTEM + f"[endpoints.npu]\nlatency_s = {figure(1, 'us')}\n")
    assert set(load_system(Reference(str(path))).system.endpoints) == {"npu", "cpu"}


def test_a_user_system_predicts_its_totals(own):
    p = build(validate_scenario({"phase": "system", "system": own}, "test"), "none")
    m = metrics(*p.inputs)
    assert float(m.memory_bytes) == 8 * 64e9
    assert float(m.peak_flop_per_s) == 8 * 300e12


def test_a_chip_without_bf16_runs_models_in_another_format(own):
    Path(own).write_text(SYSTEM.replace("bf16 =", "fp16 ="))
    formats = dict.fromkeys(("weight", "activation", "attention", "kv", "head"), "fp16")
    args = {"system": own, "engine": "default", "dtypes": formats}
    assert float(predicted(made(DENSE, **args)).tpot_s) > 0.0


def test_a_user_system_takes_changes_like_a_shipped_one(own):
    p = made(
        DENSE,
        system={"base": own, "tiers.node.size": 16},
        engine="default",
        dtypes={"weight": "bf16", "activation": "bf16"},
    )
    assert float(p.system.tiers["node"].size) == 16.0
    assert float(devices(p.layout)) == 8.0


def test_a_changed_system_file_is_read_again(own):
    load_system(Reference(own))
    Path(own).write_text(SYSTEM.replace("value = 64,", "value = 96,"))
    os.utime(own, (1.0, 1.0))
    assert float(load_system(Reference(own)).system.chip.memory_bytes) == 96e9


def test_a_scenario_is_read_from_a_path(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('system = "cloudmatrix384"\nphase = "system"\n')
    assert load_scenario(str(path)).phase == "system"


# --- Degrees


def test_data_parallel_takes_the_devices_that_tensor_parallel_leaves():
    got = degrees(laid_out(devices=64, tp=4))
    assert (got["tp"], got["dp"], got["pp"]) == (4.0, 16.0, 1.0)


def test_experts_spread_over_all_devices_by_default():
    p = laid_out("moe", devices=256)
    assert degrees(p)["ep"] == 256.0
    assert degrees(p)["edp"] == 1.0


def test_expert_data_parallel_takes_the_devices_that_experts_leave():
    got = degrees(laid_out("moe", devices=256, ep=64))
    assert (got["ep"], got["edp"]) == (64.0, 4.0)


def test_a_dense_model_has_no_expert_parallel_ranks():
    got = degrees(laid_out(devices=16))
    assert (got["ep"], got["etp"]) == (1.0, 1.0)


def test_devices_left_out_are_the_product_of_the_degrees():
    assert float(devices(laid_out(tp=4, dp=3, pp=2).layout)) == 24.0


def test_devices_left_out_follow_the_expert_ranks():
    p = laid_out("moe", ep=32)
    assert float(devices(p.layout)) == 32.0
    assert degrees(p)["dp"] == 32.0


@pytest.mark.parametrize("name", [DENSE, "moe"])
def test_attention_and_expert_axes_cover_the_same_devices(name):
    got = degrees(laid_out(name, devices=128, tp=2, pp=4))
    whole = got["tp"] * got["cp"] * got["dp"] * got["pp"]
    assert whole == got["etp"] * got["ep"] * got["edp"] * got["pp"] == 128.0


def test_an_order_places_its_first_axis_innermost():
    inner = laid_out(devices=64, tp=4, order="tp-cp-ep-dp-pp").layout.factor
    outer = laid_out(devices=64, tp=4, order="dp-tp-cp-pp").layout.factor
    row = AXES.index("tp")
    assert [float(x) for x in inner[row]] == [2.0, 2.0, 1.0, 1.0]
    assert [float(x) for x in outer[row]] == [1.0, 1.0, 4.0, 1.0]


def test_tensor_parallel_attention_is_chosen_where_tp_splits():
    assert laid_out(devices=8, tp=8).layout.attention == "tp"
    assert laid_out(devices=8).layout.attention == "dp"


@pytest.mark.parametrize("count", [1, 2, "auto"])
def test_overlapped_microbatches_are_a_count_or_auto(count):
    p = laid_out(devices=8, overlapped_microbatches=count)
    assert p.layout.microbatches == str(count)


def test_experts_must_fill_the_slots_that_are_stated():
    # 256 routed + 32 redundant + 32 shared = 320 ranks x 1
    p = made()
    r = p.layout.routing
    held = p.model.experts.routed + r.redundant_experts + r.shared_replicas
    assert float(held) == degrees(p)["ep"] * 1.0


def test_shared_replicas_mean_that_tokens_are_sent_to_the_shared_expert():
    assert made().layout.routing.dispatches_shared
    without = made(routing__shared_replicas=0, routing__redundant_experts=64)
    assert not without.layout.routing.dispatches_shared


# --- Speculation


def test_one_acceptance_holds_for_every_draft():
    p = made(workload__draft_tokens=3, workload__acceptance=0.5)
    assert float(tokens_per_step(p.workload)) == 1 + 0.5 + 0.25 + 0.125


def test_a_list_of_acceptances_is_one_for_each_draft():
    p = made(workload__draft_tokens=2, workload__acceptance=[0.8, 0.5])
    assert float(tokens_per_step(p.workload)) == pytest.approx(1 + 0.8 + 0.4, rel=1e-12)


def test_without_drafts_a_step_gives_one_token():
    assert float(tokens_per_step(made(workload__draft_tokens=0).workload)) == 1.0


# --- Payloads and operators


@pytest.mark.parametrize(
    ("given", "si"), [("40 MiB", 40 * 2.0**20), ("40MB", 40e6), (4096, 4096.0)]
)
def test_a_payload_is_in_bytes_or_has_a_unit(given, si):
    p = collective(kind="all_reduce", ranks=8, payload_bytes=given)
    assert float(p.workload.payload_bytes) == si


def test_a_payload_left_out_stands_for_the_asymptote():
    p = collective(kind="all_gather", ranks=8)
    assert float(p.workload.payload_bytes) == ASYMPTOTE_BYTES == 2.0**30


def test_tokens_of_a_plain_collective_are_a_payload():
    p = collective(kind="all_gather", ranks=8, tokens_per_rank=10, hidden=100)
    assert float(p.workload.payload_bytes) == 10 * 100 * 2


@pytest.mark.parametrize(
    ("kind", "dtype", "scale"),
    [("dispatch", "int8", 512.0), ("dispatch", "bf16", 0.0), ("combine", "int8", 0.0)],
)
def test_scales_travel_with_8_bit_tokens_of_a_dispatch(kind, dtype, scale):
    p = collective(kind=kind, ranks=8, tokens_per_rank=1, hidden=8, topk=1, dtype=dtype)
    assert float(p.workload.scale_bytes) == scale


def test_ranks_of_a_collective_are_contiguous_from_the_innermost_tier():
    factor = collective(kind="all_reduce", ranks=64).layout.factor
    row = [float(x) for x in factor[AXES.index("ep")]]
    assert row == [2.0, 8.0, 4.0, 1.0]


@pytest.mark.parametrize(
    ("ranks", "scope", "splits"),
    [
        (8, "node", [2.0, 4.0, 1.0, 1.0]),  # contiguous ranks reach the node's tier
        (16, "node", [2.0, 8.0, 1.0, 1.0]),
        (8, "supernode", [1.0, 1.0, 8.0, 1.0]),  # else the tier is filled first
        (96, "supernode", [2.0, 8.0, 6.0, 1.0]),
    ],
)
def test_a_scope_is_the_tier_that_a_collective_crosses(ranks, scope, splits):
    factor = collective(kind="all_reduce", ranks=ranks, scope=scope).layout.factor
    assert [float(x) for x in factor[AXES.index("ep")]] == splits


def test_a_remote_read_is_between_two_devices_of_the_supernode():
    factor = collective(kind="read").layout.factor
    assert [float(x) for x in factor[AXES.index("ep")]] == [1.0, 1.0, 2.0, 1.0]


def test_a_gemm_writes_bf16_unless_told_otherwise():
    shape = {"kind": "gemm", "m": 8, "n": 8, "k": 8, "dtype": "int8"}
    assert operator(**shape).workload.out_bytes == 2.0
    assert operator(**shape, out_dtype="int8").workload.out_bytes == 1.0


def test_prefill_attention_asks_as_many_queries_as_it_has_keys():
    shape = {"heads": 8, "head_dim": 64, "sequences": 2, "kv_tokens": 100}
    prefill = operator(kind="attention_prefill", **shape).workload
    decode = operator(kind="attention_decode", **shape).workload
    assert (float(prefill.query_tokens), float(decode.query_tokens)) == (100.0, 1.0)


def test_every_head_has_its_own_keys_unless_told_otherwise():
    shape = {"heads": 8, "head_dim": 64, "sequences": 2, "kv_tokens": 100}
    w = operator(kind="attention_decode", **shape).workload
    assert (float(w.kv_heads), float(w.value_dim)) == (8.0, 64.0)


def test_a_kernel_with_heads_of_its_own_expands_latents_in_prefill():
    """MLA is materialized in prefill, absorbed in decode."""
    shape = {"heads": 8, "head_dim": 64, "latent_dim": 32, "sequences": 2}
    shape |= {"kv_tokens": 100}
    assert not operator(kind="attention_prefill", **shape).workload.latent
    assert operator(kind="attention_decode", **shape).workload.latent


def test_a_copy_moves_its_tokens_where_no_bytes_are_given():
    p = operator(kind="copy", tokens=10, hidden=100, dtype="fp8")
    assert float(p.workload.payload_bytes) == 1000.0
    m = predicted(p)
    assert float(m.bytes_per_s * m.time_s) == pytest.approx(2000.0, rel=1e-12)


def test_data_of_any_format_can_be_copied():
    """Only matrix units need a peak for it: 910C computes in no fp8."""
    made = {"tokens": 10, "hidden": 100, "dtype": "fp8"}
    assert float(predicted(operator(kind="vector", **made)).utilization) == 0.0


# --- Keys that a phase or kind has no use for


def predicted(p):
    return metrics(*p.inputs)


REDUNDANT = {
    "an expert degree of one": {"layout.ep": 1, "layout.etp": 1, "layout.edp": 8},
    "no experts to copy": {"routing.redundant_experts": 0, "routing.shared_replicas": 0},
    "balance and skew": {"routing.balance": "typical", "routing.skew": 0.3},
    "formats of exchanges": {"dtypes.dispatch": "fp8", "dtypes.combine": "bf16"},
    "formats of training": {"dtypes.master": "fp32", "dtypes.gradient": "bf16"},
    "an acceptance of no draft": {"workload.acceptance": [0.8, 0.6]},
    "one virtual stage": {"layout.vpp": 1},
    "even stages": {"layout.stages": [80]},
}


@pytest.mark.parametrize("case", REDUNDANT, ids=str)
def test_a_redundant_key_of_a_dense_model_changes_nothing(case):
    changed = build(load_scenario(DENSE, REDUNDANT[case]), "none")
    assert float(predicted(changed).tpot_s) == float(predicted(made(DENSE)).tpot_s)


def test_stages_as_even_as_they_can_be_are_those_of_serving():
    """61 layers on 2 stages: 31 and 30."""
    layout = {"devices": 64, "tp": 32, "pp": 2, "attention": "sp_tp_sp"}
    routing = {"redundant_experts": 32}
    changes = {"layout": layout, "routing": routing}
    even = made(PREFILL, **changes)
    told = made(PREFILL, **(changes | {"layout": layout | {"stages": [30, 31]}}))
    assert float(predicted(told).ttft_s) == float(predicted(even).ttft_s)


def test_a_cache_plane_is_idle_where_nothing_is_cached():
    changes = {"workload__cache_plane": "ub", "workload__cached_fraction": 0.0}
    assert float(predicted(made(PREFILL, **changes)).cache_load_time_s) == 0.0


def test_an_all_to_all_sends_each_of_the_topk_copies():
    tokens = {"kind": "all_to_all", "ranks": 8, "tokens_per_rank": 10, "hidden": 100}
    one = collective(**tokens).workload.payload_bytes
    eight = collective(**tokens, topk=8).workload.payload_bytes
    scaled = collective(**tokens, topk=8, dtype="int8", scale_bytes=4)
    assert float(one) == 10 * 100 * 2
    assert float(eight) == 8 * float(one)
    assert float(scaled.workload.payload_bytes) == 10 * 8 * (100 + 4)


def test_topk_means_nothing_to_a_gather():
    tokens = {"kind": "all_gather", "ranks": 8, "tokens_per_rank": 10, "hidden": 100}
    plain, more = collective(**tokens), collective(**tokens, topk=8, mode="normal")
    assert float(predicted(plain).time_s) == float(predicted(more).time_s)


def test_sending_to_host_memory_is_writing_it():
    to_host = {"path": "npu-cpu", "payload_bytes": "1 MiB"}
    sent = predicted(collective(kind="p2p", **to_host))
    written = predicted(collective(kind="write", **to_host))
    assert float(sent.time_s) == float(written.time_s)
    assert float(sent.time_s) != float(predicted(collective(kind="p2p")).time_s)


def test_copy_engines_are_slower_than_cores_in_remote_access_too():
    cores, engines = (
        predicted(collective(kind="read", payload_bytes="1 GiB", engine=engine))
        for engine in ("vector_cores", "sdma")
    )
    assert float(engines.time_s / cores.time_s) == pytest.approx(1.09, rel=1e-3)


def bus_rate(system, ranks, **keys):
    """Of an all-reduce of 16 GiB by NCCL."""
    asked = {"kind": "all_reduce", "ranks": ranks, "payload_bytes": "16 GiB"} | keys
    raw = {"system": system, "phase": "collective", "collective": asked}
    return float(predicted(build(validate_scenario(raw, "nccl"), "none")).bus_bytes_per_s)


def test_a_tree_over_three_racks_beats_a_ring_as_measured():
    """234.77 against 196.87 GB/s (NVIDIA/nccl, issue 1801)."""
    parts = {"base": "gb200-nvl72", "tiers.supernode.size": 4}
    ring, tree = (bus_rate(parts, 12, algorithm=name) for name in ("ring", "tree"))
    assert tree / ring == pytest.approx(234.77 / 196.87, rel=0.03)


def test_switches_of_the_network_reduce_where_a_job_asks():
    """480 against 370 GB/s over four nodes of H100 (NVIDIA GTC 2025, S72583)."""
    plain = bus_rate("dgx-h100", 32)
    asked = bus_rate("dgx-h100", 32, network_reduces=True)
    assert asked / plain == pytest.approx(480 / 370, rel=0.1)
    assert plain < 400e9 < asked  # eight ports of 50 GB/s a node


# --- Defaults


def test_weights_and_dispatch_take_the_activation_format():
    raw = {
        "system": "cloudmatrix384",
        "model": "deepseek-r1",
        "phase": "decode",
        "workload": {"sequences_per_device": 1, "kv_tokens": 1},
        "dtypes": {"activation": "int8"},
    }
    p = build(validate_scenario(raw, "test"), "none")
    d = dtypes_of(p.scenario)
    assert (d.weight, d.dispatch) == ("int8", "int8")
    assert (d.attention, d.kv, d.combine, d.head) == ("bf16",) * 4
    assert (d.master, d.gradient) == ("fp32", "fp32")
    assert [float(x) for x in p.workload.software.sizes] == [BYTES[name] for name in d]
    assert p.choices.dtypes == ("int8", "bf16", "bf16", "int8")


def test_serving_routes_typically_and_benchmarks_uniformly():
    typical, uniform = (balance_of(name) for name in ("typical", "uniform"))
    assert made().workload.software.balance == typical
    shape = {"ranks": 8, "tokens_per_rank": 1, "hidden": 8, "topk": 1}
    assert collective(kind="dispatch", **shape).workload.balance == uniform


def test_skew_left_out_is_the_engines_and_a_number_replaces_it():
    engines = jnp.asarray(0.3)
    assert float(made().workload.software.balance.skew_of(engines)) == 0.3
    even = made(routing__skew=0).workload.software.balance
    assert float(even.skew_of(engines)) == 0.0


def test_the_default_engine_is_the_systems():
    raw = {
        "system": "gb200-nvl72",
        "model": "llama-3.1-8b",
        "phase": "decode",
        "workload": {"sequences_per_device": 1, "kv_tokens": 1},
    }
    assert build(validate_scenario(raw, "test"), "none").choices.engine == "trtllm"


def test_decode_uses_low_latency_and_prefill_normal_exchanges():
    assert made(DECODE).choices.expert_mode == "low_latency"
    assert made(PREFILL).choices.expert_mode == "normal"


@pytest.mark.parametrize(("plane", "link"), [("ub", "cpu-pool"), ("vpc", "vpc")])
def test_cached_prefixes_come_over_the_named_plane(plane, link):
    assert made(PREFILL, workload__cache_plane=plane).choices.cache_link == link


# --- Keys that the source doesn't state


@pytest.mark.parametrize(
    "key",
    [
        *("system", "model", "engine", "layout", "dtypes.master", "routing.skew"),
        *("op.accumulate_dtype", "collective.topk", "workload.offload.link"),
        *("workload.acceptance.1", "layout.stages.0", "pools", "pools.0.layout.tp"),
        *("system.chip.memory_bytes", "system.alternatives", "model.experts.topk"),
        *("workload.zero", "workload.tpot_limit", "workload.cache_plane"),
    ],
)
def test_any_key_of_the_schema_may_be_assumed(key):
    """Of any phase, set or left to its default."""
    assert made(assumed=[key]).scenario.assumed == [key]


@pytest.mark.slow
def test_every_assumption_of_the_shipped_files_is_a_key():
    for name in shipped("measurements"):
        assert load_measurements(name)


# --- Training and serving

TRAIN = {
    "system": "cloudmatrix384",
    "model": "pangu-ultra-moe-718b",
    "phase": "train",
    "engine": "cloudmatrix-infer",
    "assumed": ["workload.zero"],
    "workload": {
        "global_batch": 1024,
        "micro_batch": 2,
        "sequence_tokens": 8192,
        "schedule": "interleaved",
        "recompute": "selective",
        "zero": 1,
        "fused_attention": True,
        "precision": "bf16",
        "offload": {"activations": 0.5, "optimizer": 1, "link": "cpu-pool"},
        "flop_convention": "megatron",
        "peak": "376 TFLOP/s",
        "fabric": "cloudmatrix-paper",
    },
    "layout": {
        "devices": 6144,
        "tp": 8,
        "pp": 16,
        "vpp": 2,
        "ep": 4,
        "sequence_parallel": True,
        "stages": [4] * 16,
    },
    "dtypes": {"master": "fp32", "gradient": "bf16"},
}
SERVE = {
    "system": "cloudmatrix384",
    "model": "deepseek-r1",
    "phase": "serve",
    "workload": {
        "request_rate": 100,
        "prompt_tokens": 4096,
        "output_tokens": 256,
        "cached_fraction": 0.5,
        "ttft_limit": "2 s",
        "tpot_limit": "50 ms",
    },
    "pools": [
        {
            "role": "prefill",
            "devices": 192,
            "layout": {"tp": 32, "attention": "sp_tp_sp"},
        },
        {"role": "decode", "devices": 320, "layout": {"ep": 320}},
        {"role": "cache", "devices": 32},
        {"role": "attention", "devices": 8},
        {"role": "expert", "devices": 8},
    ],
}


@pytest.mark.parametrize("raw", [TRAIN, SERVE], ids=["train", "serve"])
def test_the_schema_of_later_phases_is_complete(raw):
    assert validate_scenario(raw, "test").phase == raw["phase"]


def test_limits_and_peaks_of_later_phases_are_quantities():
    serve, train = validate_scenario(SERVE, "test"), validate_scenario(TRAIN, "test")
    assert serve.workload.tpot_limit == pytest.approx(0.05, rel=1e-12)
    assert train.workload.peak == pytest.approx(376e12, rel=1e-12)


@pytest.mark.parametrize("recompute", ["none", "selective", "full", 0.3, 0, 1])
def test_recompute_is_a_name_or_a_fraction(recompute):
    raw = {**TRAIN, "workload": {**TRAIN["workload"], "recompute": recompute}}
    assert validate_scenario(raw, "test").workload.recompute == recompute


@pytest.mark.parametrize(
    "schedule", ["gpipe", "1f1b", "interleaved", "zero_bubble", "dualpipe"]
)
@pytest.mark.parametrize("precision", ["bf16", "fp8", "mxfp8", "int8", "nvfp4"])
def test_every_schedule_and_precision_of_training_validates(schedule, precision):
    workload = {**TRAIN["workload"], "schedule": schedule, "precision": precision}
    scenario = validate_scenario({**TRAIN, "workload": workload}, "test")
    assert scenario.workload.schedule == schedule
