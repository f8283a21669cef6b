"""Which shipped calibrations say something about a system, and how well it is known."""

from .calibration_file import calibration_names, shipped_calibration
from .relatives import CLOSE_GROUPS, GROUPS, Known
from .system_file import SystemFile
from .system_load import LoadedSystem, Reference, load_system


def relatives_of(loaded: LoadedSystem, phase: str = "") -> tuple[Known, tuple[str, ...]]:
    """Calibrations of a system's relatives, or of all others where it names none that
    are calibrated for the phase, and what leaves that carry over begin with.

    Args:
        phase: what they are to be meant for; empty for those that no phase claims.
    """
    named = loaded.file.relatives
    known = [
        (c, load_system(Reference(c.system)).figures)
        for c in map(shipped_calibration, calibration_names())
        if c.system != loaded.system.name and (not c.phases or phase in c.phases)
    ]
    near = [(c, figures) for c, figures in known if c.system in named]
    return (near, CLOSE_GROUPS) if near else (known, GROUPS)


def calibrated_systems() -> set[str]:
    """Systems with a calibration of their own."""
    return {shipped_calibration(name).system for name in calibration_names()}


def status_of(file: SystemFile) -> str:
    """`hypothetical`, `announced`, `calibrated`, or else where efficiencies come from:
    `relatives` that the file names, or what holds for all chips beside a `data sheet`."""
    if file.hypothetical:
        return "hypothetical"
    if file.announced:
        return "announced"
    if file.name in calibrated_systems():
        return "calibrated"
    return "relatives" if file.relatives else "data sheet"


_WARNINGS = {
    "hypothetical": "rumored: nobody has announced it, most of its figures are assumed",
    "announced": "announced: its figures are its maker's plans, projections and first"
    " product pages",
}


def warning_of(file: SystemFile) -> str:
    """A line on a machine that is rumored or announced; else empty."""
    warning = _WARNINGS.get(status_of(file), "")
    return warning and f"{file.name} is {warning}"
