"""A trace of requests replayed on a fleet, with the times that the model predicts.

Prompts go to the prefill instances in turn or by chance, as the scenario says, and wait
for theirs to be free, which takes as many of those that wait as fit into its tokens. Then
requests generate together; a step takes as long as the model says for so many. That of a
mixed batch is the mean of what its classes take at the same fill.
"""

import heapq
import math
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..job.layout import Pool
from ..job.workload import Serve
from ..machine.machine import Machine
from ..model.architecture import Architecture
from ..serve.bulk import Service
from ..serve.prefill import prefill_pool
from ..specs.trace_file import Trace
from .fewest import Sized, metrics_at, sized_inputs
from .load import RequestClass

LIGHT = 0.02
"""Share of the load at which a step is looked at besides the one planned for."""


class Replayed(NamedTuple):
    """What the requests of a trace would have seen."""

    requests: int
    ttft_s: dict[str, float]
    """`mean`, `p50`, `p90` and `p99`."""
    tpot_s: dict[str, float]
    within: float
    """Share of the requests within both limits."""


class Step(NamedTuple):
    """A decode step over the number of requests in it: a line."""

    least_s: float
    each_s: float

    def at(self, requests: float) -> float:
        return self.least_s + self.each_s * requests


def replay(
    trace: Trace, classes: list[RequestClass], of: np.ndarray, sized: Sized
) -> Replayed:
    """Replay a trace.

    Args:
        classes: kinds of requests.
        of: which kind each request of the trace is.
        sized: the fleet.
    """
    first_s = _prefilled(trace, classes, of, sized)
    whole_s = _generated(trace, first_s, _step(classes, sized))
    ttft = first_s - trace.arrival_s
    tpot = (whole_s - first_s) / trace.output_tokens
    limits = [
        (w.ttft_limit or np.inf, w.tpot_limit or np.inf)
        for w in (c.scenario.workload for c in classes)
    ]
    most = np.array(limits)[of]
    within = (ttft <= most[:, 0]) & (tpot <= most[:, 1])
    return Replayed(len(of), _summary(ttft), _summary(tpot), float(within.mean()))


def _summary(seconds: np.ndarray) -> dict[str, float]:
    p50, p90, p99 = np.quantile(seconds, (0.5, 0.9, 0.99)).tolist()
    return {"mean": float(seconds.mean()), "p50": p50, "p90": p90, "p99": p99}


def _prefilled(
    trace: Trace, classes: list[RequestClass], of: np.ndarray, sized: Sized
) -> np.ndarray:
    """When each request has its first token."""
    services, hand_over = [], []
    for c, m in zip(classes, sized.metrics):
        machines, model, workload, layout = sized_inputs(
            c, sized.devices, sized.instances
        )
        pool: Pool = layout.pools["prefill"]
        made = _service(machines["prefill"], model, workload, pool)
        services.append(jax.device_get(made))
        hand_over.append(float(m.transfer_time_s or 0.0))
    largest = np.array([s.prompts[-1] for s in services])
    done = np.zeros(len(of))
    for mine in _assigned(classes[0], len(of), sized.instances["prefill"]):
        free, waiting = 0.0, deque(mine.tolist())
        while waiting:
            start = max(free, trace.arrival_s[waiting[0]])
            taken, fill = [], 0.0
            while waiting and trace.arrival_s[waiting[0]] <= start:
                part = 1.0 / largest[of[waiting[0]]]
                if taken and fill + part > 1.0 + 1e-9:
                    break
                taken.append(waiting.popleft())
                fill += part
            parts = np.bincount(of[taken], minlength=len(classes)) / largest / fill
            busy, step = (
                sum(
                    part * np.interp(fill * s.prompts[-1], s.prompts, getattr(s, name))
                    for part, s in zip(parts, services)
                    if part
                )
                for name in ("busy_s", "step_s")
            )
            free = start + busy
            done[taken] = start + step
    return done + np.array(hand_over)[of]


def _assigned(c: RequestClass, count: int, instances: int) -> Iterator[np.ndarray]:
    """The requests of each instance, in the order in which they come."""
    turns = np.arange(count) % instances
    if c.scenario.workload.assignment == "random":
        turns = np.random.default_rng(0).integers(instances, size=count)
    return (np.flatnonzero(turns == i) for i in range(instances))


@jax.jit
def _service(
    machine: Machine, model: Architecture, workload: Serve, pool: Pool
) -> Service:
    """Times of a prefill instance's batches."""
    return prefill_pool(machine, model, workload, pool, jnp.zeros(()), None).service


def _step(classes: list[RequestClass], sized: Sized) -> Step:
    """A step over all requests that the fleet generates for, from a light load and the
    one planned for; of several classes their mean by time."""
    ends = []
    for share in (LIGHT, 1.0):
        in_flight = seconds = 0.0
        for i, c in enumerate(classes):
            capacity = float(sized.metrics[i].capacity_requests_per_s)
            rate = share * capacity * max(sized.load.values())
            m = metrics_at(c, sized.devices, sized.instances, rate)
            mine = share * c.per_s * c.scenario.workload.output_tokens * float(m.tpot_s)
            in_flight += mine
            seconds += mine * float(m.tpot_s)
        ends.append((in_flight, seconds / in_flight))
    (few, least), (many, most) = ends
    each = max((most - least) / (many - few), 0.0)
    return Step(least - each * few, each)


def _generated(trace: Trace, first_s: np.ndarray, step: Step) -> np.ndarray:
    """When each request has its last token. All in flight get tokens at one rate, so that
    each is done when the tokens of one that was always there have grown by its own."""
    order = np.argsort(first_s, kind="stable").tolist()
    done, now, tokens = np.zeros(len(order)), 0.0, 0.0
    began, wanted = first_s.tolist(), trace.output_tokens.tolist()
    ends: list[tuple[float, int]] = []
    for request in [*order, -1]:
        until = began[request] if request >= 0 else math.inf
        while ends:
            rate = 1.0 / step.at(float(len(ends)))
            finished = now + (ends[0][0] - tokens) / rate
            if finished > until:
                tokens += (until - now) * rate
                break
            now, tokens = finished, ends[0][0]
            done[heapq.heappop(ends)[1]] = now
        now = until
        if request >= 0:
            heapq.heappush(ends, (tokens + wanted[request], request))
    return done
