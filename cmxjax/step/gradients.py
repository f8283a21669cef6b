"""Data parallelism: reduction of gradients, gathering of weights, the optimizer.

ZeRO 0 all-reduces gradients once a step; 1 and 2 scatter them reduced and gather the
updated weights, 2 scatters for every micro-batch; 3 also gathers each layer's weights
for every pass. Experts reduce over the ranks that hold the same ones.

Reference: Rajbhandari et al., arXiv 1910.02054, section 7.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp

from .. import smooth
from .._types import Scalar, Sharpness
from ..job.layout import Layout, splits
from ..job.workload import BYTES, Train
from ..machine.runtimes import Trainer
from ..model.architecture import Architecture
from .line import Line
from .requests import Request
from .serving import Stage
from .train_state import Held, Plan, data_ranks

UPDATE_BYTES = 30.0
"""Bytes that Adam moves per weight it owns: reads gradient, master weight and two
moments in fp32, writes the last three and a bf16 weight (16 + 14)."""

NORM_BYTES = 8.0
"""Bytes per gradient held: read for the norm, and zeroed, in fp32."""


Pair = tuple[Scalar, Scalar]


class Reduction(NamedTuple):
    """Seconds of data-parallel traffic of a device."""

    scatter_once: Scalar
    gather_once: Scalar
    scatter_layer: Pair
    """For each micro-batch and layer, dense and expert."""
    gather_layer: Pair

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


def _axes(a: Architecture, layout: Layout) -> dict[str, tuple[Any, Scalar]]:
    """How the ranks that hold the same weights split over the tiers, and how many there
    are, by component."""
    ranks, expert_ranks = data_ranks(layout)
    axes = {"data_parallel": (splits(layout, "dp") * splits(layout, "cp"), ranks)}
    if a.experts is not None:
        axes["expert_data_parallel"] = (splits(layout, "edp"), expert_ranks)
    return axes


def requests_of(
    a: Architecture, w: Train, layout: Layout, plan: Plan
) -> dict[str, list[Request]]:
    """Data-parallel collectives of a device of the first stage, by kind."""
    once = Held(*(x[0] for x in plan.weights))
    gradient, weight = BYTES[w.serving.dtypes.gradient], BYTES["bf16"]
    if w.zero == 0:
        return {"all_reduce": _asked(a, layout, "once", once, gradient, False)}
    asked: dict[str, list[Request]] = {"all_gather": [], "reduce_scatter": []}
    if w.zero < 3:
        asked["all_gather"] += _asked(a, layout, "once", once, weight)
    if w.zero == 1:
        asked["reduce_scatter"] += _asked(a, layout, "once", once, gradient)
        return asked
    sorts = ("dense", "expert") if a.experts is not None else ("dense",)
    for sort, held in zip(sorts, plan.layer_weights):
        asked["reduce_scatter"] += _asked(a, layout, sort, held, gradient)
        if w.zero >= 3:
            asked["all_gather"] += _asked(a, layout, sort, held, weight)
    return asked


def _asked(
    a: Architecture, layout: Layout, name: str, held: Held, size: float, sharded=True
) -> list[Request]:
    """One collective for common weights and, in a mixture, one for experts."""
    found = []
    for (prefix, (split, ranks)), weights in zip(_axes(a, layout).items(), held):
        payload = weights * size / (ranks if sharded else 1.0)
        found.append(Request(f"{name} {prefix}", prefix, split, payload))
    return found


def reduction_of(a: Architecture, w: Train, times: dict[str, dict]) -> Reduction:
    """Data-parallel traffic from the times of its collectives, by kind and name."""

    def total(kind: str, name: str) -> Scalar:
        found = times.get(kind, {})
        own = [v for key, v in found.items() if key.split(" ")[0] == name]
        return sum(own, jnp.zeros(()))

    def layers(kind: str) -> Pair:
        dense = total(kind, "dense")
        return dense, dense if a.experts is None else total(kind, "expert")

    scatter = total("reduce_scatter", "once") + total("all_reduce", "once")
    gather = total("all_gather", "once")
    return Reduction(scatter, gather, layers("reduce_scatter"), layers("all_gather"))


def update_s(stage: Stage, a: Architecture, w: Train, plan: Plan) -> Scalar:
    """Time of the optimizer on the fullest stage, offloaded state over the host link.

    Memory-bound: bytes of the states that a device owns over the memory's rate.
    """
    owned = whole = jnp.zeros(())
    for weights, (_, ranks) in zip(plan.weights, _axes(a, stage.layout).values()):
        whole = whole + weights
        owned = owned + weights / (ranks if w.zero >= 1 else 1.0)
    owned, whole = (smooth.largest(x, stage.sharpness) for x in (owned, whole))
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
