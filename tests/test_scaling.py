"""Scaling laws: units of time, layers, batches, devices; closed forms of toy models."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jobs import (
    DECODE,
    OVER,
    PREFILL,
    elasticities,
    host_in_front,
    is_latency,
    is_rate,
    job,
    off_lattice,
    predict,
    scaled,
    time_s,
    with_experts,
    with_stages,
)

from cmxjax.parameters import leaf_paths

COST = "cost_per_token_usd"

over_jobs = pytest.mark.parametrize("name", OVER)


def in_finer_time(system, c):
    """The same machine with time measured in seconds / c."""
    factors = {p: 1.0 / c if is_rate(p) else c for p in leaf_paths(system)}
    timed = {p: f for p, f in factors.items() if is_rate(p) or is_latency(p)}
    return scaled(system, timed)


@over_jobs
@pytest.mark.parametrize("sharpness", [None, 8.0])
def test_times_double_and_rates_halve_with_half_the_unit_of_time(name, sharpness):
    system, *rest = off_lattice(job(name), 1)
    before = predict((system, *rest), sharpness)
    after = predict((in_finer_time(system, 2.0), *rest), sharpness)
    for field, value in vars(before).items():
        if field == "kind" or value is None:
            continue
        factor = 1.0
        if re.search(r"_per_s(_per_|$)", field):
            factor = 0.5
        elif field.endswith("_s") or field in ("energy_per_token_j", COST):
            factor = 2.0  # these too: watts and prices of an hour are left as they are
        np.testing.assert_allclose(
            getattr(after, field), factor * value, rtol=1e-11, err_msg=field
        )


def check_elasticities_sum_to_one(name, sharpness):
    slopes = elasticities(off_lattice(job(name), 2), sharpness)
    latencies = sum(slope for path, slope in slopes.items() if is_latency(path))
    rates = sum(slope for path, slope in slopes.items() if is_rate(path))
    assert latencies - rates == pytest.approx(1.0, abs=1e-8)


@over_jobs
def test_elasticities_of_latencies_less_those_of_rates_sum_to_one(name):
    check_elasticities_sum_to_one(name, None)


@pytest.mark.parametrize(
    "name",
    [
        "mla-decode",
        "gqa-prefill",
        pytest.param("mla-prefill", marks=pytest.mark.slow),
        pytest.param("gqa-decode", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("sharpness", [1.0, 8.0])
def test_relaxed_elasticities_sum_to_one_too(name, sharpness):
    check_elasticities_sum_to_one(name, sharpness)


def with_layers(inputs, factor):
    system, a, *rest = inputs
    return (system, a.replace(order=factor * a.order), *rest)


@pytest.mark.parametrize("name", DECODE)
@pytest.mark.parametrize("sharpness", [None, 8.0])
def test_twice_the_layers_add_the_step_less_its_rest(name, sharpness):
    inputs = host_in_front(with_stages(off_lattice(job(name), 3), 1.0))
    base = predict(inputs, sharpness)
    twice = predict(with_layers(inputs, 2.0), sharpness)
    repeated = base.step_time_s - base.iteration_rest_s
    np.testing.assert_allclose(twice.step_time_s, base.step_time_s + repeated, rtol=1e-11)
    np.testing.assert_allclose(twice.iteration_rest_s, base.iteration_rest_s, rtol=1e-9)


@pytest.mark.parametrize("name", PREFILL)
@pytest.mark.parametrize("sharpness", [None, 8.0])
def test_a_batch_is_affine_in_the_number_of_layers(name, sharpness):
    inputs = with_stages(off_lattice(job(name), 3), 1.0)
    one, two, four = (time_s(with_layers(inputs, k), sharpness) for k in (1.0, 2.0, 4.0))
    assert four - two == pytest.approx(2.0 * (two - one), rel=1e-9)
    assert 0.0 < 2.0 * one - two < one


@over_jobs
def test_memory_of_the_cache_is_linear_in_layers(name):
    inputs = job(name)
    layers, drafts = float(inputs[1].layers), 0.0
    if inputs[2].kind == "decode":
        drafts = float(inputs[1].draft_layers * inputs[2].draft_tokens)
    base, twice = predict(inputs), predict(with_layers(inputs, 2.0))
    expected = (2.0 * layers + drafts) / (layers + drafts)
    ratio = twice.memory_kv_cache_bytes / base.memory_kv_cache_bytes
    np.testing.assert_allclose(ratio, expected, rtol=1e-12)


def test_cache_of_latent_attention_holds_the_latent_and_the_rotary_part():
    """DeepSeek-R1 in bf16: 576 elements a token in each of 61 layers and the draft's."""
    sequences, context = 48, 4224
    expected = sequences * context * (512 + 64) * 2 * (61 + 1)
    assert predict(job("mla-decode")).memory_kv_cache_bytes == expected


