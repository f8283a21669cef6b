"""Write the table of measured runs that answers cite into the package, and by how much
error bars grow outside of what was fitted.

python calibration/evidence_of_all.py

Run it after a calibration or a measurement file has changed. Rows of calibrations are as
the committed results have them; the others are predicted, which takes some minutes.
"""

import json
from pathlib import Path

import cmxjax as cmx
from cmxjax.specs.files import DATA

HERE = Path(__file__).parent

if __name__ == "__main__":
    cmx.setup()
    from cmxjax.calibrate.evidence import runs, sources_csv
    from cmxjax.calibrate.extrapolation import growth, left_out
    from cmxjax.specs.evidence_file import GROWTH, RUNS, SOURCES, as_text

    found = runs(HERE)
    Path(str(DATA / RUNS)).write_text(as_text(found), "utf-8")
    Path(str(DATA / SOURCES)).write_text(sources_csv(found), "utf-8")
    learned = growth(left_out(found))
    Path(str(DATA / GROWTH)).write_text(json.dumps(learned) + "\n", "utf-8")
    print(f"{len(found)} runs; growth of the variance: {learned}")
