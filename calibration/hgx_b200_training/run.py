"""Calibrate training on HGX B200 to published iteration times and memory.

Megatron-LM on one node: models cut to a few layers.

    python calibration/hgx_b200_training/run.py
"""

from pathlib import Path

import cmxjax as cmx
from cmxjax.report.calibration import refit

if __name__ == "__main__":
    cmx.setup()
    refit("hgx-b200-training", Path(__file__).parent / "results")
