"""Calibrate DGX H100 to published operators, NCCL and DeepEP.

Kernels of five sources: which kernel ran explains most of what is left.

    python calibration/dgx_h100/run.py
"""

from pathlib import Path

import cmxjax as cmx
from cmxjax.report.calibration import refit

if __name__ == "__main__":
    cmx.setup()
    refit("dgx-h100", Path(__file__).parent / "results", restarts=4)
