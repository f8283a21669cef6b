"""What a job costs: the time that it holds packages for, at their price."""

from ._types import Leaf, Scalar
from .machine.machine import Machine

HOUR_S, KILOWATT_W = 3600.0, 1000.0


def held_usd(machine: Machine, devices: Scalar, seconds: Scalar) -> Scalar:
    """Price of the packages that hold some devices for a time; 0 without a price.

    The price of a package-hour has its share of hosts, network, power and building in it.
    """
    packages = devices / machine.package_devices
    return packages * machine.operations.package_hour_usd * seconds / HOUR_S


def of_a_token(
    machine: Machine, devices: Scalar, tokens_per_s: Scalar, power_w: Scalar
) -> dict[str, Leaf]:
    """Energy and cost of a token, and the rate that a kilowatt brings."""
    return {
        "energy_per_token_j": power_w / tokens_per_s,
        "tokens_per_s_per_kw": tokens_per_s / power_w * KILOWATT_W,
        "cost_per_token_usd": held_usd(machine, devices, 1.0 / tokens_per_s),
    }
