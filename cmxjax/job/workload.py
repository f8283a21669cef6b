"""What runs: one class per phase. Sizes are traced; kinds are static."""

from typing import NamedTuple

from flax import struct

from .. import smooth
from .._numbers import scalar
from .._types import Leaf
from ..switch import Switch, either, switch

BYTES = {
    "fp32": 4.0,
    "tf32": 4.0,
    "bf16": 2.0,
    "fp16": 2.0,
    "fp8": 1.0,
    "hif8": 1.0,
    "mxfp8": 1.0,
    "int8": 1.0,
    "fp4": 0.5,
    "int4": 0.5,
    "nvfp4": 0.5 + 1.0 / 16.0,
    "mxfp4": 0.5 + 1.0 / 32.0,
}
"""Bytes of one element. Scales of quantized blocks are counted where they are sent, but
for formats that are named after their blocks: of 16 and of 32, with a scale of 8 bits."""

NO_COPY = "none"
"""Format of the master weights where the optimizer updates the weights themselves."""


def scale_bytes(width: Leaf, size: Leaf, slot: Leaf, share: Leaf) -> Leaf:
    """Scales sent beside a token of values of 8 or 4 bits; formats that are named after
    their blocks count theirs themselves.

    Args:
        width: values of the token, of `size` bytes each.
        slot: bytes that it has whatever its width.
        share: bytes of scales a value: 4 for each 128 in DeepEP.
    """
    whole = abs(size - 0.75) == 0.25  # one byte or half of one
    return (slot + share * width) * whole


class Dtypes(NamedTuple):
    """Number formats by tensor class."""

    weight: str = "bf16"
    activation: str = "bf16"
    attention: str = "bf16"
    kv: str = "bf16"
    dispatch: str = "bf16"
    combine: str = "bf16"
    head: str = "bf16"
    master: str = "fp32"
    gradient: str = "fp32"
    state: str = "bf16"
    indexer: str = "bf16"


class Sizes(NamedTuple):
    """Bytes of one element by tensor class, see `Dtypes`."""

    weight: Leaf
    activation: Leaf
    attention: Leaf
    kv: Leaf
    dispatch: Leaf
    combine: Leaf
    head: Leaf
    master: Leaf
    gradient: Leaf
    state: Leaf
    indexer: Leaf


def sizes_of(dtypes: Dtypes) -> Sizes:
    known = BYTES | {NO_COPY: 0.0}
    return Sizes(*(scalar(known[name]) for name in dtypes))


class Balance(struct.PyTreeNode, kw_only=True, frozen=True):
    """How evenly routed tokens fall on the ranks that hold experts."""

    sampled: Switch
    """Counts differ as of balls thrown into bins."""
    skewed: Switch
    """Some experts are more popular than others."""
    given: Switch
    """The job says how much; otherwise the runtime's calibrated skew counts."""
    skew: Leaf
    """Excess load of the busiest rank; without meaning unless given."""
    kind: str = struct.field(pytree_node=False, default="balance")

    def skew_of(self, calibrated: Leaf) -> Leaf:
        """The given skew or else the runtime's."""
        return self.given.pick(self.skew, calibrated)


def balance_of(name: str, skew: float | None = None) -> Balance:
    """The balance of a name: `uniform` (none differs), `random` (sampling only) or
    `typical` (both)."""
    return Balance(
        sampled=switch(name != "uniform"),
        skewed=switch(name == "typical"),
        given=switch(skew is not None),
        skew=scalar(float(skew or 0.0)),
    )


class SystemQuery(struct.PyTreeNode, kw_only=True, frozen=True):
    """Totals of the scale-up system."""

    kind: str = struct.field(pytree_node=False, default="system_query")


class Operator(struct.PyTreeNode, kw_only=True, frozen=True):
    """One operator on one device. Fields that its kind doesn't use are 1 or 0."""

    groups: Leaf
    m: Leaf
    n: Leaf
    k: Leaf
    heads: Leaf
    kv_heads: Leaf
    head_dim: Leaf
    value_dim: Leaf
    latent_dim: Leaf
    rope_dim: Leaf
    sequences: Leaf
    query_tokens: Leaf
    kv_tokens: Leaf
    tokens: Leaf
    hidden: Leaf
    payload_bytes: Leaf
    element_bytes: Leaf
    out_bytes: Leaf
    """Of an element that it writes."""
    launched: Switch
    """Its launch is in its time: no kernel before it hides it."""
    operator: str = struct.field(pytree_node=False)
    latent: bool = struct.field(pytree_node=False, default=False)
    causal: bool = struct.field(pytree_node=False, default=True)
    kind: str = struct.field(pytree_node=False, default="operator")


