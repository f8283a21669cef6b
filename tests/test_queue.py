"""The queue of prompts, against simulated ones, closed forms, and limits."""

import functools
import heapq
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmxjax.answers.predict import predict
from cmxjax.serve.arrivals import arrived, gaps_of, reached
from cmxjax.serve.bulk import Service, bulk_queue, line_of
from cmxjax.serve.percentile import p90
from cmxjax.serve.queue import Steps, waiting_s
from cmxjax.specs.errors import SpecError
from cmxjax.specs.scenario import load_scenario

LONG_PROMPTS = (16, 0.186, 2.421)  # of 4096 tokens of Llama-3.1-70B on eight H100
SHAPES = [LONG_PROMPTS, (1, 1.0, 1.0), (4, 1.0, 1.5), (64, 0.5, 4.0), (300, 1.0, 1.0)]
"""Largest batch, and seconds of one prompt and of that batch, affine between."""


def affine(largest, one, full):
    prompts = largest ** (jnp.arange(7) / 6.0)
    seconds = one + (full - one) * (prompts - 1.0) / jnp.maximum(largest - 1.0, 1.0)
    return Service(prompts, seconds, seconds)


@jax.jit
def answers(rate, variance, service):
    """Mean and P90 of the wait, and likewise with the own batch."""
    queue = bulk_queue(line_of(gaps_of(variance), service), rate)
    late = p90(queue)
    mean = queue.wait_s
    return jnp.stack([mean, late.wait_s, mean + queue.batch_s, late.first_s])


def predicted(load, service, variance=1.0):
    rate = load * service.full_per_s
    args = jnp.asarray(rate, float), jnp.asarray(variance, float), service
    return np.asarray(answers(*args))


def simulated(load, service, variance=1.0, instances=1, count=60_000, seed=0):
    """Requests one by one: those that wait when their instance is free go together."""
    rng = np.random.default_rng(seed)
    largest = round(float(service.largest))
    times = np.interp(range(largest + 1), service.prompts, service.busy_s)
    rate = load * float(service.full_per_s) * instances
    gaps = rng.gamma(1.0 / variance, variance / rate, count)
    arrivals = np.cumsum(gaps)
    waits, totals = [], []
    for i in range(instances):
        own, free, k = arrivals[i::instances], 0.0, 0
        while k < len(own):
            start = max(free, own[k])
            end = max(k + 1, np.searchsorted(own, start, side="right"))
            end = min(end, k + largest)
            waits.append(start - own[k:end])
            totals.append(waits[-1] + times[end - k])
            free, k = start + times[end - k], end
    wait, total = np.concatenate(waits), np.concatenate(totals)
    return np.array([f(x) for x in (wait, total) for f in (np.mean, q90)])


def q90(values):
    return np.quantile(values, 0.9)


MEAN, TAIL = 0.1, 0.15
WITHIN = np.array([MEAN, TAIL, MEAN, TAIL])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("load", [0.3, 0.9])
def test_the_queue_is_the_simulated_one(shape, load):
    service = affine(*shape)
    found = simulated(load, service, count=100_000 if load > 0.8 else 20_000)
    assert (abs(predicted(load, service) - found) < WITHIN * found + 0.005).all()


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("load", [0.6, 0.8, 0.95])
def test_the_queue_is_the_simulated_one_at_other_loads(shape, load):
    service = affine(*shape)
    found = simulated(load, service, count=800_000 if load > 0.9 else 200_000)
    assert (abs(predicted(load, service) - found) < WITHIN * found + 0.005).all()


@pytest.mark.parametrize("power", [0.5, 1.5])
def test_bent_times_of_batches_are_served_as_simulated(power):
    prompts = 32.0 ** (jnp.arange(7) / 6.0)
    seconds = 0.3 + 0.05 * prompts**power
    service = Service(prompts, seconds, seconds)
    found = simulated(0.7, service, count=30_000)
    assert (abs(predicted(0.7, service) - found) < WITHIN * found + 0.005).all()


@pytest.mark.parametrize("load", [0.05, 0.5, 0.9, 0.98])
def test_one_at_a_time_waits_as_pollaczek_and_khinchine_say(load):
    mean = predicted(load, affine(1.0, 2.0, 2.0))[0]
    assert mean == pytest.approx(load / (1.0 - load), rel=1e-3)


LOADS = [0.3, 0.6, 0.8, 0.9]


