"""From a scenario's degrees to the placement matrix."""

import math
from typing import NamedTuple

import numpy as np

from ..job.layout import ATTENTION_AXES, AXES, DEFAULT_ORDER, EXPERT_AXES, placement
from .errors import SpecError
from .scenario_file import LayoutSpec, RoutingSpec


class Degrees(NamedTuple):
    """Every axis's degree, whole."""

    tp: int
    cp: int
    dp: int
    pp: int
    etp: int
    ep: int
    edp: int


def _divided(devices: int, by: dict[str, int], what: str, where: str) -> int:
    product = math.prod(by.values())
    if devices % product:
        given = " x ".join(f"{axis} = {size}" for axis, size in by.items() if size > 1)
        raise SpecError(
            [
                f"{where}: layout.devices = {devices}: not divisible by {given};"
                f" change one of them, or give {what}"
            ]
        )
    return devices // product


def devices_of(spec: LayoutSpec) -> int:
    """Devices of a layout, from its degrees where they aren't given."""
    if spec.devices is not None:
        return spec.devices
    attention = (spec.tp, spec.cp, spec.dp, spec.pp)
    experts = (spec.etp, spec.ep, spec.edp, spec.pp)
    return max(math.prod(axis or 1 for axis in axes) for axes in (attention, experts))


def derive(spec: LayoutSpec, has_experts: bool, where: str) -> Degrees:
    """Degrees left out, so that tp cp dp pp = etp ep edp pp = devices.

    A mixture model spreads its experts over all devices unless told otherwise; a dense
    model has ep = 1.

    Raises:
        SpecError: the degrees don't multiply to the devices.
    """
    tp, cp, pp = spec.tp or 1, spec.cp or 1, spec.pp or 1
    etp = spec.etp or 1
    devices = spec.devices
    if devices is None:
        devices = tp * cp * pp * (spec.dp or 1)
        if spec.dp is None and spec.ep is not None:
            devices = max(devices, etp * spec.ep * (spec.edp or 1) * pp)
    dp = spec.dp
    if dp is None:
        dp = _divided(devices, {"tp": tp, "cp": cp, "pp": pp}, "dp", where)
    if tp * cp * dp * pp != devices:
        raise SpecError(
            [
                f"{where}: layout: tp {tp} x cp {cp} x dp {dp} x pp {pp} ="
                f" {tp * cp * dp * pp}, not devices = {devices}; leave one of them out"
            ]
        )
    ep, edp = spec.ep, spec.edp
    if ep is None:
        ep = 1
        if has_experts:
            ep = _divided(devices, {"etp": etp, "edp": edp or 1, "pp": pp}, "ep", where)
            edp = edp or 1
    if edp is None:
        edp = _divided(devices, {"etp": etp, "ep": ep, "pp": pp}, "edp", where)
    if etp * ep * edp * pp != devices:
        raise SpecError(
            [
                f"{where}: layout: etp {etp} x ep {ep} x edp {edp} x pp {pp} ="
                f" {etp * ep * edp * pp}, not devices = {devices}; leave one of them out"
            ]
        )
    return Degrees(tp, cp, dp, pp, etp, ep, edp)


def parse_order(text: str | None, where: str) -> tuple[str, ...]:
    """A rank order such as `tp-cp-ep-dp-pp`, innermost first.

    The expert axes fold over the devices of the others, etp innermost, so `ep` in an
    order is accepted and says nothing more. Both foldings share the pipeline stages,
    so pp must come first or last.

    Raises:
        SpecError: an axis is missing, unknown or named twice, or pp is in between.
    """
    if text is None:
        return DEFAULT_ORDER
    axes = [axis for axis in text.split("-") if axis not in ("ep", "etp", "edp")]
    if sorted(axes) != sorted(ATTENTION_AXES):
        raise SpecError(
            [
                f"{where}: layout.order = {text!r}: must name each of"
                f" {', '.join(ATTENTION_AXES)} once, such as 'tp-cp-ep-dp-pp'"
            ]
        )
    if "pp" not in (axes[0], axes[-1]):
        raise SpecError(
            [f"{where}: layout.order = {text!r}: pp must come first or last; move it"]
        )
    return tuple(axes)


