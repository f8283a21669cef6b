"""Calibrate GB200 NVL72 to its published operators and collectives.

Its totals are printed figures, of which nothing is fitted.

    python calibration/gb200_nvl72/run.py
"""

from pathlib import Path

import cmxjax as cmx
from cmxjax.report.calibration import refit

if __name__ == "__main__":
    cmx.setup()
    refit("gb200-nvl72", Path(__file__).parent / "results")
