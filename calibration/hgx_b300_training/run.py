"""Calibrate training on HGX B300 to published token rates.

Megatron-Bridge on 64 and 256 GPUs: mixtures in bf16 and MXFP8.

    python calibration/hgx_b300_training/run.py
"""

from pathlib import Path

import cmxjax as cmx
from cmxjax.report.calibration import refit

if __name__ == "__main__":
    cmx.setup()
    refit("hgx-b300-training", Path(__file__).parent / "results", restarts=16)