def compared(shape, variance, loads, count, within=WITHIN, slack=0.005):
    for load in loads:
        service = affine(*shape)
        found = simulated(load, service, variance, count=round(count * max(1, variance)))
        error = abs(predicted(load, service, variance) - found)
        assert (error < within * found + slack).all(), load


@pytest.mark.parametrize("variance", [0.25, 4.0])
def test_bursts_and_regular_arrivals_are_as_simulated(variance):
    compared(LONG_PROMPTS, variance, [0.3, 0.8], 50_000)


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("cv", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("instances", [1, 2, 4, 16])
def test_any_gaps_are_as_simulated(shape, cv, instances):
    """Of gaps as good as constant within 3 % of what one prompt takes."""
    variance = cv**2 / instances
    slack = 0.005 if variance > 0.02 else 0.03 * shape[1]
    compared(shape, variance, LOADS, 300_000, slack=slack)


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES[:4])
@pytest.mark.parametrize("instances", [1, 4])
def test_gaps_that_vary_most_are_nearly_as_simulated(shape, instances):
    within = np.array([0.15, 0.35, 0.15, 0.2]) if instances == 1 else WITHIN
    compared(shape, 16.0 / instances, LOADS[:3], 60_000, within)


@pytest.mark.parametrize("instances", [4, pytest.param(64, marks=pytest.mark.slow)])
def test_instances_served_in_turn_get_a_steadier_stream(instances):
    """Of a Poisson stream, dealt out one by one."""
    service = affine(*LONG_PROMPTS)
    for load in (0.3, 0.6, 0.9):
        found = simulated(load, service, 1.0, instances, count=10_000 * instances)
        error = abs(predicted(load, service, 1.0 / instances) - found)
        assert (error < WITHIN * found + 0.01).all(), load


@settings(max_examples=20, deadline=None)
@given(variance=st.floats(0.02, 16.0), time=st.floats(1e-3, 20.0))
def test_arrivals_and_the_rest_of_the_gap_add_up_to_the_time(variance, time):
    """Wald: up to the next arrival after a time there are as many gaps as arrivals."""
    gaps = gaps_of(jnp.asarray(variance))
    counts = jnp.arange(1.0, 400.0)[None, :, None]
    come = arrived(gaps, counts, jnp.full((1, 1, 1), time))
    rests = np.asarray(gaps.rest) + come.chance.sum(axis=1)[0] - time
    ends = sorted([1.0, float(gaps.variance)])
    least = ends[0] * np.exp(-time) - 0.02 * (1.0 + time)
    assert (rests > least).all()
    assert (rests < ends[1] + 0.02 * (1.0 + time)).all()


def test_who_comes_beside_a_lone_prompt_comes_late_where_gaps_are_alike():
    """At light load none waits but who comes in a lone service; of gaps that are sums of
    k exponential ones those are a share $(k u)^k / k!$, and they wait S / (k + 1)."""
    for k in (1, 2, 3):
        service = affine(1.0, 1.0, 1.0)
        chance = (1e-2 * k) ** k / math.factorial(k)
        mean = predicted(1e-2, service, 1.0 / k)[0]
        assert mean == pytest.approx(chance / (k + 1), rel=0.05)


def test_a_lone_prompt_waits_for_none():
    wait, late, first, last = predicted(1e-5, affine(*LONG_PROMPTS))
    assert max(wait, late) < 1e-4
    assert first == pytest.approx(0.186, rel=1e-3)
    assert last == pytest.approx(0.186, rel=1e-3)


@settings(max_examples=20, deadline=None)
@given(
    load=st.floats(0.01, 0.95),
    more=st.floats(1e-3, 0.04),
    largest=st.floats(1.0, 600.0),
    growth=st.floats(1.0, 30.0),
)
def test_more_requests_never_wait_for_less(load, more, largest, growth):
    # were a full batch slower than as many alone, a larger load would be served worse
    service = affine(largest, 1.0, 1.0 + min(growth, 0.9 * (largest - 1.0)))
    less, busier = (predicted(x, service) for x in (load, load + more))
    assert (busier[[0, 2]] >= less[[0, 2]] * (1.0 - 1e-3)).all()
    assert np.isfinite(busier).all()


