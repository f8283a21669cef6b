"""Work of dense feed-forward networks, mixtures of experts, embedding and head.

Features used (all per device and micro-batch):
    tokens: tokens whose experts, embedding or norm this device computes
    routed_rows: tokens that it routes
    shared_rows, per_shared: tokens and split of the shared expert
    ffn_rows, per_ffn: tokens and split of the dense feed-forward network
    expert_rows, experts: rows of each active local expert, and how many are active
    per_etp: 1 / ways that an expert's width is split
    batch_tokens: tokens of the whole batch, all micro-batches together
    logit_rows, per_head: tokens and split of the output head
    draft_logit_rows: tokens of each draft step's head
"""

from .._types import Scalar
from ..model.architecture import Architecture
from ..model.feed_forwards import Dense, Experts
from .attention import NORM_FLOP
from .table import Op, at_place

ACTIVATION_FLOP = 10.0
"""Vector FLOP per element of SwiGLU or GELU with quantization of its result (assumed: an
exponential about six, divide, product, scale and round)."""


def _projections(
    a: Architecture,
    place: int,
    block: str,
    rows: str,
    width: Scalar,
    split: str,
    outer: Scalar,
    groups: str = "one",
) -> list[Op]:
    """Up (and gate), activation, down of a feed-forward half.

    Args:
        outer: width of what its networks read and put out.
    """
    stored = "shared weight" if block == "shared" else "weight"
    weight, activation = {at_place(stored, place): 1.0}, {"activation": 1.0}
    fused = 1.0 + a.feed_forwards[place].gated.on
    return [
        Op(
            f"{block} up",
            block,
            "gemm",
            rows,
            fused * width,
            outer,
            groups,
            split_columns=split,
            dtype="activation",
            weight_bytes=weight,
            in_bytes=activation,
            out_bytes=2.0,
        ),
        Op(
            f"{block} activation",
            block,
            "vector",
            rows,
            width,
            1.0,
            groups,
            split_columns=split,
            out_bytes={"one": 2.0, at_place("gated", place): 2.0, "activation": 1.0},
            vector_flop=ACTIVATION_FLOP,
        ),
        Op(
            f"{block} down",
            block,
            "gemm",
            rows,
            outer,
            width,
            groups,
            split_depth=split,
            dtype="activation",
            weight_bytes=weight,
            in_bytes=activation,
            out_bytes=2.0,
        ),
    ]


def _norm(a: Architecture, half: Dense | Experts, rows: str) -> Op:
    """Norm in front of a feed-forward half, residual and quantization included."""
    return Op(
        "feed-forward norm",
        "norms",
        "vector",
        rows,
        half.norms * a.hidden,
        out_bytes={"one": 2.0 * 2.0, "activation": 1.0},
        vector_flop=NORM_FLOP,
        role="norm",
    )


def half_ops(a: Architecture, place: int, shared_here: bool) -> list[Op]:
    """Operators of a feed-forward half, and its norm.

    Args:
        place: which of the model's.
        shared_here: this device computes the shared expert on its own tokens, rather
            than sending them to ranks that hold it.
    """
    half = a.feed_forwards[place]
    if isinstance(half, Experts):
        return _expert_ops(a, half, place, shared_here)
    width = half.intermediate
    return [
        _norm(a, half, "norm_rows"),
        *_projections(a, place, "dense", "ffn_rows", width, "per_ffn", a.hidden),
    ]


def _expert_ops(a: Architecture, e: Experts, place: int, shared_here: bool) -> list[Op]:
    width, outer = e.intermediate, e.token_width(a.hidden)
    ops = [
        _norm(a, e, "routed_rows"),
        Op(
            "router",
            "router",
            "gemm",
            "routed_rows",
            e.routed + e.projected,
            a.hidden,
            dtype="bf16",
            weight_bytes=2.0,
            in_bytes=2.0,
            out_bytes=4.0,
            vector_flop=SELECT_FLOP,
            launches=2.0,
        ),
        *_projections(
            a, place, "experts", "expert_rows", width, "per_etp", outer, "experts"
        ),
    ]
    if shared_here and e.has_shared:
        shared = e.shared * width
        ops += _projections(
            a, place, "shared", "shared_rows", shared, "per_shared", a.hidden
        )
    return ops


def around_ops(a: Architecture, place: int) -> list[Op]:
    """Kernels around a mixture's GEMMs where its experts lie on the tensor group that has
    the tokens (the flag `joint`), so that no exchange does their work: copies are counted
    and sorted by expert, and what the experts put out is added up. A device alone has
    them in the rate of its experts, which is fitted."""
    e = a.feed_forwards[place]
    assert isinstance(e, Experts)
    width = e.token_width(a.hidden)
    return [
        Op("copies sorted", "router", "vector", "routed_rows", e.topk, launches=SORTS),
        Op(
            "outputs added",
            "router",
            "vector",
            "expert_rows",
            width,
            groups="experts",
            out_bytes={"joint": 2.0},
            launches={"joint": 1.0},
        ),
    ]


SORTS = {"joint": 2.0}
"""Launches that count and sort copies (assumed: one counts the rows of each expert, one
writes where each copy goes)."""

SELECT_FLOP = 20.0
"""Vector FLOP per routing score: sigmoid or softmax and the search for the top k
(assumed)."""


def tail_ops(a: Architecture) -> list[Op]:
    """Embedding and output head."""
    embedding = Op(
        "embedding",
        "embedding",
        "vector",
        "batch_tokens",
        a.hidden,
        out_bytes=4.0,
        vector_flop=1.0,
    )
    return [embedding, _head(a, "output head", "logit_rows")]


def _head(a: Architecture, name: str, rows: str) -> Op:
    return Op(
        name,
        "head",
        "gemm",
        rows,
        a.vocabulary,
        a.hidden,
        split_columns="per_head",
        dtype="head",
        weight_bytes={"head": 1.0},
        in_bytes={"head": 1.0},
        out_bytes=4.0,
        vector_flop=SOFTMAX_LOGIT_FLOP,
        launches=2.0,
    )


SOFTMAX_LOGIT_FLOP = 12.0
"""Vector FLOP per logit of the softmax or top-k that picks a token (assumed, as for the
scores of attention)."""


def draft_ops(a: Architecture) -> list[Op]:
    """What a draft step adds to its layer: projection of hidden state and next
    embedding, and the head on one token of each sequence.

    Reference: DeepSeek-V3, arXiv 2412.19437, section 2.2.
    """
    projection = Op(
        "draft projection",
        "draft",
        "gemm",
        "batch_tokens",
        a.hidden,
        2.0 * a.hidden,
        dtype="activation",
        weight_bytes={"weight": 1.0},
        in_bytes={"activation": 1.0},
        out_bytes=2.0,
    )
    return [projection, _head(a, "draft head", "draft_logit_rows")]
