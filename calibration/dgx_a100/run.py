"""Calibrate training on DGX A100 to published iteration times and memory.

Megatron-LM, its fork for BLOOM, and MPT on one chip: each framework has its overlap.

    python calibration/dgx_a100/run.py
"""

import shutil
from pathlib import Path

from rich.console import Console

import cmxjax as cmx
from cmxjax.report.calibration import publish

RECIPE = "dgx-a100-training"
RESULTS = Path(__file__).parent / "results"
SHIPPED = Path(cmx.__file__).parent / "specs/data/calibrations"


def main() -> None:
    report = cmx.fit(RECIPE, out=str(RESULTS))
    Console().print(publish(report.result, RESULTS))
    SHIPPED.mkdir(exist_ok=True)
    shutil.copy(report.files[0], SHIPPED)


if __name__ == "__main__":
    main()
