"""Whether jobs can run, of any number of them at once; `predict` says why not."""

import jax.numpy as jnp

from .._types import Leaf
from ..phases.metrics import Metrics
from .predict import ENDLESS, ROUNDED


def feasible(m: Metrics) -> Leaf:
    """Whether a job fits into memory and tiers, and requests are served in time. As
    `Prediction.reasons` is empty."""
    good = jnp.asarray(True)
    if (memory := getattr(m, "memory_excess_bytes", None)) is not None:
        good &= memory <= 0.0
    if (placement := getattr(m, "placement_excess", None)) is not None:
        good &= placement <= 1e-9
    good &= ~overloaded(m)
    for name in ("ttft", "tpot"):
        if (late := getattr(m, f"{name}_excess_s", None)) is not None:
            good &= ~(late > 1e-9 * getattr(m, f"{name}_s"))
    return good


def overloaded(m: Metrics) -> Leaf:
    """Whether more requests arrive than can be served; see `predict.overloaded`."""
    excess = getattr(m, "excess_requests_per_s", None)
    if excess is None:
        return jnp.asarray(False)
    return excess > ROUNDED * m.served_requests_per_s  # pyright: ignore


def value(m: Metrics, field: str) -> Leaf:
    """A metric; not a number where it has no value, as more arrives than is served, or
    the machine has no price."""
    found = getattr(m, field)
    if found is None:
        return jnp.asarray(jnp.nan)
    return jnp.where(overloaded(m), jnp.nan, found) if field in ENDLESS else found
