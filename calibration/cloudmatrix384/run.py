"""Calibrate CloudMatrix384 to all published figures at once.

The recipe says what is fitted and why, and which rows are predicted only.

    python calibration/cloudmatrix384/run.py
"""

import shutil
from pathlib import Path

from rich.console import Console

import cmxjax as cmx
from cmxjax.report.calibration import publish

SYSTEM = "cloudmatrix384"
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
