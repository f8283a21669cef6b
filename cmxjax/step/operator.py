"""Phase `op`: one operator on one device."""

import jax
import jax.numpy as jnp
from flax import struct

from .._types import Leaf, Sharpness
from ..job.workload import BYTES, Operator
from ..machine.system import System
from ..rates.roofline import RESOURCES, resources_s, roofline_s
from ..work.attention import SOFTMAX_FLOP
from ..work.table import Op, matrix_flop, tabulate


class OperatorMetrics(struct.PyTreeNode, kw_only=True, frozen=True):
    """Metrics of one operator on one device."""

    time_s: Leaf
    flop_per_s: Leaf
    bytes_per_s: Leaf
    """Compulsory bytes, each operand once, over the time."""
    utilization: Leaf
    """Work over time x dense peak of the dtype."""
    breakdown: dict[str, Leaf]
    """Seconds by resource, by Euler's theorem; they sum to the time."""
    busy: dict[str, Leaf]
    """Seconds on each resource, hidden or not."""
    kind: str = struct.field(pytree_node=False, default="operator_metrics")


def declare(w: Operator) -> Op:
    """The operator as one row of an operator table."""
    size, out = BYTES[w.dtype], BYTES[w.out_dtype]
    if w.operator in ("gemm", "grouped_gemm"):
        return Op(
            w.operator,
            "operator",
            "gemm",
            "m",
            w.n,
            w.k,
            "groups",
            dtype=w.dtype,
            weight_bytes=size,
            in_bytes=size,
            out_bytes=out,
        )
    if w.operator.startswith("attention"):
        return _attention(w, size, out)
    if w.operator == "copy":
        return Op(w.operator, "operator", "vector", "bytes", 1.0, out_bytes=2.0)
    return Op(
        w.operator,
        "operator",
        "vector",
        "elements",
        1.0,
        out_bytes=size + out,
        vector_flop=1.0,
    )


def _attention(w: Operator, size: float, out: float) -> Op:
    """Attention of `sequences`, each with `query_tokens` against `kv_tokens`.

    Latent (MLA) decode reads the shared latent once for all heads; the key is latent
    and rotary part, the value the latent itself.
    """
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
        dtype=w.dtype,
        extra=(
            "rows_and_cache",
            _traffic(w, cache, w.heads * (key * size + value * out)),
        ),
        vector_flop=SOFTMAX_FLOP / (key + value),
    )


def _traffic(w: Operator, cache_bytes, query_bytes):
    return w.sequences * (w.kv_tokens * cache_bytes + w.query_tokens * query_bytes)


def operator_metrics(
    system: System, w: Operator, sharpness: Sharpness
) -> OperatorMetrics:
    """Time, rates and utilization of one operator.

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
    table = tabulate([declare(w)], features)

    def time_s(scale):
        used = resources_s(system.chip, table, scale, sharpness)
        return roofline_s(system.chip, used, 1.0, sharpness)[0], used

    ones = jnp.ones((1, len(RESOURCES)))
    (time, used), shares = jax.value_and_grad(time_s, has_aux=True)(ones)
    flop = matrix_flop(table)[0]
    peak = system.chip.matrix_flop_per_s.get(table.dtypes[0], 1.0)
    return OperatorMetrics(
        time_s=time,
        flop_per_s=flop / time,
        bytes_per_s=table.memory_bytes[0] / time,
        utilization=flop / (time * peak),
        breakdown={name: shares[0, i] for i, name in enumerate(RESOURCES)},
        busy={name: seconds[0] for name, seconds in used.items()},
    )
