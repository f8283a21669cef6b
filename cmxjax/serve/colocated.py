r"""Co-located serving: devices that decode also compute prompts, chunk by chunk.

Of the steps a share u carries a chunk of C prompt tokens on each device. In balance the
prompts keep up with the outputs: with b sequences on a device that yield k tokens each a
step, prompts of N new and outputs of O tokens,

$$ u\,C = b\,k\,\frac{N}{O}, \qquad \bar T = (1 - u)\,T_0 + u\,T_C $$

with T_0 and T_C the steps without and with a chunk. A prompt takes N / q steps with
chunks of q of its tokens, and waits for steps that take all prompts up to as many tokens
as the engine computes at once (`queue.Steps`).

A chunk has the tokens of as many prompts as come up in a step, at least one, and at most
what the engine computes at once. Where prompts go first a chunk is a step of its own, and
T_C stands for both: $T_0$ plus the chunk's. Where ranks of data-parallel attention that
share experts step together and have their chunks at different times, u is the share of
steps in which any has one, $1 - (1 - u)^R$ of R ranks; requests that begin a closed loop
together have theirs in the same steps.
"""

import jax
import jax.numpy as jnp

from .. import smooth
from .._types import Scalar, Sharpness
from ..job.layout import degree, instances
from ..job.workload import Prefill, Serve, tokens_per_step
from ..memory.serving import Memory, decode_memory, prefill_memory
from ..memory.vision import vision_memory
from ..step.busy import Filled
from ..step.price import cache_load_s, decode_job, engine_of
from ..step.serving import times_of
from ..work.chunk import chunk_of, progress
from ..work.vision import with_prompts
from .generation import Inputs, Point, Scheme, busy_shares, decode_workload, tpot_share
from .queue import BUSIEST, LEAST, Steps, burst_wait_s, gap_variance, seen_share

ROLE = "decode"


def _prompts(inputs: Inputs) -> Prefill:
    """Prompts with a whole chunk on each device."""
    w = inputs.workload
    return Prefill(
        tokens_per_device=w.tokens_per_device,
        prompt_tokens=w.prompt_tokens,
        cached_fraction=w.cached_fraction,
        software=w.software[ROLE],
        images=w.images,
    )


def _load_s(inputs: Inputs, sharpness: Sharpness) -> Scalar:
    """Load of one prompt's cached prefix by the group that computes it."""
    layout, w = inputs.pools.pools[ROLE].layout, inputs.workload
    group = degree(layout, "tp") * degree(layout, "cp")
    one = _prompts(inputs).replace(tokens_per_device=w.prompt_tokens / group)
    return cache_load_s(inputs.machines[ROLE], inputs.a, one, sharpness)


def _others_too(inputs: Inputs, share: Scalar) -> Scalar:
    """Share of the steps in which any rank that shares the experts has a chunk, from that
    in which one has, if each has its own at any time."""
    if inputs.a.experts is None:
        return share
    ranks = degree(inputs.pools.pools[ROLE].layout, "dp")
    return 1.0 - smooth.larger(1.0 - share, LEAST) ** ranks


def _together(w: Serve) -> Scalar:
    """Share of the requests that begin a closed loop together."""
    return jnp.zeros(()) if w.concurrency is None else 1.0 / w.rounds


