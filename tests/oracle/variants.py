"""What is left out of the table, and the sizes and switches of the shrunken variants."""

from typing import Any

Values = tuple[Any, Any, Any]
KEEP = ...
"""The value of a key that stays as the class made it."""

LEFT_OUT = {
    "bart": "encoder-decoder",
    "bert": "encoder",
    "bert-generation": "encoder",
    "big_bird": "encoder",
    "bigbird_pegasus": "encoder-decoder",
    "blenderbot": "encoder-decoder",
    "blenderbot-small": "encoder-decoder",
    "blt": "bytes",
    "camembert": "encoder",
    "data2vec-text": "encoder",
    "dots3_note": "text-twin",
    "electra": "encoder",
    "emu3": "images",
    "ernie": "encoder",
    "fuyu": "images",
    "gemma3": "images",
    "gemma3n": "images",
    "gemma4": "images",
    "gemma4_assistant": "draft",
    "gemma4_unified": "images",
    "gemma4_unified_assistant": "draft",
    "git": "images",
    "got_ocr2": "images",
    "gpt-sw3": "alias",
    "llama4": "text-twin",
    "marian": "encoder-decoder",
    "mbart": "encoder-decoder",
    "megatron-bert": "encoder",
    "mllama": "images",
    "moshi": "speech",
    "moss_transcribe_diarize": "speech",
    "musicgen": "music",
    "musicgen_melody": "music",
    "mvp": "encoder-decoder",
    "pegasus": "encoder-decoder",
    "phi4_multimodal": "images",
    "plbart": "encoder-decoder",
    "prophetnet": "encoder-decoder",
    "qwen3_5": "text-twin",
    "qwen3_5_moe": "text-twin",
    "qwen4_exp": "text-twin",
    "reformer": "reversible",
    "rembert": "encoder",
    "roberta": "encoder",
    "roberta-prelayernorm": "encoder",
    "roc_bert": "encoder",
    "roformer": "encoder",
    "trocr": "images",
    "whisper": "speech",
    "xlm": "encoder",
    "xlm-roberta": "encoder",
    "xlm-roberta-xl": "encoder",
    "xlnet": "permutation",
    "xmod": "encoder",
}
"""Model types of the causal mapping that are no decoder of text, each with a reason.

"text-twin": a multi-modal class whose text model is counted under its own `_text` type;
"images" also stands for such a class where the mapping builds it whole.
"""

_HIDDEN = (256, 192, 320)
_LAYERS = (3, 4, 7)
_HEADS = (8, 6, 10)
_KV_HEADS = (2, 3, 5)
_WIDTH = (416, 640, 512)
_EXPERTS = (16, 9, 12)
_TOPK = (2, 3, 4)
_EXPERT_WIDTH = (88, 64, 80)
_SHARED = (1, 2, 3)
_POSITIONS = (512, 768, 1024)
_WINDOW = (64, 32, 128)
_CONV = (4, 3, 2)
_STATE = (16, 8, 32)

