"""Calibrate training on Atlas 800 A2 to published tokens a second.

Two releases of MindSpeed-LLM; the utilizations of Pangu are predicted, not fitted.

    python calibration/atlas_a2_training/run.py
"""

import shutil
from pathlib import Path

from rich.console import Console

import cmxjax as cmx
from cmxjax.report.calibration import publish

RECIPE = "atlas-a2-training"
RESULTS = Path(__file__).parent / "results"
SHIPPED = Path(cmx.__file__).parent / "specs/data/calibrations"


def main() -> None:
    report = cmx.fit(RECIPE, out=str(RESULTS))
    Console().print(publish(report.result, RESULTS))
    SHIPPED.mkdir(exist_ok=True)
    shutil.copy(report.files[0], SHIPPED)


if __name__ == "__main__":
    main()
