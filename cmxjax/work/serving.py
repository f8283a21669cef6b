"""Work of a serving step: its operators by part, and the rows of each on a device."""

from typing import NamedTuple

import jax.numpy as jnp

from .._types import Scalar
from ..job.layout import Layout, degree
from ..job.workload import Decode, Prefill, Sizes
from ..model.architecture import Architecture, kv_share
from .attention import attention_ops
from .feed_forward import dense_ops, draft_ops, expert_ops, tail_ops
from .table import Op


class Parts(NamedTuple):
    """One value for each part of a serving step."""

    attention: Scalar
    dense: Scalar
    routing: Scalar
    """What a mixture layer computes on every token where it is: router, norm, and a
    shared expert that tokens aren't sent to."""
    experts: Scalar
    tail: Scalar
    draft: Scalar


Declarations = list[tuple[str, Op]]
"""The operators of a step, each with its part."""


def declared(
    a: Architecture, layout: Layout, sizes: Sizes, decodes: bool
) -> Declarations:
    """The operators of a serving step, each with the part that it belongs to.

    Decode attends to latents (MLA) as they are and has draft steps; prefill expands
    them.
    """
    mixture = expert_ops(a, not layout.routing.dispatches_shared)
    lists = {
        "attention": attention_ops(a, sizes, absorbed=decodes),
        "dense": dense_ops(a),
        "routing": [op for op in mixture if op.block != "experts"],
        "experts": [op for op in mixture if op.block == "experts"],
        "tail": tail_ops(a),
        "draft": draft_ops(a) if decodes else [],
    }
    return [(part, op) for part, ops in lists.items() for op in ops]


def split_rows(a: Architecture, layout: Layout, tokens: Scalar) -> dict[str, Scalar]:
    """Rows and splits of the projections for each way to split attention.

    With `tp` every device of a group computes the group's tokens on its heads; with
    `sp_tp_sp` only between the down and output projections, which keep its own tokens.
    With sequence parallelism norms too see only the device's own tokens.
    """
    one = jnp.ones(())
    if layout.attention == "dp":
        tp, group_tokens, rows, split = one, tokens, tokens, one
    else:
        tp = degree(layout, "tp")
        group_tokens = tokens * tp
        whole = layout.attention == "tp"
        rows, split = (group_tokens, 1.0 / tp) if whole else (tokens, one)
    return {
        "one": one,
        "tp": tp,
        "tokens": tokens,
        "norm_rows": tokens if layout.sequence_parallel else rows,
        "down_rows": rows,
        "head_rows": group_tokens,
        "out_rows": rows,
        "ffn_rows": rows,
        "per_heads": 1.0 / tp,
        "per_kv": kv_share(a.attention, tp),
        "per_out": split,
        "per_ffn": split,
        "per_head": split,
        "per_etp": 1.0 / degree(layout, "etp"),
        "local_heads": a.attention.heads / tp,
    }


def decode_rows(
    a: Architecture, w: Decode, layout: Layout, microbatches: Scalar
) -> dict[str, Scalar]:
    """Token counts of one micro-batch on one device; the tail runs on the whole batch.

    A tp group of t devices holds the requests of all t; a cp group splits each
    request's context, so pairs and cache traffic per device do not depend on cp.
    """
    sequences = w.sequences_per_device / microbatches
    tokens = sequences * (1.0 + w.draft_tokens)
    rows = split_rows(a, layout, tokens)
    held = sequences * rows["tp"]
    held_kv = held * rows["per_kv"]
    batch = tokens * microbatches
    return rows | {
        "pairs": held * (1.0 + w.draft_tokens) * w.kv_tokens,
        "kv_read": held_kv * w.kv_tokens,
        "kv_write": held_kv * (1.0 + w.draft_tokens),
        "batch_tokens": batch,
        "logit_rows": batch * rows["tp"],
        "draft_logit_rows": w.sequences_per_device * rows["tp"],
    }


def prefill_rows(
    a: Architecture, w: Prefill, layout: Layout, microbatches: Scalar
) -> dict[str, Scalar]:
    r"""Token counts of one micro-batch on one device.

    Of a prompt of P tokens a fraction c is cached, so N = (1 - c) P are computed. Causal
    attention of the new tokens sees c P + (N + 1) / 2 keys on average, not P. Latents
    of cached tokens are expanded to keys and values too. A cp group gathers the keys and
    values of all its tokens; its queries stay split.
    """
    admitted = w.tokens_per_device / microbatches
    tokens = admitted * (1.0 - w.cached_fraction)
    rows = split_rows(a, layout, tokens)
    tp = rows["tp"]
    new = w.prompt_tokens * (1.0 - w.cached_fraction)
    keys = w.prompt_tokens * w.cached_fraction + 0.5 * (new + 1.0)
    kv, gathered = rows["per_kv"], admitted * degree(layout, "cp")
    return rows | {
        "up_rows": gathered * tp,
        "pairs": tokens * tp * keys,
        "kv_read": gathered * tp * kv,
        "kv_expanded": 2.0 * gathered,
        "kv_write": tokens * tp * kv,
        "batch_tokens": tokens * microbatches,
        "logit_rows": w.tokens_per_device / w.prompt_tokens * tp,
    }
