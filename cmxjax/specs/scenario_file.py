"""What a scenario may say, but of a lone operator or collective."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeGuard

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PrivateAttr,
    model_validator,
)

from ..words import LONGEST_WORD, near
from .errors import SpecError
from .figures import (
    Count,
    Fraction,
    InUnit,
    NonNegative,
    Positive,
    Strict,
    Text,
    WholeOrZero,
    quantity,
)
from .files import canonical, is_path, missing, read_text
from .kernel_file import CollectiveSpec, OpSpec
from .keys import ANY, keys_of
from .system_file import Dtype
from .system_load import Reference


def _named(group: str) -> object:
    """A name, a path, or `{ base = NAME, key = value }` with nested or dotted keys."""

    def parse(value: object) -> Reference:
        if isinstance(value, Reference):
            return value
        base = value.get("base") if isinstance(value, dict) else value
        if not isinstance(base, str) or not base:
            raise ValueError("must be a name, a path, or { base = NAME, key = value }")
        if problem := missing(group, base):
            raise ValueError(problem)
        if is_path(base):
            _check_file(base)
        base = canonical(group, base)
        changes: dict[str, object] = {}

        def visit(prefix: str, node: object) -> None:
            if isinstance(node, dict) and node:
                for key, item in node.items():
                    visit(f"{prefix}.{key}" if prefix else key, item)
            else:
                changes[prefix] = node

        if isinstance(value, dict):
            visit("", {key: item for key, item in value.items() if key != "base"})
        return Reference(base, tuple(changes.items()))

    return Annotated[Reference, BeforeValidator(parse)]


def _check_file(path: str) -> None:
    """Raises `ValueError` if there is no text to read."""
    try:
        read_text(Path(path))
    except SpecError as error:
        raise ValueError(str(error).removeprefix(f"{path}: ")) from None


if TYPE_CHECKING:
    Seconds = float
    FlopPerSecond = float
    SystemName = ModelName = Reference
else:
    Seconds = Annotated[quantity("time", "s"), Field(gt=0)]
    FlopPerSecond = Annotated[quantity("flop_rate", "FLOP/s"), Field(gt=0)]
    SystemName = _named("systems")
    ModelName = _named("models")


def _no_bool(value: object) -> object:
    # a literal 1 would accept true
    if isinstance(value, bool):
        raise ValueError("must not be true or false")
    return value


class DtypesSpec(Strict):
    weight: Dtype | None = None
    """Format of weights; left out, that of activations."""
    weights: dict[Literal["attention", "dense", "experts", "shared"], Dtype] = {}
    """Formats of modules that differ from the others', in a job that serves; the shared
    expert follows the experts unless it has its own."""
    activation: Dtype | None = None
    """Format that matrix units compute in; left out, as the model's file."""
    attention: Dtype | None = None
    """Format that attention computes in."""
    kv: Dtype | None = None
    """Format of the cache of keys and values."""
    dispatch: Dtype | None = None
    """Format that tokens are sent to experts in; left out, that of activations."""
    combine: Dtype | None = None
    """Format that experts' results come back in."""
    head: Dtype | None = None
    """Format of the output head."""
    master: Dtype | Literal["none"] | None = None
    """Weights that the optimizer updates, copied to the format that passes read; `none`,
    or the format of the weights, updates those."""
    gradient: Dtype | None = None
    """In which gradients are kept and added up; left out, as the engine does."""
    state: Dtype | None = None
    """Format of the optimizer's moments."""
    indexer: Dtype | None = None
    """Format of an indexer's queries and of its cached keys, in which it computes scores;
    left out, that of activations, in 8 bits where that has 4."""
    unpacking: Literal["fused", "apart"] | None = None
    """Where weights narrower than activations are unpacked: in the kernel that multiplies
    them, or in memory before. Left out, as the machine's kernels do; of activations of 8
    bits or fewer in the kernel."""


