"""Decode and prefill as a whole: the breakdown, and how the metrics fit together."""

import numpy as np
import pytest
from jobs import (
    DECODE,
    EVERY_AXIS,
    JOBS,
    OVER,
    PREFILL,
    SHIPPED,
    deeper,
    elasticities,
    explain,
    host_in_front,
    is_rate,
    job,
    off_lattice,
    on_machine,
    predict,
    shares,
    with_stages,
)

from cmxjax.step.costs import PARTS

over_jobs = pytest.mark.parametrize("name", OVER)
# a breakdown takes seconds to compile, so most of the relaxed ones are slow tests
QUICK = [(name, None) for name in (*JOBS, *SHIPPED[-2:])]
QUICK += [("mla-decode", 8.0), ("gqa-prefill", 8.0)]
SLOW = [
    pytest.param(name, sharpness, marks=pytest.mark.slow)
    for name in (*JOBS, *EVERY_AXIS, *SHIPPED)
    for sharpness in (None, 8.0)
    if (name, sharpness) not in QUICK
]
over_shares = pytest.mark.parametrize(("name", "sharpness"), QUICK + SLOW)


@over_shares
def test_shares_sum_to_the_step(name, sharpness):
    for inputs in (job(name), off_lattice(job(name), 1)):
        seconds, step_s = shares(inputs, sharpness)
        np.testing.assert_allclose(sum(seconds.values()), step_s, rtol=1e-10)


@over_shares
def test_no_share_is_negative(name, sharpness):
    seconds, step_s = shares(job(name), sharpness)
    assert min(seconds.values()) >= -1e-15 * step_s


@over_shares
def test_every_share_names_a_cause(name, sharpness):
    """There is no class for what is left over."""
    seconds, _ = shares(job(name), sharpness)
    for share in seconds:
        component, part = share.split(".")
        assert part in PARTS[component]
        assert component not in ("other", "rest", "residual", "unknown", "unexplained")


@over_jobs
def test_a_breakdown_leaves_the_step_as_it_is(name):
    inputs = off_lattice(job(name), 2)
    m = predict(inputs)
    step_s = m.ttft_s if "prefill" in name else m.step_time_s
    np.testing.assert_allclose(shares(inputs)[1], step_s, rtol=1e-12)


@over_jobs
def test_a_slower_host_adds_its_time_and_changes_no_other_share(name):
    inputs = job(name)
    engine = f"engines.{inputs[4].choices.engine}"
    leaf = f"{engine}.decode_step_s" if "decode" in name else f"{engine}.prefill_batch_s"
    before, step_before = shares(inputs)
    after, step_after = shares(on_machine(inputs, {leaf: 1.125}))
    extra = elasticities(inputs)[leaf] * step_before / 8.0
    np.testing.assert_allclose(step_after - step_before, extra, rtol=1e-9)
    change = {key: after[key] - before[key] for key in before}
    np.testing.assert_allclose(change.pop("host.step"), extra, rtol=1e-9)
    assert max(map(abs, change.values())) < 1e-12 * step_before


@pytest.mark.parametrize(
    "name",
    [
        "mla-decode",
        *(
            pytest.param(other, marks=pytest.mark.slow)
            for other in (*JOBS, *EVERY_AXIS, *SHIPPED)
            if other != "mla-decode"
        ),
    ],
)
def test_no_component_has_a_larger_share_than_it_is_busy(name):
    """What is hidden behind others is busy and has no share."""
    inputs = job(name)
    m = explain(*inputs)
    step_s = m.step_time_s if "decode" in name else m.ttft_s
    for component, share in m.breakdown.items():
        assert share <= m.busy[component] * (1.0 + 1e-6) + 1e-9 * step_s, component
    assert sum(m.busy.values()) > step_s


STAGES = pytest.mark.xfail(
    strict=True, reason="with pp stages the step holds pp host times, the metric one"
)


@pytest.mark.parametrize(
    "name",
    [
        *JOBS,
        *(pytest.param(name, marks=[pytest.mark.slow, STAGES]) for name in EVERY_AXIS),
    ],
)
def test_host_time_is_the_part_of_the_step_that_the_host_takes(name):
    inputs = host_in_front(job(name))
    seconds, _ = shares(inputs)
    np.testing.assert_allclose(
        seconds["host.step"], predict(inputs).host_time_s, rtol=1e-12
    )


def share_of(seconds, step_s, ending) -> float:
    return sum(s for key, s in seconds.items() if key.endswith(ending)) / step_s


@over_jobs
def test_shares_of_matrix_and_vector_units_are_elasticities_of_their_rates(name):
    """A share is what the step loses if that resource becomes infinitely fast."""
    inputs = off_lattice(job(name), 3)
    seconds, step_s = shares(inputs)
    slopes = elasticities(inputs)
    peaks = sum(s for p, s in slopes.items() if "matrix_flop_per_s" in p)
    vector = slopes["chip.vector_flop_per_s"]
    # the fill of an attention kernel is matrix time at no rate
    matrix = slopes["chip.attention_fill_s"] - peaks
    assert matrix == pytest.approx(share_of(seconds, step_s, ".matrix"), rel=1e-9)
    assert -vector == pytest.approx(share_of(seconds, step_s, ".vector"), rel=1e-9)