def _point(inputs: Inputs, batch: Scalar, sharpness: Sharpness) -> Point:
    w, layout, prompts = (
        inputs.workload,
        inputs.pools.pools[ROLE].layout,
        _prompts(inputs),
    )
    engine = engine_of(inputs.machines[ROLE])
    group = degree(layout, "tp") * degree(layout, "cp")
    new = w.prompt_tokens * (1.0 - w.cached_fraction)
    yielded = tokens_per_step(decode_workload(w, ROLE, batch))
    due = batch * yielded * new / w.output_tokens
    chunk_tokens = smooth.smaller(smooth.larger(due, new / group), w.tokens_per_device)
    prompts = prompts.replace(tokens_per_device=chunk_tokens)

    def step(tokens: Scalar, batch: Scalar) -> tuple[Scalar, Filled]:
        chunk = chunk_of(prompts.replace(tokens_per_device=tokens), layout)
        work = decode_workload(w, ROLE, batch)
        args = inputs.machines[ROLE], inputs.a, work, layout, sharpness
        times, (filled, _) = times_of(decode_job(*args, chunk=chunk), sharpness)
        return times.step_s, filled

    rides = 1.0 - engine.chunk_exposed_fraction
    sizes, batches = [jnp.zeros(()), chunk_tokens], [batch, batch * rides]
    steps, filled = jax.vmap(step)(jnp.stack(sizes), jnp.stack(batches))
    bare, full = jnp.unstack(steps)
    full = full + (1.0 - rides) * bare
    share = due / chunk_tokens
    apart = engine.rank_wait_fraction * (1.0 - _together(w))
    share = share + apart * (_others_too(inputs, share) - share)
    mean = bare + share * (full - bare)
    tpot, most = mean / yielded, w.tokens_per_device
    count = instances(inputs.pools.pools[ROLE])
    # of a closed loop each data-parallel rank computes its own part
    lines = count * degree(layout, "dp")
    seen = seen_share(w.concurrency, lines)
    held = batch * inputs.pools.pools[ROLE].devices / count
    steps = Steps(
        bare_s=bare,
        prompt_s=new / group * (full - bare) / chunk_tokens,
        busy=1.0 - bare / mean,
        prompts=smooth.larger(most * group / new, 1.0),
        steps=smooth.larger(new / (most * group), 1.0),
        rides=rides,
        runs=-jnp.expm1(-held * seen),
    )
    read_s = w.prompt_tokens * engine.prompt_token_s
    each_s = smooth.larger(steps.each_s, read_s)
    first = burst_wait_s(w.concurrency, lines, w.rounds, each_s, steps.prompts)
    wait = steps.wait_s(seen, gap_variance(w, count)) + first
    prefill = steps.own_s + _load_s(inputs, sharpness) + engine.prefill_batch_s + read_s
    limits = tpot_share(w, tpot)
    if w.ttft_limit_s is not None:
        limits["ttft"] = (wait + prefill) / w.ttft_limit_s
    mixed = jax.tree.map(lambda x: x[0] + share * (x[1] - rides * x[0]), filled)
    return Point(
        tpot_s=tpot,
        limits=limits,
        stable=steps.utilization / BUSIEST,
        loads={ROLE: busy_shares(mixed, mean)},
        extra={"waiting": wait, "prefill": prefill},
    )


def _memory(inputs: Inputs, batch: Scalar, sharpness: Sharpness) -> dict[str, Memory]:
    """Memory of decode, and of a chunk whose prompts hold all their keys and values."""
    w, layout, prompts = (
        inputs.workload,
        inputs.pools.pools[ROLE].layout,
        _prompts(inputs),
    )
    step = progress(prompts, layout)
    group = degree(layout, "tp") * degree(layout, "cp")
    held = prompts.replace(
        tokens_per_device=step.prompts * w.prompt_tokens / group,
        cached_fraction=1.0 - step.tokens / w.prompt_tokens,
    )
    work = decode_workload(w, ROLE, batch)
    decode = decode_memory(inputs.a, work, layout, sharpness)
    chunk = prefill_memory(inputs.a, held, layout, sharpness)
    added = jax.tree.map(jnp.add, decode, chunk)
    weights = decode.weights
    if w.images is not None and inputs.a.vision is not None:
        place = with_prompts(held, layout)
        weights = weights + vision_memory(inputs.a.vision, place, sharpness).weights
    return {ROLE: added._replace(weights=weights)}


COLOCATED = Scheme(ROLE, _point, _memory)
