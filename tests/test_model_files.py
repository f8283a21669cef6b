"""Files that people bring, against what they mean; no family read silently wrong.

`models/truth.csv` says what reduced `config.json` files of public models mean, counted by
hand from the architecture's published definition: most ship, the others stand beside it.
`oracle/table.json.gz` holds counts of parameters that the `transformers` library builds.
"""

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

import cmxjax as cmx
from cmxjax.model.architecture import active_parameters, total_parameters
from cmxjax.specs.errors import SpecError
from cmxjax.specs.figures import listing
from cmxjax.specs.huggingface import convert
from cmxjax.specs.model_file import ModelFile
from cmxjax.specs.model_load import architecture_of, checkpoint_bytes, load_model
from cmxjax.specs.scenario import validate_scenario
from cmxjax.specs.system_load import Reference

HERE = Path(__file__).parent
FOLDER = HERE / "models"
TABLE = (FOLDER / "truth.csv").read_text().splitlines()
TRUTH = {row["id"]: row for row in csv.DictReader(TABLE)}
READ = sorted(TRUTH)


def stating(column: str) -> list[str]:
    """Rows that say so much."""
    return [name for name in READ if TRUTH[name][column]]


BF16 = 2.0


def loaded(name: str) -> Any:
    own = FOLDER / TRUTH[name]["file"]
    return load_model(Reference(str(own) if own.is_file() else name))


def read(name: str) -> Any:
    """The language model, of which the truth speaks; `test_vision.py` counts towers."""
    return loaded(name).architecture.replace(vision=None)


def said(name: str, column: str) -> float:
    return float(TRUTH[name][column] or 0.0)


@pytest.mark.parametrize("name", READ)
def test_parameters_are_those_of_the_published_architecture(name):
    a = read(name)
    assert float(total_parameters(a)) == pytest.approx(said(name, "total_params"), 1e-4)
    active = said(name, "active_params_per_token")
    # the rows leave vectors of compressed attention out: 1.5e6 of 13.8e9
    assert float(active_parameters(a)) == pytest.approx(active, 2e-4)


def growing(mixer: Any) -> bool:
    """Whether a mixer's cache grows with the context."""
    bound = [getattr(mixer, key, None) for key in ("windowed", "chunked")]
    return mixer.caches and not any(float(x.on) for x in bound if x is not None)


@pytest.mark.parametrize("name", stating("kv_bytes_per_token"))
def test_the_cache_grows_by_what_full_attention_keeps(name):
    a = read(name)
    each = zip(a.half_counts.mixers, a.mixers, strict=True)
    grown = sum(float(n * m.kv_width) for n, m in each if growing(m))
    index = said(name, "index_bytes_per_token")  # keys of an indexer are cached too
    expected = said(name, "kv_bytes_per_token") + index
    assert grown * BF16 == pytest.approx(expected, 1e-9)


@pytest.mark.parametrize("name", stating("constant_state_bytes_per_sequence"))
def test_windows_and_recurrent_states_are_constant(name):
    a, held = read(name), 0.0
    for n, m in zip(a.half_counts.mixers, a.mixers, strict=True):
        if not m.caches:
            held += float(n * m.state)
        elif not growing(m):
            held += float(n * m.kv_width * m.window)
    expected = said(name, "constant_state_bytes_per_sequence")
    assert held * BF16 == pytest.approx(expected, 1e-9)


@pytest.mark.parametrize("name", READ)
def test_experts_are_as_many_as_the_file_says(name):
    e = read(name).experts
    counts = [0.0, 0.0] if e is None else [float(e.routed), float(e.topk)]
    assert counts == [said(name, "experts"), said(name, "topk")]


@pytest.mark.parametrize("name", stating("weight_bytes"))
def test_a_checkpoint_is_as_large_as_its_modules_in_their_formats(name):
    model = loaded(name)
    expected = said(name, "weight_bytes_16bit") or said(name, "weight_bytes")
    got = checkpoint_bytes(read(name), model.file)
    assert got == pytest.approx(expected, 2e-3)


