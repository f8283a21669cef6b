"""Work of compressed attention: a window, blocks, and the indexer that chooses of them.

Features are those of `attention`.
"""

from ..job.workload import Sizes
from ..model.architecture import Architecture
from ..model.compressed import Compressed
from ..model.latent import Indexer
from .table import INDEX_FLOP, SCAN, SOFTMAX_FLOP, Op, choice, gather, gemm

BLOCK_FLOP = 12.0
"""Vector FLOP of an element of a block's mean (assumed, as for scores: the softmax of its
weights, and the product)."""


def compressed_ops(
    a: Architecture, at: Compressed, sizes: Sizes, core: list[Op]
) -> list[Op]:
    """Operators of one mixer, without norm.

    Args:
        core: queries read and outputs written, and the cache written.

    Reference: DeepSeek-V4 technical report, section 2.3.
    """
    index = [] if at.indexer is None else _index(a, at, at.indexer, sizes)
    return [
        gemm("query, key and block down", "down_rows", at.down_width, a.hidden),
        gemm("query up", "head_rows", at.query, at.query_rank, split_columns="per_heads"),
        Op(
            "block means",
            "attention",
            "vector",
            "down_rows",
            at.block_width,
            out_bytes=2.0,
            vector_flop=0.5 * BLOCK_FLOP,
            role="core",
        ),
        *index,
        Op(
            "compressed attention",
            "attention",
            "attention",
            "pairs",
            2.0 * at.query,
            split_columns="per_heads",
            dtype="attention",
            extra=("kv_read", at.head_dim * sizes.kv),
            vector_flop=SOFTMAX_FLOP / (2.0 * at.head_dim),
            role="core",
        ),
        *([gather(at.head_dim * sizes.kv)] if at.sparse else []),
        *core,
        # each group of heads by itself: as many products as one that all would share
        gemm(
            "output down",
            "head_rows",
            at.output_rank,
            at.query,
            split_depth="per_heads",
        ),
        gemm(
            "output projection",
            "out_rows",
            a.hidden,
            at.output_groups * at.output_rank,
            split_depth="per_out",
        ),
    ]


def _index(a: Architecture, at: Compressed, of: Indexer, sizes: Sizes) -> list[Op]:
    """Scores of all entries, of which the largest are chosen; every device of a group
    computes them for its own tokens."""
    width = of.heads * of.head_dim
    return [
        gemm("index query", "down_rows", width, at.query_rank),
        gemm("index key", "down_rows", at.index_width, a.hidden),
        Op(
            SCAN,
            "attention",
            "attention",
            "scanned",
            width * at.share,
            dtype="indexer",
            extra=("scan_read", of.head_dim * at.share * sizes.indexer),
            vector_flop=INDEX_FLOP / of.head_dim,
            role="core",
        ),
        choice(at.share),
    ]
