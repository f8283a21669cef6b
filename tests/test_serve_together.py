"""Serving with prompts beside decode steps, and with attention and experts apart."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jobs import Theta, off_lattice

from cmxjax.job.layout import instances
from cmxjax.job.workload import Prefill
from cmxjax.memory.serving import attention_memory, decode_memory, expert_memory
from cmxjax.phases.metrics import metrics
from cmxjax.serve.generation import decode_workload
from cmxjax.specs.build import build
from cmxjax.specs.scenario import load_scenario
from cmxjax.step.price import Pools, decode_job
from cmxjax.step.serving import times_of
from cmxjax.work.chunk import chunk_of, progress
from cmxjax.work.serving import prefill_rows

COLOCATED = "deepseek-r1-serve-colocated-cloudmatrix384"
APART = "deepseek-r1-serve-xdeepserve"
GROUPED = {
    "model": "llama-3.1-70b",
    "routing": {"redundant_experts": 0, "shared_replicas": 0},
    "pools": [{"role": "decode", "devices": 64, "layout": {"devices": 8, "tp": 8}}],
}
"""Grouped-query attention on a tp group; dense."""


@functools.cache
def problem(name, **changes):
    dotted = {key.replace("__", "."): value for key, value in changes.items()}
    return build(load_scenario(name, dotted), "none")


@jax.jit
def _run(inputs, sharpness=None):
    return metrics(*inputs, sharpness)


def run(p, sharpness=None, **work):
    changes = {key: jnp.asarray(value, float) for key, value in work.items()}
    s = None if sharpness is None else jnp.asarray(sharpness, float)
    inputs = (p.machine, p.model, p.workload.replace(**changes), p.layout)
    return jax.device_get(_run(inputs, s))


def prompts(p, tokens, cached=0.0, prompt=4096.0):
    return Prefill(
        tokens_per_device=jnp.asarray(tokens, float),
        prompt_tokens=jnp.asarray(prompt, float),
        cached_fraction=jnp.asarray(cached, float),
        software=p.workload.software["decode"],
    )


def step_times(p, role, work, **more):
    """Of one step of a pool, with prompts that ride along or experts apart."""
    machine, layout = p.machine[role], p.layout.pools[role].layout
    made = decode_job(machine, p.model, work, layout, None, **more)
    return times_of(made, None)[0]


# --- Chunks


def test_chunks_of_a_prompt_have_as_many_pairs_as_the_prompt():
    """Summed over its chunks, a prompt attends to what it attends to at once."""
    p, chunk, cached, prompt = problem(COLOCATED), 256.0, 0.25, 4096.0
    layout, a = p.layout.pools["decode"].layout, p.model
    new = prompt * (1.0 - cached)
    steps = new / chunk
    own = chunk_of(prompts(p, chunk, cached), layout)
    each = prefill_rows(a, own, layout, jnp.ones(()))
    assert float(each["tokens"]) == pytest.approx(chunk)
    by_hand = sum(prompt * cached + i + 1 for i in range(int(new)))
    assert float(each["pairs.0"]) * steps == pytest.approx(by_hand, rel=1e-9)
    # what has been computed before is read again by every chunk
    reread = sum(prompt * cached + chunk * (k + 1) for k in range(int(steps)))
    assert float(each["up_rows"]) * steps == pytest.approx(reread, rel=1e-9)


def test_small_prompts_share_a_chunk():
    p = problem(COLOCATED)
    layout = p.layout.pools["decode"].layout
    own = progress(prompts(p, 1024.0, prompt=256.0), layout)
    assert float(own.prompts) == pytest.approx(4.0)
    assert float(own.tokens) == pytest.approx(256.0)


@pytest.mark.parametrize("changes", [{}, GROUPED], ids=["latent", "grouped"])
def test_an_empty_chunk_costs_nothing_and_a_full_one_more(changes):
    p = problem(COLOCATED) if not changes else build(
        load_scenario(COLOCATED, changes), "none"
    )  # fmt: skip
    layout = p.layout.pools["decode"].layout
    work = decode_workload(p.workload, "decode", jnp.asarray(16.0))

    @jax.jit
    def step_s(tokens):
        chunk = chunk_of(prompts(p, tokens), layout)
        alone = step_times(p, "decode", work).step_s
        return alone, step_times(p, "decode", work, chunk=chunk).step_s

    alone, none = step_s(0.0)
    assert none == pytest.approx(float(alone), rel=1e-12)
    times = [float(step_s(tokens)[1]) for tokens in (64.0, 512.0, 2048.0)]
    assert float(alone) < times[0] < times[1] < times[2]


# --- Co-located


@pytest.mark.parametrize("rate", [1.0, 80.0, 150.0])
def test_the_batch_obeys_littles_law(rate):
    m = run(problem(COLOCATED), requests_per_s=rate)
    assert m.sequences_per_device * 640 == pytest.approx(rate * 1024 * m.tpot_s, rel=1e-9)


def simulated_wait(busy):
    """Mean wait at a server that takes a second, of every second one of a stream."""
    gaps = np.random.default_rng(0).gamma(2.0, 0.5 / busy, 300_000)
    walk = np.append(0.0, np.cumsum(1.0 - gaps))
    return float((walk - np.minimum.accumulate(walk)).mean())


def test_prompts_keep_up_with_outputs():
    """The share of steps with a chunk, from the mean step and the two kinds of steps."""
    p = problem(COLOCATED)
    m = run(p)
    layout = p.layout.pools["decode"].layout
    work = decode_workload(p.workload, "decode", jnp.asarray(m.sequences_per_device))
    bare = float(step_times(p, "decode", work).step_s)
    chunk = chunk_of(prompts(p, 2048.0), layout)
    full = step_times(p, "decode", work, chunk=chunk)
    share = (1.7 * m.tpot_s - bare) / (float(full.step_s) - bare)
    # prompt tokens that arrive on a device in a step
    arriving = 80 * 4096 / 640 * 1.7 * m.tpot_s
    assert share * 2048 == pytest.approx(arriving, rel=1e-4)
    # two chunks for each prompt, at the share of the time; of two instances that are
    # served in turn each gets every second one
    busy = share * float(full.step_s) / (1.7 * m.tpot_s)
    service = 2 * float(full.step_s)
    front = float(p.machine["decode"].runtime.prefill_batch_s)
    assert m.prefill_time_s == pytest.approx(service + front, rel=1e-4)
    # and before that the rest of the step that runs
    wait = service * simulated_wait(busy) + 0.5 * bare
    assert m.waiting_time_s == pytest.approx(wait, rel=0.05)


def test_without_prompts_co_located_serving_is_decode():
    m = run(problem(COLOCATED), prompt_tokens=1.0, output_tokens=8192.0)
    p = problem("deepseek-r1-serve-cloudmatrix384", pools__1__devices=640)
    apart = run(p, prompt_tokens=1.0, output_tokens=8192.0)
    assert m.tpot_s == pytest.approx(apart.tpot_s, rel=0.01)


def test_prompts_make_tokens_slower_and_limits_hold():
    p = problem(COLOCATED)
    m = run(p)
    longer = run(p, prompt_tokens=8192.0)
    assert longer.tpot_s > m.tpot_s
    assert longer.capacity_requests_per_s < m.capacity_requests_per_s
    capacity = float(m.capacity_requests_per_s)
    assert run(p, requests_per_s=0.99 * capacity).tpot_excess_s == 0.0
    over = run(p, requests_per_s=1e4)
    assert over.excess_requests_per_s > 0.0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(over))


def test_a_dense_model_on_tp_groups_is_served():
    m = run(
        build(load_scenario(COLOCATED, GROUPED | {"workload.request_rate": 4}), "none")
    )
    assert m.sequences_per_device * 64 == pytest.approx(4 * 1024 * m.tpot_s, rel=1e-9)
    assert 0.0 < m.ttft_s < 60.0


# --- Attention and experts apart


def apart_at(batch, domains=None, **changes):
    """Times of a step at a context of 4096 tokens."""
    p = problem(APART, **changes)
    work = decode_workload(p.workload, "attention", jnp.asarray(batch, float))
    work = work.replace(kv_tokens=jnp.asarray(4096.0))
    near, far = p.layout.pools["attention"], p.layout.pools["expert"]
    shared = instances(near) / instances(far) if domains is None else domains
    pools = Pools(far.layout, jnp.asarray(shared))
    return step_times(p, "attention", work, pools=pools)


def test_the_published_step_of_xdeepserve():
    """At batch 96 and a context of 4096, which the paper doesn't state; with priors only.

    xDeepServe, arXiv 2508.02520, section 3.3: 0.7 ms of attention, 0.12 ms of experts,
    172 us to the experts and 193 us back, 2 x 61 x 0.7 + 5 + 2 = 92.4 ms.
    """
    t = apart_at(96.0)
    assert t.layer.attention_s == pytest.approx(0.7e-3, rel=0.1)
    assert t.layer.feed_forward_s == pytest.approx(0.12e-3, rel=0.25)
    assert t.layer.dispatch_s == pytest.approx(172e-6, rel=0.35)
    assert t.layer.combine_s == pytest.approx(193e-6, rel=0.2)
    assert t.step_s == pytest.approx(92.4e-3, rel=0.1)


def test_two_micro_batches_hide_the_trip_and_one_does_not():
    two = apart_at(96.0).layer
    alone = apart_at(96.0, pools__0__layout__overlapped_microbatches=1)
    trip = two.dispatch_s + two.feed_forward_s + two.combine_s
    assert trip < two.attention_s  # so a layer is attention alone
    layers, one = 61 - 3 + 1, alone.layer
    assert alone.step_s > layers * (one.attention_s + one.dispatch_s + one.combine_s)


def test_more_domains_make_the_experts_the_bottleneck():
    few, many, twice = (apart_at(96.0, domains=n) for n in (None, 12.0, 24.0))
    assert float(many.layer.attention_s) == pytest.approx(float(few.layer.attention_s))
    assert float(many.step_s) > 59 * 24 * float(many.layer.feed_forward_s)
    assert float(twice.step_s) > 1.8 * float(many.step_s)


def test_weights_of_both_sides_are_those_of_the_model():
    """Attention dies hold everything but the experts that tokens are sent to."""
    p = problem(APART)
    m = run(p)
    a, near = p.model, p.layout.pools["attention"].layout
    far = p.layout.pools["expert"].layout
    work = decode_workload(p.workload, "attention", jnp.asarray(1.0))
    both = decode_memory(a, work, near.replace(routing=far.routing))
    slots_of_160 = (256 + 32) / 160
    expert = 3 * 7168 * 2048 * 59
    own = attention_memory(a, work, near, far)
    others = expert_memory(a, work, far, jnp.asarray(1.0), jnp.asarray(480.0))
    assert float(both.weights - own.weights) == pytest.approx(slots_of_160 * expert)
    assert float(others.weights) == pytest.approx(expert)
    assert m.pools["expert"].memory_bytes < m.pools["attention"].memory_bytes


def test_prefill_can_be_added():
    pools = load_scenario(APART).model_dump(mode="json", exclude_none=True)["pools"]
    prefill = load_scenario("deepseek-r1-serve-cloudmatrix384").model_dump(
        mode="json", exclude_none=True
    )["pools"][0]
    changes = {"pools": [*pools, prefill], "workload.request_rate": 50}
    m = run(build(load_scenario(APART, changes), "none"))
    assert m.ttft_s > m.transfer_time_s > 0.0
    assert m.sequences_per_device * 480 == pytest.approx(50 * 2048 * m.tpot_s, rel=1e-9)


# --- Both as functions

FIELDS = ("request_time_s", "tpot_s", "power_w")


@pytest.mark.slow
@pytest.mark.parametrize("name", [COLOCATED, APART])
def test_gradients_equal_finite_differences(name):
    p = problem(name)
    inputs = p.inputs
    inputs = off_lattice((*inputs, Theta({}, {})), 2)[:4]

    def logs(x):
        m = metrics(*x)
        return sum(jnp.log(getattr(m, field)) for field in FIELDS)

    slopes = jax.jit(jax.grad(logs))(inputs)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))
    rng, run_logs = np.random.default_rng(3), jax.jit(logs)
    for group in range(4):
        own = jax.tree.map(lambda x: np.asarray(rng.normal(size=x.shape)), inputs[group])
        still = jax.tree.map(np.zeros_like, inputs)
        direction = tuple(own if i == group else d for i, d in enumerate(still))

        def moved(step):
            shift = lambda leaf, d: leaf * jnp.exp(step * d)
            return run_logs(jax.tree.map(shift, inputs, direction))

        along = sum(
            float((g * x * d).sum())
            for g, x, d in zip(*map(jax.tree.leaves, (slopes, inputs, direction)))
        )
        expected = float(moved(1e-6) - moved(-1e-6)) / 2e-6
        assert along == pytest.approx(expected, rel=2e-4, abs=2e-6), group


@pytest.mark.slow
@pytest.mark.parametrize("name", [COLOCATED, APART])
def test_the_relaxed_model_tends_to_the_exact_one(name):
    p = problem(name)
    exact = run(p, requests_per_s=77.0).tpot_s
    errors = [
        abs(run(p, requests_per_s=77.0, sharpness=s).tpot_s / exact - 1.0)
        for s in (1e2, 1e6)
    ]
    assert errors[1] < 1e-3
    assert errors[1] <= errors[0] + 1e-6
