"""Work of one attention block: grouped-query and latent (MLA) attention.

Features used (all per device and micro-batch):
    norm_rows: tokens whose norms this device computes
    down_rows: tokens whose down or fused projections this device computes
    head_rows: tokens of the group over which heads are split
    up_rows: tokens whose latents are expanded to keys and values (prefill)
    out_rows: tokens whose output projection this device computes
    pairs: query-key pairs of the group
    kv_read: tokens of key-value cache read, and `kv_write` written, by the group
    per_heads: 1 / ways that heads are split; `per_kv` that of key-value heads
    per_out: 1 / ways that the depth of the output projection is split
"""

from ..job.workload import Sizes
from ..model.architecture import Architecture, GroupedQuery, Latent
from .table import Op

SOFTMAX_FLOP = 12.0
"""Vector FLOP per score (assumed: scale, maximum, subtract, sum and two conversions one
each, an exponential about six)."""

NORM_FLOP = 8.0
"""Vector FLOP per element (assumed: residual, square, sum, two products, and scale,
round and convert of the quantization)."""


def attention_ops(a: Architecture, sizes: Sizes, absorbed: bool) -> list[Op]:
    """Operators of one attention block, norm and cache write included.

    Args:
        absorbed: MLA attends in the latent space, with the key and value expansions
            folded into query and output (decode); otherwise keys and values are
            expanded (prefill). Ignored for grouped-query attention.

    Reference: DeepSeek-V2, arXiv 2405.04434, section 2.1 and appendix C (MLA);
    Ainslie et al., arXiv 2305.13245 (GQA).
    """
    norm = Op(
        "attention norm",
        "norms",
        "vector",
        "norm_rows",
        a.hidden,
        in_bytes=0.0,
        out_bytes={"one": 2.0 * 2.0, "activation": 1.0},
        vector_flop=NORM_FLOP,
    )
    if isinstance(a.attention, Latent):
        core = _absorbed if absorbed else _expanded
        return [norm, *_latent_projections(a), *core(a.attention, sizes)]
    return [norm, *_grouped_query(a, a.attention, sizes)]


def _gemm(name: str, rows: str, columns, depth, **more) -> Op:
    """A weight GEMM of the attention block."""
    settings = {
        "dtype": "activation",
        "weight_bytes": {"weight": 1.0},
        "in_bytes": {"activation": 1.0},
        "out_bytes": 2.0,
    }
    settings.update(more)
    return Op(name, "attention", "gemm", rows, columns, depth, **settings)


def _latent_projections(a: Architecture) -> list[Op]:
    at = a.attention
    assert isinstance(at, Latent)
    down = at.query_rank + at.latent_dim + at.rope_dim
    query = at.heads * (at.nope_dim + at.rope_dim)
    return [
        _gemm("query and latent down", "down_rows", down, a.hidden),
        _gemm(
            "query up",
            "head_rows",
            query,
            at.query_rank,
            split_columns="per_heads",
        ),
        _gemm(
            "output projection",
            "out_rows",
            a.hidden,
            at.heads * at.value_dim,
            split_depth="per_out",
        ),
    ]


def _absorbed(at: Latent, sizes: Sizes) -> list[Op]:
    width = at.latent_dim + at.rope_dim
    per_head = {
        "groups": "local_heads",
        "dtype": "attention",
        "weight_bytes": {"attention": 1.0},
        "in_bytes": {"attention": 1.0},
    }
    return [
        _gemm(
            "query into latent",
            "head_rows",
            at.latent_dim,
            at.nope_dim,
            **per_head,
        ),
        Op(
            "latent attention",
            "attention",
            "attention",
            "pairs",
            at.heads * (width + at.latent_dim),
            split_columns="per_heads",
            dtype="attention",
            extra=("kv_read", width * sizes.kv),
            vector_flop=SOFTMAX_FLOP / (width + at.latent_dim),
        ),
        _query_and_output(at.heads * (width + at.latent_dim)),
        _gemm(
            "latent into value",
            "head_rows",
            at.value_dim,
            at.latent_dim,
            **per_head,
        ),
        _cache_write(width * sizes.kv),
    ]


def _expanded(at: Latent, sizes: Sizes) -> list[Op]:
    key, both = at.nope_dim + at.rope_dim, at.nope_dim + at.value_dim
    return [
        _gemm(
            "key and value up",
            "up_rows",
            at.heads * both,
            at.latent_dim,
            split_columns="per_heads",
        ),
        Op(
            "expanded attention",
            "attention",
            "attention",
            "pairs",
            at.heads * (key + at.value_dim),
            split_columns="per_heads",
            dtype="attention",
            extra=("kv_expanded", at.heads * (key + at.value_dim) * sizes.attention),
            vector_flop=SOFTMAX_FLOP / (key + at.value_dim),
        ),
        _query_and_output(at.heads * (key + at.value_dim)),
        _cache_write((at.latent_dim + at.rope_dim) * sizes.kv),
    ]


def _grouped_query(a: Architecture, at: GroupedQuery, sizes: Sizes) -> list[Op]:
    query, pair = at.heads * at.head_dim, 2.0 * at.kv_heads * at.head_dim
    return [
        _gemm(
            "query projection",
            "head_rows",
            query,
            a.hidden,
            split_columns="per_heads",
        ),
        _gemm(
            "key and value projection",
            "head_rows",
            pair,
            a.hidden,
            split_columns="per_kv",
        ),
        Op(
            "attention",
            "attention",
            "attention",
            "pairs",
            2.0 * query,
            split_columns="per_heads",
            dtype="attention",
            extra=("kv_read", pair * sizes.kv),
            vector_flop=SOFTMAX_FLOP / (2.0 * at.head_dim),
        ),
        _query_and_output(2.0 * query),
        _cache_write(pair * sizes.kv),
        _gemm(
            "output projection",
            "out_rows",
            a.hidden,
            query,
            split_depth="per_out",
        ),
    ]


def _query_and_output(width) -> Op:
    """Queries read and outputs written by the attention kernel, rotary included."""
    return Op(
        "query and output",
        "attention",
        "vector",
        "head_rows",
        width,
        split_columns="per_heads",
        out_bytes={"attention": 1.0},
        vector_flop=2.0,
        launches=0.0,
    )


def _cache_write(width_bytes) -> Op:
    return Op(
        "cache write",
        "attention",
        "vector",
        "kv_write",
        width_bytes,
        out_bytes=1.0,
        vector_flop=1.0,
    )
