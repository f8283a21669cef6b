"""Operators of a training step: forward, backward and weight passes."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._types import Scalar
from ..job.layout import Layout, degree
from ..job.workload import BYTES, Train
from ..machine.chip import Chip
from ..machine.runtimes import Trainer
from ..model.architecture import Architecture
from ..rates.roofline import resources_s, roofline_s
from ..work.table import Op, OpTable
from ..work.training import declared, tabulate_passes
from .serving import ExpertLoad, Stage, kv_split, row_features

PARTS = ("attention", "core", "dense", "experts", "embedding", "head", "draft")


class Compute(NamedTuple):
    """Seconds of each part on the cores, by name: the three passes."""

    forward: dict[str, Scalar]
    backward: dict[str, Scalar]
    weight: dict[str, Scalar]


def declarations(a: Architecture, w: Train) -> list[tuple[str, Op]]:
    """Forward operators with their parts; GEMMs first."""
    return declared(a, w.serving.dtypes, w.sequence_tokens, w.fused_attention)


def operator_blocks(a: Architecture, w: Train) -> tuple[str, ...]:
    """The block of each operator of the three passes, for the breakdown."""
    ops = [op for _, op in declarations(a, w)]
    gemms = [op for op in ops if op.kind == "gemm"]
    return tuple(op.block for op in [*ops, *ops, *gemms])


def features_of(a: Architecture, w: Train, layout: Layout) -> dict[str, Scalar]:
    """Token counts of one micro-batch on one device.

    A tp group of t devices holds a sequence's cp share; each of them 1 / t of its
    tokens. Causal pairs are spread evenly over a cp group: in a ring a device attends
    from its own tokens with all the heads of its tp rank, after an all-to-all from all
    tokens with a cp share of them.
    """
    cp, tp = degree(layout, "cp"), degree(layout, "tp")
    tokens = w.micro_batch * w.sequence_tokens / (cp * tp)
    rows = row_features(a, layout, tokens)
    group = rows["head_rows"]
    share = cp if w.context == "all_to_all" else jnp.ones(())
    return rows | {
        "up_rows": group,
        "pairs": group * 0.5 * (w.sequence_tokens + 1.0),
        "kv_read": group * cp * kv_split(a, tp * share),
        "kv_expanded": 2.0 * tokens * cp / share,
        "query_rows": w.sequence_tokens / cp * share,
        "batch_heads": w.micro_batch * a.attention.heads / (tp * share),
        "batch_tokens": rows["norm_rows"],
        "logit_rows": group,
    }


def training_chip(chip: Chip, trainer: Trainer) -> Chip:
    """The device as a training framework drives it: its kernels and eager launches."""
    peaks = {
        dtype: peak * (trainer.narrow_efficiency if BYTES[dtype] == 1.0 else 1.0)
        for dtype, peak in chip.matrix_flop_per_s.items()
    }
    return chip.replace(
        matrix_flop_per_s=peaks,
        gemm_efficiency=chip.gemm_efficiency * trainer.matrix_rate_factor,
        attention_efficiency=chip.attention_efficiency * trainer.attention_rate_factor,
        memory_efficiency=chip.memory_efficiency * trainer.vector_rate_factor,
        matrix_launch_s=trainer.launch_s,
        vector_launch_s=trainer.launch_s,
    )


def trainer_of(stage: Stage) -> Trainer:
    """The framework that trains."""
    return stage.system.trainers[stage.serving.engine]


def compute_of(stage: Stage, a: Architecture, w: Train, load: ExpertLoad) -> Compute:
    """Operator times of one micro-batch, summed by part."""
    features = features_of(a, w, stage.layout)
    features |= {
        "expert_rows": load.rows,
        "experts": load.active,
        "copies": load.rows * load.active,
    }
    found = declarations(a, w)
    ops = [op for _, op in found]
    gradient = BYTES[w.serving.dtypes.gradient]
    passes = tabulate_passes(ops, features, gradient)
    trainer = trainer_of(stage)
    chip = training_chip(stage.system.chip, trainer)
    share = jnp.stack([1.0, trainer.backward_attention_efficiency])[:, None]
    both = chip.replace(attention_efficiency=chip.attention_efficiency * share)
    scale, count = stage.scales("operators"), len(ops)
    first = rest = None
    if scale is not None:
        first = scale[: 2 * count].reshape(2, count, -1)
        rest = scale[2 * count :]

    def times(own: Chip, table: OpTable, scale: Any) -> Array:
        used = resources_s(own, table, scale, stage.sharpness)
        return roofline_s(own, used, 1.0, stage.sharpness)

    forward, backward = jnp.unstack(times(both, passes.inputs, first))
    weight = times(chip, passes.weights, rest)
    parts = [part for part, _ in found]
    return Compute(
        _by_part(forward, parts),
        _by_part(backward, parts),
        _by_part(weight, parts[: weight.shape[-1]]),
    )


def _by_part(values, parts: list[str]) -> dict[str, Scalar]:
    member = np.array([[float(p == name) for name in PARTS] for p in parts])
    sums = jnp.dot(values, member, precision=jax.lax.Precision.HIGHEST)
    return dict(zip(PARTS, jnp.unstack(sums, axis=-1), strict=True))
