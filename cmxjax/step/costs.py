r"""Price, choose, compose: what a step is made of, and which share of it each part is.

`price` gives the seconds of each component alone (times) and the seconds that its bytes
occupy what components share, the planes and the memory (loads); `choose` what the engine
decides; `compose` adds, overlaps and waits, and sees no machine. A composition is
homogeneous of degree one in its costs c, so by Euler's theorem

$$ T(c) = \sum_i c_i\, \frac{\partial T}{\partial c_i} $$

and each term is the share of one component; at ties it is the mean of the one-sided
values. Nothing is left over.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

from .._types import Leaf, PyTree, Scalar
from ..rates.roofline import RESOURCES

HIGHEST = jax.lax.Precision.HIGHEST

Times = TypeVar("Times")
Few = TypeVar("Few", bound=Mapping[str, Scalar])

_COLLECTIVE = ("start", "transfer", "protocol")
_MESH = ("start", "transfer")

PARTS: dict[str, tuple[str, ...]] = {
    "host": ("step", "layer"),
    "cache": ("load",),
    "optimizer": ("step",),
    "offload": ("transfer", "update"),
    "pipeline": _MESH,
    "logits": _MESH,
    "tensor_parallel": _COLLECTIVE,
    "context_parallel": _COLLECTIVE,
    "data_parallel": _COLLECTIVE,
    "expert_data_parallel": _COLLECTIVE,
    "expert_tensor": _MESH,
    "dispatch": ("start", "wait", "transfer", "copies"),
    "combine": ("start", "transfer", "copies", "sum"),
    **{
        block: RESOURCES
        for block in ("norms", "attention", "dense", "router", "experts", "shared")
    },
    **{block: RESOURCES for block in ("embedding", "head", "draft")},
    "vision": RESOURCES + _COLLECTIVE,
}
"""Every component of a step and its parts, as reports and JSON name them:
`component.part`. A path of the costs is named by its component and its last key."""


class Costs(NamedTuple):
    """Seconds of each component. Keys of the trees are groups (such as what each layer
    runs), then components, last parts."""

    times: dict[str, PyTree]
    """Of each alone."""
    loads: dict[str, PyTree]
    """That its bytes occupy each plane and the memory, which components share."""


@dataclass(frozen=True)
class Composition(Generic[Times]):
    """A priced step, and how its costs make up its time."""

    costs: Costs
    compose: Callable[[Costs], tuple[Scalar, Times]]
    """The step's seconds, and its times in detail."""
    busy: Callable[[Times], dict[str, PyTree]]
    """From these times: seconds that each component is busy in a step,
    hidden or not. A tree like the times, each times its runs and slowdown in place."""
    entries: Mapping[str, tuple[str, ...]]
    """See `Entries`."""


class Breakdown(struct.PyTreeNode, Mapping[str, Leaf], kw_only=True, frozen=True):
    """Seconds of a step by component: its share of the step, by its public name.

    One array with all of them: in a sweep a table is one result, not a hundred.
    """

    seconds: Leaf
    """By name and then by sort: the share of the step, and how long it is busy."""
    names: tuple[str, ...] = struct.field(pytree_node=False)
    kind: str = struct.field(pytree_node=False, default="breakdown")

    def __getitem__(self, name: str) -> Leaf:
        if name not in self.names:
            raise KeyError(name)
        return self.seconds[..., self.names.index(name), 0]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def busy(self) -> dict[str, Leaf]:
        """Seconds that each component is busy in a step, hidden or not."""
        return {name: self.seconds[..., i, 1] for i, name in enumerate(self.names)}


class Explained:
    """What metrics with a breakdown have in common."""

    breakdown: Breakdown | None

    @property
    def busy(self) -> dict[str, Leaf] | None:
        """Seconds that each component is busy, hidden or not."""
        return None if self.breakdown is None else self.breakdown.busy


def breakdown_of(shares: Mapping[str, Scalar], busy: Mapping[str, Scalar]) -> Breakdown:
    """A breakdown of few components, given one by one under the same names."""
    table = [[shares[name], busy[name]] for name in shares]
    return Breakdown(seconds=jnp.array(table), names=tuple(shares))


Entries = Mapping[str, tuple[str, ...]]
"""Components of the entries of an array, along its last axis, by the array's key. Arrays
under one first key have the same parts; a component without an array is listed as 0."""


def named(
    trees: Sequence[dict[str, PyTree]], entries: Entries
) -> tuple[tuple[str, ...], Float[Array, " name"]]:
    """Sums of trees of seconds by public name: the names and the sums.

    Args:
        trees: keyed by group, by component, by whatever else, last by part. A key of
            `entries` is no component: its arrays have one for each entry.
    """
    one: dict[str, Array] = {}
    arrays: dict[str, dict[str, Array]] = {}
    for path, leaf in (row for tree in trees for row in jax.tree.leaves_with_path(tree)):
        keys = [str(step.key) for step in path[1:] if hasattr(step, "key")]
        array = ".".join(keys[:-1])
        if array in entries:
            key, table = keys[-1], arrays.setdefault(array, {})
            rows = leaf.reshape(-1, leaf.shape[-1])
            value = rows.sum(axis=0) if leaf.ndim > 1 else leaf
        else:
            key, table = f"{keys[0]}.{keys[-1]}", one
            value = leaf.sum() if leaf.ndim else leaf
        table[key] = table[key] + value if key in table else value
    names, totals = [*one], [jnp.stack([jnp.asarray(value) for value in one.values()])]
    for first in dict.fromkeys(array.split(".")[0] for array in entries):
        alike = {
            array: of for array, of in entries.items() if array.split(".")[0] == first
        }
        components = tuple(dict.fromkeys(name for of in alike.values() for name in of))
        sums: Array | float = 0.0
        for array, parts in (
            (array, arrays[array]) for array in alike if array in arrays
        ):
            member = [
                [float(component == name) for name in components]
                for component in alike[array]
            ]
            stacked = jnp.stack([*parts.values()])
            sums = sums + jnp.dot(stacked, np.array(member), precision=HIGHEST)
        parts = next(arrays[array] for array in alike if array in arrays)
        names += [f"{name}.{part}" for part in parts for name in components]
        totals.append(jnp.ravel(sums))
    return tuple(names), jnp.concatenate(totals)


def composed(
    costs: Few, compose: Callable[[Few], Scalar], explains: bool
) -> tuple[Scalar, Breakdown | None]:
    """Time of few components that each run once, and its breakdown where asked for."""
    if not explains:
        return compose(costs), None
    time, slopes = jax.value_and_grad(compose)(costs)
    return time, breakdown_of(jax.tree.map(jnp.multiply, costs, slopes), costs)


def times_in(step: Composition[Times], explains: bool) -> tuple[Times, Breakdown | None]:
    """Times of a step, and its breakdown where asked for."""
    return explained(step) if explains else (step.compose(step.costs)[1], None)


def explained(step: Composition[Times]) -> tuple[Times, Breakdown]:
    """Times of a step, and its breakdown by one reverse pass through its composition,
    whose trace the value shares."""
    step_s, pull, times = jax.vjp(step.compose, step.costs, has_aux=True)
    (slopes,) = pull(jnp.ones_like(step_s))
    names, shares = named(jax.tree.map(jnp.multiply, step.costs, slopes), step.entries)
    _, busy = named([step.busy(times)], step.entries)
    return times, Breakdown(seconds=jnp.stack([shares, busy], axis=-1), names=names)