def test_a_job_holds_weights_as_the_file_stores_them_unless_it_says_otherwise():
    """gpt-oss-120b: experts in 4 bits and their scales, the rest in 16."""
    raw = {
        "system": "hgx-h800",
        "model": "gpt-oss-120b",
        "phase": "decode",
        "layout": {"devices": 1},
        "workload": {"sequences_per_device": 1, "kv_tokens": 1024},
    }
    held = []
    for more in ({}, {"dtypes": {"weight": "bf16"}}):
        p = cmx.build(validate_scenario(raw | more, "test"), "none")
        m = cmx.metrics(p.machine, p.model, p.workload, p.layout)
        held.append(float(m.memory_weights_bytes))
    assert held[0] == pytest.approx(65.25e9, rel=0.01)
    assert held[1] == pytest.approx(2 * 116.83e9, rel=0.01)


# --- The oracle

ROWS = [
    row
    for row in json.loads(gzip.decompress((HERE / "oracle/table.json.gz").read_bytes()))
    if "skipped" not in row
]
FAMILIES = sorted({row["model_type"] for row in ROWS})


def counted(row: dict[str, Any]) -> float | None:
    """Parameters as the reader counts them; None where it refuses."""
    try:
        raw = convert(row["config"] | {"model_type": row["model_type"]}, "config.json")
    except SpecError:
        return None
    file = ModelFile.model_validate(raw, context=listing(raw))
    return float(total_parameters(architecture_of(file)))


def built(row: dict[str, Any]) -> float:
    """Parameters that the class of a family builds. LongCat's has rows of two matrices
    for each expert that computes nothing; no checkpoint holds them."""
    if row["model_type"] != "longcat_flash":
        return row["total"]
    c = row["config"]
    unused = 2.0 * c["hidden_size"] * c["expert_ffn_hidden_size"]
    return row["total"] - c["num_layers"] * c["zero_expert_num"] * unused


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_has_the_parameters_that_its_class_builds_or_is_refused(family):
    for row in ROWS:
        if row["model_type"] == family:
            got = counted(row)
            assert got is None or got == pytest.approx(built(row), 1e-3), row["variant"]


def test_most_of_the_oracle_is_read_not_refused():
    """425 of 559 configurations, of 112 families, when this was written."""
    read_rows = [row for row in ROWS if counted(row) is not None]
    assert len(read_rows) >= 422
    assert len({row["model_type"] for row in read_rows}) >= 110


# --- Variants of one file


LLAMA = json.loads((FOLDER / "llama-3.1-8b.json").read_text())


def read_config(config: dict[str, Any]) -> Any:
    raw = convert(config, "config.json")
    return architecture_of(ModelFile.model_validate(raw, context=listing(raw)))


def made(**changes: Any) -> Any:
    return read_config(LLAMA | changes)


def test_a_nested_language_model_is_read_as_one_by_itself():
    inner = {"model_type": "mllm", "text_config": LLAMA, "vision_config": {"depth": 3}}
    outer = read_config(inner)
    assert float(total_parameters(outer)) == float(total_parameters(made()))


@pytest.mark.parametrize(
    "off",
    [
        {"sliding_window": None},
        {"sliding_window": 4096, "use_sliding_window": False},
        {"num_experts": 0},
        {"layer_types": ["full_attention"] * 32},
        {"attention_dropout": 0.1},
        {"linear_attn_extra": False},
    ],
    ids=str,
)
def test_what_is_off_changes_nothing(off):
    plain, changed = made(), made(**off)
    assert float(total_parameters(changed)) == float(total_parameters(plain))
    assert [bool(m.windowed.on) for m in changed.mixers] == [False]


@pytest.mark.parametrize(
    ("changes", "said_so"),
    [
        ({"expert_groups_odd": 4}, "expert_groups_odd"),
        ({"ssm_width": 16}, "ssm_width"),
        ({"compress_ratio": 4}, "compress_ratio"),
        ({"attn_output_gate": True}, "attn_output_gate"),
        ({"linear_layers": [1, 2]}, "linear_layers"),
        ({"index_heads": 4}, "index_heads"),
        ({"num_key_value_heads": 7}, "num_key_value_heads"),
        ({"num_hidden_layers": 31.5}, "num_hidden_layers"),
        ({"layer_types": ["linear_attention"] * 32}, "layer_types"),
        ({"model_type": "new_llama"}, "new_llama"),
    ],
    ids=str,
)
def test_what_may_change_the_model_is_refused_by_key(changes, said_so):
    with pytest.raises(SpecError) as caught:
        made(**changes)
    assert said_so in str(caught.value)


