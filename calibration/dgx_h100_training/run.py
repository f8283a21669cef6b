"""Calibrate training on DGX H100 to published tokens a second and memory.

NeMo, MPT and a grid of nanotron: the chip is one, each framework has its own kernels.

    python calibration/dgx_h100_training/run.py
"""

import shutil
from pathlib import Path

from rich.console import Console

import cmxjax as cmx
from cmxjax.report.calibration import publish

RECIPE = "dgx-h100-training"
RESULTS = Path(__file__).parent / "results"
SHIPPED = Path(cmx.__file__).parent / "specs/data/calibrations"


def main() -> None:
    report = cmx.fit(RECIPE, out=str(RESULTS))
    Console().print(publish(report.result, RESULTS))
    SHIPPED.mkdir(exist_ok=True)
    shutil.copy(report.files[0], SHIPPED)


if __name__ == "__main__":
    main()
