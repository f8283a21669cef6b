"""Machines brought to one shape, with parts that are switched off or hold nothing.

A tier of one unit carries nothing and an algorithm that is switched off is never taken,
so a padded machine gives the same numbers; it takes longer to evaluate (a decode step of
a dense model on two tiers twice as long on four), so single jobs are not padded.
"""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from .._numbers import array, scalar
from .._types import Leaf
from ..switch import switch
from .libraries import ALGORITHMS
from .machine import Machine
from .runtimes import Engine
from .tiers import Torus

MOST_TIERS = 4
"""Tiers of the shipped machines with most of them."""

FILLED = {"size": 1.0, "bytes_per_s": 1.0, "efficiency": 1.0, "oversubscription": 1.0}
FILLED |= {"latency_s": 0.0, "reduces": 0.0, "scale_up": 0.0}


def padded(values: Leaf, count: int, fill: float) -> Leaf:
    """An array with `count` entries on its last axis, new ones at the end."""
    missing = count - values.shape[-1]
    if missing <= 0:
        return values
    new = np.full((*values.shape[:-1], missing), fill)
    if isinstance(values, Tracer):
        return jnp.concatenate([values, new], axis=-1)
    joined = np.concatenate([values, new], axis=-1)  # no program to compile
    return joined if joined.dtype == object else array(joined)


def with_tiers(machine: Machine, count: int) -> Machine:
    """The machine with that many tiers, new ones of one unit outermost, each of which may
    have a plane of its own."""
    tiers, exchange = machine.tiers, machine.exchange
    each: dict[str, Leaf] = {
        name: padded(getattr(tiers, name), count, fill) for name, fill in FILLED.items()
    }
    planes = tuple(padded(mask, count, 0.0) for mask in tiers.planes)
    mesh = array(np.zeros(tiers.size.shape)) if tiers.mesh is None else tiers.mesh
    planes += (array(np.zeros(count)),) * (count - len(planes))
    torus = (
        None
        if tiers.torus is None
        else jax.tree.map(
            lambda leaf: jnp.swapaxes(
                padded(jnp.swapaxes(leaf, -1, -2), count, 1.0), -1, -2
            ),
            tiers.torus,
        )
    )
    mesh = padded(mesh, count, 0.0)
    return machine.replace(
        tiers=tiers.replace(planes=planes, mesh=mesh, torus=torus, **each),
        exchange=exchange.replace(
            only=padded(exchange.only, count, 0.0),
            across=padded(exchange.across, count, 0.0),
        ),
    )


def with_torus(machine: Machine, dimensions: int) -> Machine:
    """The machine with tori of that many dimensions, or with none where that is 0; those
    of one unit along each are none."""
    if not dimensions:
        return machine
    none = array(np.ones((*machine.tiers.size.shape, dimensions)))
    torus = machine.tiers.torus or Torus(shape=none, closes=none)
    torus = jax.tree.map(lambda leaf: padded(leaf, dimensions, 1.0), torus)
    return machine.replace(tiers=machine.tiers.replace(torus=torus))


def with_algorithms(machine: Machine, names: tuple[str, ...] = ALGORITHMS) -> Machine:
    """The machine with a switch for each algorithm. A library without the direct one,
    which others are compared with, stays as it is."""
    library = machine.library
    if "direct" not in library.algorithms:
        return machine
    every = dict.fromkeys(names, switch(False)) | library.algorithms
    return machine.replace(library=library.replace(algorithms=every))


FUSED = "fused_exposed_fraction"
WAYS = ("deduplicates", "gathers", FUSED)
"""Of exchanges to send tokens, and of one kernel for all; none where no library of a job
has them."""


def with_ways(machine: Machine, names: Iterable[str] = WAYS) -> Machine:
    """The machine with switches for exchanges that send a token to a node once, or all
    tokens to all ranks, and with kernels that hide nothing for one that does."""
    exchange = machine.exchange
    absent = [name for name in names if getattr(exchange, name) is None]
    if not absent:
        return machine
    off = switch(False)
    missing = {name: scalar(1.0) if name == FUSED else off for name in absent}
    return machine.replace(exchange=exchange.replace(**missing))


def alike(machine: Machine) -> Machine:
    """The machine in the shape that all have, for phases without a pipeline or engine."""
    runtime = machine.runtime
    if isinstance(runtime, Engine):
        machine = machine.replace(runtime=runtime.replace(partitions_cores=False))
    return with_ways(with_algorithms(with_tiers(machine, MOST_TIERS)))
