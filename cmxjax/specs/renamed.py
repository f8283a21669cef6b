"""Older names of leaves of a system, which count a device where the newer ones count a
package."""

from collections.abc import Container, Mapping

from .figures import LARGEST, Figure

DEVICE_HOUR, DEVICE_MTBF = "operations.device_hour_usd", "operations.device_mtbf_s"

PACKAGE_HOUR, PACKAGE_MTBF = "operations.package_hour_usd", "operations.package_mtbf_s"

OTHERS = ("operations.host_mtbf_s", "operations.optical_module_mtbf_s")
"""What fails besides packages. Of a device that was counted with its share of it."""

NOW: Mapping[str, str] = {DEVICE_HOUR: PACKAGE_HOUR, DEVICE_MTBF: PACKAGE_MTBF}


def in_place(
    figures: Mapping[str, Figure], package_tier: str, kept: Container[str] = ()
) -> dict[str, Figure]:
    """Figures with those of older names under the newer ones, for as many devices as a
    package has.

    Args:
        package_tier: the tier that makes a package of devices; empty where one is one.
        kept: paths that are said beside the older names, and so hold.
    """
    found = {path: figure for path, figure in figures.items() if path not in NOW}
    size = figures[f"tiers.{package_tier}.size"].si if package_tier else 1.0
    for old, new in NOW.items():
        figure = figures.get(old)
        if figure is None or new in kept:
            continue
        many = size if old == DEVICE_HOUR else 1.0 / size
        found[new] = figure.model_copy(update={"value": figure.value * many})
        if old == DEVICE_MTBF:
            never = {"value": LARGEST, "unit": "s", "sigma": 0.0}
            alone = figure.model_copy(update=never)
            found |= {path: alone for path in OTHERS if path not in kept}
    return found


def latest(table: object, own: object) -> object:
    """A file's `operations` with one name left where there are two of one leaf: that of
    the file itself, not of its base, and the newer one of both."""
    if not isinstance(table, dict) or not isinstance(own, dict):
        return table  # validation says what is wrong with it
    gone = set()
    for old, new in NOW.items():
        old, new = old.rpartition(".")[2], new.rpartition(".")[2]
        gone |= {old} if new in own else {new} if old in own else set()
    return {key: figure for key, figure in table.items() if key not in gone}