FORMATS = [
    ({"quant_method": "gptq", "bits": 4, "group_size": 128}, 0.5 + 2.5 / 128),
    ({"quant_method": "awq", "bits": 4, "group_size": 64}, 0.5 + 2.5 / 64),
    ({"quant_method": "fp8", "activation_scheme": "static"}, 1.0),
    ({"quant_method": "fp8", "weight_block_size": [128, 128]}, 1.0 + 4.0 / 128**2),
    ({"quant_method": "bitsandbytes", "load_in_4bit": True}, 0.5 + 4.0 / 64),
    ({"quant_method": "bitsandbytes", "load_in_8bit": True}, 1.0),
    ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, 0.5 + 1.0 / 16),
]


@pytest.mark.parametrize(("quantized", "expected"), FORMATS, ids=str)
def test_bytes_of_a_weight_by_format(quantized, expected):
    raw = convert(LLAMA | {"quantization_config": quantized}, "config.json")
    assert raw["weights"]["dense"] == pytest.approx(expected)


def test_modules_left_out_stay_as_they_are():
    quantized = {"quant_method": "gptq", "bits": 4, "group_size": 128}
    rules = quantized | {"dynamic": {"-:.*self_attn.*": {}}}
    weights = convert(LLAMA | {"quantization_config": rules}, "config.json")["weights"]
    assert (weights["attention"], weights["head"]) == (2.0, 2.0)
    assert weights["dense"] < 0.6


@pytest.mark.parametrize(
    "quantized",
    [
        {"quant_method": "new"},
        {
            "quant_method": "compressed-tensors",
            "config_groups": {
                "a": {"weights": {"num_bits": 4, "group_size": 32, "type": "int"}},
                "b": {"weights": {"num_bits": 8, "group_size": None, "type": "float"}},
            },
        },
    ],
    ids=str,
)
def test_formats_that_are_not_understood_are_refused(quantized):
    with pytest.raises(SpecError, match="quantization_config") as caught:
        convert(LLAMA | {"quantization_config": quantized}, "config.json")
    assert "dtypes.weight" in str(caught.value)


def test_dbrx_keeps_its_settings_in_tables():
    """132e9 parameters, 36e9 of them active (Databricks, model card)."""
    config = {
        "model_type": "dbrx",
        "d_model": 6144,
        "n_heads": 48,
        "n_layers": 40,
        "max_seq_len": 32768,
        "vocab_size": 100352,
        "attn_config": {"clip_qkv": 8, "kv_n_heads": 8},
        "ffn_config": {"ffn_hidden_size": 10752, "moe_num_experts": 16, "moe_top_k": 4},
        "tie_word_embeddings": False,
    }
    a = read_config(config)
    assert float(total_parameters(a)) == pytest.approx(131.6e9, rel=2e-3)
    assert float(active_parameters(a)) == pytest.approx(36e9, rel=0.02)


def test_a_chatglm_names_its_groups_of_queries():
    """GLM-4-9B: 9.4e9 parameters (model card)."""
    config = {
        "model_type": "chatglm",
        "hidden_size": 4096,
        "ffn_hidden_size": 13696,
        "num_layers": 40,
        "num_attention_heads": 32,
        "kv_channels": 128,
        "multi_query_attention": True,
        "multi_query_group_num": 2,
        "add_qkv_bias": True,
        "add_bias_linear": False,
        "padded_vocab_size": 151552,
        "tie_word_embeddings": False,
    }
    a = read_config(config)
    assert float(total_parameters(a)) == pytest.approx(9.4e9, rel=0.01)