@pytest.mark.slow
def test_gradients_are_those_of_differences():
    slopes = jax.jit(jax.jacfwd(lambda x: answers(x[0], x[1], affine(*x[2:]))))
    at = np.array([4.0, 1.3, 16.0, 0.186, 2.421])
    found = np.asarray(slopes(jnp.asarray(at)))
    for i in range(len(at)):
        step = 1e-4 * at[i] * (np.arange(len(at)) == i)
        near = [
            answers(*(at + w * step)[:2], affine(*(at + w * step)[2:])) for w in (1, -1)
        ]
        expected = np.asarray(near[0] - near[1]) / (2e-4 * at[i])
        assert found[:, i] == pytest.approx(expected, rel=0.02, abs=1e-3), i


def test_the_chance_of_so_many_arrivals_is_that_of_a_sum():
    counts = np.arange(1.0, 41.0)
    for mean in (0.01, 0.7, 5.0, 39.0):
        exact = np.exp(-mean) * np.cumprod(np.append(1.0, mean / counts))[:-1]
        chance, one = reached(jnp.asarray(counts), jnp.asarray(mean))
        assert np.allclose(chance, 1.0 - np.cumsum(exact), atol=2e-7)
        assert np.allclose(one, np.append(exact[1:], one[-1]), atol=2e-7)


def test_chances_hold_in_single_precision():
    """Down to times in which next to none come; powers of them alone would be none."""
    counts, means = np.geomspace(0.02, 300.0, 40)[:, None], np.geomspace(1e-5, 300.0, 60)
    exact = reached(jnp.asarray(counts), jnp.asarray(means))
    single = reached(jnp.asarray(counts, jnp.float32), jnp.asarray(means, jnp.float32))
    for many, few in zip(exact, single):
        many, few = np.asarray(many), np.asarray(few)
        some = many > 1e-30
        assert (abs(few - many)[some] < 1e-3 * many[some]).all()


# --- Slots of decode


def simulated_slots(slots, load, variance=1.0, count=200_000):
    rng = np.random.default_rng(2)
    free = [0.0] * slots
    now, waited = 0.0, 0.0
    for gap in rng.gamma(1.0 / variance, variance / (load * slots), count):
        now += gap
        start = max(now, heapq.heappop(free))
        waited += start - now
        heapq.heappush(free, start + 1.0)
    return waited / count


def slot_wait(slots, load, variance=1.0):
    return float(waiting_s(*map(jnp.asarray, (load, 1.0, variance / slots))))


