"""Tools, the releases their options were checked against, and those options.

Checked in the released packages: the argument parsers of vLLM 0.23.0 (`engine/
arg_utils.py`) and SGLang 0.5.23 (`srt/arg_groups/fields`), and the keys that vLLM-Ascend
0.23.0 reads from `--additional-config` (`ascend_config.py`). Megatron-LM's parser is in
no package: its options name fields of the configuration classes of megatron-core, in
which each was looked up. MindSpeed-LLM takes the options of the Megatron-LM that it
extends; its own two, `--num-layer-list` and `--context-parallel-algo`, are in no package
either and weren't looked up.
"""

from .launch import Tool

SHELL_MODEL = '"$MODEL"'

_MEGATRON = {
    "--tensor-model-parallel-size",
    "--pipeline-model-parallel-size",
    "--num-layers-per-virtual-pipeline-stage",
    "--context-parallel-size",
    "--expert-model-parallel-size",
    "--expert-tensor-parallel-size",
    "--sequence-parallel",
    "--micro-batch-size",
    "--global-batch-size",
    "--seq-length",
    "--recompute-granularity",
    "--recompute-method",
    "--recompute-num-layers",
    "--use-distributed-optimizer",
    "--ddp-bucket-size",
    "--overlap-grad-reduce",
    "--overlap-param-gather",
    "--moe-token-dispatcher-type",
    "--moe-grouped-gemm",
    "--bf16",
}

MEGATRON = Tool(
    name="Megatron-LM",
    release="core_v0.16.1",
    checked="options checked against the configuration classes of megatron-core 0.16.1",
    program="torchrun $TORCHRUN_ARGS pretrain_gpt.py",
    phases=("train",),
    options=frozenset(
        _MEGATRON
        | {
            "--pipeline-model-parallel-layout",
            "--cp-comm-type",
            "--overlap-moe-expert-parallel-comm",
            "--use-megatron-fsdp",
            "--data-parallel-sharding-strategy",
            "--suggested-communication-unit-size",
            "--optimizer-cpu-offload",
            "--optimizer-offload-fraction",
            "--fp8-format",
            "--fp8-recipe",
        }
    ),
)

MINDSPEED = Tool(
    name="MindSpeed-LLM",
    release="2.1.0 (Megatron-LM core_v0.12.1)",
    checked="options checked against the configuration classes of megatron-core 0.12.1",
    program="torchrun $TORCHRUN_ARGS pretrain_gpt.py",
    phases=("train",),
    options=frozenset(_MEGATRON | {"--context-parallel-algo", "--num-layer-list"}),
)

_VLLM = {
    "--tensor-parallel-size",
    "--pipeline-parallel-size",
    "--data-parallel-size",
    "--enable-expert-parallel",
    "--max-num-seqs",
    "--max-num-batched-tokens",
    "--gpu-memory-utilization",
    "--quantization",
    "--speculative-config",
}

VLLM = Tool(
    name="vLLM",
    release="0.23.0",
    checked="options checked against the parser of that release",
    program=f"vllm serve {SHELL_MODEL}",
    phases=("decode", "prefill"),
    options=frozenset(
        _VLLM
        | {
            "--all2all-backend",
            "--enable-dbo",
            "--enable-eplb",
            "--eplb-config",
            "--kv-cache-dtype",
        }
    ),
)

VLLM_ASCEND = Tool(
    name="vLLM-Ascend",
    release="0.23.0 with vLLM 0.23.0",
    checked="options checked against the parsers of those releases",
    program=f"vllm serve {SHELL_MODEL}",
    phases=("decode", "prefill"),
    options=frozenset(_VLLM | {"--prefill-context-parallel-size", "--additional-config"}),
)

ASCEND_KEYS = frozenset(
    {
        "eplb_config.dynamic_eplb",
        "eplb_config.num_redundant_experts",
        "finegrained_tp_config.lmhead_tensor_parallel_size",
    }
)
"""Keys of `--additional-config` that are printed, of those that vLLM-Ascend reads."""

SGLANG = Tool(
    name="SGLang",
    release="0.5.23",
    checked="options checked against the parser of that release",
    program=f"python -m sglang.launch_server --model-path {SHELL_MODEL}",
    phases=("decode", "prefill"),
    options=frozenset(
        {
            "--tp-size",
            "--dp-size",
            "--pp-size",
            "--ep-size",
            "--attn-dp-size",
            "--attn-cp-size",
            "--enable-prefill-cp",
            "--moe-a2a-backend",
            "--deepep-mode",
            "--enable-two-batch-overlap",
            "--enable-dp-lm-head",
            "--enable-eplb",
            "--ep-num-redundant-experts",
            "--max-running-requests",
            "--chunked-prefill-size",
            "--quantization",
            "--kv-cache-dtype",
            "--disaggregation-mode",
            "--speculative-algorithm",
            "--speculative-num-steps",
            "--speculative-eagle-topk",
            "--speculative-num-draft-tokens",
        }
    ),
)

TOOLS = {
    "megatron": MEGATRON,
    "mindspeed": MINDSPEED,
    "vllm": VLLM,
    "vllm-ascend": VLLM_ASCEND,
    "sglang": SGLANG,
}
"""By the name that `--emit` takes."""
