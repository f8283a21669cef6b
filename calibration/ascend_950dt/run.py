"""Calibrate Ascend 950DT to an offline loop, from what 910C and 910B say.

python calibration/ascend_950dt/run.py
"""

from pathlib import Path

import cmxjax as cmx
from cmxjax.report.calibration import refit

if __name__ == "__main__":
    cmx.setup()
    refit("ascend-950dt", Path(__file__).parent / "results", restarts=4)
