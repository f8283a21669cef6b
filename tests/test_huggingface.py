"""Models read from a Hugging Face `config.json`."""

import json

import jax
import numpy as np
import pytest

from cmxjax.model.architecture import total_parameters
from cmxjax.parameters import leaf_paths
from cmxjax.specs.build import build
from cmxjax.specs.errors import SpecError
from cmxjax.specs.model_load import load_model
from cmxjax.specs.scenario import load_scenario
from cmxjax.specs.system_load import Reference

LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": False,
    "rope_scaling": {"factor": 8.0, "rope_type": "llama3"},
    "torch_dtype": "bfloat16",
}
QWEN = {
    "model_type": "qwen3_moe",
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "moe_intermediate_size": 1536,
    "num_hidden_layers": 94,
    "num_attention_heads": 64,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "vocab_size": 151936,
    "tie_word_embeddings": False,
}
DEEPSEEK = {
    "model_type": "deepseek_v3",
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "moe_intermediate_size": 2048,
    "num_hidden_layers": 61,
    "first_k_dense_replace": 3,
    "moe_layer_freq": 1,
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "q_lora_rank": 1536,
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 128,
    "v_head_dim": 128,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "n_group": 8,
    "topk_group": 4,
    "num_nextn_predict_layers": 1,
    "vocab_size": 129280,
    "tie_word_embeddings": False,
}
GPT2 = {
    "model_type": "gpt2",
    "n_embd": 768,
    "n_layer": 12,
    "n_head": 12,
    "n_inner": None,
    "n_positions": 1024,
    "n_ctx": 1024,
    "vocab_size": 50257,
}
SHIPPED = {
    "llama-3.1-70b": LLAMA,
    "qwen3-235b-a22b": QWEN,
    "deepseek-v3": DEEPSEEK,
    "deepseek-r1": DEEPSEEK,
}


@pytest.fixture
def read(tmp_path):
    """Write a config.json and load it."""

    def load(config):
        path = tmp_path / "config.json"
        path.write_text(config if isinstance(config, str) else json.dumps(config))
        return load_model(Reference(str(path))).architecture

    return load


def mistakes_of(read, config) -> list[str]:
    with pytest.raises(SpecError) as caught:
        read(config)
    return str(caught.value).splitlines()


@pytest.mark.parametrize("name", SHIPPED)
def test_a_config_gives_the_same_leaves_as_the_shipped_file(read, name):
    ours = leaf_paths(load_model(Reference(name)).architecture)
    theirs = leaf_paths(read(SHIPPED[name]))
    assert theirs.keys() == ours.keys()
    small = ("vectors", "extra")  # norms within heads are left out of the shipped file
    for path, leaf in theirs.items():
        if not path.endswith(small):
            np.testing.assert_array_equal(leaf, ours[path], err_msg=path)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_config_gives_the_same_flags_as_the_shipped_file(read, name):
    ours = load_model(Reference(name)).architecture
    theirs = read(SHIPPED[name])
    assert jax.tree.structure(theirs) == jax.tree.structure(ours)


def test_gpt2_has_its_published_124439808_parameters(read):
    # the count of the checkpoint that OpenAI released, biases and positions included
    assert float(total_parameters(read(GPT2))) == 124_439_808


def test_gpt2_is_tied_biased_and_ungated(read):
    a = read(GPT2)
    half = a.feed_forwards[0]
    assert [float(x.on) for x in (a.tied, half.biased, half.gated)] == [1.0, 1.0, 0.0]


def test_the_inner_width_of_gpt2_defaults_to_four_times_the_hidden_size(read):
    assert float(read(GPT2).feed_forwards[0].intermediate) == 4 * 768
    assert float(read(GPT2 | {"n_inner": 1000}).feed_forwards[0].intermediate) == 1000


def test_a_head_is_as_wide_as_its_share_of_the_model_unless_stated(read):
    assert float(read(LLAMA).attention.head_dim) == 8192 / 64
    assert float(read(LLAMA | {"head_dim": 96}).attention.head_dim) == 96


def test_without_key_value_heads_every_head_has_its_own(read):
    config = {k: v for k, v in LLAMA.items() if k != "num_key_value_heads"}
    assert float(read(config).attention.kv_heads) == 64