class LayoutSpec(Strict):
    devices: Count | None = None
    """Ranks of the job, or of one instance; left out, the product of the degrees."""
    tp: Count | None = None
    """Tensor-parallel degree of attention."""
    cp: Count | None = None
    """Context-parallel degree."""
    dp: Count | None = None
    """Data-parallel degree; left out, what the others leave."""
    pp: Count | None = None
    """Pipeline stages."""
    vpp: Count | None = None
    """Chunks of layers on each stage."""
    ep: Count | None = None
    """Expert-parallel degree."""
    etp: Count | None = None
    """Tensor-parallel degree within an expert."""
    edp: Count | None = None
    """Data-parallel degree of experts; left out, what the others leave."""
    sequence_parallel: bool = False
    """Norms and residuals are split over tp (Megatron-LM)."""
    attention: Literal["dp", "tp", "sp_tp_sp"] | None = None
    """Whole requests on each device, heads split, or sequences, heads, sequences."""
    overlapped_microbatches: Annotated[
        Literal[1, 2, "auto"], BeforeValidator(_no_bool)
    ] = 1
    """Micro-batches that overlap in two streams; auto is the faster."""
    order: str | None = None
    """Axes from the innermost tier outwards, such as tp-cp-ep-dp-pp."""
    placement: dict[str, list[Count]] | None = None
    """For each axis the ways that it splits within each tier, innermost first."""
    stages: list[Annotated[int, Field(ge=0, le=10**9)]] | None = None
    """Layers on each pipeline stage; left out, as the framework splits them."""
    head: Count | None = None
    """Most data-parallel ranks that share the output head in decode, each with a part of
    the vocabulary; left out, as the engine does. 1: each has it whole."""
    vision: Literal["dp", "tp"] = "dp"
    """How a tp x cp group shares a vision tower: each device encodes whole images (or
    tiles) of its own, or the heads are split over tp."""


class RoutingSpec(Strict):
    balance: Literal["uniform", "random", "typical"] | None = None
    """How evenly tokens meet experts: by chance alone (random), with a skew (typical)."""
    skew: NonNegative | None = None
    """Spread of experts' popularity; left out, as calibrated."""
    redundant_experts: WholeOrZero = 0.0
    """Experts more, that hold copies of popular ones."""
    shared_replicas: WholeOrZero = 0.0
    """Ranks that hold the shared expert; 0: each device has it."""
    experts_per_device: Positive | None = None
    """Slots for experts on a device; left out, what the ranks need."""


def _is_share(value: object) -> TypeGuard[int | float]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0.0 <= value <= 1.0


def _acceptances(value: object) -> list[float]:
    values = value if isinstance(value, list) else [value]
    if not values:
        raise ValueError("must not be empty; give a fraction from 0 to 1")
    shares = []
    for item in values:
        if not _is_share(item):
            raise ValueError("must be a fraction from 0 to 1, or a list of them")
        shares.append(float(item))
    return shares


Drafts = Annotated[int, Field(ge=0, le=16)]
Acceptance = Annotated[list[float], BeforeValidator(_acceptances)]


def _check_acceptance(acceptance: list[float], drafts: int) -> None:
    if 1 < len(acceptance) < drafts:
        raise ValueError(
            f"acceptance: {len(acceptance)} values for draft_tokens = {drafts}; give one,"
            " or one for each draft"
        )


class DecodeSpec(Strict):
    sequences_per_device: Positive
    """Requests decoded at once on a device."""
    kv_tokens: Positive
    """Mean context of a request, prompt and what it has generated."""
    draft_tokens: Drafts = 0
    """Speculative tokens of each step."""
    acceptance: Acceptance = [0.7]
    """Chance that a draft is accepted; one, or one for each draft. 0.7 as the
    CloudMatrix-Infer paper assumes (arXiv 2506.12708, section 5.1)."""

    @model_validator(mode="after")
    def _enough_acceptances(self):
        _check_acceptance(self.acceptance, self.draft_tokens)
        return self


