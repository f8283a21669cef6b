"""The closed table of units: what a file may print and what it means in SI.

SI inside the package means seconds, bytes, FLOP, watts, joules and plain numbers.
A unit belongs to one dimension, so a bandwidth can't be given in TFLOP/s. Decimal
and binary prefixes are different units: GB is 1e9 bytes and GiB is 2**30.
"""

from typing import NamedTuple


class Unit(NamedTuple):
    """A unit's dimension and its size in SI."""

    dimension: str
    factor: float


def _scaled(dimension: str, suffix: str, prefixes: str, base: float) -> dict[str, Unit]:
    powers = {"": 0, "k": 1, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5, "E": 6}
    return {
        prefix + suffix: Unit(dimension, base * 1e3 ** powers[prefix])
        for prefix in ["", *prefixes]
    }


UNITS: dict[str, Unit] = {
    **{
        name: Unit("time", factor)
        for name, factor in {
            "s": 1.0,
            "ms": 1e-3,
            "us": 1e-6,
            "ns": 1e-9,
            "min": 60.0,
            "h": 3600.0,
            "day": 86400.0,
        }.items()
    },
    **_scaled("bytes", "B", "kKMGT", 1.0),
    **{
        name + "B": Unit("bytes", 1024.0**power)
        for name, power in {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4}.items()
    },
    **_scaled("byte_rate", "B/s", "kMGTP", 1.0),
    **_scaled("byte_rate", "b/s", "MGT", 1.0 / 8.0),
    **_scaled("flop_rate", "FLOP/s", "GTPE", 1.0),
    **_scaled("flop_rate", "FLOPS", "GTP", 1.0),
    **_scaled("flop_rate", "OP/s", "TP", 1.0),
    **_scaled("flop", "FLOP", "GTP", 1.0),
    **_scaled("token_rate", "tokens/s", "kM", 1.0),
    "samples/s": Unit("sample_rate", 1.0),
    "requests/s": Unit("request_rate", 1.0),
    **_scaled("power", "W", "kM", 1.0),
    "J": Unit("energy", 1.0),
    "mJ": Unit("energy", 1e-3),
    **_scaled("energy", "Wh", "kMG", 3600.0),
    **_scaled("cost", "USD", "kM", 1.0),
    "USD/token": Unit("token_cost", 1.0),
    "USD/Mtokens": Unit("token_cost", 1e-6),
    "1": Unit("number", 1.0),
    "%": Unit("number", 0.01),
    "1e9": Unit("number", 1e9),
    "tokens": Unit("number", 1.0),
}

LIKELY: dict[str, tuple[str, ...]] = {
    "time": ("ms", "s"),
    "bytes": ("GB", "GiB"),
    "byte_rate": ("GB/s", "TB/s"),
    "flop_rate": ("TFLOP/s", "PFLOP/s"),
    "flop": ("GFLOP", "TFLOP"),
    "token_rate": ("tokens/s", "ktokens/s"),
    "sample_rate": ("samples/s",),
    "request_rate": ("requests/s",),
    "power": ("kW", "MW"),
    "energy": ("J", "mJ"),
    "cost": ("USD",),
    "token_cost": ("USD/Mtokens",),
}
"""What somebody who left out the unit may have meant."""

SUFFIXES: tuple[tuple[str, str], ...] = (
    ("_tokens_per_s", "token_rate"),
    ("_samples_per_s", "sample_rate"),
    ("_requests_per_s", "request_rate"),
    ("_bytes_per_s", "byte_rate"),
    ("_flop_per_s", "flop_rate"),
    ("_bytes", "bytes"),
    ("_s", "time"),
    ("_w", "power"),
    ("_j", "energy"),
    ("_per_token_usd", "token_cost"),
    ("_usd", "cost"),
)
"""A leaf's name ends in its unit; a name without one of these is a plain number."""


def dimension_of(name: str) -> str:
    """The dimension that a leaf's name promises, e.g. `latency_s` is a time.

    Of a dotted path the innermost part that ends in a unit counts, so
    `chip.matrix_flop_per_s.bf16` is a FLOP rate.
    """
    for part in reversed(name.split(".")):
        padded = "_" + part
        for suffix, dimension in SUFFIXES:
            if padded.endswith(suffix):
                return dimension
    return "number"


def to_si(value: float, unit: str) -> float:
    """Convert a printed value to SI. Raises `ValueError` for a unit not in the table."""
    if unit not in UNITS:
        raise ValueError(f"unknown unit {unit!r}; use one of {', '.join(UNITS)}")
    return value * UNITS[unit].factor


def from_si(value: float, unit: str) -> float:
    """Convert an SI value to `unit`. Raises `ValueError` for an unknown unit."""
    return value / to_si(1.0, unit)


_DISPLAY: dict[str, tuple[str, ...]] = {
    "time": ("day", "h", "s", "ms", "us", "ns"),
    "bytes": ("TB", "GB", "MB", "kB", "B"),
    "byte_rate": ("TB/s", "GB/s", "MB/s", "B/s"),
    "flop_rate": ("PFLOP/s", "TFLOP/s", "GFLOP/s", "FLOP/s"),
    "token_rate": ("tokens/s",),
    "sample_rate": ("samples/s",),
    "request_rate": ("requests/s",),
    "power": ("MW", "kW", "W"),
    "energy": ("GWh", "MWh", "kWh", "J", "mJ"),
    "cost": ("MUSD", "USD"),
    "token_cost": ("USD/Mtokens",),
}


def fitting_unit(value: float, dimension: str) -> str:
    """The largest unit that leaves an SI value at least one whole digit; 1 for none."""
    choices = _DISPLAY.get(dimension, ("1",))
    fitting = (unit for unit in choices if abs(from_si(value, unit)) >= 1.0)
    return next(fitting, choices[-1])


def format_si(value: float, dimension: str, sigma: float = 0.0) -> str:
    """Print an SI value with the largest unit that leaves at least one whole digit.

    Args:
        sigma: relative standard error, printed behind it unless it is 0.
    """
    unit = fitting_unit(value, dimension)
    shown = f"{from_si(value, unit):.4g} {unit}".removesuffix(" 1")
    return f"{shown} ±{sigma:.1%}" if sigma else shown
