"""Work of a serving step: its operators by part, and the rows of each on a device."""

from collections.abc import Callable

import jax.numpy as jnp

from .. import smooth
from .._types import Scalar
from ..job.layout import Layout, degree, head_ways
from ..job.workload import Decode, Prefill, Sizes
from ..model.architecture import Architecture, added
from ..model.mixers import Mixer
from .attention import index_excess_bytes, mixer_ops
from .feed_forward import around_ops, draft_ops, half_ops, tail_ops
from .table import Op, at_place

Declarations = list[tuple[str, Op]]
"""The operators of a step, each with the part that it belongs to.

Parts are `mixer` and `dense`, `routing` and `experts` by their place in the model; `tail`
and `draft`. Routing is what a mixture computes on every token where it is: router, norm,
and a shared expert that tokens aren't sent to.
"""


def mixer_part(place: int) -> str:
    return at_place("mixer", place)


def half_parts(a: Architecture, place: int) -> tuple[str, ...]:
    """The parts of a feed-forward half; of a mixture what a device computes on its own
    tokens, then what the experts compute."""
    if a.feed_forwards[place] is a.experts:
        return at_place("routing", place), at_place("experts", place)
    return (at_place("dense", place),)


def declared(
    a: Architecture, layout: Layout, sizes: Sizes, decodes: bool
) -> Declarations:
    """The operators of a serving step.

    Decode attends to latents (MLA) as they are and has draft steps; prefill expands
    them.
    """
    declarations: Declarations = []
    for i in range(len(a.mixers)):
        ops = mixer_ops(a, sizes, i, decodes)
        declarations += [(mixer_part(i), op) for op in ops]
    for i in range(len(a.feed_forwards)):
        parts = half_parts(a, i)
        for op in half_ops(a, i, not layout.routing.dispatches_shared):
            declarations.append((parts[-1 if op.block == "experts" else 0], op))
        if len(parts) > 1 and layout.attention == "tp":
            declarations += [(parts[-1], op) for op in around_ops(a, i)]
    declarations += [("tail", op) for op in tail_ops(a)]
    return declarations + [("draft", op) for op in (draft_ops(a) if decodes else [])]


def parts_of(ops: Declarations) -> tuple[str, ...]:
    """The parts that operators belong to."""
    return tuple(dict.fromkeys(part for part, _ in ops))


def split_rows(a: Architecture, layout: Layout, tokens: Scalar) -> dict[str, Scalar]:
    """Rows and splits of the projections for each way to split attention.

    With `tp` every device of a group computes the group's tokens on its heads; with
    `sp_tp_sp` only between the down and output projections, which keep its own tokens.
    With sequence parallelism norms too see only the device's own tokens.
    """
    one = jnp.ones(())
    joint = joint_experts(layout)
    if layout.attention == "dp":
        tp, group_tokens, rows, split = one, tokens, tokens, one
    else:
        tp = degree(layout, "tp")
        group_tokens = tokens * tp
        whole = layout.attention == "tp"
        rows, split = (group_tokens, 1.0 / tp) if whole else (tokens, one)
    routed = tokens + joint * (rows - tokens)
    return {
        "one": one,
        "tp": tp,
        "tokens": tokens,
        "norm_rows": layout.sequence_parallel.pick(tokens, rows),
        "down_rows": rows,
        "head_rows": group_tokens,
        "out_rows": rows,
        "ffn_rows": rows,
        "routed_rows": routed,
        "shared_rows": routed,
        "per_shared": one + joint * (split - one),
        "per_heads": 1.0 / tp,
        "per_out": split,
        "per_ffn": split,
        "per_head": split / head_ways(layout),
        "per_etp": 1.0 / degree(layout, "etp"),
        **_each(a, "per_kv", lambda mixer: mixer.kv_share(tp)),
        **_each(a, "local_heads", lambda mixer: mixer.heads / tp),
    }


def joint_experts(layout: Layout) -> Scalar:
    """1 where the experts lie on one tp group, else 0, in the relaxed model too: what is
    computed and what is sent go together.

    All of its ranks have all of its tokens, so nothing is dispatched: each computes what
    its experts, or its parts of them, have to do, and one all-reduce adds up the outputs,
    as for a dense network.
    """
    if layout.attention != "tp":
        return jnp.zeros(())
    groups = degree(layout, "dp") * degree(layout, "cp")
    return 1.0 - smooth.positive(groups - 1.0, None)


def _each(
    a: Architecture, feature: str, value: Callable[[Mixer], Scalar]
) -> dict[str, Scalar]:
    """A feature of each mixer."""
    return {at_place(feature, i): value(m) for i, m in enumerate(a.mixers)}


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
    held, batch = sequences * rows["tp"], tokens * microbatches
    gathered = rows["tp"] * head_ways(layout)
    new = held * (1.0 + w.draft_tokens)
    for i, mixer in enumerate(a.mixers):
        share, seen = rows[at_place("per_kv", i)], mixer.seen(w.kv_tokens)
        if not mixer.caches:
            rows[at_place("sequences", i)] = held * share
            continue
        if mixer.sparse:
            rows[at_place("scanned", i)] = tokens * w.kv_tokens
            rows[at_place("scan_read", i)] = held * w.kv_tokens
        rows[at_place("pairs", i)] = new * seen
        # each query gathers entries of its own, which no other shares
        readers = new if mixer.sparse else held
        rows[at_place("kv_read", i)] = readers * share * seen
        rows[at_place("kv_write", i)] = new * share
    return rows | {
        "batch_tokens": batch,
        "logit_rows": batch * gathered,
        "draft_logit_rows": w.sequences_per_device * gathered,
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
    cached, gathered = (
        w.prompt_tokens * w.cached_fraction,
        admitted * degree(layout, "cp"),
    )
    for i, mixer in enumerate(a.mixers):
        share = rows[at_place("per_kv", i)]
        if not mixer.caches:
            continue
        keys, read = mixer.mean_seen(cached, w.prompt_tokens), gathered * tp
        if mixer.sparse:
            every = 0.5 * (cached + w.prompt_tokens + 1.0)
            rows[at_place("scanned", i)] = tokens * every
            rows[at_place("scan_read", i)] = read
            read = tokens * tp * keys  # each query gathers latents of its own
        rows[at_place("pairs", i)] = tokens * tp * keys
        rows[at_place("kv_read", i)] = read * share
        rows[at_place("kv_expanded", i)] = 2.0 * gathered
        rows[at_place("kv_write", i)] = tokens * tp * share
    return rows | {
        "up_rows": gathered * tp,
        "batch_tokens": tokens * microbatches,
        "logit_rows": w.tokens_per_device / w.prompt_tokens * tp * head_ways(layout),
    }


def cache_bytes(a: Architecture, sizes: Sizes, tokens: Scalar) -> Scalar:
    """What a sequence of some tokens keeps for the next one, in all layers."""
    counts = zip(a.half_counts.mixers, a.mixers, strict=True)
    return added(count * sequence_bytes(mixer, sizes, tokens) for count, mixer in counts)


def sequence_bytes(mixer: Mixer, sizes: Sizes, tokens: Scalar) -> Scalar:
    """What a sequence of some tokens keeps in a layer: a state, or its cache."""
    if not mixer.caches:
        return mixer.state * sizes.state
    kept = mixer.kept(tokens) * mixer.kv_width * sizes.kv
    return kept + tokens * index_excess_bytes(mixer, sizes)
