"""Power and energy of a job from the scale-up system's all-in power."""

from ._types import Scalar
from .machine.machine import Machine


def job_power_w(
    machine: Machine, devices: Scalar, compute: Scalar, memory: Scalar
) -> Scalar:
    r"""Power of the devices that a job holds.

    $$ P = \frac{d}{D}\bigl(P_n + (P_a - P_n)(i + (1 - i)\,u)\bigr), \qquad
    u = (1 - s)\,u_c + s\,u_m $$

    P_a is the all-in power of the D devices of a scale-up system, P_n its network's,
    which does not depend on load, i the idle share of the rest, and s the memory's part
    of what load adds. Assumes that load adds power with the FLOP and bytes of a second,
    all of it where large GEMMs and copies fill the matrix units and the memory.

    Args:
        compute: share of the step that its matrix work fills at its best rate (u_c).
        memory: share of the step that memory is busy (u_m).
    """
    p, share = machine.power, devices / machine.scale_up_devices
    load = (1.0 - p.memory_share) * compute + p.memory_share * memory
    drawn = p.idle_fraction + (1.0 - p.idle_fraction) * load
    return share * (p.network_w + (p.all_in_w - p.network_w) * drawn)
