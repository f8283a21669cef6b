"""Work of the operators of a model, counted by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from cmxjax.job.workload import Dtypes, sizes_of
from cmxjax.model.architecture import total_parameters
from cmxjax.specs.model_load import load_model
from cmxjax.specs.system_load import Reference
from cmxjax.work.attention import mixer_ops
from cmxjax.work.feed_forward import draft_ops, half_ops, tail_ops
from cmxjax.work.routing import expert_load
from cmxjax.work.serving import declared, decode_rows, prefill_rows
from cmxjax.work.table import FEATURES as OF_MIXERS
from cmxjax.work.table import Op, at_place, matrix_flop, sizes_by_name, tabulate

BF16 = sizes_of(Dtypes())
DEEPSEEK = load_model(Reference("deepseek-r1")).architecture
LLAMA = load_model(Reference("llama-3.1-70b")).architecture

# both models are gated and have no biases
NAMED = sizes_by_name(DEEPSEEK, BF16)

# DeepSeek-R1: hidden 7168, 128 heads, ranks 1536 and 512 + 64, head dims 128 + 64, 128.
MLA_DOWN = 7168 * (1536 + 512 + 64)
MLA_QUERY = 1536 * 128 * (128 + 64)
MLA_EXPAND = 512 * 128 * (128 + 128)
MLA_OUT = 128 * 128 * 7168
MLA = MLA_DOWN + MLA_QUERY + MLA_EXPAND + MLA_OUT
DEEPSEEK_DENSE = 3 * 7168 * 18432
EXPERT = 3 * 7168 * 2048
ROUTER = 7168 * 256
DEEPSEEK_HEAD = 129280 * 7168

# Llama-3.1-70B: hidden 8192, 64 heads and 8 key-value heads of 128, width 28672.
GQA = 8192 * (8192 + 2 * 1024) + 8192 * 8192
LLAMA_FFN = 3 * 8192 * 28672
LLAMA_HEAD = 128256 * 8192

DENSE, MIXTURE = 0, 1
"""Places of the feed-forward halves."""

FEATURES = {
    "one": 1.0,
    "tokens": 0.0,
    "routed_rows": 0.0,
    "shared_rows": 0.0,
    "norm_rows": 0.0,
    "down_rows": 0.0,
    "head_rows": 0.0,
    "up_rows": 0.0,
    "out_rows": 0.0,
    "ffn_rows": 0.0,
    "expert_rows": 0.0,
    "logit_rows": 0.0,
    "draft_logit_rows": 0.0,
    "batch_tokens": 0.0,
    "pairs": 0.0,
    "kv_read": 0.0,
    "kv_write": 0.0,
    "kv_expanded": 0.0,
    "per_heads": 1.0,
    "per_kv": 1.0,
    "per_out": 1.0,
    "per_ffn": 1.0,
    "per_shared": 1.0,
    "per_head": 1.0,
    "per_etp": 1.0,
    "experts": 1.0,
    "local_heads": 1.0,
}

ROWS = (
    "tokens",
    "routed_rows",
    "shared_rows",
    "norm_rows",
    "down_rows",
    "head_rows",
    "up_rows",
    "out_rows",
    "ffn_rows",
    "logit_rows",
    "batch_tokens",
)


def table(ops, tokens=0.0, sizes=NAMED, **features):
    """A table on one device, where every projection sees the same tokens."""
    values = {**FEATURES, **dict.fromkeys(ROWS, tokens), **features}
    values |= {at_place(name, 0): values.get(name, 0.0) for name in OF_MIXERS}
    return tabulate(ops, {k: jnp.asarray(v, float) for k, v in values.items()}, sizes)


def flop(ops, tokens, **features):
    return float(matrix_flop(table(ops, tokens, **features)).sum())


def weight_bytes(ops, sizes=NAMED, **features):
    """What is read even with no token at all: the weights."""
    return float(table(ops, 0.0, sizes, **features).memory_bytes.sum())


def column(tab, name, values):
    return float(values[tab.names.index(name)])


TOKENS, CONTEXT = 96.0, 4224.0


def test_flop_of_a_deepseek_decode_layer_by_hand():
    # absorbed: query and value pass through the latents, scores and values are 576 and
    # 512 wide; 8 experts and the shared one
    ops = mixer_ops(DEEPSEEK, BF16, 0, decodes=True)
    ops += half_ops(DEEPSEEK, MIXTURE, True)
    counted = flop(
        ops,
        TOKENS,
        pairs=TOKENS * CONTEXT,
        local_heads=128.0,
        expert_rows=TOKENS / 32,
        experts=256.0,
    )
    scores = 128 * CONTEXT * (576 + 512)
    by_hand = 2 * TOKENS * (MLA + scores + ROUTER + 9 * EXPERT)
    assert counted == pytest.approx(by_hand, rel=1e-12)


def test_flop_of_a_deepseek_prefill_layer_by_hand():
    # expanded: scores and values are 192 and 128 wide
    ops = mixer_ops(DEEPSEEK, BF16, 0, decodes=False)
    counted = flop(ops, TOKENS, pairs=TOKENS * CONTEXT)
    scores = 128 * CONTEXT * (192 + 128)
    assert counted == pytest.approx(2 * TOKENS * (MLA + scores), rel=1e-12)


def test_flop_of_a_llama_layer_by_hand():
    ops = mixer_ops(LLAMA, BF16, 0, decodes=True) + half_ops(LLAMA, DENSE, True)
    counted = flop(ops, TOKENS, pairs=TOKENS * CONTEXT)
    scores = 64 * CONTEXT * (128 + 128)
    by_hand = 2 * TOKENS * (GQA + scores + LLAMA_FFN)
    assert counted == pytest.approx(by_hand, rel=1e-12)


def test_a_group_of_devices_shares_the_flop_of_a_layer(problem):
    # 8 GPUs, 16 requests each: every GPU does an eighth of the work of all 128
    p = problem("llama-3.1-70b-decode-gb200-nvl72")
    features = decode_rows(p.model, p.workload, p.layout, 1.0)
    ops = mixer_ops(LLAMA, BF16, 0, decodes=True) + half_ops(LLAMA, DENSE, True)
    counted = float(matrix_flop(tabulate(ops, features, NAMED)).sum())
    scores = 64 * 4096 * (128 + 128)
    assert counted == pytest.approx(2 * 16 * (GQA + scores + LLAMA_FFN), rel=1e-12)


def test_flop_of_the_output_head_by_hand():
    assert flop(tail_ops(LLAMA), TOKENS) == pytest.approx(2 * TOKENS * LLAMA_HEAD)


def test_flop_of_the_draft_projection_by_hand():
    # hidden state and embedding of the next token side by side
    counted = flop(draft_ops(DEEPSEEK), TOKENS)
    assert counted == pytest.approx(2 * TOKENS * 2 * 7168 * 7168)


def test_absorbed_and_expanded_attention_multiply_by_the_same_weights():
    absorbed, expanded = (
        flop(mixer_ops(DEEPSEEK, BF16, 0, decodes=a), TOKENS, local_heads=128.0)
        for a in (True, False)
    )
    assert absorbed == pytest.approx(expanded, rel=1e-12)


def test_absorbed_scores_cost_more_flop_and_expanded_ones_more_bytes():
    pairs, tokens = 1e6, 1e3
    tables = {
        a: table(
            mixer_ops(DEEPSEEK, BF16, 0, decodes=a),
            pairs=pairs,
            kv_read=tokens,
            kv_expanded=tokens,
        )
        for a in (True, False)
    }
    scores = {a: float(matrix_flop(t).sum()) for a, t in tables.items()}
    assert scores[True] / scores[False] == pytest.approx((576 + 512) / (192 + 128))
    absorbed = column(tables[True], "latent attention", tables[True].memory_bytes)
    expanded = column(tables[False], "expanded attention", tables[False].memory_bytes)
    assert absorbed == 576 * 2 * tokens
    assert expanded == 128 * (192 + 128) * 2 * tokens


def test_weights_of_an_mla_block_are_its_parameters():
    for absorbed in (True, False):
        ops = mixer_ops(DEEPSEEK, BF16, 0, absorbed)
        assert weight_bytes(ops, local_heads=128.0) == 2 * MLA


def test_weights_of_a_gqa_block_are_its_parameters():
    assert weight_bytes(mixer_ops(LLAMA, BF16, 0, decodes=True)) == 2 * GQA


def test_weights_of_all_llama_operators_are_the_published_parameters():
    layer = mixer_ops(LLAMA, BF16, 0, decodes=True) + half_ops(LLAMA, DENSE, True)
    total = 80 * weight_bytes(layer) + weight_bytes(tail_ops(LLAMA))
    assert total == 2 * (80 * (GQA + LLAMA_FFN) + LLAMA_HEAD)
    # with the embedding table, which is looked up and not multiplied, 70.6 billion;
    # what is missing are norms
    assert total / 2 + LLAMA_HEAD == pytest.approx(70.6e9, rel=1e-3)
    assert total / 2 + LLAMA_HEAD == pytest.approx(
        float(total_parameters(LLAMA)), rel=1e-4
    )


def test_weights_of_all_deepseek_operators_are_the_published_parameters():
    attention = weight_bytes(
        mixer_ops(DEEPSEEK, BF16, 0, decodes=True), local_heads=128.0
    )
    dense = weight_bytes(half_ops(DEEPSEEK, DENSE, True))
    mixture = weight_bytes(half_ops(DEEPSEEK, MIXTURE, True), experts=256.0)
    head = weight_bytes(tail_ops(DEEPSEEK))
    total = 61 * attention + 3 * dense + 58 * mixture + head
    by_hand = 61 * MLA + 3 * DEEPSEEK_DENSE + 58 * (257 * EXPERT + ROUTER) + DEEPSEEK_HEAD
    assert total == 2 * by_hand
    assert total / 2 + DEEPSEEK_HEAD == pytest.approx(671e9, rel=1e-3)
    assert total / 2 + DEEPSEEK_HEAD == pytest.approx(
        float(total_parameters(DEEPSEEK)), rel=1e-4
    )


def test_eight_bit_weights_halve_all_but_the_absorbed_projections_and_the_router():
    int8 = sizes_of(Dtypes(weight="int8", activation="int8"))
    named = sizes_by_name(DEEPSEEK, int8)
    attention = mixer_ops(DEEPSEEK, int8, 0, decodes=True)
    # keys and values are expanded in the format of attention, here bf16
    assert weight_bytes(attention, named, local_heads=128.0) == MLA + MLA_EXPAND
    experts = half_ops(DEEPSEEK, MIXTURE, False)
    assert weight_bytes(experts, named, experts=2.0) == 2 * EXPERT + 2 * ROUTER


@pytest.mark.parametrize("shared_here", [True, False])
def test_the_shared_expert_is_computed_here_or_sent_away(shared_here):
    ops = half_ops(DEEPSEEK, MIXTURE, shared_here)
    expected = 2 * TOKENS * (ROUTER + (EXPERT if shared_here else 0))
    assert flop(ops, TOKENS) == pytest.approx(expected)


def cache_bytes(p, **changes):
    """Bytes that attention reads from the cache in a decode step of one layer."""
    w = p.workload.replace(**{k: jnp.asarray(v, float) for k, v in changes.items()})
    features = decode_rows(p.model, w, p.layout, 1.0)
    sizes = w.software.sizes
    ops = mixer_ops(p.model, sizes, 0, decodes=True)
    tab = tabulate(ops, features, sizes_by_name(p.model, sizes))
    latent = "latent attention" in tab.names
    name = "latent attention" if latent else "attention"
    return column(tab, name, tab.memory_bytes)


def test_mla_reads_576_elements_of_every_token_in_a_layer(problem):
    p = problem("deepseek-r1-decode-cloudmatrix384")
    assert cache_bytes(p, sequences_per_device=3.0, kv_tokens=1000.0) == pytest.approx(
        3 * 1000 * (512 + 64) * 2
    )


def test_gqa_reads_keys_and_values_of_every_token_in_a_layer(problem):
    # 8 GPUs hold one of 8 key-value heads each, for the requests of all 8
    p = problem("llama-3.1-70b-decode-gb200-nvl72")
    read = cache_bytes(p, sequences_per_device=3.0, kv_tokens=1000.0)
    assert read == pytest.approx(3 * 1000 * 2 * 8 * 128 * 2)


def test_key_value_heads_are_not_split_finer_than_they_are(problem):
    # 16 GPUs hold 8 key-value heads twice
    p = problem("llama-3.1-70b-decode-gb200-nvl72", layout__devices=16, layout__tp=16)
    read = cache_bytes(p, sequences_per_device=3.0, kv_tokens=1000.0)
    assert read == pytest.approx(2 * 3 * 1000 * 2 * 8 * 128 * 2)


def test_drafts_share_one_read_of_the_cache(problem):
    p = problem("deepseek-r1-decode-cloudmatrix384")
    assert cache_bytes(p, draft_tokens=1.0) == cache_bytes(p, draft_tokens=0.0)


def test_an_eight_bit_cache_is_half_as_large(problem):
    p = problem("deepseek-r1-decode-cloudmatrix384", dtypes__kv="int8")
    read = cache_bytes(p, sequences_per_device=1.0, kv_tokens=1000.0)
    assert read == pytest.approx(1000 * 576)


def test_every_draft_token_attends_to_the_whole_context(problem):
    p = problem("deepseek-r1-decode-cloudmatrix384")
    features = decode_rows(p.model, p.workload, p.layout, 1.0)
    assert float(features["pairs.0"]) == 48 * 2 * 4224


def pairs(problem, **workload):
    p = problem(
        "gpt-3-175b-prefill-cloudmatrix384",
        **{f"workload__{k}": v for k, v in workload.items()},
    )
    return float(prefill_rows(p.model, p.workload, p.layout, 1.0)["pairs.0"])


def test_causal_prefill_computes_half_of_the_square(problem):
    # a tp group of 16 holds 16 x 1024 tokens, 8 prompts of 2048
    square = 8 * 2048 * 2048
    assert pairs(problem) == pytest.approx(8 * 2048 * 2049 / 2)
    assert pairs(problem) / square == pytest.approx(0.5, rel=1e-3)


def test_a_cached_prefix_is_attended_to_but_not_computed(problem):
    # 1024 new tokens of each prompt see 1024 cached ones and half of their own
    counted = pairs(problem, cached_fraction=0.5)
    assert counted == pytest.approx(8 * 1024 * (1024 + 1025 / 2))


def test_cached_and_computed_pairs_add_up_to_the_triangle(problem):
    # the cached half alone is a prompt of 1024
    cached = pairs(problem, tokens_per_device=512, prompt_tokens=1024)
    assert cached + pairs(problem, cached_fraction=0.5) == pytest.approx(pairs(problem))


def test_microbatches_split_the_work_and_read_the_weights_again(problem):
    p = problem("deepseek-r1-decode-cloudmatrix384")
    ops = mixer_ops(p.model, BF16, 0, decodes=True)
    whole, half = (
        tabulate(ops, decode_rows(p.model, p.workload, p.layout, n), NAMED)
        for n in (1.0, 2.0)
    )
    np.testing.assert_allclose(2 * matrix_flop(half), matrix_flop(whole))
    again = float((2 * half.memory_bytes - whole.memory_bytes).sum())
    assert again == pytest.approx(2 * MLA)


def load_of(problem, tokens, balance="random", **changes):
    p = problem("deepseek-r1-decode-cloudmatrix384", routing__balance=balance, **changes)
    count = jnp.asarray(tokens, float)
    return expert_load(p.model, p.layout, p.workload.software.balance, 0.0, count)


def one_rank(problem, tokens, **changes):
    """All 256 routed experts and no others on one rank."""
    alone = {
        "layout__devices": 1,
        "layout__dp": 1,
        "layout__ep": 1,
        "routing__experts_per_device": 256,
        "routing__shared_replicas": 0,
        "routing__redundant_experts": 0,
    }
    return load_of(problem, tokens, **alone, **changes)


@pytest.mark.parametrize("tokens", [0.25, 4.0, 32.0, 1024.0])
def test_an_expert_is_active_unless_no_token_chose_it(problem, tokens):
    # 8 copies on 256 experts: r = tokens / 32 each, and none with probability exp(-r)
    active = float(one_rank(problem, tokens).active)
    assert active == pytest.approx(256 * (1 - np.exp(-tokens / 32)))


@pytest.mark.parametrize(("tokens", "active"), [(0.25, 2.0), (4.0, 32.0), (64.0, 256.0)])
def test_forced_balance_deals_copies_out_in_turn(problem, tokens, active):
    # no expert gets a second copy before each has one
    load = one_rank(problem, tokens, balance="uniform")
    assert float(load.active) == pytest.approx(active)
    assert float(load.rows) == pytest.approx(max(8 * tokens / 256, 1.0))


def test_few_tokens_activate_as_many_experts_as_they_have_copies(problem):
    # a hundredth of a token: eight hundredths of an expert, not a whole one
    assert float(one_rank(problem, 0.01).active) == pytest.approx(0.08, rel=2e-4)


def test_many_tokens_activate_every_expert(problem):
    assert float(one_rank(problem, 1e4).active) == pytest.approx(256.0)


@pytest.mark.parametrize("tokens", [0.25, 4.0, 1024.0])
def test_active_experts_compute_every_copy(problem, tokens):
    load = one_rank(problem, tokens)
    assert float(load.rows * load.active) == pytest.approx(8 * tokens)


def test_copies_to_replicas_of_the_shared_expert_are_counted(problem):
    # 320 ranks hold 256 + 32 + 32 experts, one each; 9 copies of 48 tokens fall on each
    load = load_of(problem, 48.0, "uniform")
    assert float(load.copies_per_token) == 9.0
    assert float(load.rows) == pytest.approx(9 * 48)


def test_only_active_experts_read_their_weights(problem):
    load = one_rank(problem, 4.0)
    ops = half_ops(DEEPSEEK, MIXTURE, False)
    read = weight_bytes(ops, experts=load.active) - 2 * ROUTER
    assert read == pytest.approx(2 * EXPERT * 256 * (1 - np.exp(-4 / 32)))


def test_a_vector_operator_does_no_matrix_work():
    op = Op("norm", "norms", "vector", "tokens", 7168.0, out_bytes=2.0, vector_flop=8.0)
    tab = table([op], tokens=10.0)
    assert float(matrix_flop(tab)[0]) == 0.0
    assert float(tab.vector_flop[0]) == 10 * 7168 * 8
    assert float(tab.memory_bytes[0]) == 10 * 7168 * 2


def test_a_gemm_moves_each_operand_once():
    op = Op(
        "g",
        "b",
        "gemm",
        "tokens",
        300.0,
        50.0,
        "experts",
        weight_bytes=1.0,
        in_bytes=2.0,
        out_bytes=4.0,
    )
    tab = table([op], tokens=10.0, experts=3.0)
    expected = 3 * (300 * 50 * 1 + 10 * 50 * 2 + 10 * 300 * 4)
    assert float(tab.memory_bytes[0]) == expected
    assert float(matrix_flop(tab)[0]) == 2 * 3 * 10 * 300 * 50


def test_splits_divide_the_columns_or_the_depth():
    wide = Op("a", "b", "gemm", "tokens", 64.0, 32.0, split_columns="per_heads")
    deep = Op("a", "b", "gemm", "tokens", 64.0, 32.0, split_depth="per_out")
    tab = table([wide, deep], tokens=1.0, per_heads=1 / 4, per_out=1 / 8)
    np.testing.assert_allclose(tab.columns, [16.0, 64.0])
    np.testing.assert_allclose(tab.depth, [32.0, 4.0])


def test_vector_work_of_experts_counts_all_of_them():
    # 32 rows in all, on one expert or on four
    ops = half_ops(DEEPSEEK, MIXTURE, False)
    one, four = (
        table(ops, expert_rows=32.0 / n, experts=n).vector_flop.sum() for n in (1.0, 4.0)
    )
    assert float(four) == pytest.approx(float(one))


def test_a_step_declares_every_block_of_the_model(problem):
    p = problem("deepseek-r1-decode-gb200-nvl72")
    ops = declared(p.model, p.layout, p.workload.software.sizes, decodes=True)
    assert {op.block for _, op in ops} == {
        "attention",
        "norms",
        "dense",
        "router",
        "experts",
        "shared",
        "embedding",
        "head",
        "draft",
    }
