"""Operators of a training step: forward, backward and weight passes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._types import Scalar
from ..architecture import Architecture
from ..hardware import Chip, Trainer
from ..layout import Layout, degree
from ..ops.table import Op
from ..ops.training import declared, tabulate_passes
from ..roofline import resources_s, roofline_s
from ..workload import BYTES, Train
from .serving import ExpertLoad, Stage, row_features

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
    tokens. Causal pairs are spread evenly over a cp group.
    """
    cp, tp = degree(layout, "cp"), degree(layout, "tp")
    tokens = w.micro_batch * w.sequence_tokens / (cp * tp)
    rows = row_features(a, layout, tokens)
    group = rows["head_rows"]
    return rows | {
        "up_rows": group,
        "pairs": group * 0.5 * (w.sequence_tokens + 1.0),
        "kv_read": group * cp * rows["per_kv"],
        "kv_expanded": 2.0 * tokens * cp,
        "query_rows": w.sequence_tokens / cp,
        "batch_heads": w.micro_batch * a.attention.heads / tp,
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
    slow = chip.attention_efficiency * trainer.backward_attention_efficiency
    chips = (chip, chip.replace(attention_efficiency=slow), chip)
    scale, start, times = stage.scales("operators"), 0, []
    for table, own in zip(passes, chips):
        count = len(table.names)
        rows = None if scale is None else scale[start : start + count]
        used = resources_s(own, table, rows, stage.sharpness)
        total = roofline_s(own, used, 1.0, stage.sharpness)
        times.append(_by_part(total, [part for part, _ in found[:count]]))
        start += count
    return Compute(*times)


def _by_part(values, parts: list[str]) -> dict[str, Scalar]:
    member = np.array([[float(p == name) for name in PARTS] for p in parts])
    sums = jnp.dot(values, member, precision=jax.lax.Precision.HIGHEST)
    return dict(zip(PARTS, jnp.unstack(sums, axis=-1), strict=True))
