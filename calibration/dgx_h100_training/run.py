"""Calibrate training on DGX H100 to published tokens a second and memory.

NeMo, MPT and a grid of nanotron: the chip is one, each framework has its own kernels.

    python calibration/dgx_h100_training/run.py
"""

from pathlib import Path

import cmxjax as cmx
from cmxjax.report.calibration import refit

if __name__ == "__main__":
    cmx.setup()
    refit("dgx-h100-training", Path(__file__).parent / "results")
