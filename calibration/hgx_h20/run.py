"""Calibrate HGX H20 to published kernels, from what H100 says.

python calibration/hgx_h20/run.py
"""

from pathlib import Path

import cmxjax as cmx
from cmxjax.report.calibration import refit

if __name__ == "__main__":
    cmx.setup()
    refit("hgx-h20", Path(__file__).parent / "results", restarts=4)
