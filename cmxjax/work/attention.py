"""Work of a mixer: grouped-query and latent (MLA) attention.

Features used (all per device and micro-batch):
    norm_rows: tokens whose norms this device computes
    down_rows: tokens whose down or fused projections this device computes
    head_rows: tokens of the group over which heads are split
    up_rows: tokens whose latents are expanded to keys and values (prefill)
    out_rows: tokens whose output projection this device computes
    per_heads: 1 / ways that heads are split; `per_out` that of the depth of the output
        projection
and, of each mixer by its place:
    pairs: query-key pairs of the group
    kv_read: tokens of key-value cache read, and `kv_write` written, by the group
    per_kv: 1 / ways that key-value heads are split
    local_heads: heads of a device
"""

from .._types import Leaf
from ..job.workload import Sizes
from ..model.architecture import Architecture
from ..model.compressed import Compressed
from ..model.grouped_query import GroupedQuery
from ..model.latent import Indexer, Latent
from ..model.mixers import Mixer
from ..model.recurrent import Recurrent
from .compressed import compressed_ops
from .recurrent import recurrent_ops
from .table import (
    INDEX_FLOP,
    SCAN,
    SOFTMAX_FLOP,
    Op,
    choice,
    gather,
    gemm,
    placed,
)

NORM_FLOP = 8.0
"""Vector FLOP per element (assumed: residual, square, sum, two products, and scale,
round and convert of the quantization)."""


def index_excess_bytes(at: Mixer, sizes: Sizes) -> Leaf | float:
    """Bytes of a token's index keys beyond those that they had in the cache's format."""
    return at.index_keys * (sizes.indexer - sizes.kv)


def mixer_ops(a: Architecture, sizes: Sizes, place: int, decodes: bool) -> list[Op]:
    """Operators of one mixer, norm and cache write included.

    Args:
        place: which of the model's mixers.
        decodes: MLA attends in the latent space, with the key and value expansions
            folded into query and output; otherwise keys and values are expanded, but for
            sparse attention, whose queries meet tokens of their own. Recurrences move on
            by a token; otherwise they compute chunks.

    Reference: DeepSeek-V2, arXiv 2405.04434, section 2.1 and appendix C (MLA);
    Ainslie et al., arXiv 2305.13245 (GQA).
    """
    at = a.mixers[place]
    if isinstance(at, Recurrent):
        ops = recurrent_ops(a, at, sizes, decodes)
    elif isinstance(at, Compressed):
        written = (at.head_dim + at.grown) * sizes.kv
        written = written + index_excess_bytes(at, sizes)
        core = [_query_and_output(2.0 * at.query), _cache_write(written)]
        ops = compressed_ops(a, at, sizes, core)
    elif isinstance(at, Latent):
        latent = decodes or at.indexer is not None
        core = _absorbed(at, sizes) if latent else _expanded(at, sizes)
        of = at.indexer
        index = _index(a, at, of, sizes) if of is not None and of.scans else []
        ops = [*_latent_projections(a, at), *index, *core]
    else:
        ops = _grouped_query(a, at, sizes)
    return [_norm(a, at), *(placed(op, place) for op in ops)]


def _norm(a: Architecture, at: Mixer) -> Op:
    return Op(
        "attention norm",
        "norms",
        "vector",
        "norm_rows",
        at.norms * a.hidden,
        out_bytes={"one": 2.0 * 2.0, "activation": 1.0},
        vector_flop=NORM_FLOP,
        role="norm",
    )


def _latent_projections(a: Architecture, at: Latent) -> list[Op]:
    return [
        gemm("query and latent down", "down_rows", at.down_width, a.hidden),
        gemm(
            "query up",
            "head_rows",
            at.heads * at.key_dim,
            at.query_depth(a.hidden),
            split_columns="per_heads",
        ),
        gemm(
            "output projection",
            "out_rows",
            a.hidden,
            at.heads * at.value_dim,
            split_depth="per_out",
        ),
    ]


def _index(a: Architecture, at: Latent, of: Indexer, sizes: Sizes) -> list[Op]:
    """Scores of all earlier tokens, of which the largest are chosen; every device of a
    group computes them for its own tokens.

    Reference: DeepSeek-V3.2, arXiv 2512.02556, section 2.1 and its published kernels,
    which keep an 8-bit key of each token whatever the cache's format.
    """
    width = of.heads * of.head_dim
    return [
        gemm("index query", "down_rows", width, at.query_rank),
        gemm("index key", "down_rows", of.head_dim + of.heads, a.hidden),
        Op(
            SCAN,
            "attention",
            "attention",
            "scanned",
            width,
            dtype="indexer",
            extra=("scan_read", of.head_dim * sizes.indexer),
            vector_flop=INDEX_FLOP / of.head_dim,
            role="core",
        ),
        choice(),
    ]


def _absorbed(at: Latent, sizes: Sizes) -> list[Op]:
    width = at.latent_width
    per_head = {
        "groups": "local_heads",
        "dtype": "attention",
        "weight_bytes": {"attention": 1.0},
        "in_bytes": {"attention": 1.0},
        "role": "core gemm",
    }
    return [
        gemm("query into latent", "head_rows", at.latent_dim, at.nope_dim, **per_head),
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
            role="core",
        ),
        _query_and_output(at.heads * (width + at.latent_dim)),
        *([gather(width * sizes.kv)] if at.sparse else []),
        gemm("latent into value", "head_rows", at.value_dim, at.latent_dim, **per_head),
        _cache_write(width * sizes.kv),
    ]


def _expanded(at: Latent, sizes: Sizes) -> list[Op]:
    key = at.key_dim
    return [
        gemm(
            "key and value up",
            "up_rows",
            at.heads * (at.nope_dim + at.value_dim),
            at.latent_dim,
            split_columns="per_heads",
            role="core gemm",
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
            role="core",
        ),
        _query_and_output(at.heads * (key + at.value_dim)),
        _cache_write(at.latent_width * sizes.kv),
    ]


def _grouped_query(a: Architecture, at: GroupedQuery, sizes: Sizes) -> list[Op]:
    pair = at.pair
    return [
        gemm(
            "query projection",
            "head_rows",
            at.query_columns,
            a.hidden,
            split_columns="per_heads",
        ),
        gemm(
            "key and value projection",
            "head_rows",
            at.projected_pair,
            a.hidden,
            split_columns="per_kv",
        ),
        Op(
            "attention",
            "attention",
            "attention",
            "pairs",
            at.met,
            split_columns="per_heads",
            dtype="attention",
            extra=("kv_read", pair * sizes.kv),
            vector_flop=SOFTMAX_FLOP / at.pair_dim,
            role="core",
        ),
        _query_and_output(at.value_width + at.query_columns),
        _cache_write(at.own_cache.on * pair * sizes.kv),
        gemm(
            "output projection",
            "out_rows",
            a.hidden,
            at.value_width,
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
        role="core",
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
        role="cache",
    )