def _pixels(value: object) -> object:
    """Height and width; of one number a square."""
    sides = value if isinstance(value, list) else [value, value]
    if len(sides) != 2:
        raise ValueError("must be a number of pixels, or [height, width]")
    pixels = [
        float(side)
        for side in sides
        if isinstance(side, int | float) and not isinstance(side, bool)
    ]
    if len(pixels) < 2 or not all(1.0 <= side <= 1e5 for side in pixels):
        raise ValueError("must be 1 to 100000 pixels, or [height, width]")
    return pixels


class _Illustrated(Strict):
    """Prompts, with images or without."""

    prompt_tokens: Positive
    """Without those of images, which come on top."""
    images_per_prompt: NonNegative = 0.0
    """Images of a prompt."""
    image_size: Annotated[list[float], BeforeValidator(_pixels)] | None = None
    """Pixels of an image: [height, width], or the side of a square."""


class PrefillSpec(_Illustrated):
    tokens_per_device: Positive
    """Those of images included."""
    cached_fraction: Fraction = 0.0
    """Share of prompt tokens whose keys and values are in a cache."""
    cache_plane: Literal["ub", "vpc", "none"] = "none"
    """The plane that a cache is read over."""

    @model_validator(mode="after")
    def _something_to_compute(self):
        if self.cached_fraction == 1.0:
            raise ValueError("cached_fraction = 1: nothing is left to compute; use < 1")
        return self


class OffloadSpec(Strict):
    activations: Fraction = 0.0
    """Share kept in host memory."""
    weights: Fraction = 0.0
    """Share kept in host memory."""
    optimizer: Fraction = 0.0
    """Share kept in host memory."""
    link: Text | None = None
    """The link that they move over; left out, the machine's own."""


def _recompute(value: object) -> str | float:
    if isinstance(value, str) and value in ("none", "selective", "full"):
        return value
    if not _is_share(value):
        raise ValueError("must be none, selective, full or a fraction from 0 to 1")
    return float(value)


class TrainSpec(Strict):
    global_batch: Positive
    """Sequences of a step."""
    micro_batch: Positive = 1.0
    """Sequences of a pass."""
    sequence_tokens: Positive
    """Tokens of a sequence."""
    tokens: Positive | None = None
    """Tokens of the whole run, such as 15e12, for its days, energy, cost and failures."""
    schedule: Literal["gpipe", "1f1b", "interleaved", "zero_bubble", "dualpipe"] = "1f1b"
    """Order of passes in the pipeline."""
    recompute: Annotated[str | float, BeforeValidator(_recompute)] = "none"
    """What the backward pass computes again; a number is the share of layers."""
    zero: Annotated[Literal[0, 1, 2, 3], BeforeValidator(_no_bool)] = 1
    """ZeRO stage: what is split over data-parallel ranks."""
    zero_group: Annotated[int, Field(ge=1)] | None = None
    """Data-parallel ranks, context-parallel ones included, among which ZeRO splits what
    it splits; gradients are summed over the groups. Left out: all."""
    zero_bucket: Annotated[float, BeforeValidator(_no_bool), Field(ge=1.0)] | None = None
    """Parameters in a bucket, which are gathered or reduced at once; also without ZeRO.
    Left out: all of a step's in one, or a layer's where each micro-batch moves them, with
    what the framework's own buckets hide and hold."""
    zero_prefetch: Annotated[int, BeforeValidator(_no_bool), Field(ge=0, le=1000)] = 1
    """Buckets (layers, where none is given) that ZeRO 3 gathers ahead of the one at work;
    0: when they are needed."""
    fused_attention: bool = True
    """Attention doesn't write its scores."""
    context_parallel: Literal["ring", "all_to_all"] | None = None
    """How a cp group attends to the whole sequence; left out, as the engine does."""
    precision: Literal["bf16", "fp8", "mxfp8", "int8", "nvfp4"] = "bf16"
    """Format that matrices are multiplied in."""
    offload: OffloadSpec = OffloadSpec()
    flop_convention: str | None = None
    """Whose count of FLOP an MFU is of."""
    peak: FlopPerSecond | None = None
    """FLOP/s that an MFU divides by; left out, the machine's."""
    fabric: str | None = None
    """Network parameters of a source that the system lists."""


