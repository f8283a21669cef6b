"""What a micro-batch of a serving phase asks of a device, exchanges apart."""

from typing import NamedTuple

from .._types import Scalar, Sharpness
from ..job.layout import Layout, degree, splits
from ..job.workload import Decode, Prefill
from ..model.architecture import Architecture
from ..work.attention import index_excess_bytes
from ..work.chunk import joined_rows
from ..work.serving import decode_rows, prefill_rows
from ..work.table import at_place
from .requests import Request

ACTIVATION_BYTES = 2.0
"""Bytes per element of the activations that tensor-parallel collectives carry (bf16)."""


class Asked(NamedTuple):
    """One micro-batch on one device."""

    rows: dict[str, Scalar]
    """Token counts of the operators."""
    tensor: list[Request]
    """Collectives over tp: an all-reduce of any half of a layer, or those of a mixer,
    named by its place."""
    context: list[list[Scalar]]
    """Bytes that a mixer sends to each rank of a cp group, by mixer and exchange."""


def _over_tp(layout: Layout, kind: str, name: str, payload_bytes: Scalar) -> Request:
    return Request(name, "tensor_parallel", kind, splits(layout, "tp"), payload_bytes)


def _reduced(a: Architecture, layout: Layout, tokens: Scalar) -> Request:
    payload = tokens * a.hidden * ACTIVATION_BYTES
    return _over_tp(layout, "all_reduce", "all_reduce", payload)


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
    rows = decode_rows(a, w, layout, microbatches)
    if chunk is not None:
        rows = joined_rows(rows, a, chunk, layout, microbatches, sharpness)
    tokens = rows["tokens"]
    split = layout.attention != "dp"
    tensor = [_reduced(a, layout, tokens * rows["tp"])] if split else []
    context = []
    for mixer in a.mixers:
        if not mixer.caches:
            context.append([])
            continue
        partials = mixer.output_width * ACTIVATION_BYTES + 4.0 * mixer.heads
        context.append([tokens * mixer.query_width * ACTIVATION_BYTES, tokens * partials])
    return Asked(rows, tensor, context)


def prefill_asks(
    a: Architecture, w: Prefill, layout: Layout, microbatches: Scalar
) -> Asked:
    """A prefill batch. A cp group gathers the keys and values of all its tokens.

    `sp_tp_sp` gathers the small latents before the heads are split and returns the
    heads' outputs by all-to-all (CloudMatrix-Infer, arXiv 2506.12708, section 4.3).
    """
    rows, sizes = prefill_rows(a, w, layout, microbatches), w.software.sizes
    tokens, tp = rows["tokens"], degree(layout, "tp")
    held, context = w.tokens_per_device / microbatches * rows["tp"], []
    for i, mixer in enumerate(a.mixers):
        share = rows[at_place("per_kv", i)]
        width = mixer.kv_width * sizes.kv + index_excess_bytes(mixer, sizes)
        sent = held * share * width
        if (
            not mixer.caches
        ):  # each rank's state of each prompt (LASP-2, arXiv 2502.07563)
            sent = held / w.prompt_tokens * share * mixer.state * sizes.state
        context.append([sent])
    if layout.attention == "dp":
        return Asked(rows, [], context)
    if layout.attention == "tp":
        return Asked(rows, [_reduced(a, layout, tokens * tp)], context)
    tensor = []
    for i, mixer in enumerate(a.mixers):
        width = tokens * mixer.gathered_width(a.hidden) * ACTIVATION_BYTES
        outputs = tokens * mixer.value_width * sizes.attention
        for kind, payload in {"all_gather": width, "all_to_all": outputs}.items():
            tensor.append(_over_tp(layout, kind, at_place(kind, i), payload))
    return Asked(rows, tensor, context)
