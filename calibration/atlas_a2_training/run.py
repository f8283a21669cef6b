"""Calibrate training on Atlas 800 A2 to published tokens a second.

Two releases of MindSpeed-LLM; the utilizations of Pangu are predicted, not fitted.

    python calibration/atlas_a2_training/run.py
"""

from pathlib import Path

import cmxjax as cmx
from cmxjax.report.calibration import refit

if __name__ == "__main__":
    cmx.setup()
    refit("atlas-a2-training", Path(__file__).parent / "results")