MIMO = {
    "model_type": "mimo_v2_flash",
    "hidden_size": 4096,
    "intermediate_size": 16384,
    "num_hidden_layers": 48,
    "num_attention_heads": 64,
    "num_key_value_heads": 4,
    "head_dim": 192,
    "v_head_dim": 128,
    "swa_num_attention_heads": 64,
    "swa_num_key_value_heads": 8,
    "swa_head_dim": 192,
    "swa_v_head_dim": 128,
    "sliding_window": 128,
    "sliding_window_size": 128,
    "add_full_attention_sink_bias": False,
    "add_swa_attention_sink_bias": True,
    "hybrid_layer_pattern": [0] + ([1] * 4 + [0] + [1]) * 7 + [1, 1, 1, 1, 0],
    "moe_layer_freq": [0] + [1] * 47,
    "moe_intermediate_size": 2048,
    "n_routed_experts": 256,
    "num_experts_per_tok": 8,
    "vocab_size": 152576,
    "attention_bias": False,
    "tie_word_embeddings": False,
}


def test_values_of_a_width_of_their_own_and_windowed_layers_with_more_heads():
    """MiMo-V2-Flash: 309e9 parameters, 15e9 active (model card)."""
    a = read_config(MIMO)
    assert float(total_parameters(a)) == pytest.approx(309e9, rel=5e-3)
    assert float(active_parameters(a)) == pytest.approx(15e9, rel=0.04)
    widths = {bool(m.windowed.on): float(m.kv_width) for m in a.mixers}
    assert widths == {False: 4 * (192 + 128), True: 8 * (192 + 128)}
    counts = zip(a.half_counts.mixers, a.mixers, strict=True)
    layers = {bool(m.windowed.on): float(n) for n, m in counts}
    assert layers == {False: 9.0, True: 39.0}
    wider = read_config(MIMO | {"swa_head_dim": 256, "swa_v_head_dim": 64})
    windowed = next(m for m in wider.mixers if m.windowed.on)
    assert (float(windowed.head_dim), float(windowed.value_dim)) == (256.0, 64.0)


def test_experts_that_compute_nothing_cost_nothing():
    """LongCat-Flash: 560e9 parameters, 27e9 active on average, of 18.6e9 to 31.3e9
    (arXiv 2509.01322); a router of 768 experts, of which 512 compute."""
    config = {
        "model_type": "longcat_flash",
        "hidden_size": 6144,
        "ffn_hidden_size": 12288,
        "num_layers": 28,
        "num_attention_heads": 64,
        "q_lora_rank": 1536,
        "kv_lora_rank": 512,
        "qk_rope_head_dim": 64,
        "qk_nope_head_dim": 128,
        "v_head_dim": 128,
        "moe_topk": 12,
        "n_routed_experts": 512,
        "zero_expert_num": 256,
        "zero_expert_type": "identity",
        "expert_ffn_hidden_size": 2048,
        "attention_method": "MLA",
        "vocab_size": 131072,
        "tie_word_embeddings": False,
    }
    a = read_config(config)
    assert float(total_parameters(a)) == pytest.approx(560e9, rel=2e-3)
    assert float(active_parameters(a)) == pytest.approx(27e9, rel=0.04)
    assert (float(a.layers), float(a.expert_layers)) == (56.0, 28.0)
    without = read_config(config | {"zero_expert_num": 0, "moe_topk": 8})
    expert, router = 3 * 6144 * 2048, 256 * 6144
    assert float(a.experts.topk) == float(without.experts.topk) == 8.0
    more = float(active_parameters(a) - active_parameters(without))
    assert more == pytest.approx(28 * router)
    fewer = float(active_parameters(read_config(config | {"zero_expert_num": 1024})))
    change = 28 * ((8 - 4) * expert - 3 * router)
    assert float(active_parameters(a)) - fewer == pytest.approx(change)
    with pytest.raises(SpecError, match="zero_expert_type"):
        read_config(config | {"zero_expert_type": "copy"})


def test_layers_share_the_cache_of_one_before_them():
    """Hunyuan-Large: 389e9 parameters, 52e9 active, and half the layers without keys and
    values of their own (arXiv 2411.02265, section 2.2)."""
    config = {
        "model_type": "hunyuan",
        "hidden_size": 6400,
        "intermediate_size": 18304,
        "num_hidden_layers": 64,
        "num_attention_heads": 80,
        "num_key_value_heads": 8,
        "num_experts": 16,
        "moe_topk": 1,
        "num_shared_expert": 1,
        "use_cla": True,
        "cla_share_factor": 2,
        "vocab_size": 128512,
    }
    a = read_config(config)
    assert float(total_parameters(a)) == pytest.approx(389e9, rel=2e-3)
    assert float(active_parameters(a)) == pytest.approx(52e9, rel=0.02)
    kept = {bool(m.own_cache.on): float(m.kv_width) for m in a.mixers}
    assert kept == {True: 2 * 8 * 80, False: 0.0}
    counts = zip(a.half_counts.mixers, a.mixers, strict=True)
    layers = {bool(m.own_cache.on): float(n) for n, m in counts}
    assert layers == {True: 32.0, False: 32.0}
    whole = read_config(config | {"use_cla": False})
    more = float(total_parameters(whole) - total_parameters(a))
    assert more == 32 * (6400 * 2 * 8 * 80 + 80)


