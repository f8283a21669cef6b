"""Calibrate HGX B300 to whole serving runs of vLLM, from what B200 says.

python calibration/hgx_b300/run.py
"""

from pathlib import Path

import cmxjax as cmx
from cmxjax.report.calibration import refit

if __name__ == "__main__":
    cmx.setup()
    refit("hgx-b300", Path(__file__).parent / "results", restarts=4)
