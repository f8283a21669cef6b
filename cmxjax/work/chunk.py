r"""Chunked prefill: prompt tokens that ride along with a decode step.

A step computes q tokens of a prompt whose N new tokens follow a cached prefix. On average
over its chunks the prompt has come to prefix + (N - q) / 2 tokens before the step, so a
chunk is a prefill batch whose earlier part is cached. Projections, experts and exchanges
run on its tokens and those that are decoded together; attention runs apart, over keys and
values that latents are expanded to again in every step.

Reference: Agrawal et al., Sarathi-Serve, OSDI 2024 (chunks beside decodes).
"""

from typing import NamedTuple

import numpy as np

from .. import smooth
from .._types import Scalar, Sharpness
from ..job.layout import Layout, degree
from ..job.workload import Prefill, Sizes
from ..model.architecture import Architecture
from .attention import mixer_ops
from .serving import Declarations, mixer_part, prefill_rows
from .table import Op

APART = ("core", "core gemm", "cache")
"""Roles of operators that each of the two kinds of attention runs for itself."""

CHUNK = "chunk_"

JOINT = (
    *("norm_rows", "down_rows", "head_rows", "out_rows", "ffn_rows"),
    *("routed_rows", "shared_rows", "tokens"),
)


class Progress(NamedTuple):
    """How prompts get on in steps with a chunk."""

    prompts: Scalar
    """Prompts that a tp x cp group works on in a step; at least one."""
    tokens: Scalar
    """New tokens of each of them in a step."""


def progress(w: Prefill, layout: Layout) -> Progress:
    """Prompts of a step, from `w.tokens_per_device` new tokens on each device."""
    chunk = w.tokens_per_device * degree(layout, "tp") * degree(layout, "cp")
    new = w.prompt_tokens * (1.0 - w.cached_fraction)
    prompts = smooth.larger(chunk / new, 1.0)
    return Progress(prompts, chunk / prompts)


def chunk_of(w: Prefill, layout: Layout) -> Prefill:
    """The average chunk as a prefill batch whose earlier part is cached.

    Args:
        w: the prompts, with `tokens_per_device` new tokens on each device and step.
    """
    step = progress(w, layout)
    new = w.prompt_tokens * (1.0 - w.cached_fraction)
    reached = w.prompt_tokens - 0.5 * (new - step.tokens)
    group = degree(layout, "tp") * degree(layout, "cp")
    images = w.images
    if images is not None:  # so that a step encodes the share that its tokens are
        images = images.replace(per_prompt=images.per_prompt * reached / w.prompt_tokens)
    return w.replace(
        tokens_per_device=step.prompts * reached / group,
        prompt_tokens=reached,
        cached_fraction=1.0 - step.tokens / reached,
        images=images,
    )


def joined_ops(a: Architecture, sizes: Sizes, ops: Declarations) -> Declarations:
    """Operators of a decode step, and the core of a chunk's attention.

    The step's own core doesn't see the chunk's tokens, which it finds under other names.
    """

    def narrowed(op: Op) -> Op:
        narrow = op.role in APART and op.rows == "head_rows"
        return op._replace(rows="own_head_rows") if narrow else op

    core = [
        (mixer_part(i), _renamed(op))
        for i in range(len(a.mixers))
        for op in mixer_ops(a, sizes, i, decodes=False)
        if op.role in APART
    ]
    return [*((part, narrowed(op)) for part, op in ops), *core]


def _renamed(op: Op) -> Op:
    """An operator whose rows, groups and reads are the chunk's."""
    feature, size = op.extra
    read = feature if feature == "one" else CHUNK + feature
    rows, groups = CHUNK + op.rows, CHUNK + op.groups
    return op._replace(rows=rows, groups=groups, extra=(read, size))


def joined_rows(
    rows: dict[str, Scalar],
    a: Architecture,
    w: Prefill,
    layout: Layout,
    microbatches: Scalar,
    sharpness: Sharpness,
) -> dict[str, Scalar]:
    """Token counts of a micro-batch of a decode step with its part of a chunk.

    A chunk without tokens reads nothing: no weights, and no keys and values.
    """
    chunk = prefill_rows(a, w, layout, microbatches)
    there = smooth.positive(chunk["tokens"], sharpness)
    both = {name: rows[name] + chunk[name] for name in JOINT}
    batch = rows["batch_tokens"] + chunk["batch_tokens"]
    alone = {CHUNK + name: there * value for name, value in chunk.items()}
    decoded = {"own_head_rows": rows["head_rows"]}
    return rows | both | decoded | alone | {"batch_tokens": batch}


def launched(ops: Declarations, rows: dict[str, Scalar]):
    """Whether each operator is launched: those of a chunk without tokens aren't."""
    decoded = np.array([0.0 if op.rows.startswith(CHUNK) else 1.0 for _, op in ops])
    return decoded + (1.0 - decoded) * rows[f"{CHUNK}one"]
