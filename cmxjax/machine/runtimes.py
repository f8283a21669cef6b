"""What serves or trains: a serving engine or a training framework, and its costs."""

from flax import struct

from .._types import Leaf
from ..switch import Switch

EXPERT_FORMATS = ("plain", "floats", "integers")
"""What kernels for experts multiply: operands of one width, or weights that are narrower
than activations, floats or integers."""


class Engine(struct.PyTreeNode, kw_only=True, frozen=True):
    """A serving engine: what its host costs, overlap of streams, routing skew.

    A release that behaves otherwise is an entry of its own, see `release_of`.
    """

    decode_step_s: Leaf
    """Scheduler, sampling and graph launch of one decode step."""
    sequence_s: Leaf
    """Likewise for each sequence that a group of devices decodes."""
    draft_step_s: Leaf
    prefill_batch_s: Leaf
    """Scheduler and batch assembly of a prefill batch; where chunks ride along with
    decode, what a request spends in front of and behind the scheduler."""
    prompt_token_s: Leaf
    """Time of the front end for each token of a request's prompt, cached or not: text
    that is split into tokens, checked and passed on, however many devices compute it."""
    launch_s: dict[str, Leaf]
    """Host time to launch a layer, by way: `whole` (one captured graph), `piecewise`
    (graphs between attention layers) and `eager`. A machine has it for `decode` and
    `prefill`. The host runs ahead of the device, so only the longer of both counts."""
    agreement_s: Leaf
    """Time in which data-parallel ranks that share experts agree on the host about the
    next step, for each doubling of their number."""
    host_exposed_fraction: Leaf
    """Share of the scheduler's time that does not hide behind the step before: 1 where
    the next step is scheduled when one has ended, near 0 where ahead of it."""
    chunk_exposed_fraction: Leaf
    """Share of a decode step that a chunk of a prompt does not ride along with: 0 where
    both are one batch, 1 where prompts go first and decode waits."""
    rank_wait_fraction: Leaf
    """Share of the chunks of other data-parallel ranks, where they share experts, that a
    rank waits for: 0 where all have theirs in the same steps, 1 where each has its own
    when it comes and every step waits for the slowest rank."""
    max_sequences: Leaf
    """That an instance decodes at once, for each group of devices."""
    max_tokens_per_step: Leaf
    """Prompt tokens that a group of devices computes in one step; all ranks together
    where one waits for the chunks of others."""
    memory_fraction: Leaf
    """Of a device's memory that the engine may use."""
    head_ways: Leaf
    """Data-parallel ranks that share the output head in decode; 1: each has it whole."""
    matrix_rate_factor: Leaf
    """Rate of this engine's GEMM kernels over the chip's."""
    expert_rate_factor: Leaf
    """Likewise of its grouped ones for experts, whose weights they also read so fast."""
    shared_launch_fraction: Leaf
    """Share of the launches of shared experts that counts in decode: 0 where they run on
    a stream beside the routed ones, or as one more of them."""
    expert_format_factor: dict[str, Leaf]
    """Further factor of those, by what the experts' weights are, see `EXPERT_FORMATS`. A
    machine has it for `experts`."""
    wait_excess: Leaf
    """Dispatch and combine in a step take 1 + this times their benchmark time."""
    stream_exposed_fraction: Leaf
    """Share of the shorter of two streams that is not hidden, in decode."""
    prefill_stream_exposed_fraction: Leaf
    routing_skew: Leaf
    """Excess load of the busiest expert rank beyond sampling noise, in decode."""
    routing_spread: Leaf
    """Relative variance of the experts' popularity, which leaves some without tokens."""
    prefill_routing_skew: Leaf
    """Likewise in prefill, where the tokens of a prompt take similar ways."""
    partitions_cores: bool = struct.field(pytree_node=False, default=False)
    """Decode splits the cores between attention and experts, as suits the batch."""
    graphs: str = struct.field(pytree_node=False, default="")
    """How decode launches a layer unless a job says it, one of `launch_s`."""
    prefill_graphs: str = struct.field(pytree_node=False, default="")
    exchange: tuple[tuple[str, str], ...] = struct.field(pytree_node=False, default=())
    """Libraries of expert exchanges that it uses, each with the version it came with."""
    release_of: str = struct.field(pytree_node=False, default="")
    """The engine whose release it is, from version `since` on."""
    since: str = struct.field(pytree_node=False, default="")
    kind: str = struct.field(pytree_node=False, default="engine")


