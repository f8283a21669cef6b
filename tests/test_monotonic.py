"""More hardware is never slower and more work is never faster, ceilings included."""

import functools
import math

import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jobs import (
    DECODE,
    OVER,
    deeper,
    is_latency,
    is_rate,
    job,
    off_lattice,
    on_machine,
    time_s,
)

from cmxjax.parameters import leaf_paths

over_decode = pytest.mark.parametrize(
    "name", [*DECODE, pytest.param("every-axis-decode", marks=pytest.mark.slow)]
)
over_jobs = pytest.mark.parametrize("name", OVER)
many = settings(deadline=None, max_examples=30)

ROUNDING = 1e-9


def decades(low: float, high: float):
    """Positive numbers, uniform in the logarithm."""
    return st.floats(math.log(low), math.log(high)).map(math.exp)


sharpnesses = st.sampled_from([None, None, 1.0, 8.0, 1e3])
loads = decades(1.0 / 64.0, 8.0)
"""Size of the workload against the printed one."""


@functools.cache
def weighed(name):
    """The job with overlap of micro-batches left to be weighed."""
    system, a, w, layout, theta = job(name)
    return (system, a, w, layout.replace(microbatches="auto"), theta)


def with_work(inputs, factors, whole=False):
    """The job with fields of its workload multiplied, rounded to whole ones if asked."""
    system, a, w, layout, theta = inputs
    values = {}
    for field, factor in factors.items():
        value = float(getattr(w, field)) * factor
        values[field] = jnp.asarray(max(1.0, round(value)) if whole else value, float)
    return (system, a, w.replace(**values), layout, theta)


def batch_of(name):
    return "sequences_per_device" if "decode" in name else "tokens_per_device"


def test_monotonicity_is_tested_on_every_rate_latency_and_efficiency():
    paths = leaf_paths(job("mla-decode")[0])
    assert sum(map(is_rate, paths)) >= 10
    assert sum(map(is_latency, paths)) >= 40
    assert sum(path.endswith("efficiency") for path in paths) >= 20


@over_jobs
@many
@given(data=st.data(), load=loads, factor=decades(1.001, 100.0), sharpness=sharpnesses)
def test_more_bandwidth_or_flop_rate_or_efficiency_is_never_slower(
    name, data, load, factor, sharpness
):
    inputs = with_work(weighed(name), {batch_of(name): load})
    paths = leaf_paths(inputs[0])
    rates = [p for p in paths if is_rate(p) or p.endswith("efficiency")]
    path = data.draw(st.sampled_from(rates))
    faster = time_s(on_machine(inputs, {path: factor}), sharpness)
    assert faster <= time_s(inputs, sharpness) * (1.0 + ROUNDING)


@over_jobs
@many
@given(data=st.data(), load=loads, factor=st.floats(0.0, 0.999), sharpness=sharpnesses)
def test_less_latency_is_never_slower(name, data, load, factor, sharpness):
    inputs = with_work(weighed(name), {batch_of(name): load})
    latencies = [path for path in leaf_paths(inputs[0]) if is_latency(path)]
    path = data.draw(st.sampled_from(latencies))
    faster = time_s(on_machine(inputs, {path: factor}), sharpness)
    assert faster <= time_s(inputs, sharpness) * (1.0 + ROUNDING)


@over_jobs
@many
@given(seed=st.integers(0, 1000), factor=decades(1.001, 10.0), sharpness=sharpnesses)
def test_a_machine_that_is_faster_in_all_is_faster(name, seed, factor, sharpness):
    inputs = off_lattice(weighed(name), seed)
    factors = {
        path: factor if is_rate(path) else 1.0 / factor
        for path in leaf_paths(inputs[0])
        if is_rate(path) or is_latency(path)
    }
    faster = time_s(on_machine(inputs, factors), sharpness)
    assert faster == pytest.approx(time_s(inputs, sharpness) / factor, rel=1e-9)


