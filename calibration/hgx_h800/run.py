"""Calibrate HGX H800 to DeepGEMM, FlashMLA, InferSim and DeepEP.

Few parameters, the same physics as CloudMatrix384: the method carries over. DeepSeek's
serving profiles are predicted, not fitted.

    python calibration/hgx_h800/run.py
"""

import shutil
from pathlib import Path

from rich.console import Console

import cmxjax as cmx
from cmxjax.report.calibration import publish

SYSTEM = "hgx-h800"
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
