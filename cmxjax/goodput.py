r"""Goodput of a long run with failures: checkpoints, restarts, the best interval.

Failures of packages, hosts and optical modules are independent, so their rates add up.
With failures of mean distance M (exponential), a checkpoint of $\delta$ seconds after
every $\tau$ seconds of work and a restart of R seconds, a second of work takes

$$ \frac{T}{T_s} = \frac{M}{\tau} e^{R/M} \bigl(e^{(\tau + \delta)/M} - 1\bigr) $$

seconds of wall clock. Its gradient vanishes where $1 - e^{-(\tau+\delta)/M} = \tau/M$,
which tends to Young's $\tau = \sqrt{2 \delta M}$ as $\delta/M$ goes to 0.

Reference: Daly, Future Generation Computer Systems 22(3), 2006, equations 20 and 21;
Young, Communications of the ACM 17(9), 1974.
"""

from typing import NamedTuple

import jax.numpy as jnp

from ._types import Scalar
from .machine.machine import Machine
from .switch import either

CHECKPOINT_BYTES = 14.0
"""Per weight: bf16 weight, fp32 master weight and two fp32 moments."""

NEWTON_STEPS = 3


class Goodput(NamedTuple):
    """A long run with failures."""

    mtbf_s: Scalar
    """Of the job: one failure among all that it runs on."""
    checkpoint_s: Scalar
    interval_s: Scalar
    """Between checkpoints, at its optimum."""
    fraction: Scalar
    """Useful work over wall clock."""


def inflation(interval_s, checkpoint_s, restart_s, mtbf_s) -> Scalar:
    """Wall clock over useful work with a checkpoint every `interval_s`."""
    length = jnp.expm1((interval_s + checkpoint_s) / mtbf_s)
    return mtbf_s / interval_s * jnp.exp(restart_s / mtbf_s) * length


def best_interval_s(checkpoint_s, mtbf_s) -> Scalar:
    """Where the gradient of the inflation vanishes, by Newton's method from Young's.

    Every step is exact arithmetic on smooth functions, so the result has gradients.
    """
    cost = checkpoint_s / mtbf_s
    u = jnp.sqrt(2.0 * cost)
    for _ in range(NEWTON_STEPS):
        fails = -jnp.expm1(-u - cost)
        u = u + (fails - u) / fails
    return u * mtbf_s


def failures_per_s(machine: Machine, devices: Scalar) -> Scalar:
    r"""Rate of the failures that interrupt a job.

    $$ \frac{1}{M} = \frac{n_p}{M_p} + \frac{n_h}{M_h} + \frac{n_o}{M_o} $$

    over packages, hosts and optical modules. A job depends on whole packages and hosts.
    Inside a host it needs no module, inside a scale-up system its share of those that
    join that, and beyond its share of all.
    """
    o, parts = machine.operations, machine.parts
    packages = jnp.maximum(devices / machine.package_devices, 1.0)
    hosts = jnp.maximum(packages / o.host_packages, 1.0)
    inside, whole = parts.scale_up_optical_modules, machine.scale_up_devices
    met = either(devices > whole, parts.optical_modules, inside)
    met = either(packages > o.host_packages, met, 0.0)
    modules = met * devices / whole
    rate = packages / o.package_mtbf_s + hosts / o.host_mtbf_s
    return rate + modules / o.optical_module_mtbf_s


def goodput_of(machine: Machine, parameters: Scalar, devices: Scalar) -> Goodput:
    """Goodput of a job that writes sharded checkpoints over the storage plane."""
    size, link = CHECKPOINT_BYTES * parameters / devices, machine.storage
    write = link.latency_s + size / (link.bytes_per_s * link.efficiency)
    mtbf = 1.0 / failures_per_s(machine, devices)
    interval = best_interval_s(write, mtbf)
    wall = inflation(interval, write, machine.operations.restart_s, mtbf)
    return Goodput(mtbf, write, interval, 1.0 / wall)
