"""Calibrate CloudMatrix384 to all published figures at once.

The recipe says what is fitted and why, and which rows are predicted only.

    python calibration/cloudmatrix384/run.py
"""

from pathlib import Path

import cmxjax as cmx
from cmxjax.report.calibration import refit

if __name__ == "__main__":
    cmx.setup()
    refit("cloudmatrix384", Path(__file__).parent / "results")
