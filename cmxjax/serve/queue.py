r"""Waiting of work that arrives at random at a server of constant speed (GI/D/1).

With $T_n$ the time in which n more arrive, and S the service time, the mean wait is

$$ W = \sum_{n=1}^\infty \frac{1}{n} E (n S - T_n)^+ $$

(Spitzer's identity; Asmussen, Applied Probability and Queues, 2003, VIII.4). Gaps have a
gamma distribution, so that each term is an incomplete gamma function. Of a Poisson stream
it is the formula of Pollaczek and Khinchine without variance of S.

Of c servers that one line waits for, each is taken by every c-th, as all services take
the same time: W is that of one server whose gaps are the sums of c.
"""

from typing import NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np

from .. import smooth
from .._types import Leaf, Scalar
from ..energy import job_power_w
from ..job.layout import Pool
from ..job.workload import Serve
from ..machine.machine import Machine
from ..memory.serving import Memory
from ..step.busy import Filled
from .arrivals import reached

LEAST = 1e-6
"""Utilization and variance of gaps that stand for none."""

BUSIEST = 0.99
"""Highest utilization of a queue without a limit on its delay (assumed): at 1 it grows
without bound."""


_FEW = np.arange(1.0, 9.0)
"""Terms one by one; the others are an integral over the logarithm of n."""

_PLACES, _WEIGHTS = np.polynomial.legendre.leggauss(16)

_REACH = 60.0
"""Of n, over that in which the drift of a line makes up for its scatter."""


def waiting_s(utilization: Scalar, service_s: Scalar, variance: Scalar = 1.0) -> Scalar:
    """Mean time in the queue, at up to the highest utilization.

    Args:
        utilization: share of the time that the server is busy.
        variance: squared coefficient of variation of the gaps between arrivals.
    """
    u = smooth.within(utilization, LEAST, BUSIEST)
    k, idle = smooth.larger(variance, LEAST), 1.0 - u
    start, end = np.log(len(_FEW) + 0.5), jnp.log(_REACH * k / idle**2 + len(_FEW) + 2.0)
    half = 0.5 * (end - start)
    n = jnp.exp(start + half * (1.0 + _PLACES))
    count = jnp.concatenate([_FEW, n]) / k
    chance, exact = reached(count, count * u)
    terms = exact - idle * chance
    weights = jnp.concatenate([np.ones(len(_FEW)), n * half * _WEIGHTS])
    return weights @ terms * service_s / u


def gap_variance(w: Serve, count: Leaf) -> Scalar:
    """Squared coefficient of variation of the gaps between the requests of one of so
    many instances.

    Served in turn, each gets every n-th request, and the gaps of n are summed; by chance,
    it thins the stream, which tends to Poisson (Cox, Renewal Theory, 1962, 8.3).
    """
    k, n = w.arrival_cv**2, smooth.larger(count, 1.0)
    return w.in_turn.pick(k / n, 1.0 + (k - 1.0) / n)


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


class Steps(NamedTuple):
    r"""Steps that run one after the other, and take prompts that wait when they begin.

    With no prompt a step takes V, each prompt adds S, and a step takes at most M of them,
    or a part of one. Where prompts ride along with decode,

    $$ W = W_q + \frac{V}{2} + \frac{3}{2} \left(1 - \frac{1}{M}\right)
       \left(\bar T - V\right) $$

    with $\bar T$ the mean step and $W_q$ the wait at a server that takes S + V / M for
    each. With M = 1 that is a server with vacations; with a large M the gated one, whose
    prompts wait for others of their step to end. Where prompts go first, steps without
    any are the vacations, and W_q is that at a server that takes S.

    Within a tenth of simulations up to a load of 0.8 (`test_queue`).

    Reference: Takagi, Queueing Analysis 1: Vacation and Priority Systems, 1991, ch. 2.
    """

    bare_s: Scalar
    """V."""
    prompt_s: Scalar
    """S."""
    busy: Scalar
    """Share of the time that prompts add to steps."""
    prompts: Scalar
    """M, at least one."""
    steps: Scalar
    """That a prompt takes, at least one."""
    rides: Scalar
    """Share of a step without prompts that goes on in one with some: 0 where prompts go
    first."""
    runs: Scalar
    """Chance that steps run when a prompt comes."""

    @property
    def each_s(self) -> Scalar:
        """Of a prompt where all steps are full."""
        return self.prompt_s + self.rides * self.bare_s * self.steps / self.prompts

    @property
    def own_s(self) -> Scalar:
        """Of the steps of a prompt alone."""
        return self.prompt_s + self.rides * self.bare_s * self.steps

    @property
    def utilization(self) -> Scalar:
        """Of the prompts that steps could take those that they do."""
        return self.busy * self.each_s / self.prompt_s

    def wait_s(self, seen: Scalar, variance: Scalar) -> Scalar:
        """Mean wait until a prompt's own steps begin, and for the others in them.

        Args:
            seen: see `seen_share`.
            variance: squared coefficient of variation of the gaps between arrivals.
        """
        busy = self.busy * seen
        queue = waiting_s(self.utilization * seen, self.each_s, variance)
        longer = self.bare_s * busy / (1.0 - busy)
        gated = 1.5 * (1.0 - 1.0 / self.prompts) * longer
        others = 0.5 * smooth.smaller(
            (self.prompts - 1.0) * self.prompt_s, busy * self.bare_s
        )
        together = self.rides * gated + (1.0 - self.rides) * others
        return queue + 0.5 * self.runs * self.bare_s + together


def burst_wait_s(
    concurrency: Leaf | None,
    instances: Leaf,
    rounds: Leaf,
    request_s: Scalar,
    together: Leaf = 1.0,
) -> Scalar:
    r"""Mean wait, over all requests of a closed loop, behind those that begin it at once.

    The first n of an instance wait for $(n - 1) / 2$ others in the mean, each of which
    takes `request_s`; where m of them are computed together, and end together, for
    $(n + m) / 2 - 1$. Of all requests they are one in `rounds`.
    """
    if concurrency is None:
        return jnp.zeros(())
    others = smooth.larger(concurrency / instances - 1.0, 0.0)
    beside = smooth.smaller(together - 1.0, others)
    return 0.5 * (others + beside) * request_s / rounds
