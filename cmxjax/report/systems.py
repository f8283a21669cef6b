"""The machines that ship and what is known of each."""

from rich.table import Table

from ..specs.files import aliases
from ..specs.related import calibrated_systems, status_of
from ..specs.system_file import figures_of
from ..specs.system_load import Reference, load_system
from .tables import make_table

COLUMNS = (
    "name",
    "status",
    "efficiencies from",
    "BF16",
    "8 bits",
    "FP4",
    "memory",
    "bandwidth",
    "link",
    "scale-up",
    "also called",
)


def system_row(name: str) -> tuple[str, ...]:
    """A machine in words: status, dense peaks in TFLOP/s, memory in GB and TB/s, link
    in GB/s one way, all of a device, and devices of the scale-up system."""
    loaded = load_system(Reference(name))
    file, system = loaded.file, loaded.system
    si = {path: figure.si for path, figure in figures_of(file).items()}
    own = name in calibrated_systems()
    known = "its own rows" if own else ", ".join(file.relatives) or "all calibrated"
    peaks = {key.rsplit(".", 1)[-1]: x for key, x in si.items() if "matrix_flop" in key}
    eight, four = peaks.get("fp8", peaks.get("int8")), peaks.get("fp4")
    edge = system.tier_order.index(system.scale_up_tier) + 1
    devices = 1.0
    for tier in system.tier_order[:edge]:
        devices *= si[f"tiers.{tier}.size"]
    numbers = [
        *(peaks["bf16"] / 1e12, eight and eight / 1e12, four and four / 1e12),
        *(si["chip.memory_bytes"] / 1e9, si["chip.memory_bytes_per_s"] / 1e12),
        *(si[f"tiers.{system.scale_up_tier}.bytes_per_s"] / 1e9, devices),
    ]
    others = [other for other, of in aliases("systems").items() if of == name]
    texts = ["-" if x is None else f"{x:.5g}" for x in numbers]
    return (name, status_of(file), known, *texts, ", ".join(others))


def systems_table(names: list[str]) -> Table:
    """Every machine by name."""
    title = "systems: TFLOP/s, GB, TB/s and GB/s of a device; devices on its fabric"
    table = make_table(title, *COLUMNS)
    for name in names:
        table.add_row(*system_row(name))
    return table
