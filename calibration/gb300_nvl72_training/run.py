"""Calibrate training on GB300 NVL72 to published token rates and step times.

Megatron-Bridge and MLPerf on 8 to 4096 GPUs: Llama, DeepSeek-V3, Qwen3, Nemotron 3 and
GPT-OSS in bf16, FP8 and MXFP8.

    python calibration/gb300_nvl72_training/run.py
"""

from pathlib import Path

import cmxjax as cmx
from cmxjax.report.calibration import refit

if __name__ == "__main__":
    cmx.setup()
    refit("gb300-nvl72-training", Path(__file__).parent / "results", restarts=16)
