"""Calibrate training on GB200 NVL72 to published iteration times and token rates.

NeMo on 8 to 8192 GPUs: Llama, Nemotron and DeepSeek-V3 in bf16, FP8 and MXFP8.

    python calibration/gb200_nvl72_training/run.py
"""

from pathlib import Path

import cmxjax as cmx
from cmxjax.report.calibration import refit

if __name__ == "__main__":
    cmx.setup()
    refit("gb200-nvl72-training", Path(__file__).parent / "results", restarts=16)