class ServeSpec(_Illustrated):
    request_rate: Annotated[Positive, InUnit("requests/s")] | None = None
    """Requests a second that arrive at random."""
    concurrency: Annotated[float, Field(ge=1.0)] | None = None
    """Requests in flight, each followed by the next one as soon as it is answered."""
    requests: Positive | None = None
    """That a closed loop sends in all; left out, 10 times its concurrency."""
    arrival_cv: Annotated[float, Field(ge=0.0, le=4.0)] = 1.0
    """Coefficient of variation of the gaps between requests, which have a gamma
    distribution: 1 is a Poisson stream, 0 as regular as a clock. Of vLLM's benchmark it
    is one over the root of `--burstiness`."""
    assignment: Literal["in_turn", "random"] = "in_turn"
    """How a pool's instances get their requests."""
    output_tokens: Positive
    """Tokens that a request generates."""
    draft_tokens: Drafts | None = None
    """Speculative tokens of each step; left out, 1 where the model drafts and 0 else."""
    acceptance: Acceptance = [0.7]
    """As in decode."""
    cached_fraction: Fraction = 0.0
    """Share of prompt tokens whose keys and values are in a cache."""
    ttft_limit: Seconds | None = None
    """Longest time to the first token."""
    tpot_limit: Seconds | None = None
    """Longest time of a token after it."""

    @model_validator(mode="after")
    def _enough_acceptances(self):
        _check_acceptance(self.acceptance, self.draft_tokens or 0)
        return self

    @model_validator(mode="after")
    def _one_load(self):
        if self.request_rate is None and self.concurrency is None:
            raise ValueError(
                "request_rate: missing; give it, or concurrency for a closed loop"
            )
        if self.request_rate is not None and self.concurrency is not None:
            raise ValueError(
                "concurrency: request_rate is given too; a closed loop has the rate that"
                " its answers allow, so leave one of them out"
            )
        if self.requests is not None:
            self._check_requests(self.requests)
        if self.concurrency is not None and self.arrival_cv != 1.0:
            raise ValueError(
                "arrival_cv: in a closed loop requests follow answers; give request_rate"
                " instead of concurrency, or leave it out"
            )
        return self

    def _check_requests(self, requests: float) -> None:
        if self.concurrency is None:
            raise ValueError(
                "requests: only a closed loop has a number of them; give concurrency"
            )
        if requests < self.concurrency:
            raise ValueError(
                f"requests = {requests:g}: fewer than the {self.concurrency:g} in flight;"
                " give as many at least"
            )


class LimitsSpec(Strict):
    """What an engine is told not to exceed; left out, as it does by default."""

    max_sequences: Positive | None = None
    """That each data-parallel rank decodes at once (`max_num_seqs`, `max_batch_size`)."""
    max_tokens_per_step: Positive | None = None
    """Tokens of prompts that it computes in one step (`max_num_batched_tokens`, chunk
    size)."""
    memory_fraction: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """Of a device's memory that the engine may use."""


class PoolSpec(Strict):
    role: Literal["prefill", "decode", "cache", "attention", "expert", "encode"]
    """What the pool does."""
    devices: Count
    """Devices of all its instances."""
    layout: LayoutSpec = LayoutSpec()


