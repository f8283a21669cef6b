r"""Co-located serving: devices that decode also compute prompts, chunk by chunk.

Of the steps a share u carries a chunk of C prompt tokens on each device. In balance the
prompts keep up with the outputs: with b sequences on a device that yield k tokens each a
step, prompts of N new and outputs of O tokens,

$$ u\,C = b\,k\,\frac{N}{O}, \qquad \bar T = (1 - u)\,T_0 + u\,T_C $$

with T_0 and T_C the steps without and with a chunk. A prompt takes N / q steps with
chunks of q of its tokens. It waits as in M/D/1 at the share of the time that such steps
take, $u\,T_C / \bar T$.
"""

import jax
import jax.numpy as jnp

from .._types import Scalar, Sharpness
from ..job.layout import degree
from ..job.workload import Prefill, tokens_per_step
from ..memory import Memory, decode_memory, prefill_memory
from ..step.chunk import chunk_of, progress
from ..step.decode import DecodeTimes, decode_times
from ..step.prefill import cache_load_s
from ..step.serving import Busy, stage_of
from ..step.shares import Scales
from .generation import Inputs, Point, Scheme, busy_shares, decode_workload, tpot_share
from .queue import BUSIEST, waiting_s

ROLE = "decode"


def _prompts(inputs: Inputs) -> Prefill:
    """Prompts with a whole chunk on each device."""
    w = inputs.workload
    return Prefill(
        tokens_per_device=w.tokens_per_device,
        prompt_tokens=w.prompt_tokens,
        cached_fraction=w.cached_fraction,
        serving=w.serving[ROLE],
        cache_link=w.cache_link,
    )


def _load_s(inputs: Inputs, sharpness: Sharpness) -> Scalar:
    """Load of one prompt's cached prefix by the group that computes it."""
    system, a, w, pools = inputs
    layout = pools.pools[ROLE].layout
    group = degree(layout, "tp") * degree(layout, "cp")
    one = _prompts(inputs).replace(tokens_per_device=w.prompt_tokens / group)
    stage = stage_of(system, layout, w.serving[ROLE], Scales({}), sharpness)
    return cache_load_s(stage, a, one)


def _point(inputs: Inputs, batch: Scalar, sharpness: Sharpness) -> Point:
    system, a, w, pools = inputs
    layout, prompts = pools.pools[ROLE].layout, _prompts(inputs)
    work = decode_workload(w, ROLE, batch)

    def step(chunk_tokens: Scalar) -> DecodeTimes:
        chunk = chunk_of(prompts.replace(tokens_per_device=chunk_tokens), layout)
        args = (system, a, work, layout, Scales({}), sharpness)
        return decode_times(*args, chunk=chunk)

    sizes = jnp.asarray([0.0, 1.0]) * w.tokens_per_device
    both = jax.vmap(step)(sizes)
    bare, full = jnp.asarray(both.step_s)
    new = w.prompt_tokens * (1.0 - w.cached_fraction)
    yielded = tokens_per_step(work)
    share = batch * yielded * new / (w.output_tokens * w.tokens_per_device)
    mean = bare + share * (full - bare)
    tpot, busy = mean / yielded, share * full / mean
    service = new / progress(prompts, layout).tokens * full
    wait = waiting_s(busy, service)
    prefill = service + _load_s(inputs, sharpness)
    limits = tpot_share(w, tpot)
    if w.ttft_limit_s is not None:
        limits["ttft"] = (wait + prefill) / w.ttft_limit_s
    used = [jnp.asarray(seconds) for seconds in both.layer.busy]
    mixed = Busy(*(x[0] + share * (x[1] - x[0]) for x in used))
    return Point(
        tpot_s=tpot,
        limits=limits,
        stable=busy / BUSIEST,
        loads={ROLE: busy_shares(mixed, mean)},
        extra={"waiting": wait, "prefill": prefill},
    )


def _memory(inputs: Inputs, batch: Scalar, sharpness: Sharpness) -> dict[str, Memory]:
    """Memory of decode, and of a chunk whose prompts hold all their keys and values."""
    _, a, w, pools = inputs
    layout, prompts = pools.pools[ROLE].layout, _prompts(inputs)
    own = progress(prompts, layout)
    group = degree(layout, "tp") * degree(layout, "cp")
    held = prompts.replace(
        tokens_per_device=own.prompts * w.prompt_tokens / group,
        cached_fraction=1.0 - own.tokens / w.prompt_tokens,
    )
    decode = decode_memory(a, decode_workload(w, ROLE, batch), layout, sharpness)
    chunk = prefill_memory(a, held, layout, sharpness)
    return {
        ROLE: Memory(
            weights=decode.weights,
            kv_cache=decode.kv_cache + chunk.kv_cache,
            communication=decode.communication + chunk.communication,
            activations=decode.activations + chunk.activations,
        )
    }


COLOCATED = Scheme(ROLE, _point, _memory)
