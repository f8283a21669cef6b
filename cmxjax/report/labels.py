"""How pictures name what their axes show: words, a unit that fits, plain digits."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ..units import UNITS, dimension_of, fitting_unit, to_si

ABBREVIATIONS = {"tpot", "ttft", "mfu", "hfu", "mtbf", "p90", "kv"}

COST = "cost_per_token_usd"

NAMES = {"flop_per_s": "FLOP rate", "bytes_per_s": "byte rate"}
"""Of metrics that are called after their unit alone."""


class Scale(NamedTuple):
    """A label with its unit, and that unit in SI."""

    label: str
    factor: float


def metric_scale(field: str, values: np.ndarray) -> Scale:
    """Of a metric, with the unit that suits its values in SI."""
    if field == COST:
        return Scale("cost, USD per million tokens", 1e-6)
    dimension = dimension_of(field)
    unit = _unit(dimension, values)
    if not unit:
        return Scale(words(field), 1.0)
    if dimension.endswith("_rate") and dimension not in ("byte_rate", "flop_rate"):
        return Scale(words(field), 1.0)
    return Scale(f"{words(field)}, {unit}", to_si(1.0, unit))


def key_scale(key: str, unit: str, values: np.ndarray, plain: str = "") -> Scale:
    """Of a key that is a number: by its own name, with the unit that suits its values.

    Args:
        unit: that the sweep's file writes behind its values; empty for none.
        plain: the unit that plain numbers are of.
    """
    dimension = UNITS[unit].dimension if unit else dimension_of(key)
    fitting = _unit(dimension, values)
    if not fitting:
        return Scale(f"{key}, {plain}" if plain else key, 1.0)
    return Scale(f"{key}, {fitting}", to_si(1.0, fitting))


def _unit(dimension: str, values: np.ndarray) -> str:
    """Empty for plain numbers."""
    known = np.abs(values[np.isfinite(values) & (values != 0.0)])
    middle = float(np.median(known)) if len(known) else 1.0
    unit = fitting_unit(middle, dimension)
    return "" if unit == "1" else unit


def words(field: str) -> str:
    """A metric in words: `tokens_per_s_per_package` is tokens/s per package."""
    if field in NAMES:
        return NAMES[field]
    for suffix in ("_bytes_per_s", "_flop_per_s", "_bytes", "_usd", "_s", "_w", "_j"):
        if field.endswith(suffix) and (len(suffix) > 2 or not field.endswith("_per_s")):
            field = field.removesuffix(suffix)
            break
    said = field.replace("_per_s", "/s").replace("_per_", " per ").replace("_", " ")
    parts = (w.upper() if w in ABBREVIATIONS else w for w in said.split(" "))
    return " ".join(parts).replace(" per kw", " per kW")


def digits(value: float) -> str:
    """A number without an exponent as long as people read it so."""
    if value == 0.0 or 1e-4 <= abs(value) < 1e13:
        return f"{value:,.12g}"
    return f"{value:g}"


def shown(value: object) -> str:
    """A value of a key, or a metric in its unit, in few digits."""
    if isinstance(value, bool | np.bool_ | str):
        return str(value).lower() if not isinstance(value, str) else value
    number = float(value)  # pyright: ignore[reportArgumentType]
    if number % 1.0 == 0.0 and abs(number) < 1e13:
        return f"{number:,.0f}"
    return f"{float(f'{number:.4g}'):,.12g}"


def short_names(keys: list[str]) -> Mapping[str, str]:
    """Keys by as few of their last parts as tell them apart."""

    def alone(key: str, count: int) -> bool:
        own = key.split(".")[-count:]
        return sum(other.split(".")[-count:] == own for other in keys) == 1

    found = {}
    for key in keys:
        parts = key.split(".")
        count = next((n for n in range(1, len(parts)) if alone(key, n)), len(parts))
        found[key] = ".".join(parts[-count:])
    return found
