"""Which shipped calibrations say something about a system."""

from .calibration_file import calibration_names, shipped_calibration
from .relatives import CLOSE_GROUPS, GROUPS, Known
from .system_load import LoadedSystem, Reference, load_system


def relatives_of(loaded: LoadedSystem, phase: str = "") -> tuple[Known, tuple[str, ...]]:
    """Calibrations of a system's relatives, or of all others if it names none, and what
    leaves that carry over begin with.

    Args:
        phase: what they are to be meant for; empty for those that no phase claims.
    """
    named = loaded.file.relatives
    known = [
        (c, load_system(Reference(c.system)).figures)
        for c in map(shipped_calibration, calibration_names())
        if c.system != loaded.system.name
        and (not c.phases or phase in c.phases)
        and (not named or c.system in named)
    ]
    return known, CLOSE_GROUPS if named else GROUPS