class Collective(struct.PyTreeNode, kw_only=True, frozen=True):
    """One collective on a group; its placement is the `ep` row of the layout."""

    payload_bytes: Leaf
    tokens_per_rank: Leaf
    hidden: Leaf
    topk: Leaf
    experts: Leaf
    """That a token's copies are drawn from."""
    cores: Leaf
    """That drive an exchange."""
    scale_bytes: Leaf
    element_bytes: Leaf
    balance: Balance
    collective: str = struct.field(pytree_node=False)
    driver: str = struct.field(pytree_node=False, default="vector_cores")
    """What moves the data: `vector_cores` or `sdma`."""
    kind: str = struct.field(pytree_node=False, default="collective")


class Software(struct.PyTreeNode, kw_only=True, frozen=True):
    """In which formats a job runs, and how its tokens are balanced."""

    sizes: Sizes
    balance: Balance
    low_latency: Switch
    """Tokens are exchanged through buffers with a slot for each token of every rank."""
    scale_slot_bytes: Leaf = 0.0
    """In those buffers, as the library's `ExpertMode` has it; likewise the next."""
    scale_share: Leaf = 0.0
    unpacks: bool = struct.field(pytree_node=False, default=False)
    """Weights of a narrower format than the activations are unpacked in memory first."""
    kind: str = struct.field(pytree_node=False, default="software")


class Decode(struct.PyTreeNode, kw_only=True, frozen=True):
    """One decode step: every sequence verifies its drafts and yields tokens."""

    sequences_per_device: Leaf
    kv_tokens: Leaf
    """Mean context over the generation: prompt + output / 2."""
    draft_tokens: Leaf
    acceptance: Leaf
    """Acceptance of each draft given that the one before it was accepted, (draft,)."""
    software: Software
    kind: str = struct.field(pytree_node=False, default="decode")


class Images(struct.PyTreeNode, kw_only=True, frozen=True):
    """Images of a prompt, as a vision tower gets them."""

    per_prompt: Leaf
    tiles: Leaf
    """Of an image: pieces that the tower works on by themselves; mostly 1."""
    patches: Leaf
    """Of a tile, with tokens of its own that a tower adds."""
    tokens: Leaf
    """Of an image in the language model, which a prompt's tokens include."""
    splits_heads: bool = struct.field(pytree_node=False, default=False)
    """A tensor-parallel group splits the tower's heads, rather than the tiles."""
    kind: str = struct.field(pytree_node=False, default="images")


class Prefill(struct.PyTreeNode, kw_only=True, frozen=True):
    """One prefill batch."""

    tokens_per_device: Leaf
    """Prompt tokens admitted per device and batch, cached ones included."""
    prompt_tokens: Leaf
    """Those of images included."""
    cached_fraction: Leaf
    """Of prompts, and so of their images."""
    software: Software
    images: Images | None = None
    """That these devices encode, if any."""
    kind: str = struct.field(pytree_node=False, default="prefill")


PROGRAMS = ("1f1b", "gpipe", "zero_bubble", "dualpipe")
"""Pipeline schedules by the program that prices them: 1F1B of one chunk and of several
are one."""

ANY = "any"


