"""Work of a training step: forward operators, and their gradients by transposition.

A GEMM of (M x K) by (K x N) has two gradients of the same work but other shapes: that
of its input is (M x N) by (N x K), that of its weight (K x M) by (M x N). So a small
batch is short in M forward and short in depth for the gradient of the weight.

Features used beside those of `attention` and `feed_forward`:
    pairs: query-key pairs of the tp group's tokens, causal ones only
    query_rows, batch_heads: rows of a score matrix, and how many matrices
    copies: token copies that a device's experts get
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from .._types import Scalar
from ..job.layout import Layout, degree
from ..job.workload import Sizes, Train
from ..model.architecture import Architecture
from ..model.compressed import Compressed
from ..model.feed_forwards import Experts
from ..model.grouped_query import GroupedQuery
from ..model.latent import Latent
from ..model.recurrent import Recurrent
from ..switch import either
from .attention import NORM_FLOP, SOFTMAX_FLOP, mixer_ops
from .feed_forward import half_ops
from .serving import split_rows
from .table import BIASED_GATE, CHOICE, Op, OpTable, at_place, evaluated, placed, tabulate

ELEMENT = 2.0
"""Bytes of an activation between kernels (bf16 or fp16)."""

BACKWARD_MOVES = 1.5
"""Memory moves of a vector kernel backward over forward: it reads the input and the
gradient and writes a gradient, where forward reads one and writes one."""

ATTENTION_BACKWARD = 2.5
"""Matrix work of fused attention backward over forward: five products for two, as the
scores are computed again (Dao, arXiv 2307.08691, section 4.1)."""

LOSS_MOVES = 24.0
"""Bytes per logit of an unfused loss, forward. Cast to fp32, maximum, difference,
exponential, sum and quotient move 38; the gradient 22: together 60, of which backward
takes `BACKWARD_MOVES` times as much as forward."""

PERMUTE_MOVES = 16.0
"""Bytes per element and copy: permuted, sorted by expert, and both undone, each a read
and a write."""

CAST_MOVES = 4.0
"""Bytes per element that is quantized: read, written, and written transposed."""

QUANTIZED = {"activation": "one", "head": "narrow_head"}
"""Tensor classes whose GEMMs may read 8 bits, and where they do."""

REPLACED = ("cache", "norm")
"""Roles of operators that training has others for, or none."""


def declared(
    a: Architecture,
    sizes: Sizes,
    sequence_tokens: Scalar,
    fused: bool,
    quantized: bool,
) -> list[tuple[str, Op]]:
    """Forward operators of a training step, each with its part; GEMMs come first.

    Parts are, by the place of each, `mixer` (projections, norm, residual), `core` (scores
    to context), `half` and, of a mixture, `shared`; `embedding`, `head` (with the loss)
    and `draft`.
    """
    declarations: list[tuple[str, Op]] = []
    for i, mixer in enumerate(a.mixers):
        core, ops = at_place("core", i), mixer_ops(a, sizes, i, decodes=False)
        for op in ops:
            if op.role != "core":
                declarations.append((at_place("mixer", i), op))
            elif fused or isinstance(mixer, Recurrent):
                declarations.append((core, op))
        wrap = _stream_ops(a, mixer.norms, "norm_rows")
        declarations += [(at_place("mixer", i), op) for op in wrap]
        if not (fused or isinstance(mixer, Recurrent)):
            declarations += [
                (core, placed(op, i)) for op in _unfused(a, mixer, sequence_tokens)
            ]
    for i, half in enumerate(a.feed_forwards):
        mixture = half is a.experts
        ops = half_ops(a, i, shared_here=True)
        ops += _stream_ops(a, half.norms, "tokens" if mixture else "norm_rows")
        if isinstance(half, Experts):
            ops += [*_permutation(a), _biased_gate(half)]
        declarations += [(part_of(op, i), op) for op in ops]
    declarations += [("embedding", _embedding(a)), *(("head", op) for op in _head(a))]
    declarations += [("draft", op) for op in _draft(a)]
    declarations = [(part, op) for part, op in declarations if op.role not in REPLACED]
    if quantized:
        declarations += [
            (part, _cast(op, sizes)) for part, op in declarations if op.dtype in QUANTIZED
        ]
    return sorted(declarations, key=lambda row: row[1].kind != "gemm")


def part_of(op: Op, place: int) -> str:
    """The part of an operator of a feed-forward half: shared experts are one of their
    own, as a tensor group splits them like a dense layer."""
    return at_place("shared" if op.block == "shared" else "half", place)


def _cast(op: Op, sizes: Sizes) -> Op:
    """Quantization of a GEMM's input; of the head's, where that reads 8 bits too."""
    there = QUANTIZED[op.dtype]
    return Op(
        f"{op.name} cast",
        op.block,
        "vector",
        op.rows,
        op.depth,
        1.0,
        op.groups,
        split_columns=op.split_depth,
        out_bytes={there: CAST_MOVES},
        vector_flop=2.0 if there == "one" else 2.0 * (sizes.head < ELEMENT),
        launches={there: 1.0},
    )


def _stream_ops(a: Architecture, norms: Scalar, rows: str) -> list[Op]:
    """Norms and residual of a block; older models add bias and dropout, with a mask."""
    return [
        Op(
            "norm",
            "norms",
            "vector",
            rows,
            norms * a.hidden,
            out_bytes=2.0 * ELEMENT,
            vector_flop=NORM_FLOP,
        ),
        Op(
            "residual",
            "norms",
            "vector",
            rows,
            a.hidden,
            out_bytes={"one": 3.0 * ELEMENT, "dropout": 1.0},
            vector_flop=3.0,
        ),
    ]


def _permutation(a: Architecture) -> list[Op]:
    return [
        Op(
            "permutation",
            "experts",
            "vector",
            "copies",
            a.hidden,
            out_bytes=PERMUTE_MOVES,
            vector_flop=1.0,
            launches=4.0,
        )
    ]


def _biased_gate(experts: Experts) -> Op:
    """Biases, limits and the gate of experts that have biases, one by one."""
    return Op(
        "biased gate",
        "experts",
        "vector",
        "copies",
        experts.intermediate,
        split_columns="per_etp",
        out_bytes={BIASED_GATE: 1.0},
        launches=0.0,
    )


def _unfused(
    a: Architecture, at: GroupedQuery | Latent | Compressed, sequence_tokens: Scalar
) -> list[Op]:
    """Scores, softmax and context as kernels of their own, on the full square.

    Reference: Korthikanti et al., arXiv 2205.05198, section 4.1 (what is stored).
    """
    key, value = at.key_dim, at.value_dim
    batched = {
        "groups": "batch_heads",
        "weight_bytes": ELEMENT,
        "in_bytes": ELEMENT,
        "out_bytes": ELEMENT,
    }
    rows = "query_rows"
    dropout = Op(
        "attention dropout",
        "attention",
        "vector",
        rows,
        sequence_tokens,
        groups="batch_heads",
        out_bytes={"dropout": 2.0 * ELEMENT + 1.0},
        vector_flop=2.0 * a.dropout.on,
        launches={"dropout": 1.0},
    )
    return [
        Op("scores", "attention", "gemm", rows, sequence_tokens, key, **batched),
        Op(
            "softmax",
            "attention",
            "vector",
            rows,
            sequence_tokens,
            groups="batch_heads",
            out_bytes=2.0 * ELEMENT,
            vector_flop=SOFTMAX_FLOP,
        ),
        dropout,
        Op("context", "attention", "gemm", rows, value, sequence_tokens, **batched),
    ]


def _embedding(a: Architecture) -> Op:
    return Op(
        "embedding",
        "embedding",
        "vector",
        "batch_tokens",
        a.hidden,
        out_bytes={"one": 2.0 * ELEMENT, "dropout": 2.0 * ELEMENT + 1.0},
        vector_flop=1.0,
    )


def _head(a: Architecture) -> list[Op]:
    return [
        Op(
            "output head",
            "head",
            "gemm",
            "logit_rows",
            a.vocabulary,
            a.hidden,
            split_columns="per_head",
            dtype="head",
            weight_bytes={"head": 1.0},
            in_bytes={"head": 1.0},
            out_bytes=ELEMENT,
        ),
        Op(
            "loss",
            "head",
            "vector",
            "logit_rows",
            a.vocabulary,
            split_columns="per_head",
            out_bytes=LOSS_MOVES,
            vector_flop=SOFTMAX_FLOP,
            launches=4.0,
        ),
    ]


def _draft(a: Architecture) -> list[Op]:
    """Projection in front of a multi-token-prediction layer (DeepSeek-V3, arXiv
    2412.19437, section 2.2)."""
    return [
        Op(
            "draft projection",
            "draft",
            "gemm",
            "batch_tokens",
            a.hidden,
            2.0 * a.hidden,
            dtype="activation",
            weight_bytes={"weight": 1.0},
            in_bytes={"activation": 1.0},
            out_bytes=ELEMENT,
        )
    ]


class Passes(NamedTuple):
    """Tables of the forward pass and of the gradients of inputs and of weights."""

    inputs: OpTable
    """Forward, then gradients of inputs: (2, op)."""
    weights: OpTable
    """Gradients of weights. Its operators are the GEMMs, which come first in `inputs`."""


def tabulate_passes(ops: list[Op], features, sizes: Mapping[str, Scalar]) -> Passes:
    """Tables of all passes from forward declarations, GEMMs first.

    The gradient of a GEMM's inputs has its columns and depth exchanged.
    """
    forward = tabulate(ops, features, sizes)
    gemm = np.array([float(op.kind == "gemm") for op in ops])
    attention = np.array([float(op.kind == "attention") for op in ops])
    choice = np.array([float(op.kind == CHOICE) for op in ops])
    vector = 1.0 - gemm - attention
    moves = gemm + 2.0 * attention + BACKWARD_MOVES * (vector - choice)
    one, none = np.ones_like(gemm), np.zeros_like(gemm)
    kept, turned = np.stack([one, 1.0 - gemm]), np.stack([none, gemm])
    inputs = forward.replace(
        rows=forward.rows
        * np.stack([one, 1.0 + (ATTENTION_BACKWARD - 1.0) * attention - choice]),
        columns=forward.columns * kept + forward.depth * turned,
        depth=forward.depth * kept + forward.columns * turned,
        memory_bytes=forward.memory_bytes * np.stack([one, moves]),
        vector_flop=forward.vector_flop * np.stack([one, 2.0 * one]),
    )
    count = int(gemm.sum())
    cut = {
        name: value[..., :count]
        for name, value in vars(forward).items()
        if name not in ("names", "blocks", "kinds", "dtypes", "kind", "widened")
    }
    read = evaluated([op.weight_bytes for op in ops[:count]], sizes)
    # scores and context multiply activations: their second gradient is written once
    stored = np.array([op.name in ("scores", "context") for op in ops[:count]])
    written = either(stored, read, 2.0 * sizes["gradient"])
    weights = cut["groups"] * cut["columns"] * cut["depth"]
    gradients = OpTable(
        **cut
        | {
            "rows": cut["depth"],
            "depth": cut["rows"],
            "memory_bytes": cut["memory_bytes"] + weights * (written - read),
            "vector_flop": 0.0 * cut["vector_flop"],
        },
        names=forward.names[:count],
        blocks=forward.blocks[:count],
        kinds=forward.kinds[:count],
        dtypes=forward.dtypes[:count],
    )
    return Passes(inputs, gradients)


def train_rows(a: Architecture, w: Train, layout: Layout) -> dict[str, Scalar]:
    """Token counts of one micro-batch on one device.

    A tp group of t devices holds a sequence's cp share; each of them 1 / t of its
    tokens. Causal pairs are spread evenly over a cp group: in a ring a device attends
    from its own tokens with all the heads of its tp rank, after an all-to-all from all
    tokens with a cp share of them.
    """
    cp, tp = degree(layout, "cp"), degree(layout, "tp")
    tokens = w.micro_batch * w.sequence_tokens / (cp * tp)
    rows = split_rows(a, layout, tokens)
    group = rows["head_rows"]
    share = cp if w.context == "all_to_all" else jnp.ones(())
    for i, mixer in enumerate(a.mixers):
        if not mixer.caches:
            continue
        keys, read = mixer.mean_seen(0.0, w.sequence_tokens), group * cp
        if mixer.sparse:
            rows[at_place("scanned", i)] = tokens * 0.5 * (w.sequence_tokens + 1.0)
            rows[at_place("scan_read", i)] = read
            read = group * keys
        rows[at_place("pairs", i)] = group * keys
        rows[at_place("kv_read", i)] = read * mixer.kv_share(tp * share)
        rows[at_place("kv_expanded", i)] = 2.0 * tokens * cp / share
        heads = mixer.heads / (tp * share)
        rows[at_place("batch_heads", i)] = w.micro_batch * heads
    return rows | {
        "up_rows": group,
        "shared_rows": rows["ffn_rows"],
        "per_shared": rows["per_ffn"],
        "query_rows": w.sequence_tokens / cp * share,
        "batch_tokens": rows["norm_rows"],
        "logit_rows": group,
    }
