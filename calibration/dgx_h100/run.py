"""Calibrate DGX H100 to published operators, NCCL and DeepEP.

Kernels of five sources: which kernel ran explains most of what is left.

    python calibration/dgx_h100/run.py
"""

import shutil
from pathlib import Path

from rich.console import Console

import cmxjax as cmx
from cmxjax.report.calibration import publish

SYSTEM = "dgx-h100"
RESULTS = Path(__file__).parent / "results"
SHIPPED = Path(cmx.__file__).parent / "specs/data/calibrations"


def main() -> None:
    cmx.setup()
    report = cmx.fit(SYSTEM, out=str(RESULTS))
    Console().print(publish(report.result, RESULTS))
    SHIPPED.mkdir(exist_ok=True)
    shutil.copy(report.files[0], SHIPPED)


if __name__ == "__main__":
    main()
