"""How each family of models differs from Llama, by `model_type`: one entry each.

To add a family, say here what its class does otherwise; `tests/oracle` then holds the
count of its parameters to what the `transformers` library builds. A family that isn't
here is refused.
"""

from dataclasses import replace

from .config import Table
from .halves import Family

LAYER_NORM: Table = {"norm": 2, "gated": False}
"""As models before Llama: norms with biases, and a network without gates."""

WINDOWS = {"max_window_layers": 28}

_BIASED: Table = {"input_bias": True, "output_bias": True, "mlp_bias": True}

_UNBIASED: Table = dict.fromkeys(_BIASED, False)

_HUNYUAN: Table = {"use_mixed_mlp_moe": True}
"""A shared expert beside the routed ones."""

_MAMBA = Family(linear="mamba", every="linear", alone=True, tied=True)

FAMILIES: dict[str, Family] = {
    # Llama and those that differ in little
    "llama": Family(),
    "mistral": Family(
        **_UNBIASED,
    ),
    "phi3": Family(**_UNBIASED, only={"full_attn_mod": 1}),
    "granite": Family(),
    "arcee": Family(gated=False),
    "cwm": Family(input_bias=False, output_bias=False),
    "seed_oss": Family(input_bias="attention_bias", output_bias="attention_out_bias"),
    "smollm3": Family(tied=True, ignored=("no_rope_layers", "no_rope_layer_interval")),
    "ernie4_5": Family(
        input_bias="use_bias",
        output_bias="use_bias",
        mlp_bias="use_bias",
        tied=True,
        only={"compression_ratio": 1.0},
    ),
    "hunyuan_v1_dense": Family(head_norm="head", mlp_bias=False),
    "internlm3": Family(input_bias="qkv_bias", output_bias="bias", mlp_bias="bias"),
    "nemotron": Family(norm=2, gated=False),
    "apertus1p5_text": Family(
        gated=False, head_norm="head", mlp_bias=False, only={"output_vocab_size": None}
    ),
    "apertus": Family(gated=False, head_norm="head", mlp_bias=False),
    "nanochat": Family(norm=0, gated=False, mlp_bias=False),
    "jais2": Family(norm=2, gated=False),
    "olmo": Family(norm=0, mlp_bias=False),
    "olmo2": Family(head_norm="all", mlp_bias=False),
    "olmo3": Family(head_norm="all", mlp_bias=False, pattern=4),
    "exaone4": Family(**_UNBIASED, head_norm="head", pattern=4),
    "glm": Family(input_bias="attention_bias", output_bias=False, mlp_bias=False),
    "glm4": Family(
        input_bias="attention_bias", output_bias=False, mlp_bias=False, norms=(2.0, 2.0)
    ),
    "internlm2": Family(input_bias="bias", output_bias="bias", mlp_bias=False),
    "chatglm": Family(
        only={"post_layer_norm": True},
        input_bias="add_qkv_bias",
        output_bias="add_bias_linear",
        mlp_bias="add_bias_linear",
    ),
    # Qwen
    "qwen2": Family(input_bias=True, output_bias=False, mlp_bias=False, defaults=WINDOWS),
    "qwen3": Family(mlp_bias=False, head_norm="head", defaults=WINDOWS),
    "qwen2_moe": Family(
        input_bias="qkv_bias",
        output_bias=False,
        mlp_bias=False,
        shared_gate=True,
        defaults={"qkv_bias": True, **WINDOWS},
    ),
    "qwen3_next": Family(
        mlp_bias=False,
        head_norm="head",
        gated_output=True,
        shared_gate=True,
        linear="gated delta",
        defaults={"full_attention_interval": 4},
    ),
    "qwen3_5_text": Family(
        mlp_bias=False,
        head_norm="head",
        gated_output=True,
        linear="gated delta",
        defaults={"full_attention_interval": 4},
        only={"attn_output_gate": True},
    ),
    # Gemma: norms behind each half too
    "gemma": Family(tied=True, mlp_bias=False),
    "gemma2": Family(tied=True, mlp_bias=False, norms=(2.0, 2.0), pattern=2),
    "gemma3_text": Family(
        tied=True,
        mlp_bias=False,
        norms=(2.0, 2.0),
        pattern=6,
        head_norm="head",
        defaults={
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 256,
            "vocab_size": 262208,
            "sliding_window": 4096,
        },
    ),
    "gemma4_text": Family(
        tied=True,
        mlp_bias=False,
        norms=(2.0, 2.0),
        head_norm="head",
        beside=True,
        expert_norms=3.0,
        router_bias=True,
        shared_gate=True,
        layer_inputs=True,
        pattern=6,
        defaults={"global_head_dim": 512, "sliding_window": 512, "head_dim": 256},
    ),
    "vaultgemma": Family(tied=True, mlp_bias=False, pattern=2),
    # Cohere: both halves read one norm without a bias
    "cohere": Family(
        tied=True,
        parallel=True,
        norms=(1.0, 0.0),
        mlp_bias=False,
        head_norm="heads",
        head_norm_key="use_qk_norm",
    ),
    "cohere2": Family(
        tied=True,
        parallel=True,
        norms=(1.0, 0.0),
        mlp_bias=False,
        pattern=4,
        only={"order_of_interleaved_layers": "local_attn_first"},
    ),
    # Mixtures
    "deepseek": Family(mlp_bias=False),
    "dbrx": Family(
        **_UNBIASED,
        flat=("attn_config", "ffn_config"),
        ignored=("moe_normalize_expert_weights",),
    ),
    "olmoe": Family(mlp_bias=False, head_norm="all"),
    "phimoe": Family(norm=2, mlp_bias=False, head_bias="lm_head_bias"),
    "gpt_oss": Family(
        mlp_bias=True, expert_bias=True, router_bias=True, sinks=True, pattern=2
    ),
    "granitemoehybrid": Family(mlp_bias=False, linear="mamba-2", tied=True),
    "ernie4_5_moe": Family(
        input_bias="use_bias",
        output_bias="use_bias",
        mlp_bias="use_bias",
        router_bias=True,
        tied=True,
    ),
    "glm4_moe": Family(
        mlp_bias=False,
        head_norm="head",
        head_norm_key="use_qk_norm",
        output_bias=False,
        defaults={"first_k_dense_replace": 1},
    ),
    "dots1": Family(mlp_bias=False, head_norm="head", defaults=WINDOWS),
    "minimax_m2": Family(**_UNBIASED, head_norm="all"),
    "minimax": Family(**_UNBIASED, linear="lightning"),
    "hunyuan": Family(
        head_norm="head", mlp_bias=False, shared=1.0, tied=True, only=_HUNYUAN
    ),
    "hunyuan_v1_moe": Family(head_norm="head", mlp_bias=False, shared=1.0, only=_HUNYUAN),
    "exaone_moe": Family(**_UNBIASED, head_norm="head"),
    "afmoe": Family(
        mlp_bias=False,
        head_norm="head",
        gated_output=True,
        norms=(2.0, 2.0),
        router_bias=True,
    ),
    "solar_open": Family(mlp_bias=False, shared=1.0),
    "aria_text": Family(shared=2.0),
    "llama4_text": Family(
        mlp_bias=False,
        shared=1.0,
        defaults={
            "attention_chunk_size": 8192,
            "interleave_moe_layer_step": 1,
            "num_experts_per_tok": 1,
        },
    ),
    "qwen3_5_moe_text": Family(
        mlp_bias=False,
        head_norm="head",
        gated_output=True,
        shared_gate=True,
        linear="gated delta",
        defaults={"full_attention_interval": 4},
        only={"attn_output_gate": True},
    ),
    "bailing_moe": Family(
        input_bias="use_qkv_bias",
        output_bias="use_bias",
        mlp_bias="use_bias",
        head_norm="head",
        head_norm_key="use_qk_norm",
        router_bias="moe_router_enable_expert_bias",
    ),
    "PanguProMoE": Family(
        input_bias=True, output_bias=True, mlp_bias=False, router_bias=False
    ),
    "granitemoe": Family(mlp_bias=False),
    "granitemoe_swa": Family(mlp_bias=False, sinks=True),
    "flint": Family(
        mlp_bias=False,
        head_norm="head",
        sinks=True,
    ),
    "kolibri1": Family(
        **_UNBIASED,
        head_norm="head",
        norms=(2.0, 2.0),
    ),
    "laguna": Family(
        mlp_bias=False,
        head_norm="head",
        router_bias=True,
        head_gate=True,
        only={"gating": True},
    ),
    "beam": Family(
        mlp_bias=False,
        head_norm="head",
        norms=(2.0, 2.0),
        gated_output=True,
        sinks=True,
        router_bias=True,
    ),
    "lara_mini": Family(
        mlp_bias=False,
        head_norm="head",
        linear="gated delta",
        tied=True,
    ),
    "lfm3": Family(
        mlp_bias=False,
        head_norm="head",
        linear="convolution",
        tied=True,
        head_gate="use_attention_gate",
        sandwich="use_sandwich_norm",
    ),
    "hy_v3": Family(head_norm="head"),
    "mimo_v2_flash": Family(
        mlp_bias=False,
        output_bias=False,
        router_bias=True,
        sinks="add_full_attention_sink_bias",
        window_sinks="add_swa_attention_sink_bias",
        window_kv=2.0,
        defaults={"add_swa_attention_sink_bias": True},
        ignored=("attention_chunk_size", "attention_value_scale"),
    ),
    "mellum": Family(mlp_bias=False, head_norm="head"),
    "nemotron-nas": Family(),
    # Latent attention
    "deepseek_v2": Family(attention="latent"),
    "deepseek_v3": Family(
        attention="latent", mlp_bias=False, router_bias=True, dense_first=3.0
    ),
    "deepseek_v32": Family(
        attention="sparse", mlp_bias=False, router_bias=True, dense_first=3.0
    ),
    "glm_moe_dsa": Family(attention="sparse", mlp_bias=False, router_bias=True),
    "glm4_moe_lite": Family(attention="latent", mlp_bias=False, router_bias=True),
    "deepseek_v4": Family(
        attention="compressed",
        streams=True,
        mlp_bias=False,
        router_bias=True,
        defaults={"hc_mult": 4},
        only={"attention_bias": False, "n_shared_experts": 1},
    ),
    "longcat_flash": Family(
        attention="latent",
        shortcut=True,
        expert_norms=0.0,
        mlp_bias=False,
        router_bias="router_bias",
        only={"zero_expert_type": "identity", "attention_method": "MLA"},
    ),
    "youtu": Family(attention="latent", tied=True),
    "minicpm3": Family(attention="latent"),
    "sarvam_mla": Family(attention="latent", mlp_bias=False),
    "pangu_ultra_moe": Family(attention="latent", mlp_bias=False, norms=(2.0, 2.0)),
    # Recurrent layers
    "jamba": Family(
        **_UNBIASED,
        linear="mamba",
        defaults={
            "attn_layer_period": 8,
            "attn_layer_offset": 4,
            "expert_layer_period": 2,
            "expert_layer_offset": 1,
        },
    ),
    "bamba": Family(linear="mamba-2", every="linear"),
    "nemotron_h": Family(
        gated=False,
        linear="mamba-2",
        router_bias=True,
        only={"tie_word_embeddings": False},
        ignored=(
            *("mtp_hybrid_override_pattern", "layers_block_type"),
            *("mtp_layers_block_type", "sliding_window"),
        ),
    ),
    "kimi_linear": Family(
        attention="latent", mlp_bias=False, router_bias=True, linear="kimi delta"
    ),
    "lfm2": Family(
        **_UNBIASED,
        head_norm="head",
        linear="convolution",
        tied=True,
        router_bias="use_expert_bias",
    ),
    "mamba": _MAMBA,
    "falcon_mamba": _MAMBA,
    "mamba2": replace(_MAMBA, linear="mamba-2", tied=False),
    "falcon_h1": Family(
        linear="mamba-2", every="full+linear", only={"mamba_use_mlp": True}
    ),
    # Before Llama
    "gpt2": Family(**LAYER_NORM, **_BIASED, tied=True, positions=0),
    "gpt_bigcode": Family(
        **LAYER_NORM, **_BIASED, tied=True, positions=0, defaults={"multi_query": True}
    ),
    "gpt_neox": Family(
        **LAYER_NORM,
        mlp_bias=True,
        parallel="use_parallel_residual",
        defaults={"attention_bias": True, "use_parallel_residual": True},
    ),
    "gpt_neo": Family(
        **LAYER_NORM,
        input_bias=False,
        output_bias=True,
        mlp_bias=True,
        tied=True,
        positions=0,
        ignored=("attention_types",),
    ),
    "gptj": Family(
        **LAYER_NORM,
        input_bias=False,
        output_bias=False,
        mlp_bias=True,
        parallel=True,
        norms=(1.0, 0.0),
        head_bias=True,
    ),
    "opt": Family(
        **LAYER_NORM,
        input_bias="enable_bias",
        output_bias="enable_bias",
        mlp_bias="enable_bias",
        tied=True,
        positions=2,
        defaults={"enable_bias": True},
        only={"do_layer_norm_before": True, "_remove_final_layer_norm": False}
        | {"layer_norm_elementwise_affine": True},
    ),
    "biogpt": Family(**LAYER_NORM, **_BIASED, tied=True, positions=2),
    "xglm": Family(**LAYER_NORM, **_BIASED, tied=True),
    "bloom": Family(**LAYER_NORM, **_BIASED, tied=True, embedding_norm=2),
    "mpt": Family(
        norm=1,
        gated=False,
        **_UNBIASED,
        tied=True,
        only={"no_bias": True, "expansion_ratio": 4},
    ),
    "falcon": Family(
        **LAYER_NORM,
        input_bias="bias",
        output_bias="bias",
        mlp_bias="bias",
        tied=True,
        parallel="parallel_attn",
        parallel_norms=0.0,
        defaults={"parallel_attn": True, "multi_query": True}
        | {"new_decoder_architecture": False},
    ),
    "phi": Family(
        **LAYER_NORM,
        **_BIASED,
        parallel=True,
        norms=(1.0, 0.0),
        head_bias=True,
        head_norm="head biased",
        head_norm_key="qk_layernorm",
    ),
    "persimmon": Family(
        **LAYER_NORM, **_BIASED, head_norm="head biased", head_norm_key="qk_layernorm"
    ),
    "stablelm": Family(
        norm=2,
        input_bias="use_qkv_bias",
        output_bias=False,
        mlp_bias=False,
        parallel="use_parallel_residual",
        parallel_norms=0.0,
        head_norm="heads",
        head_norm_key="qk_layernorm",
    ),
    "starcoder2": Family(
        **LAYER_NORM,
        input_bias="use_bias",
        output_bias="use_bias",
        mlp_bias="use_bias",
        tied=True,
        defaults={"use_bias": True},
    ),
}

