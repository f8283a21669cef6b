"""Calibrate training on DGX A100 to published iteration times and memory.

Megatron-LM, its fork for BLOOM, and MPT on one chip: each framework has its overlap.

    python calibration/dgx_a100/run.py
"""

from pathlib import Path

import cmxjax as cmx
from cmxjax.report.calibration import refit

if __name__ == "__main__":
    cmx.setup()
    refit("dgx-a100-training", Path(__file__).parent / "results")
