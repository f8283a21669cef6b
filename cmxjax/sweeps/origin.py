"""Where the numbers of a sweep come from: its file, calibration, versions, revision."""

import hashlib
import json
import subprocess
from importlib.metadata import version
from pathlib import Path

from ..specs.output import inputs_of
from ..specs.sweep_file import files_of
from .plan import Plan

PACKAGES = ("cmxjax", "jax", "jaxlib", "numpy")


def origin_of(plan: Plan) -> dict[str, object]:
    """What a sweep's rows depend on, to be kept beside them."""
    sweep = plan.sweep
    named = map(Path, inputs_of(*files_of(sweep.spec)))  # "1 TB/s" looks like a path
    group = next(iter(plan.jobs.groups.values()), None)
    leaves = b"" if group is None else b"".join(x.tobytes() for x in group.template)
    return {
        "sweep": sweep.spec.model_dump(mode="json", by_alias=True, exclude_none=True),
        "scenario": plan.jobs.raw,
        "files": {str(p): _digest(p.read_bytes()) for p in named if p.is_file()},
        "calibration": sweep.spec.calibration or "shipped",
        "machine": _digest(leaves),
        "versions": {name: version(name) for name in PACKAGES},
        "revision": revision(),
        "points": plan.grid.points,
        "parts": plan.grid.parts,
        "fast": list(plan.fast),
    }


def fingerprint(origin: dict[str, object]) -> str:
    """One word for all that rows depend on."""
    return _digest(json.dumps(origin, sort_keys=True, default=str).encode())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def revision() -> str:
    """The git revision of the package's checkout; empty where it is installed."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return ""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(
            command, cwd=root, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


DIFFERENCES = {
    "sweep": "the sweep file",
    "scenario": "the base scenario",
    "files": "a file that it names",
    "calibration": "the calibration",
    "machine": "the machine or the model",
    "versions": "the versions of packages",
    "revision": "the git revision",
}


def differences(one: dict, other: dict) -> list[str]:
    """What two sweeps differ in, in words."""
    words = []
    for key, what in DIFFERENCES.items():
        mine, theirs = one.get(key), other.get(key)
        if mine == theirs or (key == "machine" and words):  # it follows from the others
            continue
        if isinstance(mine, dict) and isinstance(theirs, dict):
            names = {k for k in mine | theirs if mine.get(k) != theirs.get(k)}
            what += f" ({', '.join(sorted(map(str, names)))})"
        words.append(what)
    return words
