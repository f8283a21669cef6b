"""What a micro-batch of a serving phase asks of a device, exchanges apart."""

from typing import NamedTuple

from .._types import Scalar, Sharpness
from ..job.layout import Layout, degree, splits
from ..job.workload import Decode, Prefill, Software
from ..model.architecture import Architecture, Latent, kv_share, kv_width
from ..work.chunk import joined_rows
from ..work.serving import decode_rows, prefill_rows
from .requests import Request

ACTIVATION_BYTES = 2.0
"""Bytes per element of the activations that tensor-parallel collectives carry (bf16)."""


class Asked(NamedTuple):
    """One micro-batch on one device."""

    rows: dict[str, Scalar]
    """Token counts of the operators."""
    tensor: list[Request]
    """Collectives of attention over tp; a dense network repeats an all-reduce."""
    context: list[Scalar]
    """Bytes that an attention block sends to each rank of a cp group, by exchange."""


def _over_tp(layout: Layout, kind: str, payload_bytes: Scalar) -> Request:
    return Request(kind, "tensor_parallel", kind, splits(layout, "tp"), payload_bytes)


def decode_asks(
    a: Architecture,
    w: Decode,
    layout: Layout,
    microbatches: Scalar,
    chunk: Prefill | None,
    sharpness: Sharpness,
) -> Asked:
    """A decode step, with prompt tokens that ride along, if any.

    Of a request whose context is split every rank sends its queries to all ranks of the
    cp group, and each other rank's partial outputs back with the log-sum-exp of every
    head, in fp32.
    """
    rows, at = decode_rows(a, w, layout, microbatches), a.attention
    if chunk is not None:
        rows = joined_rows(rows, a, chunk, layout, microbatches, sharpness)
    tokens, tensor = rows["tokens"], []
    if layout.attention != "dp":
        reduced = tokens * rows["tp"] * a.hidden * ACTIVATION_BYTES
        tensor = [_over_tp(layout, "all_reduce", reduced)]
    query, output = _widths(at)
    queries = tokens * at.heads * query * ACTIVATION_BYTES
    partials = tokens * at.heads * (output * ACTIVATION_BYTES + 4.0)
    return Asked(rows, tensor, [queries, partials])


def _widths(at) -> tuple[Scalar, Scalar]:
    """Elements of a head's query and output, in the latent space where there is one."""
    if isinstance(at, Latent):
        return at.latent_dim + at.rope_dim, at.latent_dim
    return at.head_dim, at.head_dim


def prefill_asks(
    a: Architecture, w: Prefill, layout: Layout, microbatches: Scalar, software: Software
) -> Asked:
    """A prefill batch. A cp group gathers the keys and values of all its tokens.

    `sp_tp_sp` gathers the small latents before the heads are split and returns the
    heads' outputs by all-to-all (CloudMatrix-Infer, arXiv 2506.12708, section 4.3).
    """
    rows, sizes = prefill_rows(a, w, layout, microbatches), software.sizes
    tokens, tp, at = rows["tokens"], degree(layout, "tp"), a.attention
    held = w.tokens_per_device / microbatches * rows["tp"] * kv_share(at, tp)
    context = [held * kv_width(a) * sizes.kv]
    if layout.attention == "dp":
        return Asked(rows, [], context)
    if layout.attention == "tp":
        reduced = tokens * tp * a.hidden * ACTIVATION_BYTES
        return Asked(rows, [_over_tp(layout, "all_reduce", reduced)], context)
    if isinstance(at, Latent):
        width, value_dim = at.query_rank + at.latent_dim + at.rope_dim, at.value_dim
    else:
        width, value_dim = a.hidden, at.head_dim
    outputs = tokens * at.heads * value_dim * sizes.attention
    gathered = _over_tp(layout, "all_gather", tokens * width * ACTIVATION_BYTES)
    return Asked(rows, [gathered, _over_tp(layout, "all_to_all", outputs)], context)
