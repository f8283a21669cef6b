r"""Waiting of work that arrives at random at a server of constant speed (M/D/1).

$$ W = \frac{u\,S}{2 (1 - u)} $$

S is the service time and u the share of the time that the server is busy. It is the
Pollaczek-Khinchine formula without variance of S (Kleinrock, Queueing Systems 1, 1975,
section 5.6).
"""

from typing import Protocol, runtime_checkable

import jax.numpy as jnp

from .. import smooth
from .._types import Leaf, Scalar
from ..energy import job_power_w
from ..job.layout import Pool
from ..machine.machine import Machine
from ..memory.serving import Memory
from ..step.busy import Filled

BUSIEST = 0.99
"""Highest utilization of a queue without a limit on its delay (assumed): at 1 it grows
without bound."""


def waiting_s(utilization: Scalar, service_s: Scalar) -> Scalar:
    """Mean time in the queue, at a utilization below 1."""
    return 0.5 * service_s * utilization / (1.0 - utilization)


@runtime_checkable
class Queue(Protocol):
    """A pool whose instances serve one customer at a time."""

    @property
    def steady_s(self) -> Scalar:
        """An instance is busy for with each customer."""
        ...

    @property
    def full_requests_per_s(self) -> Scalar:
        """At utilization 1."""
        ...

    @property
    def filled(self) -> Filled:
        """Of a device by one customer."""
        ...

    @property
    def memory(self) -> Memory: ...


def queue_wait_s(queue: Queue, requests_per_s: Scalar, seen: Leaf = 1.0) -> Scalar:
    """Mean wait of a request, which finds a share of the load."""
    busy = requests_per_s / queue.full_requests_per_s
    return waiting_s(busy * seen, queue.steady_s)


def queue_power_w(
    machine: Machine, pool: Pool, queue: Queue, requests_per_s: Scalar
) -> Scalar:
    """Power of the pool at a rate of requests; waiting devices idle."""
    busy = requests_per_s / queue.full_requests_per_s
    loads = [busy * seconds / queue.steady_s for seconds in queue.filled]
    return job_power_w(machine, jnp.asarray(pool.devices), *loads)


def seen_share(concurrency: Leaf | None, instances: Leaf) -> Scalar:
    r"""What an arriving request finds of a server's utilization: in a closed loop that of
    the n - 1 others, about $(n - 1) / n$ of it, with n requests on each instance.

    Source: Schweitzer's approximation of the arrival theorem (Reiser and Lavenberg,
    "Mean-Value Analysis of Closed Multichain Queuing Networks", J. ACM 27, 1980).
    """
    if concurrency is None:
        return jnp.ones(())
    return smooth.larger(1.0 - instances / concurrency, 0.0)


def burst_wait_s(
    concurrency: Leaf | None, instances: Leaf, rounds: Leaf, request_s: Scalar
) -> Scalar:
    r"""Mean wait, over all requests of a closed loop, behind those that begin it at once.

    The first n of an instance wait for $(n - 1) / 2$ others in the mean, each of which
    takes `request_s`; of all requests they are one in `rounds`.
    """
    if concurrency is None:
        return jnp.zeros(())
    others = smooth.larger(concurrency / instances - 1.0, 0.0)
    return 0.5 * others * request_s / rounds


def highest_utilization(left_s: Scalar | None, service_s: Scalar) -> Scalar:
    """Utilization at which the mean wait is what a limit leaves over, if it is stable.

    $W = l$ at $u = 2l / (S + 2l)$; 0 where nothing is left.
    """
    if left_s is None:
        return jnp.asarray(BUSIEST)
    left = smooth.larger(left_s, 0.0)
    return smooth.smaller(2.0 * left / (service_s + 2.0 * left), BUSIEST)