SIZES: dict[str, Values] = {
    # the residual stream, the vocabulary and the layers
    "hidden_size": _HIDDEN,
    "n_embd": _HIDDEN,
    "d_model": _HIDDEN,
    "vocab_size": (1000, 1536, 2000),
    "num_hidden_layers": _LAYERS,
    "num_layers": _LAYERS,
    "n_layer": _LAYERS,
    "n_layers": _LAYERS,
    "max_position_embeddings": _POSITIONS,
    "n_positions": _POSITIONS,
    "n_ctx": _POSITIONS,
    "max_seq_len": _POSITIONS,
    # attention
    "num_attention_heads": _HEADS,
    "num_heads": _HEADS,
    "n_head": _HEADS,
    "n_heads": _HEADS,
    "attention_heads": _HEADS,
    "num_key_value_heads": _KV_HEADS,
    "num_kv_heads": _KV_HEADS,
    "head_dim": (32, 48, 64),
    "rotary_dim": (16, 8, 32),
    "sliding_window": _WINDOW,
    "q_lora_rank": (96, 80, 112),
    "kv_lora_rank": (64, 48, 96),
    "qk_rope_head_dim": (16, 8, 32),
    "qk_nope_head_dim": (32, 28, 48),
    "v_head_dim": (24, 40, 56),
    "index_n_heads": (4, 2, 8),
    "index_head_dim": (32, 16, 64),
    "index_topk": (64, 32, 128),
    # feed-forward layers and experts
    "intermediate_size": _WIDTH,
    "n_inner": (KEEP, 640, 512),
    "ffn_dim": _WIDTH,
    "dff": _WIDTH,
    "dim_ff": _WIDTH,
    "ffn_hidden_size": _WIDTH,
    "dense_intermediate_size": _WIDTH,
    "intermediate_size_mlp": (448, 704, 576),
    "num_experts": _EXPERTS,
    "n_routed_experts": _EXPERTS,
    "num_local_experts": _EXPERTS,
    "moe_num_experts": _EXPERTS,
    "num_experts_per_tok": _TOPK,
    "num_experts_per_token": _TOPK,
    "moe_topk": _TOPK,
    "moe_k": _TOPK,
    "n_group": (2, 1, 3),
    "num_expert_group": (2, 1, 3),
    "topk_group": (1, 1, 2),
    "moe_intermediate_size": _EXPERT_WIDTH,
    "expert_ffn_hidden_size": _EXPERT_WIDTH,
    "n_shared_experts": _SHARED,
    "num_shared_experts": _SHARED,
    "moe_num_shared_experts": _SHARED,
    "shared_expert_intermediate_size": (136, 72, 160),
    "shared_experts_intermediate_size": (136, 72, 160),
    "moe_shared_expert_intermediate_size": (136, 72, 160),
    "shared_intermediate_size": (136, 72, 160),
    "first_k_dense_replace": (1, 2, 3),
    "num_dense_layers": (1, 2, 3),
    "decoder_sparse_step": (1, 2, 1),
    "mlp_only_layers": (KEEP, KEEP, [1, 4]),
    "interleave_moe_layer_step": (1, 2, 3),
    "num_nextn_predict_layers": (0, 1, 2),
    # linear attention and state space layers
    "linear_num_key_heads": (4, 3, 5),
    "linear_num_value_heads": (8, 6, 10),
    "linear_key_head_dim": (16, 24, 32),
    "linear_value_head_dim": (24, 20, 48),
    "linear_num_heads": (8, 6, 10),
    "linear_head_dim": (24, 16, 64),
    "linear_conv_kernel_dim": _CONV,
    "short_conv_kernel_size": _CONV,
    "conv_kernel_size": _CONV,
    "conv_kernel": _CONV,
    "conv1d_width": _CONV,
    "conv_L_cache": _CONV,
    "mamba_d_conv": _CONV,
    "mamba_d_state": _STATE,
    "state_size": _STATE,
    "ssm_state_size": _STATE,
    "mamba_expand": (2, 2, 1),
    "expand": (2, 2, 1),
    "mamba_n_heads": (16, 12, 10),
    "mamba_num_heads": (16, 12, 10),
    "mamba_d_head": (32, 32, 32),
    "mamba_head_dim": (32, 32, 32),
    "mamba_d_ssm": (512, 384, 320),
    "mamba_n_groups": (1, 2, 5),
    "mamba_ngroups": (1, 2, 2),
    "n_groups": (4, 2, 5),
    "mamba_dt_rank": (16, 12, 24),
    "time_step_rank": (24, "auto", 12),
    "n_mamba_heads": (2, 1, 4),
    "attention_hidden_size": _HIDDEN,
    "lru_width": (256, 384, 160),
    # hyper-connections, tables of layers and other additions
    "hc_mult": (4, 2, 3),
    "hc_count": (4, 2, 3),
    "hc_lowrank": (32, 16, 48),
    "o_groups": (2, 3, 5),
    "o_lora_rank": (48, 32, 64),
    "gated_norm_rank": (16, 8, 24),
    "laurel_rank": (16, 8, 24),
    "altup_num_inputs": (4, 2, 3),
    "vocab_size_per_layer_input": (1000, 1200, 1800),
    "hidden_size_per_layer_input": (32, 16, 48),
    "output_vocab_size": (KEEP, KEEP, 1500),
    "unpadded_vocab_size": (990, 1500, 1999),
    "swa_num_attention_heads": (4, 6, 10),
    "swa_num_key_value_heads": (2, 3, 2),
    "swa_head_dim": (32, 24, 48),
    "sliding_window_size": _WINDOW,
    "d_rel": (16, 8, 12),
    "rel_extent": (64, 128, 96),
    "router_hidden_size": (64, 32, 48),
    "cca_time0": (2, 3, 2),
    "cca_time1": (2, 2, 3),
    "adapter_rank": (16, 8, 24),
    "block_multiple_of": (64, 32, 128),
    "zero_expert_num": (4, 2, 6),
}
"""A key's values in the three variants, used where a class has the key."""