ALIKE = {
    "baichuan": "mistral",
    "codegen": "gptj",
    "exaone": "llama",
    "flex_olmo": "olmoe",
    "granitemoeshared": "granitemoe",
    "hyperclovax": "llama",
    "iquestcoder": "llama",
    "ministral": "mistral",
    "ministral3": "mistral",
    "mixtral": "mistral",
    "qwen3_moe": "qwen3",
    "bailing_moe_v2": "bailing_moe",
    "cohere_compass_text": "cohere2",
    "gemma3": "gemma3_text",
    "gemma4": "gemma4_text",
    "gemma4_unified": "gemma4_text",
    "gemma4_unified_text": "gemma4_text",
    "granite_swa": "granite",
    "kimi_k2": "deepseek_v3",
    "kimi_k25": "deepseek_v3",
    "glm4v_moe": "glm4_moe",
    "glm4v_moe_text": "glm4_moe",
    "glm4v_text": "glm4",
    "lfm2_moe": "lfm2",
    "minimax_m1": "minimax",
    "minimax_text_01": "minimax",
    "olmo_1124": "olmo2",
    "qwen3_omni_moe_text": "qwen3",
    "stablelm_epoch": "stablelm",
    "llama4": "llama4_text",
    "mistral3": "mistral",
    "axk1": "deepseek_v3",
    "qwen2_5_omni_text": "qwen2",
    "qwen2_5_vl": "qwen2",
    "qwen2_5_vl_text": "qwen2",
    "qwen2_vl": "qwen2",
    "qwen2_vl_text": "qwen2",
    "qwen3_5": "qwen3_5_text",
    "qwen3_5_moe": "qwen3_5_moe_text",
    "sarvam_moe": "glm4_moe",
    "qwen3_vl": "qwen3",
    "qwen3_vl_text": "qwen3",
    "qwen3_vl_moe": "qwen3",
    "qwen3_vl_moe_text": "qwen3",
}
"""Types that differ from Llama as another one does: a mixture by its keys alone."""
