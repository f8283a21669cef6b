"""Calibrate GB200 NVL72 to its published operators and collectives.

Its totals are printed figures, of which nothing is fitted.

    python calibration/gb200_nvl72/run.py
"""

import shutil
from pathlib import Path

from rich.console import Console

import cmxjax as cmx
from cmxjax.report.calibration import publish

SYSTEM = "gb200-nvl72"
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
