"""Phase serve: Little's law, queues, limits, and what follows the machine."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jobs import Theta, off_lattice

from cmxjax.answers.predict import predict
from cmxjax.answers.sensitivity import sensitivity
from cmxjax.job.layout import AXES, Pools, degree
from cmxjax.memory.serving import decode_memory
from cmxjax.parameters import leaf_paths
from cmxjax.phases.metrics import explain, metrics
from cmxjax.serve.generation import Inputs, decode_workload, one_sequence
from cmxjax.serve.pools import scheme_of
from cmxjax.serve.queue import waiting_s
from cmxjax.specs.build import build
from cmxjax.specs.scenario import load_scenario

SERVE = "deepseek-r1-serve-cloudmatrix384"
PREFILL = "deepseek-r1-prefill-cloudmatrix384"
DECODE = "deepseek-r1-decode-cloudmatrix384"


@functools.cache
def problem(**changes):
    dotted = {key.replace("__", "."): value for key, value in changes.items()}
    return build(load_scenario(SERVE, dotted), "none")


def inputs_of(p):
    return p.inputs


@jax.jit
def _run(inputs, sharpness=None):
    return metrics(*inputs, sharpness)


def run(p=None, sharpness=None, **work):
    """Metrics of the shipped scenario, with fields of its workload changed."""
    system, a, w, layout = inputs_of(problem() if p is None else p)
    w = w.replace(**{key: jnp.asarray(value, float) for key, value in work.items()})
    s = None if sharpness is None else jnp.asarray(sharpness, float)
    return jax.device_get(_run((system, a, w, layout), s))


# --- By hand


def test_the_wait_is_that_of_pollaczek_and_khinchine():
    # half busy: W = S / 2; nine tenths: 4.5 S
    assert float(waiting_s(0.5, 2.0)) == pytest.approx(1.0, rel=1e-3)
    assert float(waiting_s(0.9, 2.0)) == pytest.approx(9.0, rel=1e-3)


def test_the_wait_is_that_of_a_simulated_queue():
    rng, busy = np.random.default_rng(0), 0.7
    gaps = rng.exponential(1.0 / busy, 400_000)
    wait, total = 0.0, 0.0
    for gap in gaps:
        wait = max(0.0, wait + 1.0 - gap)
        total += wait
    simulated = total / len(gaps)
    assert float(waiting_s(busy, 1.0)) == pytest.approx(simulated, rel=0.03)


@pytest.mark.parametrize("rate", [0.1, 5.0, 80.0, 100.0])
def test_the_batch_obeys_littles_law(rate):
    m = run(requests_per_s=rate)
    in_flight = rate * 1024 * m.tpot_s
    assert m.sequences_per_device * 320 == pytest.approx(in_flight, rel=1e-9)


def test_decode_at_its_batch_is_the_phase_decode():
    m = run()
    changes = {
        "workload.sequences_per_device": float(m.sequences_per_device),
        "workload.kv_tokens": 4096 + 512,
    }
    alone = predict(load_scenario(DECODE, changes), "none").values
    assert m.tpot_s == pytest.approx(alone["tpot_s"], rel=1e-5)
    assert m.pools["decode"].memory_bytes == pytest.approx(alone["memory_bytes"])


def test_prefill_is_the_phase_prefill():
    def alone(tokens_per_device):
        batch = {"workload.tokens_per_device": tokens_per_device}
        return predict(load_scenario(PREFILL, batch), "none").values

    m, full = run(), alone(8192.0)
    one = alone(4096.0 / 32)
    assert run(requests_per_s=1e-4).prefill_time_s == pytest.approx(one["ttft_s"])
    assert one["ttft_s"] < m.prefill_time_s < full["ttft_s"]
    # six instances at utilization u compute what arrives
    served = m.pools["prefill"].utilization * 6 * full["tokens_per_s"]
    assert served == pytest.approx(80 * 4096, rel=1e-9)


def test_the_hand_over_is_bytes_over_the_rate_of_rdma():
    # 4096 tokens x 61 layers x 576 elements x 2 bytes from 32 dies with 25 GB/s each
    tier = problem().system.tiers["cluster"]
    expected = 4096 * 61 * 576 * 2 / (32 * 25e9 * float(tier.efficiency))
    expected += float(tier.latency_s)
    assert run().transfer_time_s == pytest.approx(expected, rel=1e-9)


def test_a_request_is_the_sum_of_its_parts():
    m = run()
    first = m.waiting_time_s + m.prefill_time_s + m.transfer_time_s
    assert m.ttft_s == pytest.approx(first)
    generated = m.decode_waiting_time_s + 1024 * m.tpot_s
    assert m.request_time_s == pytest.approx(m.ttft_s + generated)
    shares = explain(*inputs_of(problem())).breakdown
    assert float(sum(shares.values())) == pytest.approx(m.request_time_s, rel=1e-9)


# --- Limits


def test_at_the_capacity_of_a_pool_its_limit_is_reached():
    limit = {"ttft_limit_s": 2.0}
    capacity = float(run(**limit).capacity_requests_per_s)
    m = run(**limit, requests_per_s=capacity)
    assert m.ttft_s == pytest.approx(2.0, rel=1e-6)
    assert run(**limit, requests_per_s=1.01 * capacity).ttft_excess_s > 0.0
    assert run(**limit, requests_per_s=0.99 * capacity).ttft_excess_s == 0.0


def test_the_batch_at_the_limit_of_tpot_is_the_largest_that_meets_it():
    m = run(tpot_limit_s=0.03)
    most = m.pools["decode"].requests_per_s
    light = {"prompt_tokens": 4096, "tpot_limit_s": 0.03, "ttft_limit_s": 1e3}
    inputs = problem(pools__0__devices=768 - 320)
    # whole tiles make the step jump by a percent
    below = run(inputs, requests_per_s=0.97 * most, **light)
    above = run(inputs, requests_per_s=1.03 * most, **light)
    assert below.tpot_excess_s == 0.0
    assert above.tpot_s > 0.03 * 0.99


def test_goodput_is_what_arrives_up_to_the_capacity():
    capacity = float(run().capacity_requests_per_s)
    assert run(requests_per_s=1.0).requests_per_s == 1.0
    assert run(requests_per_s=1e4).requests_per_s == pytest.approx(capacity)


def test_beyond_what_is_stable_requests_are_left_over():
    m = run(requests_per_s=1e4)
    assert m.served_requests_per_s < 1e3
    left = 1e4 - m.served_requests_per_s
    assert m.excess_requests_per_s == pytest.approx(left)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(m))


def test_memory_bounds_the_batch_where_nothing_else_does():
    p = problem(pools__0__devices=448)
    m = run(p, requests_per_s=1e4, tpot_limit_s=1e3, ttft_limit_s=1e3)
    decode = m.pools["decode"]
    usable = float(p.system.chip.memory_usable_bytes)
    assert decode.limits["memory"] == pytest.approx(1.0, rel=1e-9)
    assert decode.memory_bytes <= usable * (1.0 + 1e-9)
    assert m.memory_excess_bytes == 0.0


def test_a_pool_lacks_what_one_sequence_needs_beyond_its_memory():
    p = problem(system__chip__memory_usable_bytes="8 GB")
    layout = p.layout.pools["decode"].layout
    one = 1.0 / (degree(layout, "tp") * degree(layout, "cp"))
    held = decode_memory(p.model, decode_workload(p.workload, "decode", one), layout)
    short = run(p).pools["decode"].memory_excess_bytes
    assert short == pytest.approx(float(held.total) - 8e9, rel=1e-9)
    assert short > 1e9
    assert run().pools["decode"].memory_excess_bytes == 0.0


def test_the_smallest_batch_is_one_sequence_of_a_tp_and_cp_group():
    p = problem()
    pools, decode = p.layout.pools, p.layout.pools["decode"]
    for tp, cp in ((1.0, 4.0), (2.0, 1.0), (2.0, 4.0)):
        factor = decode.layout.factor.at[AXES.index("tp"), 1].set(tp)
        factor = factor.at[AXES.index("cp"), 2].set(cp)
        layout = decode.layout.replace(factor=factor)
        own = Pools(pools=pools | {"decode": decode.replace(layout=layout)})
        inputs = Inputs(p.machine, p.model, p.workload, own)
        assert float(one_sequence(scheme_of(own.pools), inputs)) == 1.0 / (tp * cp)


def test_a_model_that_does_not_fit_is_said_to_be_too_large():
    changes = {"system.chip.memory_usable_bytes": "8 GB"}
    found = predict(load_scenario(SERVE, changes), "none")
    assert any("needs" in reason for reason in found.reasons)


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("workload.request_rate", 1e4, "arrive, of which at most"),
        ("workload.ttft_limit", "100 ms", "TTFT is"),
        ("workload.tpot_limit", "5 ms", "TPOT is"),
    ],
)
def test_what_can_not_be_served_is_said(key, value, text):
    found = predict(load_scenario(SERVE, {key: value}), "none")
    assert any(text in reason for reason in found.reasons)
    assert not found.as_json()["feasible"]


def test_a_limit_that_no_request_meets_leaves_no_goodput():
    assert run(ttft_limit_s=1e-3).requests_per_s == pytest.approx(0.0, abs=1e-3)
    assert run(tpot_limit_s=1e-4).requests_per_s == pytest.approx(0.0, abs=1e-3)


# --- What it follows


def test_more_requests_are_never_faster():
    rates = np.geomspace(0.01, 3e3, 40)
    found = [run(requests_per_s=rate) for rate in rates]
    for field in ("ttft_s", "tpot_s", "request_time_s", "sequences_per_device"):
        values = np.array([getattr(m, field) for m in found])
        assert (np.diff(values) >= -1e-9 * values[1:]).all(), field


@pytest.mark.parametrize(
    "path",
    [
        "tiers.supernode.bytes_per_s",
        "tiers.cluster.bytes_per_s",
        "chip.memory_bytes_per_s",
        "chip.matrix_flop_per_s.int8",
    ],
)
def test_more_bandwidth_or_flop_rate_is_never_slower(path):
    base = problem()
    leaf = float(leaf_paths(base.system)[path])
    more = problem(**{f"system__{path.replace('.', '__')}": 2.0 * leaf})
    slow, fast = run(base), run(more)
    assert fast.request_time_s < slow.request_time_s
    assert fast.capacity_requests_per_s >= slow.capacity_requests_per_s * (1 - 1e-9)


@pytest.mark.slow
def test_cached_prefixes_save_time_and_a_cache_pool_is_faster_than_the_vpc():
    cold = run()
    cached = {"workload__cached_fraction": 0.5}
    vpc = run(problem(**cached))
    pools = load_scenario(SERVE).model_dump(mode="json", exclude_none=True)["pools"]
    ub = run(
        build(
            load_scenario(
                SERVE,
                {
                    "workload.cached_fraction": 0.5,
                    "pools": [*pools, {"role": "cache", "devices": 512}],
                },
            ),
            "none",
        )
    )
    assert ub.prefill_time_s < vpc.prefill_time_s < cold.prefill_time_s
    assert ub.pools["cache"].requests_per_s > ub.pools["prefill"].requests_per_s
    # no more than arrive, however much the cache could send
    assert ub.served_requests_per_s == float(problem().workload.requests_per_s)


def test_times_double_where_seconds_do():
    """Rates halved, latencies and limits doubled: all times double."""
    p = problem()
    system, a, w, layout = inputs_of(p)

    def scale(path, leaf):
        name = path.rsplit(".", 1)[-1]
        per = [part for part in path.split(".") if part.endswith("_per_s")]
        if per:
            return leaf / 2.0
        return leaf * 2.0 if name.endswith("_s") else leaf

    def slow(tree):
        return jax.tree_util.tree_map_with_path(
            lambda k, leaf: scale(
                jax.tree_util.keystr(k, simple=True, separator="."), leaf
            ),
            tree,
        )

    before, after = run(p), jax.device_get(_run((slow(system), a, slow(w), layout)))
    assert after.request_time_s == pytest.approx(2.0 * before.request_time_s, rel=1e-9)
    twice = 2.0 * after.capacity_requests_per_s
    assert twice == pytest.approx(before.capacity_requests_per_s, rel=1e-6)


# --- As a function


FIELDS = ("request_time_s", "ttft_s", "capacity_requests_per_s", "power_w")


@jax.jit
def _gradients(inputs, sharpness):
    def logs(x):
        m = metrics(*x, sharpness)
        return jnp.log(jnp.stack([getattr(m, field) for field in FIELDS]))

    return jax.vjp(logs, inputs)[1](jnp.ones(len(FIELDS)))[0]


def _slope(inputs, direction, sharpness):
    step = 1e-6

    def at(sign):
        moved = jax.tree.map(
            lambda leaf, d: leaf * jnp.exp(sign * step * d), inputs, direction
        )
        m = _run(moved, sharpness)
        return sum(math.log(float(getattr(m, field))) for field in FIELDS)

    return (at(1) - at(-1)) / (2.0 * step)


@pytest.mark.parametrize("sharpness", [None, pytest.param(8.0, marks=pytest.mark.slow)])
def test_gradients_equal_finite_differences(sharpness):
    """Away from the edges of tiles, on which the printed sizes lie."""
    inputs = problem(workload__request_rate=77.0).inputs
    inputs = off_lattice((*inputs, Theta({}, {})), 1)[:4]
    s = None if sharpness is None else jnp.asarray(sharpness)
    slopes = _gradients(inputs, s)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))
    rng = np.random.default_rng(3)
    for group in range(4):
        direction = jax.tree.map(np.zeros_like, inputs)
        own = jax.tree.map(lambda x: np.asarray(rng.normal(size=x.shape)), inputs[group])
        direction = tuple(own if i == group else d for i, d in enumerate(direction))
        along = sum(
            float((g * x * d).sum())
            for g, x, d in zip(*map(jax.tree.leaves, (slopes, inputs, direction)))
        )
        expected = _slope(inputs, direction, s)
        assert along == pytest.approx(expected, rel=2e-4, abs=2e-6), group


def test_a_batch_equals_single_evaluations():
    system, a, w, layout = inputs_of(problem())
    rates = jnp.asarray([1.0, 50.0, 90.0, 1e3])
    many = jax.jit(
        jax.vmap(lambda r: _run((system, a, w.replace(requests_per_s=r), layout)))
    )(rates)
    for i, rate in enumerate(rates):
        one = run(requests_per_s=float(rate))
        for field in (*FIELDS, "sequences_per_device"):
            value = np.asarray(getattr(many, field))[i]
            np.testing.assert_allclose(value, getattr(one, field), rtol=1e-9)


def test_the_relaxed_model_tends_to_the_exact_one():
    exact = run(requests_per_s=77.0)
    errors = [
        abs(
            math.log(run(requests_per_s=77.0, sharpness=s).ttft_s)
            - math.log(exact.ttft_s)
        )
        for s in (1e2, 1e4, 1e6)
    ]
    assert errors[2] < 1e-3
    assert errors[2] <= errors[0]


def test_half_an_instance_is_worth_half():
    system, a, w, layout = inputs_of(problem())
    pools = layout.pools
    half = pools["prefill"].replace(devices=pools["prefill"].devices / 12.0)
    m = _run((system, a, w, Pools(pools={**pools, "prefill": half})))
    whole = run()
    # but for the steadier streams of instances that are served in turn
    assert float(m.pools["prefill"].requests_per_s) == pytest.approx(
        whole.pools["prefill"].requests_per_s / 12.0, rel=0.02
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("quantity", "power"), [("request_time", 1.0), ("request_capacity_rate", -1.0)]
)
def test_elasticities_of_times_minus_those_of_rates_sum_to_one(quantity, power):
    """The rate of requests and the limits are among them."""
    found = sensitivity(load_scenario(SERVE), quantity, "none")
    assert found.time_sum == pytest.approx(power, rel=1e-6)