class Spread(struct.PyTreeNode, kw_only=True, frozen=True):
    """How a framework spreads layers over a pipeline: evenly where both are off."""

    ends: Switch
    """Embedding and head count as a layer each."""
    head: Switch
    """The head counts as the layers that it costs as much as."""
    kind: str = struct.field(pytree_node=False, default="spread")


class Trainer(struct.PyTreeNode, kw_only=True, frozen=True):
    """A training framework: host overhead, and what it hides behind compute.

    An exposed fraction is the share of the shorter of compute and communication that
    is not hidden: 0 hides all of it and 1 runs one after the other.
    """

    launch_s: Leaf
    """Host time to launch one kernel without a captured graph."""
    layer_host_s: Leaf
    """Least time of a layer, forward and backward: a host that issues its kernels one by
    one, with autograd and the modules' own code, is no faster."""
    tensor_host_s: Leaf
    """Least time of a layer, forward and backward, for each rank of its tensor group,
    in jobs that leave the scale-up system."""
    message_host_s: Leaf
    """Time that both stages spend on a message between them, in such jobs, where sending
    and receiving block: a middle stage has four for each micro-batch, an end two."""
    owner_message_s: Leaf
    """Time of one rank's message where weights that ZeRO 1 and 2 updated are sent rank by
    rank: all others wait for it."""
    step_s: Leaf
    """Data loading, gradient norm, logging of one step."""
    jitter_fraction: Leaf
    """Standard deviation of a rank's step time over its mean."""
    tensor_forward_exposed_fraction: Leaf
    tensor_backward_exposed_fraction: Leaf
    """Beside the gradient of the weights."""
    context_exposed_fraction: Leaf
    """Of a ring; what follows an all-to-all waits for all of it."""
    expert_exposed_fraction: Leaf
    """Where micro-batches overlap; without, all of an exchange is exposed."""
    pipeline_exposed_fraction: Leaf
    data_exposed_fraction: Leaf
    offload_exposed_fraction: Leaf
    matrix_rate_factor: Leaf
    """Rate of this framework's GEMM kernels over the chip's, likewise the next two."""
    attention_rate_factor: Leaf
    vector_rate_factor: Leaf
    """Of kernels bound by memory: below 1 where they are not fused."""
    recurrent_rate_factor: Leaf
    """Rate of the kernels between the projections of recurrent layers over the chip's."""
    backward_attention_efficiency: Leaf
    """Rate of the attention kernel backward over forward."""
    biased_gate_bytes: Leaf
    """Bytes that kernels beside the fused ones move, forward, for each element of the
    width of experts with biases: those, limits and the gate one by one."""
    narrow_efficiency: Leaf
    """Share of its peak that a GEMM in 8 or 4 bits reaches, over that of a bf16 one."""
    wait_excess: Leaf
    """Dispatch and combine in a step take 1 + this times their benchmark time."""
    routing_skew: Leaf
    memory_overhead_bytes: Leaf
    """Context, kernels and communicators of a process."""
    logit_bytes: Leaf
    """Of a logit in all formats that the loss has at once, gradients included: 6 where
    fp32 ones become their gradient in place, of which bf16 is handed back."""
    activation_slack: Leaf
    """Memory lost to fragments and temporaries, over that of the activations."""
    stages: Spread
    keeps_working_gradients: Switch
    """Gradients of a micro-batch stay, as wide as the weights, beside those that add up
    in a wider format; otherwise a kernel adds them there as they come."""
    casts_weights: Switch
    """Weights are kept where the optimizer's state is, in its format, and each layer's
    are cast for a pass; otherwise those that passes read are a copy."""
    balances_ring: Switch
    """Ranks of a ring get an early and a late part of a sequence, so that all have the
    same causal work; otherwise the last one has the most, and the others wait."""
    gradient: str = struct.field(pytree_node=False, default="fp32")
    """In what gradients are kept and added up, unless a job says it: `fp32`, or `weight`
    as the weights that passes read."""
    context: str = struct.field(pytree_node=False, default="ring")
    """How context parallelism exchanges keys and values, unless a job says it: `ring`
    or `all_to_all`."""
    gathers: str = struct.field(pytree_node=False, default="striped")
    """How ZeRO gathers and scatters: `striped` over all ports of a node, in one ring
    through `one_port` of each, or `by_owner`, a message of each rank in turn."""
    exchange: str = struct.field(pytree_node=False, default="")
    """Library that sends tokens to experts, unless a job says it; empty: the system's."""
    release_of: str = struct.field(pytree_node=False, default="")
    """The framework whose release it is, from version `since` on."""
    since: str = struct.field(pytree_node=False, default="")
    kind: str = struct.field(pytree_node=False, default="trainer")
