"""Calibrate HGX H200 to whole serving runs of vLLM and SGLang, from what H100 says.

python calibration/hgx_h200/run.py
"""

from pathlib import Path

import cmxjax as cmx
from cmxjax.report.calibration import refit

if __name__ == "__main__":
    cmx.setup()
    refit("hgx-h200", Path(__file__).parent / "results", restarts=4)