class Train(struct.PyTreeNode, kw_only=True, frozen=True):
    """One training step: a global batch through pipeline, gradients, optimizer."""

    global_batch: Leaf
    """Sequences of a step, all devices together."""
    micro_batch: Leaf
    """Sequences that one data-parallel rank works on at a time."""
    sequence_tokens: Leaf
    recompute_fraction: Leaf
    """Share of the layers whose forward pass runs again before their backward one."""
    chunks: Leaf
    """Model chunks of a device (virtual pipeline stages)."""
    stage_layers: Leaf | None
    """Layers of each pipeline stage, (stage,); None spreads them evenly."""
    offload_activations: Leaf
    offload_weights: Leaf
    offload_optimizer: Leaf
    peak_flop_per_s: Leaf
    """What a utilization divides by; 0 takes the chip's peak for the precision."""
    zero: Leaf
    """Stage, 0 to 3: data-parallel ranks split the optimizer's state from 1 on, gradients
    from 2, weights at 3 (Rajbhandari et al., arXiv 1910.02054)."""
    overlaps: Switch
    """Two micro-batches run side by side, so that experts' exchanges hide."""
    selective: Switch
    """The core of attention (scores to context) runs again in the backward pass."""
    software: Software
    schedule: str = struct.field(pytree_node=False, default="1f1b")
    """One of `PROGRAMS`, or `any`: all of them are priced and `order` picks one, so that
    a search needs no program for each."""
    order: Leaf = 0.0
    """Place among `PROGRAMS`, for `any` alone."""
    zero_group: Leaf | None = None
    """Data-parallel ranks, next to each other, among which ZeRO splits; None: all."""
    zero_bucket: Leaf | None = None
    """Parameters whose weights are gathered, or gradients reduced, at once. None: all of
    a step's, or a layer's where each micro-batch moves them."""
    tokens: Leaf | None = None
    """Of the whole run; None where nobody says."""
    zero_prefetch: Leaf | None = None
    """Buckets, or layers, gathered ahead of the one at work at stage 3; None: 1."""
    gathers: str = struct.field(pytree_node=False, default="striped")
    """How ZeRO gathers and scatters, as `Trainer.gathers` says."""
    fused_attention: bool = struct.field(pytree_node=False, default=True)
    context: str = struct.field(pytree_node=False, default="ring")
    """How context parallelism exchanges keys and values: `ring` or `all_to_all`."""
    flop_convention: str = struct.field(pytree_node=False, default="megatron")
    offloads: bool = struct.field(pytree_node=False, default=False)
    """Some of the state is kept on the host."""
    quantized: bool = struct.field(pytree_node=False, default=False)
    """GEMMs read 8 bits or fewer, which an operator for each of them makes."""
    kind: str = struct.field(pytree_node=False, default="train")


class Serve(struct.PyTreeNode, kw_only=True, frozen=True):
    """Requests that pools of devices serve: they arrive at random, or in a closed loop,
    where each is followed by another as soon as it is answered."""

    requests_per_s: Leaf | None
    """None in a closed loop."""
    concurrency: Leaf | None
    """Requests in flight on all pools together; None where they arrive at random."""
    arrival_cv: Leaf
    """Coefficient of variation of the gaps between requests: 1 is a Poisson stream."""
    in_turn: Switch
    """Instances of a pool get requests one after another, not by chance."""
    rounds: Leaf
    """Requests that a closed loop sends in all, over its concurrency. All of the first
    round arrive at once."""
    prompt_tokens: Leaf
    """Those of images included."""
    output_tokens: Leaf
    cached_fraction: Leaf
    """Share of a prompt whose keys and values are in the cache."""
    ttft_limit_s: Leaf | None
    tpot_limit_s: Leaf | None
    tokens_per_device: Leaf
    """Most prompt tokens that a device takes at once: in a prefill batch, or in the
    chunk that rides along with a decode step."""
    draft_tokens: Leaf
    acceptance: Leaf
    software: dict[str, Software]
    """By role of the pool."""
    images: Images | None = None
    """Of each prompt, if any."""
    kind: str = struct.field(pytree_node=False, default="serve")


def mirrored(w: Train) -> Leaf:
    """1 where a device holds a stage and its mirror image, as DualPipe has it, else 0."""
    if w.schedule == ANY:
        return either(w.order == PROGRAMS.index("dualpipe"), 1.0, 0.0)
    return float(w.schedule == "dualpipe")


Workload = SystemQuery | Operator | Collective | Decode | Prefill | Train | Serve


def tokens_per_step(w: Decode | Serve):
    r"""Tokens that a step yields per sequence: $1 + a_1 + a_1 a_2 + \dots$

    A draft counts only if all before it were accepted. A fractional number of drafts
    counts the last one by its fraction.
    """
    product, total = 1.0, 1.0
    for i in range(w.acceptance.shape[-1]):
        product = product * w.acceptance[..., i]
        total = total + product * smooth.within(w.draft_tokens - i, 0.0, 1.0)
    return total