FLIPPED: dict[int, tuple[str, ...]] = {
    2: (
        "tie_word_embeddings",
        "use_qk_norm",
        "qk_layernorm",
        "mamba_rms_norm",
        "attention_k_eq_v",
        "use_attention_gate",
        "shared_expert_sink",
    ),
    3: (
        "use_parallel_residual",
        "use_post_norm",
        "use_sandwich_norm",
        "altup_correct_scale",
        "multi_query",
        "is_moe",
        "add_out_norm",
        "use_expert_bias",
        "layer_norm_elementwise_affine",
        "block_auto_adjust_ff_dim",
        "use_shared_attention_adapter",
        "use_mem_rope",
        "apply_residual_connection_post_layernorm",
    ),
}
"""Switches turned over in a variant, beside every key with "bias" in variant 2."""

LISTS = ("layer_types", "mlp_layer_types", "layers_block_type", "block_types")
"""Kinds of layers one by one; variant 3 lets the kinds that a class has take turns."""

_DENSE_SPARSE = ["dense", "sparse", "sparse", "dense", "sparse", "sparse", "sparse"]
_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
_ROPE_BY_KIND = {"full_attention": _ROPE, "sliding_attention": _ROPE}
_NO_QUERY_RANK: tuple[dict[str, Any], ...] = ({}, {}, {"q_lora_rank": None})
_NO_WIDTH = {"intermediate_size": KEEP}
_QSA = {"indexer_kv_heads": 1, "indexer_budget": 64, "indexer_compress_ratio": 8}
_HASHED = {"split_ngram_parts": 1, "eos_token_id": 1}

