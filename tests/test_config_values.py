"""Values of other kinds than a `config.json` should have are refused by key, never passed
on; files of what is no decoder of text are refused with what they are."""

import copy
import json
import random
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import pytest

import cmxjax as cmx
from cmxjax.model.architecture import active_parameters, total_parameters
from cmxjax.specs.errors import SpecError
from cmxjax.specs.figures import listing
from cmxjax.specs.huggingface import convert
from cmxjax.specs.model_file import ModelFile
from cmxjax.specs.model_load import architecture_of

SHIPPED = {
    path.name: json.loads(path.read_text())
    for path in files(cmx).joinpath("specs/data/models").iterdir()
    if path.name.endswith(".json")
}

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "tie_word_embeddings": False,
}
MIXTURE = LLAMA | {"num_local_experts": 8, "num_experts_per_tok": 2}


def file_of(config: dict[str, Any]) -> ModelFile:
    raw = convert(config, "config.json")
    return ModelFile.model_validate(raw, context=listing(raw))


def read(config: dict[str, Any]) -> Any:
    return architecture_of(file_of(config))


def keys_of(table: dict[str, Any], above: tuple = ()) -> Iterator[tuple[str, ...]]:
    for key, value in table.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from keys_of(value, (*above, key))


ODD = [None, True, -1, 0, 0.5, 1e308, float("nan"), 10**400, "", "x", "32"]
ODD += [[], [1], [None], [[1]], {}, {"0": {"head_dim": "x"}}, [{}]]

ELSEWHERE = (
    *("per_layer_config", "block_configs", "num_attention_heads_per_layer"),
    *("global_head_dim", "layer_types", "mlp_layer_types", "moe_layers"),
    *("attn_layer_indices", "linear_attn_config", "hybrid_override_pattern"),
    *("quantization_config", "sliding_window_pattern", "attn_type_list"),
    *("torch_dtype", "moe_layer_freq", "mamba_dt_rank", "full_attention_interval"),
)
"""Keys of some families, put into files of others."""