def test_cache_of_grouped_queries_holds_the_key_value_heads_of_the_rank():
    """Llama 3.1 70B on tp 8: one of 8 heads, keys and values, of the group's requests."""
    sequences, context = 16 * 8, 4096
    expected = sequences * context * 2 * (8 // 8) * 128 * 2 * 80
    assert predict(job("gqa-decode")).memory_kv_cache_bytes == expected


def test_weights_of_a_dense_model_are_split_over_the_tensor_parallel_group():
    """Llama 3.1 70B: FP8 layers over 8 ranks, bf16 embedding and head over 8 ranks."""
    attention = 8192 * (8192 + 2 * 1024) + 8192 * 8192
    layer = attention + 3 * 8192 * 28672
    expected = (80 * layer + 2 * 128256 * 8192 * 2) / 8
    got = predict(job("gqa-decode")).memory_weights_bytes
    np.testing.assert_allclose(got, expected, rtol=1e-12)


@pytest.mark.parametrize("name", DECODE)
def test_cache_grows_with_batch_and_context(name):
    system, a, w, layout, theta = job(name)
    base = predict((system, a, w, layout, theta)).memory_kv_cache_bytes
    for field in ("sequences_per_device", "kv_tokens"):
        more = w.replace(**{field: 3.0 * getattr(w, field)})
        got = predict((system, a, more, layout, theta)).memory_kv_cache_bytes
        np.testing.assert_allclose(got, 3.0 * base, rtol=1e-12)


@pytest.mark.parametrize("name", ["mla-decode", "mla-prefill"])
def test_twice_the_experts_on_twice_the_ranks_leave_their_weights_a_rank(name):
    system, a, w, layout, theta = job(name)
    routing = jax.tree.map(lambda x: 2.0 * x, layout.routing)
    outer = layout.factor.at[5, 2].multiply(2.0)  # ep on the supernode's tier
    wider = layout.replace(factor=outer, routing=routing)
    more = with_experts(a, routed=2.0 * a.experts.routed)
    base = predict((system, a, w, layout, theta)).memory_weights_bytes
    twice = predict((system, more, w, wider, theta))
    drafts = a.draft_layers if w.kind == "decode" else 0.0
    mixed = a.layers + drafts - a.dense_layers
    router = 2.0 * a.hidden * a.experts.routed * mixed  # its bf16 rows are everywhere
    np.testing.assert_allclose(twice.memory_weights_bytes, base + router, rtol=1e-12)


def test_expert_weights_are_slots_times_three_matrices():
    """One int8 expert of 7168 x 2048 a rank, in 58 layers and the draft's."""
    system, a, w, layout, theta = job("mla-decode")
    more = with_experts(a, intermediate=2.0 * 2048.0)
    base = predict((system, a, w, layout, theta)).memory_weights_bytes
    grown = predict((system, more, w, layout, theta)).memory_weights_bytes
    np.testing.assert_allclose(grown - base, 59 * 3 * 7168 * 2048, rtol=1e-9)


def test_data_parallel_copies_add_throughput_and_power_and_no_time():
    one = predict(job("gqa-decode"))
    two = predict(job("gqa-decode", layout__devices=16, layout__tp=8, layout__dp=2))
    np.testing.assert_allclose(two.tpot_s, one.tpot_s, rtol=1e-12)
    np.testing.assert_allclose(two.tokens_per_s, 2.0 * one.tokens_per_s, rtol=1e-12)
    np.testing.assert_allclose(two.power_w, 2.0 * one.power_w, rtol=1e-12)
    np.testing.assert_allclose(two.energy_per_token_j, one.energy_per_token_j, rtol=1e-12)


@over_jobs
@settings(deadline=None, max_examples=30)
@given(
    share=st.floats(0.02, 2.0),
    sharpness=st.sampled_from([None, 1.0, 8.0]),
)
def test_a_batch_takes_no_longer_than_its_two_halves(name, share, sharpness):
    """Running half of the requests after the other half is always an option."""
    system, a, w, layout, theta = job(name)
    field = "sequences_per_device" if "decode" in name else "tokens_per_device"
    small = w.replace(**{field: share * getattr(w, field)})
    large = w.replace(**{field: 2.0 * share * getattr(w, field)})
    half = time_s((system, a, small, layout, theta), sharpness)
    whole = time_s((system, a, large, layout, theta), sharpness)
    assert whole <= 2.0 * half * (1.0 + 1e-9)


def ideal_machine(inputs, **peaks):
    """One device without launches, ramps, tiles, host or efficiencies below 1.

    Rates that `peaks` doesn't name are unlimited.
    """
    system, a, w, layout, theta = inputs
    one, zero, huge = jnp.ones(()), jnp.zeros(()), jnp.asarray(1e40)
    unlimited = {dtype: huge for dtype in system.chip.matrix_flop_per_s}
    limits = {"vector_flop_per_s": huge, "memory_bytes_per_s": huge}
    limits |= {"matrix_flop_per_s": unlimited}
    limits |= peaks
    ones = ("gemm_efficiency", "attention_efficiency", "memory_efficiency")
    ones += ("vector_efficiency", "tile_rows", "tile_columns", "matrix_cores")
    zeros = ("half_rows", "half_columns", "half_depth", "half_memory_bytes")
    zeros += ("matrix_launch_s", "vector_launch_s", "roofline_exposed_fraction")
    zeros += ("attention_fill_s",)
    limits |= dict.fromkeys(ones, one) | dict.fromkeys(zeros, zero)
    engines = {
        key: engine.replace(decode_step_s=zero, prefill_batch_s=zero)
        for key, engine in system.engines.items()
    }
    system = system.replace(chip=system.chip.replace(**limits), engines=engines)
    return system, a, w, layout.replace(factor=jnp.ones_like(layout.factor)), theta


# Llama 3.1 8B: weights of a layer's matrices, and of the output head
HIDDEN, LAYERS, HEAD = 4096, 32, 128256 * 4096
MATRICES = HIDDEN * (HIDDEN + 2 * 1024) + HIDDEN * HIDDEN + 3 * HIDDEN * 14336


def test_a_small_decode_batch_reads_weights_and_cache_once():
    """FP8 layers, bf16 head and cache; activations add little to them."""
    rate = 1e12
    inputs = job("gqa-decode", model="llama-3.1-8b", layout__devices=1, layout__tp=1)
    inputs = ideal_machine(inputs, memory_bytes_per_s=jnp.asarray(rate))
    system, a, w, layout, theta = inputs
    w = w.replace(sequences_per_device=jnp.ones(()), kv_tokens=jnp.asarray(4096.0))
    cache = 4096 * 2 * 8 * 128 * 2 * LAYERS
    expected = (LAYERS * MATRICES + HEAD * 2 + cache) / rate
    assert expected < time_s((system, a, w, layout, theta)) < 1.005 * expected


def test_an_unlimited_memory_leaves_the_arithmetic_of_prefill():
    """2 x weights x tokens, half a square of causal attention, one head row a prompt."""
    prompts, length, peak = 16, 2048, 1e15
    inputs = job(
        "gqa-prefill",
        model="llama-3.1-8b",
        layout__devices=1,
        layout__tp=1,
        workload__prompt_tokens=1024,
    )
    dtypes = inputs[0].chip.matrix_flop_per_s
    peaks = {dtype: jnp.asarray(peak) for dtype in dtypes}
    system, a, w, layout, theta = ideal_machine(inputs, matrix_flop_per_s=peaks)
    tokens = prompts * length
    w = w.replace(
        tokens_per_device=jnp.asarray(float(tokens)),
        prompt_tokens=jnp.asarray(float(length)),
    )
    projections = 2 * LAYERS * MATRICES * tokens
    attention = 4 * HIDDEN * prompts * length * (length + 1) / 2 * LAYERS
    head = 2 * HEAD * prompts
    got = time_s((system, a, w, layout, theta))
    np.testing.assert_allclose(got, (projections + attention + head) / peak, rtol=1e-9)