FAMILIES: dict[str, tuple[dict[str, Any], ...]] = {
    "bailing_hybrid": (
        {"layer_group_size": 3, "head_dim": 24, "q_lora_rank": KEEP},
        {"layer_group_size": 2, "head_dim": 16},
        {"head_dim": 64, "q_lora_rank": KEEP},
    ),
    "bamba": (
        {"attn_layer_indices": [1]},
        {"attn_layer_indices": [0, 2]},
        {"attn_layer_indices": [1, 4, 5]},
    ),
    "beam": ({"mlp_layer_types": ["dense", "sparse", "sparse"]}, {}, {}),
    "cohere2_moe": (
        {"num_shared_experts": KEEP},
        {"expert_selection_fn": "sigmoid", "sliding_window_pattern": 2},
        {"first_k_dense_replace": 2, "prefix_dense_intermediate_size": 448},
    ),
    "cohere_compass_text": (
        {"rope_parameters": _ROPE_BY_KIND},
        {"rope_parameters": _ROPE_BY_KIND},
        {
            "rope_parameters": _ROPE_BY_KIND,
            "layer_types": ["sliding_attention", "full_attention"] * 3
            + ["full_attention"],
        },
    ),
    "cpmant": (
        {"dim_head": 32, "prompt_types": 8, "position_bias_num_buckets": 32},
        {"dim_head": 48, "prompt_length": 16, "segment_types": 6},
        {"dim_head": 64, "position_bias_num_buckets": 64},
    ),
    "dbrx": (
        {
            "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0},
            "ffn_config": {
                "ffn_hidden_size": 96,
                "moe_num_experts": 16,
                "moe_top_k": 2,
            },
        },
        {
            "attn_config": {"kv_n_heads": 3, "rope_theta": 10000.0},
            "ffn_config": {
                "ffn_hidden_size": 64,
                "moe_num_experts": 9,
                "moe_top_k": 3,
            },
            "tie_word_embeddings": KEEP,
        },
        {
            "attn_config": {"kv_n_heads": 10, "rope_theta": 10000.0},
            "ffn_config": {
                "ffn_hidden_size": 80,
                "moe_num_experts": 12,
                "moe_top_k": 4,
            },
        },
    ),
    "deepseek_v2": _NO_QUERY_RANK,
    "deepseek_v3": _NO_QUERY_RANK,
    "deepseek_v4": (
        {"num_hash_layers": 1},
        {"compress_rate_csa": 8, "compress_rate_hca": 64, "num_hash_layers": 2},
        {
            "layer_types": [
                "sliding_attention",
                "heavily_compressed_attention",
                "compressed_sparse_attention",
                "sliding_attention",
                "compressed_sparse_attention",
                "compressed_sparse_attention",
                "heavily_compressed_attention",
            ]
        },
    ),
    "diffllama": ({}, {"num_key_value_heads": 2}, {"num_key_value_heads": 10}),
    "doge": ({}, {}, {"num_experts": 16, "num_experts_per_tok": 4}),
    "dory": (
        {"n_input_layers": 1, "n_output_layers": 1},
        {"n_input_layers": 1, "n_output_layers": 1, "n_recurrent_loops": 3},
        {
            "n_input_layers": 2,
            "n_output_layers": 3,
            "layer_types": ["full_attention", "sliding_attention"] * 3
            + ["full_attention"],
        },
    ),
    "dots3_note_text": (
        {
            "swa_num_attention_heads": 4,
            "swa_num_key_value_heads": 4,
            "swa_q_lora_rank": 96,
            "swa_kv_lora_rank": 128,
            "swa_head_dim": 48,
            "swa_qk_nope_head_dim": 32,
            "swa_v_head_dim": 24,
        },
        {
            "first_k_dense_replace": 2,
            "swa_num_attention_heads": 3,
            "swa_num_key_value_heads": 3,
            "swa_q_lora_rank": 80,
            "swa_kv_lora_rank": 48,
            "swa_head_dim": 32,
            "swa_qk_nope_head_dim": 24,
            "swa_v_head_dim": 40,
        },
        {
            "layer_types": ["indexed_attention", "sliding_attention"] * 3
            + ["indexed_attention"],
            "swa_num_attention_heads": 5,
            "swa_num_key_value_heads": 5,
            "swa_q_lora_rank": 112,
            "swa_kv_lora_rank": 64,
            "swa_head_dim": 80,
            "swa_qk_nope_head_dim": 48,
            "swa_v_head_dim": 32,
        },
    ),
    "ernie4_5_moe": (
        {"moe_layer_end_index": 2},
        {"moe_layer_end_index": 3, "moe_num_shared_experts": 0},
        {"moe_layer_start_index": 2, "moe_layer_end_index": 6, "moe_layer_interval": 2},
    ),
    "falcon": (
        {},
        {"new_decoder_architecture": True},
        {"parallel_attn": False, "alibi": True},
    ),
    "falcon_mamba": (_NO_WIDTH, _NO_WIDTH, _NO_WIDTH),
    "gemma3n_text": (
        {"num_hidden_layers": 10, "num_kv_shared_layers": 5},
        {"num_hidden_layers": 5, "num_kv_shared_layers": 0},
        {
            "num_kv_shared_layers": 2,
            "intermediate_size": [512, 512, 384, 384, 640, 512, 512],
        },
    ),
    "gemma4_text": (
        {"global_head_dim": 64, "num_experts": KEEP, "moe_intermediate_size": KEEP},
        {
            "global_head_dim": 96,
            "num_global_key_value_heads": 2,
            "enable_moe_block": True,
            "top_k_experts": 3,
            "hidden_size_per_layer_input": 0,
        },
        {
            "global_head_dim": 32,
            "num_experts": KEEP,
            "moe_intermediate_size": KEEP,
            "num_kv_shared_layers": 3,
            "use_double_wide_mlp": True,
        },
    ),
    "gemma4_unified_text": (
        {"global_head_dim": 64},
        {"global_head_dim": 96, "num_global_key_value_heads": 2},
        {
            "global_head_dim": 32,
            "num_kv_shared_layers": 3,
            "use_double_wide_mlp": True,
        },
    ),
    "glm4_moe_lite": _NO_QUERY_RANK,
    "glm_moe_dsa": (
        {},
        {"index_topk_pattern": "FSSF"},
        {
            "indexer_types": ["full", "shared", "full", "shared"]
            + ["shared", "full", "full"]
        },
    ),
    "gpt_neo": (
        {"num_layers": 4, "attention_types": [[["global", "local"], 2]]},
        {"attention_types": [[["global"], 4]]},
        {"attention_types": [[["local"], 2], [["global"], 5]]},
    ),
    "gpt_neox_japanese": ({}, {}, {"intermediate_multiple_size": 3}),
    "granitemoehybrid": (
        {"layer_types": ["linear_attention", "full_attention", "linear_attention"]},
        {
            "layer_types": ["linear_attention"] * 3 + ["full_attention"],
            "num_local_experts": 0,
            "num_experts_per_tok": 0,
        },
        {
            "layer_types": ["full_attention", "linear_attention"] * 3
            + ["full_attention"],
            "position_embedding_type": "rope",
        },
    ),
    "granitemoe_swa": ({}, {}, {"shared_intermediate_size": 0}),
    "granitemoeshared": ({}, {}, {"shared_intermediate_size": 0}),
    "hrm_text": ({}, {"H_cycles": 3}, {"L_cycles": 2}),
    "hy_v4": (
        {},
        {"indexer_types": ["full"] * 4},
        {
            "indexer_types": ["full", "shared", "full", "shared"]
            + ["shared", "full", "full"]
        },
    ),
    "inkling2_loop_text": (
        {
            "n_layers_per_attn_res_block": 1,
            "loop_layer_index_start": 1,
            "loop_layer_index_end": 2,
            "loop_gate_rank": 16,
        },
        {
            "n_layers_per_attn_res_block": 1,
            "loop_layer_index_start": 1,
            "loop_layer_index_end": 3,
            "loop_gate_rank": 8,
            "loop_num_passes": 2,
        },
        {
            "n_layers_per_attn_res_block": 2,
            "loop_layer_index_start": 2,
            "loop_layer_index_end": 6,
            "loop_gate_rank": 24,
        },
    ),
    "inkling2_text": (
        {},
        {"n_layers_per_attn_res_block": 2},
        {"n_layers_per_attn_res_block": 3},
    ),
    "inkling_text": (
        {"dense_mlp_idx": 1, "unpadded_vocab_size": KEEP},
        {"dense_mlp_idx": 2, "local_layer_ids": [0, 2], "num_mtp_layers": 1},
        {"mlp_layer_types": _DENSE_SPARSE},
    ),
    "jamba": (
        {"num_hidden_layers": 4, "attn_layer_period": 2, "attn_layer_offset": 1},
        {
            "attn_layer_period": 3,
            "attn_layer_offset": 0,
            "num_experts": 1,
            "num_experts_per_tok": 1,
        },
        {
            "attn_layer_period": 4,
            "attn_layer_offset": 2,
            "expert_layer_period": 3,
            "expert_layer_offset": 2,
        },
    ),
    "jetmoe": (
        {"kv_channels": 32, "num_attention_heads": KEEP},
        {"kv_channels": 48, "num_attention_heads": KEEP},
        {"kv_channels": 64, "num_attention_heads": KEEP},
    ),
    "kimi_linear": (
        {
            "q_lora_rank": KEEP,
            "linear_attn_config": {
                "full_attn_layers": [2],
                "kda_layers": [1, 3],
                "head_dim": 24,
                "num_heads": 5,
                "short_conv_kernel_size": 4,
            },
        },
        {"first_k_dense_replace": 2},
        {"q_lora_rank": KEEP},
    ),
    "laguna": (
        {},
        {"gating": False, "num_attention_heads_per_layer": [6, 3, 9, 6]},
        {
            "gating": "per-element",
            "layer_types": ["full_attention"] + ["sliding_attention"] * 6,
        },
    ),
    "lfm2": (
        {"full_attn_idxs": [1]},
        {"full_attn_idxs": [0, 3], "block_ffn_dim_multiplier": 1.3},
        {"layer_types": ["conv", "full_attention"] * 3 + ["conv"]},
    ),
    "lfm2_moe": (
        {"layer_types": ["conv", "full_attention", "conv"]},
        {"layer_types": ["conv", "conv", "full_attention", "full_attention"]},
        {"layer_types": ["conv", "full_attention"] * 3 + ["conv"]},
    ),
    "mamba": (_NO_WIDTH, _NO_WIDTH, _NO_WIDTH),
    "mamba2": (
        {"num_heads": 16},
        {"num_heads": 8},
        {"num_heads": 5},
    ),
    "mellum": (
        {},
        {},
        {"num_nextn_predict_layers": 1, "mlp_layer_types": _DENSE_SPARSE},
    ),
    "minicpm3": _NO_QUERY_RANK,
    "minimax_m3_vl_text": (
        {"moe_layer_freq": [0, 1, 1]},
        {
            "layer_types": ["full_attention"] * 2 + ["minimax_m3_sparse"] * 2,
            "moe_layer_freq": [0, 0, 1, 1],
        },
        {
            "layer_types": ["full_attention"] + ["minimax_m3_sparse"] * 6,
            "mlp_layer_types": _DENSE_SPARSE,
        },
    ),
    "mistral": ({}, {}, {"sliding_window": None}),
    "mpt": (
        {},
        {"attn_config": {"qk_ln": True}},
        {"attn_config": {"alibi": False}, "expansion_ratio": 3},
    ),
    "nemotron_h": (
        {"hybrid_override_pattern": "M-M*-M-"},
        {
            "layers_block_type": ["linear_attention", "moe", "full_attention", "moe"],
            "mtp_layers_block_type": ["full_attention", "moe"],
        },
        {"moe_latent_size": 48},
    ),
    "opt": (
        {"word_embed_proj_dim": 256},
        {"word_embed_proj_dim": 96},
        {"word_embed_proj_dim": 320, "do_layer_norm_before": False},
    ),
    "qwen2": ({}, {}, {"use_sliding_window": True, "max_window_layers": 3}),
    "qwen3": ({}, {}, {"use_sliding_window": True, "max_window_layers": 3}),
    "qwen3_5_moe_text": ({"full_attention_interval": 3}, {}, {}),
    "qwen3_5_text": ({"full_attention_interval": 3}, {}, {}),
    "qwen3_next": ({"full_attention_interval": 3}, {}, {}),
    "qwen4_exp_text": (
        _QSA | {"indexer_n_heads": 4, "indexer_head_dim": 32},
        _QSA
        | _HASHED
        | {
            "indexer_n_heads": 2,
            "indexer_head_dim": 48,
            "full_attention_interval": 2,
            "ple_layer_ids": [1, 3],
            "ple_embed_dim": 96,
            "ngram_vocab_size_base": 500,
            "heads_per_ngram": 4,
        },
        _QSA
        | _HASHED
        | {
            "indexer_n_heads": 8,
            "indexer_head_dim": 64,
            "ple_layer_ids": [1],
            "ngram_size": 2,
            "ngram_vocab_size_base": 400,
            "ple_conv_kernel_size": 3,
        },
    ),
    "rwkv": ({}, {}, {"attention_hidden_size": 160}),
    "sarvam_mla": ({"q_lora_rank": KEEP}, {}, {"q_lora_rank": KEEP}),
    "smollm3": ({}, {}, {"no_rope_layer_interval": 2}),
    "xlstm": (
        {},
        {"qk_dim_factor": 1.0, "ffn_proj_factor": 2.0},
        {"weight_mode": "fused", "v_dim_factor": 2.0},
    ),
    "youtu": _NO_QUERY_RANK,
    "zamba": (
        {"num_hidden_layers": 9, "attention_hidden_size": KEEP},
        {
            "num_hidden_layers": 8,
            "attn_layer_period": 3,
            "attn_layer_offset": 1,
            "attention_hidden_size": KEEP,
        },
        {
            "num_hidden_layers": 10,
            "attn_layer_period": 4,
            "attn_layer_offset": 2,
            "layers_block_type": KEEP,
            "attention_hidden_size": KEEP,
        },
    ),
    "zamba2": (
        {
            "layers_block_type": ["linear_attention", "hybrid", "hybrid"],
            "attention_hidden_size": KEEP,
        },
        {
            "layers_block_type": ["linear_attention"] + ["hybrid"] * 3,
            "num_mem_blocks": 2,
            "attention_hidden_size": KEEP,
        },
        {"attention_hidden_size": KEEP},
    ),
    "zaya": (
        {"num_experts_per_tok": 1},
        {"num_experts_per_tok": 1},
        {"num_experts_per_tok": 1},
    ),
}
"""Keys of single families, in place of or beside the ones above."""