def test_whatever_stands_in_a_file_it_is_read_or_refused():
    draw = random.Random(7)
    refused = 0
    for _ in range(500):
        config = copy.deepcopy(SHIPPED[draw.choice(sorted(SHIPPED))])
        config.pop("_about", None)
        *above, key = draw.choice([*keys_of(config), *((k,) for k in ELSEWHERE)])
        table = config
        for name in above:
            table = table[name]
        value = copy.deepcopy(draw.choice(ODD))
        if isinstance(table.get(key), list) and table[key] and draw.random() < 0.5:
            table[key][draw.randrange(len(table[key]))] = value
        else:
            table[key] = value
        try:
            assert file_of(config).hidden >= 1.0
        except SpecError:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_hidden_layers": 10**28}, "num_hidden_layers = 1000.*at most 256"),
        ({"num_attention_heads": 4}, "num_key_value_heads = 8: .*4 heads"),
        ({"torch_dtype": ["bfloat16"]}, "torch_dtype: use one of"),
        ({"linear_attn_config": {"full_attn_layers": [1]}}, "linear_attn_config: layers"),
        ({"hybrid_override_pattern": "M*"}, "hybrid_override_pattern = 'M\\*'"),
        ({"q_lora_rank": 512}, "q_lora_rank = 512"),
        ({"per_layer_config": {"40": {"head_dim": 64}}}, "per_layer_config: '40'"),
        ({"sliding_window": 9, "sliding_window_pattern": ""}, "sliding_window_pattern"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 0}}, "quant_method"),
    ],
    ids=str,
)
def test_a_value_is_refused_by_the_key_of_the_file(changes, said):
    with pytest.raises(SpecError, match=said):
        read(LLAMA | changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_experts_per_tok": 9}, "num_experts_per_tok = 9: there are 8 experts"),
        ({"num_experts_per_tok": 2, "n_group": 3}, "n_group = 3: must divide 8"),
        ({"mlp_layer_types": ["dense", "wide"] * 16}, "mlp_layer_types"),
        ({"mlp_only_layers": [32]}, "mlp_only_layers: .*0 to 31"),
    ],
    ids=str,
)
def test_experts_are_refused_by_the_key_of_the_file(changes, said):
    with pytest.raises(SpecError, match=said):
        read(MIXTURE | changes)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"peft_type": "LORA", "r": 16}, "adapter.*base_model_name_or_path"),
        ({"model_type": "t5", "is_encoder_decoder": True}, "encoder and a decoder"),
        (LLAMA | {"is_encoder_decoder": True}, "encoder and a decoder"),
        ({"model_type": "t5gemma", "encoder": {"a": 1}, "decoder": {"a": 1}}, "encoder"),
        ({"dim": 4096, "n_layers": 32, "n_heads": 32}, "model_type: required key"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_no_decoder_of_text_is_refused_with_what_it_is(config, said):
    with pytest.raises(SpecError, match=said):
        read(config)


@pytest.mark.parametrize("name", ["self_attn", "model.layers.*.self_attn", "re:.*attn"])
def test_a_module_stays_as_it_was_by_its_own_name_too(name):
    quantized = {"quant_method": "gptq", "bits": 4, "modules_to_not_convert": [name]}
    weights = convert(LLAMA | {"quantization_config": quantized}, "config.json")[
        "weights"
    ]
    assert weights["attention"] == 2.0
    assert weights["dense"] < 0.6


def test_hunyuan_a13b_says_experts_layer_by_layer():
    """80e9 parameters, 13e9 active (model card)."""
    config = LLAMA | {
        "model_type": "hunyuan_v1_moe",
        "head_dim": 128,
        "intermediate_size": 3072,
        "moe_intermediate_size": [3072] * 32,
        "num_experts": 64,
        "moe_topk": [8] * 32,
        "num_shared_expert": [1] * 32,
        "use_mixed_mlp_moe": True,
        "vocab_size": 128167,
        "tie_word_embeddings": True,
    }
    a = read(config)
    assert float(total_parameters(a)) == pytest.approx(80.4e9, rel=2e-3)
    assert float(active_parameters(a)) == pytest.approx(13e9, rel=0.02)
    with pytest.raises(SpecError, match="use_mixed_mlp_moe = False"):
        read(config | {"use_mixed_mlp_moe": False})


def test_falcon_h1_has_attention_beside_a_recurrence():
    """Falcon-H1-34B-Instruct: 33.6e9 parameters (model card)."""
    config = {
        "model_type": "falcon_h1",
        "hidden_size": 5120,
        "num_hidden_layers": 72,
        "num_attention_heads": 20,
        "num_key_value_heads": 4,
        "head_dim": 128,
        "intermediate_size": 21504,
        "vocab_size": 261120,
        "mamba_d_conv": 4,
        "mamba_d_head": 128,
        "mamba_d_ssm": 4096,
        "mamba_d_state": 256,
        "mamba_n_groups": 2,
        "mamba_n_heads": 32,
        "mamba_rms_norm": False,
        "mamba_use_mlp": True,
        "tie_word_embeddings": False,
    }
    a = read(config)
    assert float(total_parameters(a)) == pytest.approx(33.64e9, rel=2e-3)


def test_layers_that_stay_as_they_were_count_by_their_share():
    """Llama 3.1 405B in FP8 keeps attention and the networks of its first and last layer
    in 16 bits (its config.json); 126 layers."""
    kept = [f"model.layers.{i}.self_attn.q_proj" for i in range(126)]
    kept += [f"model.layers.{i}.mlp.up_proj" for i in (0, 125)]
    quantized = {"quant_method": "fbgemm_fp8", "modules_to_not_convert": kept}
    config = LLAMA | {"num_hidden_layers": 126, "quantization_config": quantized}
    weights = convert(config, "config.json")["weights"]
    assert weights["attention"] == 2.0
    assert weights["dense"] == pytest.approx(1.0 + 2.0 / 126.0)
