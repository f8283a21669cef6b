"""Calibrate HGX H800 to DeepGEMM, FlashMLA, InferSim and DeepEP.

Few parameters, the same physics as CloudMatrix384: the method carries over. DeepSeek's
serving profiles are predicted, not fitted.

    python calibration/hgx_h800/run.py
"""

from pathlib import Path

import cmxjax as cmx
from cmxjax.report.calibration import refit

if __name__ == "__main__":
    cmx.setup()
    refit("hgx-h800", Path(__file__).parent / "results")
