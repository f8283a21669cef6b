"""Phase `op`: one operator on one device."""

from collections.abc import Mapping

import jax.numpy as jnp
from flax import struct

from .._types import Leaf, Scalar, Sharpness
from ..job.workload import BYTES, Operator
from ..machine.chip import Chip
from ..rates.roofline import resources_s, roofline_s
from ..step.costs import Breakdown, Explained, composed
from ..switch import either
from ..work.attention import SOFTMAX_FLOP
from ..work.table import CHOICE, INDEX_FLOP, Op, choice, matrix_flop, tabulate

INDEX = "index"
"""Kind of operator that scores all tokens for a query and chooses the best."""


class OperatorMetrics(Explained, struct.PyTreeNode, kw_only=True, frozen=True):
    """Metrics of one operator on one device."""

    time_s: Leaf
    flop_per_s: Leaf
    bytes_per_s: Leaf
    """Compulsory bytes, each operand once, over the time."""
    utilization: Leaf
    """Work over time x dense peak of the dtype."""
    breakdown: Breakdown | None
    """Seconds by resource, by Euler's theorem; they sum to the time."""
    kind: str = struct.field(pytree_node=False, default="operator_metrics")


def declare(w: Operator) -> Op:
    """The operator as one row of an operator table; of an indexer its scores."""
    size, out = {"activation": 1.0}, {"out": 1.0}
    if w.operator in ("gemm", "grouped_gemm"):
        return Op(
            w.operator,
            "operator",
            "gemm",
            "m",
            w.n,
            w.k,
            "groups",
            dtype="activation",
            weight_bytes=size,
            in_bytes=size,
            out_bytes=out,
        )
    if w.operator.startswith("attention"):
        return _attention(w)
    if w.operator == INDEX:
        return _index(w)
    if w.operator == "copy":
        return Op(w.operator, "operator", "vector", "bytes", 1.0, out_bytes=2.0)
    return Op(
        w.operator,
        "operator",
        "vector",
        "elements",
        1.0,
        out_bytes=size | out,
        vector_flop=1.0,
    )


def _attention(w: Operator) -> Op:
    """Attention of `sequences`, each with `query_tokens` against `kv_tokens`.

    Latent (MLA) decode reads the shared latent once for all heads; the key is latent
    and rotary part, the value the latent itself.
    """
    size, out = w.element_bytes, w.out_bytes
    if w.latent:
        key, value = w.latent_dim + w.rope_dim, w.latent_dim
        cache = key * size
    else:
        key, value = w.head_dim + w.rope_dim, w.value_dim
        cache = w.kv_heads * (key + value) * size
    return Op(
        w.operator,
        "operator",
        "attention",
        "pairs",
        w.heads * (key + value),
        dtype="activation",
        extra=(
            "rows_and_cache",
            _traffic(w, cache, w.heads * (key * size + value * out)),
        ),
        vector_flop=SOFTMAX_FLOP / (key + value),
    )


def _index(w: Operator) -> Op:
    """Scores of an indexer, whose heads share one key of a token."""
    size = w.element_bytes
    return Op(
        w.operator,
        "operator",
        "attention",
        "pairs",
        w.heads * w.head_dim,
        dtype="activation",
        extra=(
            "rows_and_cache",
            _traffic(w, w.head_dim * size, w.heads * w.head_dim * size),
        ),
        vector_flop=INDEX_FLOP / w.head_dim,
    )


def _traffic(w: Operator, cache_bytes, query_bytes):
    return w.sequences * (w.kv_tokens * cache_bytes + w.query_tokens * query_bytes)


def _around_s(chip: Chip, w: Operator) -> Scalar:
    """Of experts, of whose copies each has `k` values in 16 bits."""
    moved = chip.expert_passes * w.groups * w.m * w.k * BYTES["bf16"]
    rate = chip.memory_bytes_per_s * chip.memory_efficiency
    return chip.expert_start_s + moved / rate


def operator_metrics(
    chip: Chip, w: Operator, sharpness: Sharpness, explains: bool
) -> OperatorMetrics:
    """Time, rates and utilization of one operator.

    Experts with 4-bit operands are timed with the kernels around their GEMMs, which in a
    step are fused with others or hidden in their rate.

    Alone, a vector operator has no kernel before it to hide its launch behind, and too
    little of its own: its launch and its transfer add up. So do those of others where
    their launch was measured too. An indexer chooses when it has scored.

    Causal attention of q queries at the end of a context of c tokens sees
    q (c - (q - 1) / 2) pairs.
    """
    context = w.kv_tokens
    if w.causal:
        context = context - 0.5 * (w.query_tokens - 1.0)
    features = {
        "one": jnp.ones(()),
        "m": w.m,
        "groups": w.groups,
        "pairs": w.sequences * w.query_tokens * context,
        "bytes": w.payload_bytes,
        "elements": w.tokens * w.hidden,
        "rows_and_cache": jnp.ones(()),
    }
    sizes = {"bf16": 2.0, "activation": w.element_bytes, "out": w.out_bytes}
    features["scanned"] = features["pairs"]
    ops = [declare(w), *([choice()] if w.operator == INDEX else [])]
    table = tabulate(ops, features, sizes)
    used = resources_s(chip, table, sharpness)
    costs = {name: seconds[0] for name, seconds in used.items()}
    experts, narrow = w.operator == "grouped_gemm", w.element_bytes < 1.0
    if experts:
        costs["launch"] = costs["launch"] + either(narrow, _around_s(chip, w), 0.0)
    if w.operator == INDEX:
        costs[CHOICE] = used["vector"][1] + used["memory"][1]

    def beside(costs: Mapping[str, Scalar]) -> Scalar:
        return roofline_s(costs, chip.roofline_exposed_fraction, 1.0, sharpness)

    def in_turn(costs: Mapping[str, Scalar]) -> Scalar:
        return beside({**costs, "launch": jnp.zeros(())}) + costs["launch"]

    def compose(costs: Mapping[str, Scalar]) -> Scalar:
        if table.kinds == ("vector",):
            return in_turn(costs)
        apart = w.launched.on * jnp.ones_like(narrow) > 0.5
        if experts:
            apart = apart | narrow
        chosen = costs.get(CHOICE, 0.0)
        return either(apart, in_turn(costs), beside(costs)) + chosen

    time, shares = composed(costs, compose, explains)
    flop = matrix_flop(table)[0]
    peak = chip.matrix_flop_per_s["activation"]
    return OperatorMetrics(
        time_s=time,
        flop_per_s=flop / time,
        bytes_per_s=table.memory_bytes[0] / time,
        utilization=flop / (time * peak),
        breakdown=shares,
    )