@pytest.mark.parametrize("load", [0.6, 0.9])
def test_the_wait_for_one_of_eight_slots_is_the_simulated_one(load):
    assert slot_wait(8, load) == pytest.approx(simulated_slots(8, load), rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("slots", [1, 2, 64, 512])
@pytest.mark.parametrize("cv", [0.5, 1.0, 2.0, 4.0])
@pytest.mark.parametrize("load", [0.3, 0.6, 0.8, 0.9])
def test_the_wait_for_a_slot_is_the_simulated_one(slots, cv, load):
    """Within 10 %, or 2e-4 of the time that a slot is taken; a line of bursts on a busy
    server varies more from one simulation to the next."""
    found = simulated_slots(slots, load, cv**2, round(1_500_000 * max(1.0, cv / 2.0)))
    within = 0.1 if load < 0.9 or cv < 4.0 else 0.2
    assert slot_wait(slots, load, cv**2) == pytest.approx(found, rel=within, abs=2e-4)


# --- Of steps that prompts ride along with


def simulated_steps(load, bare, each, most, first, count):
    """Mean time from arrival to the end of the own step."""
    rng = np.random.default_rng(3)
    per_s = load / (each if first else each + bare / most)
    arrivals = np.cumsum(rng.exponential(1.0 / per_s, count)).tolist()
    now, head, total = 0.0, 0, 0.0
    while head < count:
        taken = head
        while taken < min(count, head + most) and arrivals[taken] <= now:
            taken += 1
        prompts = taken - head
        now += prompts * each + (0.0 if first and prompts else bare)
        total += prompts * now - sum(arrivals[head:taken])
        head = taken
    return total / count


def steps_of(load, bare, each, most, first):
    per_s = load / (each if first else each + bare / most)
    values = (bare, each, per_s * each, most, 1.0, 1.0 - float(first), 1.0)
    return Steps(*(jnp.asarray(float(x)) for x in values))


SHORT, LONG = (1.0, 0.1), (1.0, 1.0)
"""Seconds of a step without prompts, and those that each adds."""


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
@pytest.mark.parametrize("most", [1, 4, 8])
@pytest.mark.parametrize(("bare", "each"), [SHORT, LONG])
def test_prompts_that_ride_along_wait_as_simulated(bare, each, most, load):
    found = simulated_steps(load, bare, each, most, False, 40_000)
    steps = steps_of(load, bare, each, most, False)
    assert float(steps.utilization) == pytest.approx(load)
    answer = float(steps.wait_s(jnp.ones(()), jnp.ones(())) + steps.own_s)
    assert answer == pytest.approx(found, rel=0.1)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
@pytest.mark.parametrize("most", [1, 4])
@pytest.mark.parametrize(("bare", "each"), [SHORT, LONG])
def test_prompts_that_go_first_wait_as_simulated(bare, each, most, load):
    found = simulated_steps(load, bare, each, most, True, 40_000)
    steps = steps_of(load, bare, each, most, True)
    answer = float(steps.wait_s(jnp.ones(()), jnp.ones(())) + steps.own_s)
    assert answer == pytest.approx(found, rel=0.15)


# --- Of a scenario

ONE = {
    "system": "dgx-h100",
    "model": "llama-3.1-70b",
    "phase": "serve",
    "workload": {"request_rate": 1, "prompt_tokens": 4096, "output_tokens": 64},
    "pools": [
        {"role": "prefill", "devices": 8, "layout": {"devices": 8, "tp": 8}},
        {"role": "decode", "devices": 64, "layout": {"devices": 8, "tp": 8}},
    ],
}
PROMPTS = {
    "system": "dgx-h100",
    "model": "llama-3.1-70b",
    "phase": "prefill",
    "workload": {"tokens_per_device": 8192, "prompt_tokens": 4096},
    "layout": {"devices": 8, "tp": 8},
}


@functools.cache
def prefill_s(prompts):
    changes = {"workload.tokens_per_device": prompts * 4096 / 8}
    return predict(load_scenario(PROMPTS, changes)).ttft_s


def served(load=None, **changes):
    rate = {} if load is None else {"workload.request_rate": load * 16 / prefill_s(16)}
    dotted = {k.replace("__", "."): v for k, v in changes.items()}
    return predict(load_scenario(ONE, rate | dotted))


@pytest.mark.parametrize("load", [0.3, 0.6, 0.9])
def test_prompts_are_served_as_simulated_with_their_own_times(load):
    p = served(load)
    sizes = np.arange(1.0, 17.0)
    seconds = np.array([prefill_s(n) for n in (1, 2, 4, 8, 16)])
    times = np.interp(sizes, [1, 2, 4, 8, 16], seconds)
    found = simulated(load, Service(sizes, times, times), count=100_000)
    names = "waiting_time_s", "waiting_time_p90_s", "ttft_s", "ttft_p90_s"
    values = np.array([p.values[name] for name in names])
    found[2:] += p.transfer_time_s
    assert (abs(values - found) < WITHIN * found + 0.005).all()


def test_beyond_the_capacity_no_wait_is_said():
    p = served(1.3)
    answer = p.as_json()
    assert answer["feasible"] is False
    assert "arrive, of which at most" in str(answer["reason"])
    for name in ("waiting_time_s", "ttft_s", "ttft_p90_s", "waiting_time_p90_s"):
        assert answer[name] is None
    assert "waiting" not in p.breakdown
    assert any(line.split() == ["ttft_s", "-"] for line in str(p).splitlines())


def test_the_capacity_is_that_of_full_batches():
    assert served().capacity_requests_per_s == pytest.approx(0.99 * 16 / prefill_s(16))


def test_a_closed_loop_has_no_stream():
    raw = {"workload": {"concurrency": 8, "prompt_tokens": 8, "output_tokens": 8}}
    with pytest.raises(SpecError, match="arrival_cv: in a closed loop"):
        load_scenario(ONE, raw | {"workload.arrival_cv": 2})


def test_bursts_wait_longer_and_chance_longer_than_turns():
    two = {"pools__0__devices": 16, "workload__request_rate": 8}
    turns, chance, bursts = (
        served(**two, **more)
        for more in ({}, {"workload__assignment": "random"}, {"workload__arrival_cv": 2})
    )
    assert turns.waiting_time_s < chance.waiting_time_s < bursts.waiting_time_s
