"""Serving in a closed loop: as many requests in flight as the workload says."""

import functools
import heapq

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cmxjax.phases.metrics import metrics
from cmxjax.serve.queue import burst_wait_s, seen_share, waiting_s
from cmxjax.specs.build import build
from cmxjax.specs.errors import SpecError
from cmxjax.specs.scenario import load_scenario

POOLS = "deepseek-r1-serve-cloudmatrix384"
COLOCATED = "deepseek-r1-serve-colocated-cloudmatrix384"
APART = "deepseek-r1-serve-xdeepserve"
QUICK = [pytest.param(POOLS, marks=pytest.mark.slow), COLOCATED]


@functools.cache
def problem(name, **changes):
    dotted = {key.replace("__", "."): value for key, value in changes.items()}
    return build(load_scenario(name, dotted), "none")


@jax.jit
def _run(inputs):
    return metrics(*inputs)


def loop(name, concurrency, rounds=10.0):
    p = problem(name, workload__concurrency=64.0)
    load = {"concurrency": concurrency, "rounds": rounds}
    at = p.workload.replace(**{k: jnp.asarray(x, float) for k, x in load.items()})
    return jax.device_get(_run((p.machine, p.model, at, p.layout)))


def stream(name, rate):
    p = problem(name)
    at = p.workload.replace(requests_per_s=jnp.asarray(rate, float))
    return jax.device_get(_run((p.machine, p.model, at, p.layout)))


@pytest.mark.parametrize("name", [POOLS, COLOCATED])
@pytest.mark.parametrize("concurrency", [1.0, 37.0, 1e3, 4e4])
def test_requests_in_flight_are_rate_times_time(name, concurrency):
    m = loop(name, concurrency)
    in_flight = float(m.served_requests_per_s * m.request_time_s)
    assert in_flight == pytest.approx(concurrency, rel=1e-6)
    assert float(m.excess_requests_per_s) == 0.0


V4 = {
    "system": "hgx-b200",
    "model": "deepseek-v4-flash",
    "phase": "serve",
    "engine": "sglang",
    "workload": {"prompt_tokens": 8192, "output_tokens": 1024, "concurrency": 64},
    "dtypes": {"activation": "fp8", "kv": "fp8"},
    "pools": [
        {"role": "decode", "devices": 4, "layout": {"devices": 4, "dp": 4, "ep": 4}}
    ],
}


def v4(**changes):
    p = build(load_scenario(V4, {f"workload.{k}": x for k, x in changes.items()}), "none")
    return p, jax.device_get(_run((p.machine, p.model, p.workload, p.layout)))


def test_ranks_of_a_loop_compute_their_own_prompts():
    """Rounds that all begin at once: 16 prompts on each of four ranks, one after the
    other, and no rank waits for chunks of another time."""
    _, alone = v4(concurrency=1, requests=1)
    _, m = v4(concurrency=64, requests=64)
    others = 7.5 * float(alone.prefill_time_s)
    # a prompt's share of a full step is somewhat less than its own one
    assert 0.5 * others < float(m.waiting_time_s) < 1.1 * others
    _, apart = v4(concurrency=64, requests=64000)
    assert float(apart.tpot_s) > 1.2 * float(m.tpot_s)


def test_serving_drafts_what_a_workload_says():
    assert float(v4()[0].workload.draft_tokens) == 1.0  # the model's own module
    p, _ = v4(draft_tokens=0)
    assert float(p.workload.draft_tokens) == 0.0
    p, _ = v4(draft_tokens=3, acceptance=[0.9, 0.8, 0.7])
    assert p.workload.acceptance == pytest.approx([0.9, 0.8, 0.7])
    with pytest.raises(SpecError, match="2 values for draft_tokens = 3"):
        v4(draft_tokens=3, acceptance=[0.9, 0.8])