GLM_SPARSE = {
    "model_type": "glm_moe_dsa",
    "hidden_size": 6144,
    "intermediate_size": 12288,
    "num_hidden_layers": 8,
    "num_attention_heads": 64,
    "q_lora_rank": 2048,
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 192,
    "v_head_dim": 256,
    "index_head_dim": 128,
    "index_n_heads": 32,
    "index_topk": 2048,
    "n_routed_experts": 256,
    "num_experts_per_tok": 8,
    "n_shared_experts": 1,
    "moe_intermediate_size": 2048,
    "first_k_dense_replace": 3,
    "vocab_size": 154880,
}


@pytest.mark.parametrize(
    ("said", "own"),
    [
        ({}, 8.0),
        ({"indexer_types": ["full", "shared", "shared", "full"] * 2}, 4.0),
        ({"index_topk_pattern": "FSSFSSFS"}, 3.0),
        ({"index_topk_freq": 4}, 3.0),  # layers 0, 1 and 5
    ],
    ids=str,
)
def test_layers_share_what_an_indexer_before_them_chose(said, own):
    a = read_config(GLM_SPARSE | said)
    counts = zip(a.half_counts.mixers, a.mixers, strict=True)
    layers = {m.indexer.scans: float(n) for n, m in counts}
    assert layers == {True: own} | ({False: 8.0 - own} if own < 8.0 else {})
    assert {float(m.indexer.topk) for m in a.mixers} == {2048.0}
    widths = {m.indexer.scans: float(m.kv_width) for m in a.mixers}
    assert widths == {True: 576.0 + 128.0} | ({False: 576.0} if own < 8.0 else {})


def test_an_indexer_that_nobody_before_has_is_refused():
    with pytest.raises(SpecError, match="indexer_types"):
        read_config(GLM_SPARSE | {"indexer_types": ["shared"] + ["full"] * 7})


def test_compressed_caches_are_read():
    """DeepSeek-V4-Flash: two layers see a window alone, 21 chosen blocks of 4 tokens, and
    20 all blocks of 128; routed experts are stored in 4 bits with a scale for each 32."""
    a = read("deepseek-v4-flash")
    counts = zip(a.half_counts.mixers, a.mixers, strict=True)
    layers = {float(m.share): (float(n), m.indexer is not None) for n, m in counts}
    assert layers == {0.0: (2.0, False), 0.25: (21.0, True), 1 / 128: (20.0, False)}
    counts = zip(a.half_counts.mixers, a.mixers, strict=True)
    grown = sum(float(n * m.grown) for n, m in counts)
    assert grown == 21 * (512 + 128) / 4 + 20 * 512 / 128
    routed = 43 * 256 * 3 * 4096 * 2048
    file = loaded("deepseek-v4-flash").file
    assert file.weights["experts"] == 0.5 + 1 / 32
    wide = file.model_copy(update={"weights": file.weights | {"experts": 1.0}})
    more = checkpoint_bytes(a, wide) - checkpoint_bytes(a, file)
    assert more == pytest.approx((0.5 - 1 / 32) * routed)


V4 = json.loads((FOLDER / "deepseek-v4-flash.json").read_text())


@pytest.mark.parametrize(
    "odd",
    [
        {"compress_ratios": [0, 0, 8] * 15},
        {"expert_dtype": "fp3"},
        {"n_shared_experts": 2},
        {"layer_types": ["full_attention"] * 43},
    ],
    ids=str,
)
def test_what_deepseek_v4_does_not_have_is_refused(odd):
    with pytest.raises(SpecError, match=next(iter(odd))):
        read_config(V4 | odd)
