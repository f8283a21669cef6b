"""Learn anew from the committed errors of rows left out how errors grow with the scale of
jobs, and write it into the calibrations.

python calibration/scales_of_all.py
"""

import json
from pathlib import Path

from cmxjax.report.coverage import scales_of
from cmxjax.specs.files import DATA

HERE = Path(__file__).parent


def main() -> None:
    """Results and the copies that ship are alike but for their folder."""
    for path in sorted(HERE.glob("*/results/*.json")):
        found = scales_of(path.stem, path.parent)
        for level, scale in found.items():
            if scale.most > 1.0:
                print(f"{path.stem:20} {level:30} {scale}")
        for copy in (path, Path(str(DATA / "calibrations" / path.name))):
            calibration = json.loads(copy.read_text("utf-8"))
            last = calibration.pop("provenance")
            calibration |= {"scales": {k: v.model_dump() for k, v in found.items()}}
            calibration["provenance"] = last
            copy.write_text(json.dumps(calibration, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
