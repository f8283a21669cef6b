"""Formats, and tokens that a speculative decode step yields."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmxjax.job.workload import (
    BYTES,
    Decode,
    Dtypes,
    Software,
    balance_of,
    sizes_of,
    tokens_per_step,
)
from cmxjax.switch import switch

SOFTWARE = Software(
    sizes=sizes_of(Dtypes()),
    balance=balance_of("typical"),
    low_latency=switch(True),
)


def decode(drafts, acceptance):
    return Decode(
        sequences_per_device=jnp.asarray(8.0),
        kv_tokens=jnp.asarray(4096.0),
        draft_tokens=jnp.asarray(drafts, float),
        acceptance=jnp.asarray(acceptance, float),
        software=SOFTWARE,
    )


def tokens(drafts, *acceptance):
    return float(tokens_per_step(decode(drafts, acceptance)))


def test_a_step_without_drafts_yields_one_token():
    assert tokens(0, 0.7) == 1.0


def test_one_draft_adds_its_acceptance():
    assert tokens(1, 0.7) == pytest.approx(1.7)


def test_a_draft_counts_only_if_all_before_it_were_accepted():
    assert tokens(3, 0.9, 0.8, 0.5) == pytest.approx(1 + 0.9 + 0.72 + 0.36)


def test_drafts_of_one_acceptance_make_a_geometric_series():
    assert tokens(4, *[0.6] * 4) == pytest.approx((1 - 0.6**5) / (1 - 0.6))


def test_acceptances_beyond_the_drafts_do_not_count():
    assert tokens(1, 0.7, 0.9) == pytest.approx(1.7)


def test_part_of_a_draft_counts_by_its_fraction():
    assert tokens(1.5, 0.8, 0.5) == pytest.approx(1 + 0.8 + 0.5 * 0.4)


fractions = st.floats(0.0, 1.0)


@settings(deadline=None)
@given(st.integers(0, 4), st.lists(fractions, min_size=4, max_size=4))
def test_a_step_yields_between_one_token_and_one_more_than_it_drafts(drafts, acceptance):
    assert 1.0 <= tokens(drafts, *acceptance) <= 1.0 + drafts + 1e-12


@settings(deadline=None)
@given(
    st.floats(0.0, 4.0),
    st.lists(fractions, min_size=4, max_size=4),
    st.integers(0, 3),
    fractions,
)
def test_a_higher_acceptance_never_yields_less(drafts, acceptance, index, gain):
    better = list(acceptance)
    better[index] += gain * (1.0 - better[index])
    assert tokens(drafts, *better) >= tokens(drafts, *acceptance) - 1e-12


def test_steps_of_many_scenarios_are_counted_at_once():
    w = decode(1, [[0.7], [0.9]])
    np.testing.assert_allclose(tokens_per_step(w), [1.7, 1.9])


def test_slope_over_the_last_acceptance_is_the_chance_to_get_there():
    def count(acceptance):
        return tokens_per_step(decode(2, acceptance))

    slopes = jax.grad(count)(jnp.array([0.7, 0.5]))
    np.testing.assert_allclose(slopes, [1 + 0.5, 0.7])


@pytest.mark.parametrize(
    ("dtype", "bits"),
    [("fp32", 32), ("bf16", 16), ("fp16", 16), ("fp8", 8), ("int8", 8), ("int4", 4)],
)
def test_an_element_takes_the_bytes_of_its_bits(dtype, bits):
    assert BYTES[dtype] * 8 == bits


def test_every_default_format_has_a_size():
    assert set(Dtypes()) <= set(BYTES)


def test_sizes_and_formats_are_leaves():
    one = decode(1, [0.7])
    longer = one.replace(kv_tokens=jnp.asarray(1e5))
    smaller = SOFTWARE.replace(sizes=sizes_of(Dtypes(kv="int8")))
    quantized = one.replace(software=smaller)
    assert jax.tree.structure(longer) == jax.tree.structure(one)
    assert jax.tree.structure(quantized) == jax.tree.structure(one)
    assert float(quantized.software.sizes.kv) == 1.0


def test_a_given_skew_replaces_the_calibrated_one():
    assert float(balance_of("typical").skew_of(jnp.asarray(0.2))) == 0.2
    assert float(balance_of("typical", 0.7).skew_of(jnp.asarray(0.2))) == 0.7
    assert float(balance_of("typical", 0.0).skew_of(jnp.asarray(0.2))) == 0.0


def test_a_switch_is_no_condition_of_python():
    with pytest.raises(TypeError, match="a switch is a number"):
        bool(switch(True))
    assert float(switch(True).pick(2.0, 3.0)) == 2.0
    assert float(switch(False).pick(2.0, 3.0)) == 3.0