def check_division(sizes: dict[str, tuple[float, str, int]], where: str) -> None:
    """Every size must divide by the degree that splits it.

    Args:
        sizes: for each name the size, the axis and its degree.

    Raises:
        SpecError: naming each that doesn't, with degrees that would.
    """
    mistakes = []
    for name, (size, axis, split) in sizes.items():
        if size % split:
            fitting = [str(d) for d in range(1, 129) if size % d == 0]
            mistakes.append(
                f"{where}: layout.{axis} = {split}: does not divide the model's {name} ="
                f" {size:g}; use one of {', '.join(fitting)}"
            )
    if mistakes:
        raise SpecError(mistakes)


def place(
    degrees: Degrees, sizes: list[float], order: tuple[str, ...], where: str
) -> np.ndarray:
    """The placement matrix of whole degrees. Raises `SpecError` if they don't fit."""
    try:
        return placement(
            {k: float(v) for k, v in degrees._asdict().items()}, sizes, order
        )
    except ValueError as error:
        raise SpecError([f"{where}: layout: {error}"]) from None


def given_placement(
    placement: dict[str, list[int]], degrees: Degrees, sizes: list[float], where: str
) -> np.ndarray:
    """The placement matrix that a scenario spells out; axes left out don't split.

    Raises:
        SpecError: an axis is unknown, a row is not one number for each tier, rows don't
            multiply to the degrees, or a tier joins fewer units.
    """
    key, tiers = f"{where}: layout.placement", len(sizes)
    mistakes = [
        f"{key}.{axis}: no such axis; use one of {', '.join(AXES)}"
        for axis in placement
        if axis not in AXES
    ]
    mistakes += [
        f"{key}.{axis}: has {len(row)} numbers; give one for each of {tiers} tiers"
        for axis, row in placement.items()
        if len(row) != tiers
    ]
    if mistakes:
        raise SpecError(mistakes)
    rows = [placement.get(axis, [1] * tiers) for axis in AXES]
    for axis, row, degree in zip(AXES, rows, degrees):
        if math.prod(row) != degree:
            mistakes.append(
                f"{key}.{axis}: multiplies to {math.prod(row)}, not to layout.{axis} ="
                f" {degree}; change one of them"
            )
    for t, size in enumerate(sizes):
        for axes in (ATTENTION_AXES, EXPERT_AXES):
            used = math.prod(rows[AXES.index(axis)][t] for axis in axes)
            if used > size:
                mistakes.append(
                    f"{key}: {' '.join(axes)} split tier {t} {used} ways, which joins"
                    f" only {size:g}; split it less"
                )
    if mistakes:
        raise SpecError(mistakes)
    return np.array(rows, float)


def check_experts(
    routed: float, routing: RoutingSpec, degrees: Degrees, where: str
) -> None:
    """Routed, redundant and replicated shared experts must fill the slots.

    Raises:
        SpecError: they don't, or don't spread evenly over the expert ranks.
    """
    held = routed + routing.redundant_experts + routing.shared_replicas
    per_device = routing.experts_per_device
    if per_device is not None and held != degrees.ep * per_device:
        raise SpecError(
            [
                f"{where}: routing: {routed:g} routed + {routing.redundant_experts:g}"
                f" redundant + {routing.shared_replicas:g} shared = {held:g} experts do"
                f" not fill ep {degrees.ep} x experts_per_device {per_device:g} ="
                f" {degrees.ep * per_device:g} slots; change redundant_experts or ep"
            ]
        )
    if held % degrees.ep:
        near = " or ".join(str(ep) for ep in _nearest_divisors(int(held), degrees.ep))
        spare = routing.redundant_experts + (-held) % degrees.ep
        raise SpecError(
            [
                f"{where}: routing: {held:g} experts don't divide over ep ="
                f" {degrees.ep}; use layout.ep = {near} (without layout.ep it follows"
                f" from layout.devices) or routing.redundant_experts = {spare:g}"
            ]
        )


def _nearest_divisors(number: int, near: int) -> list[int]:
    """The largest divisor below a number and the smallest above."""
    fitting = [d for d in range(1, number + 1) if number % d == 0]
    below, above = [d for d in fitting if d < near], [d for d in fitting if d > near]
    return below[-1:] + above[:1]