def _known_keys(keys: list[str]) -> list[str]:
    """Dotted keys that a scenario of some phase may have, set or defaulted.

    Raises:
        ValueError: one can't be a key, with the nearest one that can.
    """
    known, mistakes = schema_keys(), []
    for key in keys:
        first, _, rest = key.partition(".")
        item = key.rpartition(".")[0] if key.rpartition(".")[2].isdigit() else key
        leaf = first in ("system", "model", "pools") and rest
        if not leaf and key not in known and item not in known:
            nearest = near(key, known) or ["in `cmxjax keys`"]
            mistakes.append(
                f"{key[:LONGEST_WORD]!r} is no key of a scenario; the nearest is"
                f" {nearest[0]}"
            )
    if mistakes:
        raise ValueError("\n".join(mistakes))
    return keys


KnownKeys = Annotated[list[str], AfterValidator(_known_keys)]


class Common(Strict):
    """Keys of every scenario."""

    _where: str = PrivateAttr("scenario")

    @property
    def where(self) -> str:
        """How messages name it: the file that it was read from."""
        return self._where

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    system: SystemName
    """A shipped name, a file, or { base = NAME, key = value }."""
    engine: Text | None = None
    """The serving engine or training framework; left out, the system's first."""
    engine_version: Text | None = None
    """A release such as `0.15.1`; left out, width for the releases that it may be."""
    graphs: Literal["whole", "piecewise", "eager"] | None = None
    """How decode launches its kernels: one captured graph, pieces between attention
    layers, or one by one; left out, as the engine does."""
    exchange: Text | None = None
    """Library that sends tokens to experts, one of the system's `expert_parallel`; left
    out, that of the engine or framework, or the system's first."""
    limits: LimitsSpec = LimitsSpec()
    assumed: KnownKeys = []
    """Keys that the source doesn't state."""
    dtypes: DtypesSpec = DtypesSpec()
    layout: LayoutSpec = LayoutSpec()
    routing: RoutingSpec = RoutingSpec()


class SystemScenario(Common):
    phase: Literal["system"]
    """What is predicted."""
    model: ModelName | None = None
    """A shipped name, a file, a config.json, or { base = NAME, key = value }."""


class OpScenario(Common):
    phase: Literal["op"]
    """What is predicted."""
    op: OpSpec


class CollectiveScenario(Common):
    phase: Literal["collective"]
    """What is predicted."""
    collective: CollectiveSpec


class DecodeScenario(Common):
    phase: Literal["decode"]
    """What is predicted."""
    model: ModelName
    """A shipped name, a file, a config.json, or { base = NAME, key = value }."""
    workload: DecodeSpec


class PrefillScenario(Common):
    phase: Literal["prefill"]
    """What is predicted."""
    model: ModelName
    """A shipped name, a file, a config.json, or { base = NAME, key = value }."""
    workload: PrefillSpec


class TrainScenario(Common):
    phase: Literal["train"]
    """What is predicted."""
    model: ModelName
    """A shipped name, a file, a config.json, or { base = NAME, key = value }."""
    workload: TrainSpec


class ServeScenario(Common):
    phase: Literal["serve"]
    """What is predicted."""
    model: ModelName
    """A shipped name, a file, a config.json, or { base = NAME, key = value }."""
    workload: ServeSpec
    pools: list[PoolSpec] = Field(min_length=1)
    """Devices by what they do, instead of one layout."""


SCENARIOS: dict[str, type[Common]] = {
    "system": SystemScenario,
    "op": OpScenario,
    "collective": CollectiveScenario,
    "decode": DecodeScenario,
    "prefill": PrefillScenario,
    "train": TrainScenario,
    "serve": ServeScenario,
}
Scenario = (
    SystemScenario
    | OpScenario
    | CollectiveScenario
    | DecodeScenario
    | PrefillScenario
    | TrainScenario
    | ServeScenario
)


@cache
def schema_keys() -> tuple[str, ...]:
    """Every dotted key of every phase, tables included; leaves of specs are not."""
    keys = (key for scenario in SCENARIOS.values() for key in keys_of(scenario))
    return tuple(dict.fromkeys(key.replace(f"{ANY}.", "") for key in keys))
