"""Memory by hand: working buffers, expansions of latents, modules that draft."""

import numpy as np
import pytest
from jobs import job, predict

from cmxjax.memory.serving import weight_bytes

PREFILL = "deepseek-r1-prefill-cloudmatrix384"
"""8192 tokens a device with tp 32, in int8, two overlapped micro-batches."""
HIDDEN, HEADS, LAYERS = 7168, 128, 61
KEY, VALUE, LATENT, ROTARY = 192, 128, 512, 64


def activations(name=PREFILL, **changes) -> float:
    return float(predict(job(name, **changes)).memory_activations_bytes)


def hidden_states(tokens) -> float:
    return 4 * tokens * HIDDEN * 2


def expanded(tokens, kept) -> float:
    """Queries and outputs of the tokens, keys and values of all that are kept, bf16."""
    return (tokens + kept) * HEADS * (KEY + VALUE) * 2


def feed_forward(tokens) -> float:
    """Gate and up in bf16 and their product in int8: 8 experts and a shared one."""
    return tokens * 9 * 2048 * (2 * 2 + 1)


def test_prefill_holds_the_expanded_keys_and_values():
    tokens = 8192
    expected = hidden_states(tokens) + max(expanded(tokens, tokens), feed_forward(tokens))
    got = activations(layout__overlapped_microbatches=1)
    assert got == expected
    assert got > 1e9


def test_two_micro_batches_are_in_attention_and_experts_at_once():
    tokens = 8192
    half = (expanded(tokens, tokens) + feed_forward(tokens)) / 2
    assert activations() == hidden_states(tokens) + half


def test_cached_tokens_are_expanded_too_and_have_no_queries():
    tokens = 8192 * 0.5
    got = activations(
        layout__overlapped_microbatches=1,
        workload__cached_fraction=0.5,
        workload__cache_plane="ub",
    )
    assert got == hidden_states(tokens) + expanded(tokens, 8192)


def test_a_context_parallel_group_holds_the_expansions_of_all_its_tokens():
    one = activations(layout__overlapped_microbatches=1)
    two = activations(
        layout__overlapped_microbatches=1, layout__tp=16, layout__cp=2, layout__ep=32
    )
    assert two - one == expanded(0, 8192)


def test_the_faster_of_one_and_two_micro_batches_holds_what_one_does():
    auto = activations(layout__overlapped_microbatches="auto")
    assert auto == activations(layout__overlapped_microbatches=1)


def test_logits_can_be_the_largest_buffer():
    changes = {"model__vocabulary": 4e6, "layout__overlapped_microbatches": 1}
    tokens = 48 * 2
    got = activations("mla-decode", **changes)
    assert got == hidden_states(tokens) + tokens * 4e6 * 4


def weights(name="mla-decode", **changes) -> float:
    return float(predict(job(name, **changes)).memory_weights_bytes)


def test_absorbed_expansions_are_held_as_the_operators_read_them():
    """The operators of decode multiply by them in bf16, the other weights are int8."""
    _, a, w, layout, _ = job("mla-decode")
    stored = weight_bytes(a, layout, w.software, False, 1.0)
    expansion = LATENT * HEADS * (128 + VALUE)
    np.testing.assert_allclose(weights() - stored, (LAYERS + 1) * expansion, rtol=1e-6)


def test_absorbed_expansions_in_the_stored_dtype_take_no_more():
    _, a, w, layout, _ = job("mla-decode", dtypes__weight="bf16")
    args = (a, layout, w.software)
    assert float(weight_bytes(*args, True)) == float(weight_bytes(*args, False))


def test_without_drafts_their_module_and_its_cache_are_not_held():
    sequences, context = 48, 4224
    drafting = predict(job("mla-decode"))
    plain = predict(job("mla-decode", workload__draft_tokens=0))
    cache = sequences * context * (LATENT + ROTARY) * 2
    assert drafting.memory_kv_cache_bytes - plain.memory_kv_cache_bytes == cache
    layer = weights(model__draft_layers=2.0) - weights()
    held = drafting.memory_weights_bytes - plain.memory_weights_bytes
    np.testing.assert_allclose(held, layer, rtol=1e-9)
    assert layer > 2 * HIDDEN**2


def test_two_drafts_share_one_module():
    cache = [
        float(predict(job("mla-decode", workload__draft_tokens=n)).memory_kv_cache_bytes)
        for n in (1, 2)
    ]
    assert cache[0] == cache[1]


@pytest.mark.parametrize("field", ["memory_weights_bytes", "memory_kv_cache_bytes"])
def test_prefill_runs_and_holds_no_draft_module(field):
    one, none = (job(PREFILL, model__draft_layers=n) for n in (1.0, 0.0))
    assert getattr(predict(one), field) == getattr(predict(none), field)
