r"""What an instance of a layout serves at most, of many layouts at once.

R(n) grows at least in proportion to the number n of instances, so no fleet serves more
with each than one of very many. There a prefill pool is stable up to its largest batches,
and its limit on the time to the first token is exceeded if a lone request exceeds it;
a pool that generates has the batch that limits and memory leave it.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from .._types import Scalar
from ..job.layout import Pools, Routing, devices
from ..machine.pad import padded
from ..memory.serving import excess_bytes
from ..model.architecture import weighed
from ..optimization.price import in_blocks
from ..serve.generation import Generation, Inputs, Load, generate
from ..serve.pools import scheme_of
from ..serve.prefill import prefill_pool, transfer
from ..serve.queue import BUSIEST
from .load import RequestClass
from .shaped import shaped
from .space import Layouts, chunk_tokens, instance_of

MANY = 2.0**20
"""Instances of a pool that wait as little as those of any."""

BLOCK = 256
"""Layouts of one call, by one program whatever their number."""


class Kind(NamedTuple):
    """What changes the shape of the computation, so that each needs a program."""

    role: str
    roles: tuple[str, ...]
    """Of all pools."""
    attention: str
    """`tp`, which is `dp` where tp = 1, or `sp_tp_sp`."""
    apart: bool
    """Ranks of their own hold the shared expert."""


class Most(NamedTuple):
    """Of an instance of each layout where there are many, (layout,)."""

    per_s: np.ndarray
    """Most requests a second within limits; 0 where it can't run or a lone request
    exceeds a limit."""
    tpot_s: np.ndarray
    """Time per token at the rate asked about; 0 of a pool that generates none."""


def most_of(
    c: RequestClass,
    role: str,
    attention: str,
    layouts: Layouts,
    per_s: np.ndarray | float = 1.0,
) -> Most:
    """What an instance of each layout serves.

    Args:
        attention: `tp`, which is `dp` where tp = 1, or `sp_tp_sp`.
        per_s: rate of an instance at which to say the time per token, (layout,).
    """
    inputs, head = _of_role(c.inputs, role), _head_ways(c, role)
    tokens, roles = chunk_tokens(c, role, layouts), [p.role for p in c.scenario.pools]
    tiers = inputs[0][role].tiers.size.shape[-1]
    factor = padded(layouts.factor, tiers, 1.0)
    asked = np.broadcast_to(per_s, tokens.shape)
    columns = factor, layouts.redundant, layouts.shared, tokens, asked
    found = Most(np.zeros(len(tokens)), np.zeros(len(tokens)))
    for apart in (False, True):
        kind = Kind(role, tuple(sorted(roles)), attention, apart)
        rows = np.flatnonzero((layouts.shared > 0.0) == apart)
        if not len(rows):
            continue
        program = partial(_most, inputs, head, kind)
        served = in_blocks(program, BLOCK, *(x[rows].astype(float) for x in columns))
        for column, values in zip(found, served):
            column[rows] = values
    return found


def _head_ways(c: RequestClass, role: str) -> Array:
    """Ranks that share the output head where attention is whole on each, as `build` has
    it."""
    spec = instance_of(c.scenario, role)
    ways = 1.0 if role == "prefill" else c.inputs[0][role].runtime.head_ways
    return jnp.asarray(float(spec.head or ways))


def _of_role(inputs: tuple, role: str) -> tuple:
    """Inputs of one pool alone, in the shape that most machines have."""
    machines, a, w, pools = inputs
    machines, pools = shaped(
        {role: machines[role]}, Pools(pools={role: pools.pools[role]})
    )
    return machines, a, w.replace(software={role: w.software[role]}), pools


@partial(jax.jit, static_argnames="kind")
def _most(inputs: tuple, head: Array, kind: Kind, *block: Array) -> tuple[Array, Array]:
    """As `Most` has it, of one block."""
    role = kind.role
    machines, a, w, pools = inputs
    machines = {name: machine.ready for name, machine in machines.items()}
    start = Inputs(machines, weighed(a), w, pools)
    given = pools.pools[role].layout

    def one(row: tuple) -> tuple[Array, Array]:
        factor, redundant, shared, tokens, per_s = row
        routing = Routing(
            redundant_experts=redundant,
            shared_replicas=shared,
            dispatches_shared=kind.apart,
        )
        layout = given.replace(
            factor=factor, routing=routing, attention=kind.attention, head=head
        )
        pool = pools.pools[role].replace(layout=layout, devices=MANY * devices(layout))
        pooled = start._replace(
            workload=w.replace(tokens_per_device=tokens),
            pools=Pools(pools={**pools.pools, role: pool}),
        )
        if role == "prefill":
            return _prefills(pooled) / MANY, jnp.zeros(())
        made = _generates(pooled, MANY * per_s, kind.roles)
        runs = made.memory_excess_bytes[role] <= 0.0
        rate = jnp.where(runs, made.requests_per_s / MANY, 0.0)
        return rate, jnp.asarray(made.tpot_s)

    return jax.vmap(one)(block)


def _prefills(inputs: Inputs) -> Array:
    machines, a, w, pools = inputs
    machine, pool = machines["prefill"], pools.pools["prefill"]
    hand_over = transfer(machine, a, w, pool.layout)
    made = prefill_pool(machine, a, w, pool, hand_over.seconds, None)
    runs = excess_bytes(machine, made.memory) <= 0.0
    if w.ttft_limit_s is not None:
        runs &= made.service.step_s[0] + hand_over.seconds <= w.ttft_limit_s
    return jnp.where(runs, BUSIEST * made.full_requests_per_s, 0.0)


def _generates(inputs: Inputs, per_s: Scalar, roles: tuple[str, ...]) -> Generation:
    none, whole = jnp.zeros(()), jnp.ones(())
    load = Load(per_s, None, None, fixed_s=none, seen=whole)
    return generate(scheme_of(roles), inputs, load, None)
