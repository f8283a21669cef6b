"""Relaxations: bounded, monotone, homogeneous, and exact in the limit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmxjax import smooth

# Times from a nanosecond to hours, and sharpness from "nothing overlaps" upwards.
seconds = st.floats(1e-9, 1e4)
sharpnesses = st.floats(1.0, 1e6)
counts = st.floats(0.0, 1e5)

# Eight digits: sums of a few doubles, and the floor of 1e-15 s under the square root.
CLOSE = {"rtol": 1e-8, "atol": 2e-15}


@settings(deadline=None)
@given(seconds, seconds, sharpnesses)
def test_relaxed_maximum_exceeds_the_longer_time_by_at_most_one_part_in_sharpness(
    a, b, sharpness
):
    # (sqrt(d^2 + 4ab/s^2) - d) / 2 <= sqrt(ab) / s <= max(a, b) / s
    relaxed = float(smooth.maximum(a, b, sharpness))
    longest = max(a, b)
    assert relaxed >= longest * (1 - 1e-12)
    assert relaxed <= longest * (1 + 1 / sharpness) * (1 + 1e-12) + 1e-15


@settings(deadline=None)
@given(seconds, seconds, sharpnesses)
def test_relaxed_minimum_lies_below_the_shorter_time_by_at_most_one_part_in_sharpness(
    a, b, sharpness
):
    relaxed = float(smooth.minimum(a, b, sharpness))
    shortest, rounding = min(a, b), 1e-15 * max(a, b) * 4 + 1e-15
    assert relaxed <= shortest + rounding
    assert relaxed >= shortest * (1 - 1 / sharpness) - rounding


@settings(deadline=None)
@given(seconds, seconds)
def test_maximum_at_sharpness_one_is_the_sum(a, b):
    np.testing.assert_allclose(smooth.maximum(a, b, 1.0), a + b, **CLOSE)


@pytest.mark.parametrize("sharpness", [None, 1.0, 3.0, 1e3])
@settings(deadline=None, max_examples=50)
@given(a=seconds, b=seconds, factor=st.floats(1e-3, 1e3))
def test_maximum_is_homogeneous_of_degree_one(sharpness, a, b, factor):
    scaled = smooth.maximum(factor * a, factor * b, sharpness)
    # the floor of 1e-15 s under the square root adds at most half of it on either side
    expected = factor * smooth.maximum(a, b, sharpness)
    np.testing.assert_allclose(scaled, expected, rtol=1e-9, atol=1e-15 * (1 + factor))


@pytest.mark.parametrize("sharpness", [None, 1.0, 3.0, 1e3])
@settings(deadline=None, max_examples=50)
@given(a=seconds, b=seconds, more=st.floats(1.0, 1e3))
def test_maximum_and_minimum_never_fall_when_an_activity_gets_longer(
    sharpness, a, b, more
):
    rounding = 1e-14 * (a * more + b) + 1e-15
    for combine in (smooth.maximum, smooth.minimum):
        grown, before = combine(a * more, b, sharpness), combine(a, b, sharpness)
        assert float(grown) >= float(before) - rounding


@settings(deadline=None)
@given(seconds, seconds, sharpnesses)
def test_maximum_and_one_step_blunter_minimum_share_out_the_sum(a, b, sharpness):
    sharper = sharpness if sharpness is None else sharpness + 1.0
    both = smooth.maximum(a, b, sharper) + smooth.minimum(a, b, sharpness)
    np.testing.assert_allclose(both, a + b, **CLOSE)


@settings(deadline=None)
@given(seconds, seconds, sharpnesses)
def test_maximum_treats_both_activities_alike(a, b, sharpness):
    one, other = smooth.maximum(a, b, sharpness), smooth.maximum(b, a, sharpness)
    np.testing.assert_allclose(one, other, rtol=1e-12)


@pytest.mark.parametrize("sharpness", [None, 1.0, 2.0, 1e6])
@pytest.mark.parametrize("times", [(0.0, 0.0), (0.0, 1e-6), (1e-6, 1e-6), (1e4, 1e-9)])
@pytest.mark.parametrize("combine", [smooth.maximum, smooth.minimum])
def test_slopes_of_maximum_and_minimum_lie_between_zero_and_one(
    combine, times, sharpness
):
    slopes = jax.grad(lambda t: combine(t[0], t[1], sharpness))(jnp.array(times))
    assert np.isfinite(slopes).all()
    assert (slopes >= -1e-9).all()
    assert (slopes <= 1 + 1e-9).all()


@pytest.mark.parametrize("times", [(0.0, 0.0), (2e-6, 5e-6)])
def test_gradient_with_respect_to_sharpness_is_finite(times):
    slope = jax.grad(lambda s: smooth.maximum(*times, s))(2.0)
    assert np.isfinite(slope)


@settings(deadline=None, max_examples=50)
@given(st.lists(seconds, min_size=4, max_size=4))
def test_maximum_of_many_is_their_maximum_in_the_exact_model(times):
    assert float(smooth.maximum_of(times, None)) == max(times)


@settings(deadline=None, max_examples=50)
@given(st.lists(seconds, min_size=4, max_size=4))
def test_maximum_of_many_converges_to_the_exact_one(times):
    # three folds, each at most one part in 1e6 above the longer of its two
    relaxed = float(smooth.maximum_of(times, 1e6))
    assert max(times) * (1 - 1e-12) <= relaxed <= max(times) * (1 + 3.1e-6) + 1e-14


@pytest.mark.parametrize("count", [5, 16])
@pytest.mark.parametrize("sharpness", [2.0, 64.0])
def test_the_largest_of_many_exceeds_it_no_more_than_a_few_would(count, sharpness):
    """k folds, each by at most 1 / (1 + k (s - 1)): below exp(1 / (s - 1)) together."""
    equal = np.full(count, 3e-6)
    for longest in (smooth.largest, lambda x, s: smooth.maximum_of(list(x), s)):
        relaxed = float(longest(jnp.asarray(equal), sharpness))
        assert 3e-6 <= relaxed <= 3e-6 * np.exp(1.0 / (sharpness - 1.0))
        serial = float(longest(jnp.asarray(equal), 1.0))
        np.testing.assert_allclose(serial, count * 3e-6, rtol=1e-9)


def test_maximum_of_one_activity_is_itself():
    assert float(smooth.maximum_of([3e-6], 2.0)) == 3e-6


@settings(deadline=None)
@given(
    a=seconds,
    b=seconds,
    exposed=st.floats(0.0, 1.0),
    sharpness=st.none() | sharpnesses,
)
def test_overlapped_time_lies_between_the_maximum_and_the_sum(a, b, exposed, sharpness):
    time = float(smooth.overlap_s(a, b, exposed, sharpness))
    assert max(a, b) * (1 - 1e-12) <= time <= (a + b) * (1 + 1e-12) + 1e-15


@pytest.mark.parametrize("sharpness", [None, 1.0, 7.0])
def test_nothing_hides_where_everything_is_exposed(sharpness):
    np.testing.assert_allclose(smooth.overlap_s(2e-6, 5e-6, 1.0, sharpness), 7e-6)


def test_the_exposed_share_of_the_shorter_activity_adds_to_the_longer_one():
    np.testing.assert_allclose(smooth.overlap_s(2e-6, 5e-6, 0.25, None), 5.5e-6)


@settings(deadline=None)
@given(st.integers(0, 100_000), sharpnesses)
def test_a_whole_number_is_its_own_ceiling_at_any_sharpness(whole, sharpness):
    assert float(smooth.ceil(float(whole), sharpness)) == whole
    assert float(smooth.ceil(float(whole), None)) == whole


@settings(deadline=None)
@given(counts, sharpnesses)
def test_relaxed_ceiling_lies_between_the_number_and_its_ceiling(x, sharpness):
    rounded = float(smooth.ceil(x, sharpness))
    assert x - 1e-9 <= rounded <= np.ceil(x) + 1e-9


@settings(deadline=None)
@given(counts)
def test_ceiling_at_sharpness_one_is_the_number(x):
    np.testing.assert_allclose(smooth.ceil(x, 1.0), x, rtol=1e-12, atol=1e-12)


@settings(deadline=None)
@given(st.integers(0, 1000), st.floats(1e-2, 1.0))
def test_relaxed_ceiling_converges_to_the_exact_one(whole, part):
    # what is missing is (1 - f) / (1 + (s - 1) f), under 1 / (s f)
    x, sharpness = whole + part, 1e6
    missing = np.ceil(x) - float(smooth.ceil(x, sharpness))
    assert -1e-9 <= missing <= 1.0 / (sharpness * 1e-2) + 1e-9


@settings(deadline=None)
@given(counts, st.floats(0.0, 3.0), sharpnesses)
def test_ceiling_never_falls(x, more, sharpness):
    for s in (sharpness, None):
        assert float(smooth.ceil(x + more, s)) >= float(smooth.ceil(x, s)) - 1e-9


@pytest.mark.parametrize("sharpness", [1.0, 4.0, 1e4])
@pytest.mark.parametrize("x", [0.0, 0.5, 3.0, 2.999])
def test_slope_of_the_relaxed_ceiling_is_finite_and_positive(x, sharpness):
    slope = float(jax.grad(lambda y: smooth.ceil(y, sharpness))(x))
    assert 0.0 < slope <= sharpness


def test_what_is_not_there_has_a_gate_of_zero_at_any_sharpness():
    assert [float(smooth.positive(0.0, s)) for s in (None, 1.0, 1e4)] == [0.0, 0.0, 0.0]


@settings(deadline=None)
@given(st.floats(0.1, 1e4))
def test_the_gate_of_what_is_there_converges_to_one(count):
    assert float(smooth.positive(count, None)) == 1.0
    # 1 - s x / (1 + s x) < 1 / (s x)
    assert 1.0 - float(smooth.positive(count, 1e6)) <= 1.0 / (1e6 * 0.1)


def test_slope_of_the_gate_is_finite_where_nothing_is_there():
    for sharpness in (None, 1.0, 1e4):
        slope = jax.grad(lambda x, s=sharpness: smooth.positive(x, s))(0.0)
        assert np.isfinite(slope)


def test_a_protocol_gate_is_half_open_at_its_threshold():
    assert float(smooth.gate(1.0)) == 0.5


def test_a_protocol_gate_is_closed_well_below_and_open_well_above_its_threshold():
    # 32nd powers: a factor of two is 4e9, a tenth more is 21
    np.testing.assert_allclose(smooth.gate(0.5), 1 / (1 + 2.0**32), rtol=1e-12)
    np.testing.assert_allclose(smooth.gate(1.1), 1 / (1 + 1.1**-32), rtol=1e-12)
    np.testing.assert_allclose(smooth.gate(10.0), 1.0, rtol=2e-8)
    assert float(smooth.gate(0.0)) == 0.0


@settings(deadline=None)
@given(st.floats(0.0, 1e9), st.floats(1.0, 100.0))
def test_a_protocol_gate_never_closes_as_the_size_grows(ratio, more):
    assert float(smooth.gate(ratio * more)) >= float(smooth.gate(ratio)) - 1e-12


@pytest.mark.parametrize("ratio", [0.0, 1.0, 16.0, 1e12])
def test_slope_of_a_protocol_gate_is_finite(ratio):
    assert np.isfinite(jax.grad(smooth.gate)(ratio))


def test_annealing_multiplies_the_sharpness_by_the_same_factor_every_step():
    schedule = np.asarray(smooth.anneal(1.0, 1000.0, 4))
    np.testing.assert_allclose(schedule, [1.0, 10.0, 100.0, 1000.0], rtol=1e-12)


@pytest.mark.parametrize("sharpness", [None, 1.0, 50.0])
def test_relaxations_agree_on_arrays_and_on_single_numbers(sharpness):
    a, b = np.array([1e-6, 4e-6, 0.0]), np.array([3e-6, 2e-6, 5e-6])
    together = smooth.maximum(a, b, sharpness)
    apart = [float(smooth.maximum(x, y, sharpness)) for x, y in zip(a, b)]
    np.testing.assert_allclose(together, apart, rtol=1e-15)


@pytest.mark.parametrize("b", [2.0, np.array([1.0, 3.0, 2.5])])
@pytest.mark.parametrize("ours", [smooth.larger, smooth.smaller])
def test_exact_bounds_have_the_values_and_slopes_of_the_library_ones(ours, b):
    theirs = {smooth.larger: jnp.maximum, smooth.smaller: jnp.minimum}[ours]
    a = jnp.array([1.0, 2.0, 3.0])  # below, equal to and above 2
    args = (a, jnp.asarray(b))
    found = jax.jvp(ours, args, jax.tree.map(jnp.ones_like, args))
    expected = jax.jvp(theirs, args, jax.tree.map(jnp.ones_like, args))
    np.testing.assert_array_equal(found, expected)
    for place in (0, 1):
        slopes = [jax.grad(lambda *x: f(*x).sum(), place)(*args) for f in (ours, theirs)]  # noqa: B023
        np.testing.assert_array_equal(*slopes)
    assert np.isnan(ours(jnp.nan, 1.0))
    assert np.isnan(ours(1.0, jnp.nan))
    # at a tie both move by a half: 2 (1/2)^2
    for x, second in ((2.0, 0.5), (1.0, 0.0), (3.0, 2.0)):
        x = x if ours is smooth.larger else 4.0 - x
        assert float(jax.hessian(lambda y: ours(y, 2.0) ** 2)(x)) == second


@pytest.mark.parametrize("bound", [2.0, np.array([1.0, 3.0]), np.ones(2, np.float32)])
@pytest.mark.parametrize("ours", [smooth.larger, smooth.smaller])
def test_exact_bounds_may_be_constants_or_of_another_precision(ours, bound):
    theirs = {smooth.larger: jnp.maximum, smooth.smaller: jnp.minimum}[ours]
    for x in (jnp.asarray(2.5), jnp.asarray(2.5, jnp.float32)):
        for places in (0, (0, 1)):
            found, expected = (
                jax.jit(jax.value_and_grad(lambda y, b: f(y, b).sum(), places))(  # noqa: B023
                    x, jnp.asarray(bound)
                )
                for f in (ours, theirs)
            )
            for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected)):
                assert one.dtype == other.dtype
                np.testing.assert_array_equal(one, other)


def test_a_number_within_bounds():
    found = [float(smooth.within(x, 0.0, 1.0)) for x in (-1.0, 0.25, 2.0)]
    assert found == [0.0, 0.25, 1.0]
