"""Data parallelism: reduction of gradients, gathering of weights, the optimizer.

ZeRO 0 all-reduces gradients once a step; 1 and 2 scatter them reduced and gather the
updated weights, 2 scatters for every micro-batch; 3 also gathers each layer's weights
for every pass. Experts reduce over the ranks that hold the same ones.

Reference: Rajbhandari et al., arXiv 1910.02054, section 7.
"""

from typing import NamedTuple

import jax.numpy as jnp

from .. import smooth
from .._types import Scalar, Sharpness
from ..architecture import Architecture
from ..collectives.library import collective_s
from ..fabric import Group, group_of
from ..hardware import Trainer
from ..layout import splits
from ..workload import BYTES, Train
from .pipeline import Line
from .serving import Stage
from .train_state import Held, Span, layer_weights, stage_weights

UPDATE_BYTES = 30.0
"""Bytes that Adam moves per weight it owns: reads gradient, master weight and two
moments in fp32, writes the last three and a bf16 weight (16 + 14)."""

NORM_BYTES = 8.0
"""Bytes per gradient held: read for the norm, and zeroed, in fp32."""


class Reduction(NamedTuple):
    """Seconds of data-parallel traffic of a device."""

    scatter_once: Scalar
    gather_once: Scalar
    scatter_layer: tuple[Scalar, Scalar]
    """For each micro-batch and layer, dense and expert."""
    gather_layer: tuple[Scalar, Scalar]

    def once_s(self, line: Line, trainer: Trainer, sharpness: Sharpness) -> Scalar:
        """What one step's traffic adds: it hides beside one pass of a micro-batch.

        Gradients run beside the last backward pass of the first stage, which ends last;
        weights beside its first forward pass.
        """
        exposed, first = trainer.data_exposed_fraction, line.first
        behind, ahead = first.backward + first.weight, first.forward
        scatter = smooth.overlap_s(behind, self.scatter_once, exposed, sharpness)
        gather = smooth.overlap_s(ahead, self.gather_once, exposed, sharpness)
        return scatter - behind + gather - ahead


def _groups(stage: Stage) -> dict[str, Group]:
    layout = stage.layout
    shared = splits(layout, "dp") * splits(layout, "cp")
    return {
        "data_parallel": group_of(stage.fabric, shared),
        "expert_data_parallel": group_of(stage.fabric, splits(layout, "edp")),
    }


def _moved_s(stage: Stage, kind: str, held: Held, size: float) -> Scalar:
    """Time of one collective over both groups' weights, one after the other."""
    total = jnp.zeros(())
    for (name, group), weights in zip(_groups(stage).items(), held):
        payload = weights * size
        if kind != "all_reduce":
            payload = payload / group.ranks
        scale = stage.scales.prefixed(name)
        total = total + collective_s(
            kind, group, stage.library, payload, stage.sharpness, scale
        )
    return total


def reduction_of(stage: Stage, a: Architecture, w: Train, span: Span) -> Reduction:
    """Data-parallel traffic of a device of the first stage."""
    zero = jnp.zeros(())
    held = Held(*(x[0] for x in stage_weights(a, stage.layout, span)))
    if a.experts is None:
        held = Held(held.shared, zero)
    gradient, weight = BYTES[w.serving.dtypes.gradient], BYTES["bf16"]
    none = (zero, zero)
    if w.zero == 0:
        moved = _moved_s(stage, "all_reduce", held, gradient)
        return Reduction(moved, zero, none, none)
    scatter = gather = zero
    if w.zero < 3:
        gather = _moved_s(stage, "all_gather", held, weight)
    if w.zero == 1:
        scatter = _moved_s(stage, "reduce_scatter", held, gradient)
        return Reduction(scatter, gather, none, none)
    dense, expert = layer_weights(a, stage.layout)

    def both(kind: str, size: float) -> tuple[Scalar, Scalar]:
        first = _moved_s(stage, kind, dense, size)
        second = first if a.experts is None else _moved_s(stage, kind, expert, size)
        return first, second

    gathers = both("all_gather", weight) if w.zero >= 3 else none
    return Reduction(scatter, gather, both("reduce_scatter", gradient), gathers)


def update_s(stage: Stage, a: Architecture, w: Train, span: Span) -> Scalar:
    """Time of the optimizer on the fullest stage, offloaded state over the host link.

    Memory-bound: bytes of the states that a device owns over the memory's rate.
    """
    held = stage_weights(a, stage.layout, span)
    groups = list(_groups(stage).values())
    owned = whole = jnp.zeros(())
    for weights, group in zip(held, groups):
        whole = whole + weights
        owned = owned + weights / (group.ranks if w.zero >= 1 else 1.0)
    owned, whole = _fullest(owned, stage), _fullest(whole, stage)
    chip = stage.system.chip
    rate = chip.memory_bytes_per_s * chip.memory_efficiency
    kept = owned if w.zero >= 2 else whole
    update = (UPDATE_BYTES * owned + NORM_BYTES * kept) / rate
    update = update * stage.scales("optimizer.step")
    if not w.offload_link:
        return update
    link = stage.system.links[w.offload_link]
    size = BYTES["fp32"] + BYTES["bf16"]  # gradients go out, weights come back
    moved = owned * size * w.offload_optimizer / (link.bytes_per_s * link.efficiency)
    return update + moved * stage.scales("offload.transfer")


def _fullest(values, stage: Stage) -> Scalar:
    if stage.sharpness is None:
        return values.max()
    return smooth.maximum_of(list(values), stage.sharpness)