def test_a_front_end_reads_prompts_one_after_the_other():
    """Where devices are faster than it, a burst waits for it."""
    p, m = v4(requests=64)
    engine = p.machine["decode"].runtime
    slow = engine.replace(prompt_token_s=1e-3)
    machine = {"decode": p.machine["decode"].replace(runtime=slow)}
    late = jax.device_get(_run((machine, p.model, p.workload, p.layout)))
    one = 8192 * 1e-3
    assert float(late.prefill_time_s) > one > float(m.prefill_time_s)
    most = float(engine.max_tokens_per_step) / 4 / 8192  # prompts of a rank's step
    beside = max(most - 1.0, 0.0)
    assert float(late.waiting_time_s) == pytest.approx(0.5 * (15 + beside) * one, rel=0.1)


@pytest.mark.parametrize("name", [POOLS, COLOCATED])
def test_the_only_request_waits_for_nothing(name):
    assert float(loop(name, 1.0).waiting_time_s) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("name", QUICK)
def test_many_clients_are_as_requests_that_arrive_at_random(name):
    closed = loop(name, 3000.0, rounds=1e9)
    opened = stream(name, float(closed.served_requests_per_s))
    assert float(opened.tpot_s) == pytest.approx(float(closed.tpot_s), rel=1e-6)
    # a client never waits for itself
    share = float(closed.waiting_time_s / opened.waiting_time_s)
    assert 0.9 < share < 1.0


@pytest.mark.parametrize("name", QUICK)
def test_those_that_begin_at_once_wait_for_each_other(name):
    steady, run = (loop(name, 640.0, rounds) for rounds in (1e9, 20.0))
    longer = loop(name, 640.0, 10.0)
    # one round in 10 waits as long as one in 20, so the mean does twice
    added = [float(m.ttft_s - steady.ttft_s) for m in (run, longer)]
    assert added[1] == pytest.approx(2.0 * added[0], rel=0.05)


def test_a_burst_is_served_one_after_the_other():
    # 5 of 10 requests on each of two instances: 0, 1, 2, 3 and 4 services in front
    wait = burst_wait_s(10.0, 2.0, 4.0, jnp.asarray(3.0))
    assert float(wait) == pytest.approx(np.mean([0, 3, 6, 9, 12]) / 4)
    # in steps of three, which end together: services but the own one
    pairs = burst_wait_s(9.0, 1.0, 1.0, jnp.asarray(1.0), 3.0)
    assert float(pairs) == pytest.approx(np.mean([2, 2, 2, 5, 5, 5, 8, 8, 8]))
    assert float(burst_wait_s(None, 2.0, 4.0, jnp.asarray(3.0))) == 0.0
    assert float(burst_wait_s(1.0, 2.0, 4.0, jnp.asarray(3.0))) == 0.0


def test_experts_apart_have_a_closed_loop_too():
    m = loop(APART, 5000.0)
    p = problem(APART, workload__concurrency=64.0)
    role = "attention" if "attention" in p.layout.pools else "decode"
    decoded = float(m.sequences_per_device * p.layout.pools[role].devices)
    by_little = float(m.served_requests_per_s * m.tpot_s * p.workload.output_tokens)
    assert decoded == pytest.approx(by_little, rel=1e-6)
    assert decoded == pytest.approx(5000.0)  # nothing else holds a request


@pytest.mark.parametrize("name", [POOLS, COLOCATED])
def test_more_clients_are_served_faster_together_and_slower_each(name):
    # the model steps at whole tiles and slots, and the bisection stops at 1e-9
    rates, times = zip(
        *(
            (float(m.served_requests_per_s), float(m.request_time_s))
            for m in (loop(name, n) for n in np.geomspace(1.0, 1e5, 13))
        )
    )
    assert (np.diff(rates) > -1e-6 * np.array(rates[1:])).all()
    assert (np.diff(times) > -1e-6 * np.array(times[1:])).all()


