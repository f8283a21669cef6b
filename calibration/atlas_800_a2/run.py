"""Calibrate Atlas 800 A2 to whole serving runs of vLLM-Ascend and omni-infer.

It starts from what CloudMatrix384 says.

python calibration/atlas_800_a2/run.py
"""

from pathlib import Path

import cmxjax as cmx
from cmxjax.report.calibration import refit

if __name__ == "__main__":
    cmx.setup()
    refit("atlas-800-a2", Path(__file__).parent / "results", restarts=4)
