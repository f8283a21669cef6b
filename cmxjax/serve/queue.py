r"""Waiting of work that arrives at random at a server of constant speed (M/D/1).

$$ W = k \frac{u\,S}{2 (1 - u)} $$

S is the service time, u the share of the time that the server is busy, and k the squared
coefficient of variation of the gaps between arrivals. With k = 1 (Poisson) it is the
Pollaczek-Khinchine formula without variance of S (Kleinrock, Queueing Systems 1, 1975,
section 5.6), otherwise the formula of Allen and Cunneen.
"""

from typing import Protocol, runtime_checkable

import jax.numpy as jnp

from .. import smooth
from .._types import Leaf, Scalar
from ..energy import job_power_w
from ..job.layout import Pool
from ..job.workload import Serve
from ..machine.machine import Machine
from ..memory.serving import Memory
from ..step.busy import Filled

BUSIEST = 0.99
"""Highest utilization of a queue without a limit on its delay (assumed): at 1 it grows
without bound."""


def waiting_s(utilization: Scalar, service_s: Scalar, variance: Scalar = 1.0) -> Scalar:
    """Mean time in the queue, at a utilization below 1."""
    return 0.5 * variance * service_s * utilization / (1.0 - utilization)


def gap_variance(w: Serve, count: Leaf) -> Scalar:
    """Squared coefficient of variation of the gaps between the requests of one of so
    many instances.

    Served in turn, each gets every n-th request, and the gaps of n are summed; by chance,
    it thins the stream, which tends to Poisson (Cox, Renewal Theory, 1962, 8.3).
    """
    k, n = w.arrival_cv**2, smooth.larger(count, 1.0)
    return w.in_turn.pick(k / n, 1.0 + (k - 1.0) / n)


def slot_wait_s(
    utilization: Scalar, slots: Scalar, service_s: Scalar, variance: Scalar
) -> Scalar:
    r"""Mean wait for one of so many slots, each taken for the same time.

    $$ W = \frac{k}{2} \frac{S}{c} \frac{u^{\sqrt{2 (c + 1)} - 1}}{1 - u} $$

    of c slots, the formula of Allen and Cunneen with Sakasegawa's approximation of the
    line of M/M/c ("An approximation formula $L_q \simeq \alpha \rho^\beta / (1 - \rho)$",
    Ann. Inst. Stat. Math. 29, 1977).
    """
    busy = smooth.smaller(utilization, BUSIEST)
    power = jnp.sqrt(2.0 * (slots + 1.0)) - 1.0
    line = jnp.exp(power * jnp.log(smooth.larger(busy, 1e-30))) / (1.0 - busy)
    return 0.5 * variance * service_s / slots * line


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

    @property
    def variance(self) -> Scalar:
        """Of the gaps between the customers of an instance, see `gap_variance`."""
        ...


def queue_wait_s(queue: Queue, requests_per_s: Scalar) -> Scalar:
    """Mean wait of a request."""
    busy = requests_per_s / queue.full_requests_per_s
    return waiting_s(busy, queue.steady_s, queue.variance)


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
