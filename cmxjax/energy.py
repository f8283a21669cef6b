"""Power and energy of a job from the scale-up system's all-in power."""

from ._types import Scalar
from .hardware import System, scale_up_devices


def job_power_w(system: System, devices: Scalar, utilization: Scalar) -> Scalar:
    r"""Power of the devices that a job holds.

    $$ P = \frac{d}{D}\bigl(P_n + (P_a - P_n)(i + (1 - i) u)\bigr) $$

    P_a is the all-in power of the D devices of a scale-up system, P_n its network's,
    which does not depend on load, i the idle share of the rest and u the utilization.
    """
    p, share = system.power, devices / scale_up_devices(system)
    busy = p.idle_fraction + (1.0 - p.idle_fraction) * utilization
    return share * (p.network_w + (p.all_in_w - p.network_w) * busy)
