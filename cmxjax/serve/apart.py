"""Attention and experts on pools of their own (attention-expert disaggregation).

A pool of attention devices holds as many domains as instances of its layout; all of
them share the pool of experts, which is one instance.
"""

import jax.numpy as jnp

from .._types import Scalar, Sharpness
from ..job.layout import devices, instances
from ..job.workload import tokens_per_step
from ..memory import Memory, attention_memory, expert_memory
from ..step.apart import Pair, apart_times
from .generation import Inputs, Point, Scheme, busy_shares, decode_workload, tpot_share

ROLE = "attention"


def _pair(inputs: Inputs) -> Pair:
    near, far = inputs.pools.pools[ROLE], inputs.pools.pools["expert"]
    # more expert devices than an instance work on a part of the domains each
    return Pair(near.layout, far.layout, instances(near) / instances(far))


def _point(inputs: Inputs, batch: Scalar, sharpness: Sharpness) -> Point:
    system, a, w, _ = inputs
    work = decode_workload(w, ROLE, batch)
    times = apart_times(system, a, work, _pair(inputs), sharpness)
    tpot = times.step_s / tokens_per_step(work)
    return Point(
        tpot_s=tpot,
        limits=tpot_share(w, tpot),
        stable=jnp.zeros(()),
        loads={
            ROLE: busy_shares(times.attention_busy, times.step_s),
            "expert": busy_shares(times.expert_busy, times.step_s),
        },
        extra={
            "attention_time": times.attention_s,
            "expert_time": times.expert_s,
            "dispatch_time": times.dispatch_s,
            "combine_time": times.combine_s,
        },
    )


def _memory(inputs: Inputs, batch: Scalar, sharpness: Sharpness) -> dict[str, Memory]:
    _, a, w, _ = inputs
    pair, work = _pair(inputs), decode_workload(w, ROLE, batch)
    count = 2.0 if pair.attention.microbatches == "2" else 1.0
    tokens = batch * (1.0 + w.draft_tokens) / count
    senders = pair.domains * devices(pair.attention)
    return {
        ROLE: attention_memory(a, work, pair.attention, pair.expert, sharpness),
        "expert": expert_memory(a, work, pair.expert, tokens, senders),
    }


APART = Scheme(ROLE, _point, _memory)