def test_mixtral_experts_are_as_wide_as_its_intermediate_size(read):
    config = {
        "model_type": "mixtral",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
        "vocab_size": 32000,
    }
    a = read(config)
    assert float(a.experts.intermediate) == 14336
    assert float(a.dense_layers) == 0
    # Mixtral of Experts, arXiv 2401.04088: 47B in all
    assert float(total_parameters(a)) == pytest.approx(46.7e9, rel=1e-3)


def test_layers_listed_as_without_experts_are_dense(read):
    assert float(read(QWEN | {"mlp_only_layers": [0, 5]}).dense_layers) == 2


def test_one_wide_shared_expert_counts_as_several_of_the_routed_width(read):
    a = read(QWEN | {"shared_expert_intermediate_size": 3072})
    assert float(a.experts.shared) == 2


def test_a_scenario_takes_a_config_as_its_model(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(LLAMA))
    name = "llama-3.1-70b-decode-gb200-nvl72"
    p = build(load_scenario(name, {"model": str(path), "model.layers": 80}), "none")
    assert float(p.model.layers) == 80


def test_all_missing_keys_are_reported_at_once(read):
    lines = mistakes_of(read, {"model_type": "llama"})
    for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size"):
        assert any("config.json" in line and f" {key}: " in line for line in lines), key
    assert len(lines) == 4


def test_missing_keys_of_latent_attention_are_reported_at_once(read):
    keys = ("qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim")
    lines = mistakes_of(read, {k: v for k, v in DEEPSEEK.items() if k not in keys})
    assert len(lines) == 3
    assert all(any(key in line for line in lines) for key in keys)


def test_nan_text_and_wrong_counts_are_reported_at_once(read):
    config = LLAMA | {
        "hidden_size": float("nan"),
        "num_hidden_layers": "80",
        "num_attention_heads": 0,
        "vocab_size": -1,
        "intermediate_size": True,
        "num_key_value_heads": float("inf"),
    }
    lines = mistakes_of(read, config)
    assert len(lines) == 6
    assert any("hidden_size = nan" in line and "finite" in line for line in lines)
    assert any("num_hidden_layers = '80'" in line and "number" in line for line in lines)
    assert any("num_attention_heads = 0" in line for line in lines)
    assert any("vocab_size = -1" in line for line in lines)
    assert any("intermediate_size = True" in line for line in lines)
    assert any("num_key_value_heads = inf" in line for line in lines)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("", ["empty"]),
        ("{", ["not valid JSON"]),
        ("[1, 2]", ["no JSON object"]),
        ('{"hidden_size": ' + "9" * 5000 + "}", ["digits"]),
        ("[" * 100_000, ["JSON"]),
        ('{"a": ' * 40 + "1" + "}" * 40, ["nested too deeply"]),
        (QWEN | {"num_experts_per_tok": 200}, ["topk = 200", "128"]),
        (QWEN | {"expert_layers": [3, 5]}, ["expert_layers", "TOML"]),
        (LLAMA | {"model_type": "llamma"}, ["model_type = 'llamma'", "TOML"]),
        (LLAMA | {"num_key_value_heads": 128}, ["kv_heads = 128", "64 heads"]),
        (LLAMA | {"num_hidden_layers": 80.5}, ["num_hidden_layers = 80.5", "whole"]),
        (LLAMA | {"num_attention_heads": 60}, ["hidden_size = 8192", "60 heads"]),
        (LLAMA | {"num_key_value_heads": 12}, ["num_key_value_heads = 12", "64 heads"]),
        (LLAMA | {"window_layers": [1]}, ["window_layers", "not understood"]),
        (LLAMA | {"layer_types": ["odd"] * 80}, ["layer_types", "'odd'"]),
        (LLAMA | {"layer_types": ["full_attention"]}, ["layer_types", "80 layers"]),
        (LLAMA | {"tie_word_embeddings": "no"}, ["tie_word_embeddings = 'no'"]),
        (LLAMA | {"hidden_size": 10**400}, ["hidden_size", "at most"]),
    ],
    ids=lambda value: str(value)[:24],
)
def test_a_wrong_config_is_one_clear_message(read, config, said):
    lines = mistakes_of(read, config)
    assert len(lines) == 1
    assert all(part in lines[0] for part in [*said, "config.json"])