MIXED = 0.02
"""Relaxed, the cores' split is the mean of two where they tie, which is faster than
either: there a step with more work may be as much shorter."""


def check_more_work(inputs, field, load, factor, sharpness):
    small = with_work(inputs, {field: load})
    large = with_work(inputs, {field: load * factor})
    before, after = time_s(small, sharpness), time_s(large, sharpness)
    mixed = sharpness is not None and inputs[3].microbatches != "1"
    assert after >= before * (1.0 - (MIXED if mixed else ROUNDING))


@over_jobs
@many
@given(load=loads, factor=decades(1.0001, 10.0), sharpness=sharpnesses)
def test_a_larger_batch_never_makes_the_step_shorter(name, load, factor, sharpness):
    check_more_work(weighed(name), batch_of(name), load, factor, sharpness)


@over_jobs
@pytest.mark.parametrize("microbatches", ["1", "2", "auto"])
def test_no_batch_is_slower_than_the_next_larger_one(name, microbatches):
    """Whole numbers of requests, or of tokens around the edges of tiles."""
    system, a, w, layout, theta = job(name)
    inputs = (system, a, w, layout.replace(microbatches=microbatches), theta)
    printed = float(getattr(w, batch_of(name)))
    sizes = range(1, 129)
    if "prefill" in name:
        sizes = [16 * k + j for k in range(1, 24, 2) for j in (-1, 0, 1, 8)]
    times = [
        time_s(with_work(inputs, {batch_of(name): size / printed})) for size in sizes
    ]
    shorter = [
        (size, after / before - 1.0)
        for size, before, after in zip(sizes[1:], times, times[1:])
        if after < before * (1.0 - ROUNDING)
    ]
    assert not shorter


@over_decode
@many
@given(load=loads, factor=decades(1.0001, 10.0), sharpness=sharpnesses)
def test_a_longer_context_never_makes_the_step_shorter(name, load, factor, sharpness):
    check_more_work(weighed(name), "kv_tokens", load, factor, sharpness)


@over_decode
@many
@given(
    drafts=st.floats(0.0, 1.0),
    more=st.floats(0.0, 2.0),
    load=loads,
    sharpness=sharpnesses,
)
def test_more_drafts_never_make_the_step_shorter(name, drafts, more, load, sharpness):
    """The step, not the time per token: that is what drafts are for."""
    system, a, w, layout, theta = with_work(weighed(name), {batch_of(name): load})
    accept_nothing = jnp.zeros_like(w.acceptance)
    times = []
    for count in (drafts, drafts + more):
        drafting = w.replace(
            draft_tokens=jnp.asarray(count, float), acceptance=accept_nothing
        )
        times.append(time_s((system, a, drafting, layout, theta), sharpness))
    assert times[1] >= times[0] * (1.0 - ROUNDING)


@over_jobs
@many
@given(layers=st.integers(1, 40), load=loads, sharpness=sharpnesses)
def test_more_layers_never_make_the_step_shorter(name, layers, load, sharpness):
    system, a, *rest = with_work(weighed(name), {batch_of(name): load})
    more = deeper(a, float(layers))
    before = time_s((system, a, *rest), sharpness)
    assert time_s((system, more, *rest), sharpness) > before


@over_jobs
@many
@given(load=loads, sharpness=st.sampled_from([None, 1e3]))
def test_weighed_overlap_is_no_slower_than_either_choice(name, load, sharpness):
    inputs = with_work(job(name), {batch_of(name): load})
    system, a, w, layout, theta = inputs
    times = {
        mode: time_s((system, a, w, layout.replace(microbatches=mode), theta), sharpness)
        for mode in ("1", "2", "auto")
    }
    if sharpness is None:
        # the tail of the mode that is chosen comes on top of its layers
        assert times["auto"] <= min(times["1"], times["2"]) * (1.0 + 1e-9)
    else:
        assert times["auto"] <= min(times["1"], times["2"]) * (1.0 + 1e-3)
