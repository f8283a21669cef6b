"""Calibrate HGX B200 to whole serving runs of vLLM and TensorRT-LLM.

It starts from what GB200 and H100 say.

python calibration/hgx_b200/run.py
"""

from pathlib import Path

import cmxjax as cmx
from cmxjax.report.calibration import refit

if __name__ == "__main__":
    cmx.setup()
    refit("hgx-b200", Path(__file__).parent / "results", restarts=4)