def test_clients_beyond_the_memory_wait_for_a_place_in_it():
    some, more = (loop(COLOCATED, n, rounds=1e9) for n in (2e5, 3e5))
    rate = float(some.served_requests_per_s)
    assert float(more.served_requests_per_s) == pytest.approx(rate)
    added = float(more.waiting_time_s - some.waiting_time_s)
    assert added == pytest.approx(1e5 / rate)


def simulated_wait(clients, service, think, count=40_000):
    """Mean wait at one server of clients that come back after a random time."""
    rng = np.random.default_rng(1)
    events = [(rng.exponential(think), i) for i in range(clients)]
    heapq.heapify(events)
    free = waited = 0.0
    for _ in range(count):
        now, client = heapq.heappop(events)
        start = max(now, free)
        waited, free = waited + start - now, start + service
        heapq.heappush(events, (free + rng.exponential(think), client))
    return waited / count


@pytest.mark.parametrize(
    ("clients", "think"), [(2, 5.0), (4, 10.0), (8, 20.0), (8, 10.0), (16, 20.0)]
)
def test_the_wait_is_that_of_simulated_clients(clients, think):
    seen = float(seen_share(jnp.asarray(float(clients)), 1.0))
    low, high = 0.0, 1.0  # rate of a server that takes a second
    for _ in range(60):
        rate = 0.5 * (low + high)
        wait = float(waiting_s(jnp.asarray(rate * seen), jnp.ones(())))
        low, high = (rate, high) if rate * (wait + 1.0 + think) < clients else (low, rate)
    assert wait == pytest.approx(simulated_wait(clients, 1.0, think), rel=0.12)


@pytest.mark.slow
@pytest.mark.parametrize("name", [POOLS, COLOCATED])
def test_the_rate_moves_with_the_clients_as_differences_say(name):
    p = problem(name, workload__concurrency=64.0)

    def rate(concurrency):
        at = p.workload.replace(concurrency=concurrency)
        return metrics(p.machine, p.model, at, p.layout).served_requests_per_s

    at, step = 777.7, 0.05
    slope = float(jax.grad(rate)(jnp.asarray(at)))
    near = [float(rate(jnp.asarray(at + way * step))) for way in (-1.0, 1.0)]
    assert slope == pytest.approx((near[1] - near[0]) / (2.0 * step), rel=1e-3)


def test_a_batch_of_loops_equals_single_ones():
    p = problem(COLOCATED, workload__concurrency=64.0)
    clients = jnp.asarray([3.0, 300.0, 30000.0])

    def tpot(concurrency):
        at = p.workload.replace(concurrency=concurrency)
        return metrics(p.machine, p.model, at, p.layout).tpot_s

    single = [float(loop(COLOCATED, n).tpot_s) for n in clients]
    assert np.allclose(jax.jit(jax.vmap(tpot))(clients), single, rtol=1e-9)


def test_a_load_is_a_rate_or_a_number_of_requests():
    raw = {"workload.concurrency": 64, "workload.request_rate": 5}
    with pytest.raises(SpecError, match="leave one of them out"):
        load_scenario(COLOCATED, raw)
    table = {"prompt_tokens": 4096, "output_tokens": 1024}
    with pytest.raises(SpecError, match="concurrency for a closed loop"):
        load_scenario(COLOCATED, {"workload": {**table, "request_rate": None}})
    with pytest.raises(SpecError, match="workload.concurrency = 0.5"):
        load_scenario(COLOCATED, {"workload.concurrency": 0.5})
    with pytest.raises(SpecError, match="requests: only a closed loop"):
        load_scenario(COLOCATED, {"workload.requests": 640})
    few = {"workload.concurrency": 64, "workload.requests": 8}
    with pytest.raises(SpecError, match="= 8: fewer than the 64 in flight; give as many"):
        load_scenario(COLOCATED, few)
    rounds = problem(COLOCATED, workload__concurrency=64.0, workload__requests=320.0)
    assert float(rounds.workload.rounds) == 5.0
    # one that is set takes the place of the other
    assert load_scenario(COLOCATED, {"workload.concurrency": 8}).workload.concurrency == 8