@over_jobs
def test_shares_of_launches_are_elasticities_of_their_times(name):
    inputs = off_lattice(job(name), 3)
    seconds, step_s = shares(inputs)
    slopes = elasticities(inputs)
    parts = ("matrix_launch_s", "vector_launch_s", "four_bit_launch_s", "depth_latency_s")
    launches = sum(slopes.get(f"chip.{part}", 0.0) for part in parts)
    assert launches == pytest.approx(share_of(seconds, step_s, ".launch"), rel=1e-9)


@over_jobs
def test_shares_of_memory_and_transfers_are_elasticities_of_bandwidths(name):
    """Together, since a rank's copy to itself is a transfer at memory bandwidth."""
    inputs = off_lattice(job(name), 3)
    seconds, step_s = shares(inputs)
    bandwidths = sum(
        slope
        for path, slope in elasticities(inputs).items()
        if is_rate(path) and "flop" not in path
    )
    moved = share_of(seconds, step_s, (".memory", ".transfer", ".load"))
    latency = sum(
        slope
        for path, slope in elasticities(inputs).items()
        if path.endswith((".latency_s", ".step_s", ".chunk_s"))
    )
    # latencies of links, ring steps and chunks are part of a transfer or of a start
    started = share_of(seconds, step_s, (".start",))
    assert moved - latency <= -bandwidths * (1 + 1e-9)
    assert -bandwidths <= (moved + started) * (1 + 1e-9)


@over_jobs
@pytest.mark.parametrize("sharpness", [None, 8.0])
def test_rates_are_tokens_over_the_step(name, sharpness):
    inputs = with_stages(off_lattice(job(name), 4), 1.0)
    m, w = predict(inputs, sharpness), inputs[2]
    if "decode" in name:
        a, d = w.acceptance[0], w.draft_tokens
        np.testing.assert_allclose(m.tokens_per_step, 1.0 + a * d, rtol=1e-12)
        np.testing.assert_allclose(m.tpot_s * m.tokens_per_step, m.step_time_s)
        rate = w.sequences_per_device / m.tpot_s
    else:
        rate = w.tokens_per_device / m.ttft_s
    np.testing.assert_allclose(m.tokens_per_s_per_device, rate, rtol=1e-12)


@pytest.mark.parametrize("name", PREFILL)
def test_batches_follow_each_other_faster_than_one_passes_a_pipeline(name):
    inputs = with_stages(job(name), 4.0)
    m, w = predict(inputs), inputs[2]
    assert m.tokens_per_s_per_device > 1.01 * w.tokens_per_device / m.ttft_s


@pytest.mark.parametrize("name", SHIPPED)
def test_totals_are_per_device_times_devices(name):
    inputs = job(name)
    m, layout = predict(inputs), inputs[3]
    devices = float(np.prod(layout.factor[:4]))
    per_package = 2.0 if "cloudmatrix384" in name else 1.0
    np.testing.assert_allclose(m.tokens_per_s, m.tokens_per_s_per_device * devices)
    np.testing.assert_allclose(
        m.tokens_per_s_per_package, m.tokens_per_s_per_device * per_package
    )


@over_jobs
def test_energy_is_power_over_rate(name):
    m = predict(off_lattice(job(name), 5))
    np.testing.assert_allclose(m.energy_per_token_j * m.tokens_per_s, m.power_w)


@over_jobs
def test_memory_adds_up_by_class(name):
    m = predict(off_lattice(job(name), 6))
    classes = (
        m.memory_weights_bytes,
        m.memory_kv_cache_bytes,
        m.memory_communication_bytes,
        m.memory_activations_bytes,
    )
    np.testing.assert_allclose(m.memory_bytes, sum(classes), rtol=1e-12)
    assert min(map(float, classes)) >= 0.0


@over_jobs
def test_excess_is_what_does_not_fit(name):
    inputs = job(name)
    used = float(predict(inputs).memory_bytes)
    capacity = float(inputs[0].chip.memory_usable_bytes)
    for share in (0.5, 2.0):
        leaf = {"chip.memory_usable_bytes": used * share / capacity}
        excess = float(predict(on_machine(inputs, leaf)).memory_excess_bytes)
        assert excess == pytest.approx(max(used * (1.0 - share), 0.0), rel=1e-9)


@pytest.mark.parametrize("name", DECODE)
@pytest.mark.parametrize("sharpness", [None, 8.0])
def test_a_step_is_its_repeated_layers_and_the_rest(name, sharpness):
    """Holds for any split, so it is checked by adding layers, not by the split."""
    system, a, w, layout, theta = host_in_front(job(name))
    dense = "gqa" in name
    more = deeper(a, 7.0)
    base = predict((system, a, w, layout, theta), sharpness)
    grown = predict((system, more, w, layout, theta), sharpness)
    repeated = base.step_time_s - base.iteration_rest_s
    if dense:
        expected = repeated * 7.0 / a.layers
        np.testing.assert_allclose(
            grown.step_time_s - base.step_time_s, expected, rtol=1e-9
        )
    else:
        expected = 7.0 * base.layer_time_s
        np.testing.assert_allclose(
            grown.step_time_s - base.step_time_s, expected, rtol=1e-9
        )
    np.testing.assert_allclose(grown.iteration_rest_s, base.iteration_rest_s, rtol=1e-9)
