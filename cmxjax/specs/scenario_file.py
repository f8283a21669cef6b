"""What a scenario may say. The schema is complete for all phases, built or not."""

import math
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
    Fraction,
    NonNegative,
    Positive,
    Strict,
    Text,
    Whole,
    WholeOrZero,
    quantity,
)
from .files import canonical, is_path, missing, read_text
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
    Bytes = Seconds = FlopPerSecond = float
    SystemName = ModelName = Reference
else:
    # the key of `bytes` is its unit, as the suffix of `payload_bytes` is
    Bytes = Annotated[quantity("bytes"), Field(gt=0)]
    Seconds = Annotated[quantity("time", "s"), Field(gt=0)]
    FlopPerSecond = Annotated[quantity("flop_rate", "FLOP/s"), Field(gt=0)]
    SystemName = _named("systems")
    ModelName = _named("models")


def _no_bool(value: object) -> object:
    # a literal 1 would accept true
    if isinstance(value, bool):
        raise ValueError("must not be true or false")
    return value


MOST_DEVICES = 10**9
Count = Annotated[int, Field(ge=1, le=MOST_DEVICES)]
"""Devices, or ways to split them."""


class DtypesSpec(Strict):
    weight: Dtype | None = None
    weights: dict[Literal["attention", "dense", "experts", "shared"], Dtype] = {}
    """Formats of modules that differ from the others', in a job that serves; the shared
    expert follows the experts unless it has its own."""
    activation: Dtype | None = None
    attention: Dtype | None = None
    kv: Dtype | None = None
    dispatch: Dtype | None = None
    combine: Dtype | None = None
    head: Dtype | None = None
    master: Dtype | Literal["none"] | None = None
    """Weights that the optimizer updates, copied to the format that passes read; `none`,
    or the format of the weights, updates those."""
    gradient: Dtype | None = None
    """In which gradients are kept and added up; left out, as the engine does."""
    state: Dtype | None = None
    unpacking: Literal["fused", "apart"] | None = None
    """Where weights narrower than activations are unpacked: in the kernel that multiplies
    them, or in memory before; the machine's default if not given."""


class LayoutSpec(Strict):
    devices: Count | None = None
    tp: Count | None = None
    cp: Count | None = None
    dp: Count | None = None
    pp: Count | None = None
    vpp: Count | None = None
    ep: Count | None = None
    etp: Count | None = None
    edp: Count | None = None
    sequence_parallel: bool = False
    attention: Literal["dp", "tp", "sp_tp_sp"] | None = None
    overlapped_microbatches: Annotated[
        Literal[1, 2, "auto"], BeforeValidator(_no_bool)
    ] = 1
    order: str | None = None
    placement: dict[str, list[Count]] | None = None
    """For each axis the ways that it splits within each tier, innermost first."""
    stages: list[Annotated[int, Field(ge=0, le=10**9)]] | None = None
    head: Count | None = None
    """Most data-parallel ranks that share the output head in decode, each with a part of
    the vocabulary; left out, as the engine does. 1: each has it whole."""
    vision: Literal["dp", "tp"] = "dp"
    """How a tp x cp group shares a vision tower: each device encodes whole images (or
    tiles) of its own, or the heads are split over tp."""


class RoutingSpec(Strict):
    balance: Literal["uniform", "random", "typical"] | None = None
    skew: NonNegative | None = None
    redundant_experts: WholeOrZero = 0.0
    shared_replicas: WholeOrZero = 0.0
    experts_per_device: Positive | None = None


class OpSpec(Strict):
    kind: Literal[
        "gemm",
        "grouped_gemm",
        "attention_prefill",
        "attention_decode",
        "vector",
        "copy",
    ]
    groups: Positive = 1.0
    m: Positive | None = None
    n: Positive | None = None
    k: Positive | None = None
    dtype: Dtype = "bf16"
    out_dtype: Dtype | None = None
    accumulate_dtype: Dtype = "fp32"
    """Told, without effect: sums stay in the matrix units whatever their format."""
    heads: Whole | None = None
    kv_heads: Whole | None = None
    head_dim: Positive | None = None
    value_dim: Positive | None = None
    latent_dim: Positive | None = None
    rope_dim: NonNegative | None = None
    sequences: Positive | None = None
    query_tokens: Positive | None = None
    kv_tokens: Positive | None = None
    causal: bool = True
    tokens: Positive | None = None
    hidden: Positive | None = None
    bytes: Bytes | None = None
    """Read and written by a vector operator, moved by a copy; goes before tokens."""

    @model_validator(mode="after")
    def _shape(self):
        attention = ("heads", "sequences", "kv_tokens")
        needed = {
            "gemm": ("m", "n", "k"),
            "grouped_gemm": ("groups", "m", "n", "k"),
            "attention_prefill": attention,
            "attention_decode": attention,
            "vector": (),
            "copy": (),
        }[self.kind]
        missing = [name for name in needed if getattr(self, name) is None]
        if self.kind in ("vector", "copy") and self.bytes is None:
            if self.tokens is None:
                missing = ["bytes (or tokens and hidden)"]
            elif self.hidden is None:
                missing = ["hidden (or bytes)"]
        if self.kind.startswith("attention"):
            if self.latent_dim is None and self.head_dim is None:
                missing.append("head_dim (or latent_dim for MLA)")
        if missing:
            raise ValueError(f"kind = {self.kind!r} needs {', '.join(missing)}; add them")
        if (self.kv_heads or 0.0) > (self.heads or math.inf):
            problem = f"there are {self.heads:g} heads; use no more"
            raise ValueError(f"kv_heads = {self.kv_heads:g}: {problem}")
        if self.causal and (self.query_tokens or 0.0) > (self.kv_tokens or math.inf):
            raise ValueError(
                f"query_tokens = {self.query_tokens:g}: more than kv_tokens ="
                f" {self.kv_tokens:g}, which holds them too; raise kv_tokens"
            )
        return self


class CollectiveSpec(Strict):
    kind: Literal[
        "all_reduce",
        "all_gather",
        "reduce_scatter",
        "all_to_all",
        "broadcast",
        "p2p",
        "dispatch",
        "combine",
        "read",
        "write",
    ]
    ranks: Count | None = None
    payload_bytes: Bytes | None = None
    tokens_per_rank: Positive | None = None
    hidden: Positive | None = None
    topk: Whole | None = None
    experts: Whole | None = None
    """That copies are drawn from; without it each goes anywhere, whatever the others."""
    cores: Positive | None = None
    dtype: Dtype = "bf16"
    scale_bytes: NonNegative | None = None
    mode: Literal["low_latency", "normal"] = "low_latency"
    engine: Literal["vector_cores", "sdma"] = "vector_cores"
    library: Text | None = None
    algorithm: (
        Literal["direct", "ring", "staged", "tree", "in_switch", "one_shot"] | None
    ) = None
    """The one that the library is told to run; else it takes the fastest that it has."""
    network_reduces: bool = False
    """The switches between nodes add up too (SHARP on InfiniBand)."""
    path: Literal["npu-npu", "npu-cpu"] = "npu-npu"
    scope: Literal["package", "node", "supernode", "cluster"] | None = None

    @model_validator(mode="after")
    def _payload(self):
        if self.kind in ("dispatch", "combine"):
            names = ("ranks", "tokens_per_rank", "hidden", "topk")
            missing = [name for name in names if getattr(self, name) is None]
            if missing:
                raise ValueError(
                    f"kind = {self.kind!r} needs {', '.join(missing)}; add them"
                )
        elif self.kind not in ("read", "write", "p2p") and self.ranks is None:
            raise ValueError(f"kind = {self.kind!r} needs ranks; add it")
        elif self.tokens_per_rank is not None and self.hidden is None:
            raise ValueError("tokens_per_rank needs hidden; add it")
        given = [name for name in ("experts", "cores") if getattr(self, name) is not None]
        if given and self.kind not in ("dispatch", "combine"):
            raise ValueError(
                f"{' and '.join(given)}: of dispatch and combine, not of {self.kind!r};"
                " leave out"
            )
        if self.experts is not None and self.experts < (self.topk or 1.0):
            raise ValueError(
                f"experts = {self.experts:g} are fewer than topk = {self.topk:g}, which"
                " go to different ones; mend one of them"
            )
        if self.payload_bytes is not None and self.tokens_per_rank is not None:
            raise ValueError("give payload_bytes or tokens_per_rank, not both")
        if self.path == "npu-cpu" and self.kind not in ("read", "write", "p2p"):
            raise ValueError(
                f"path = 'npu-cpu': host memory takes no part in kind = {self.kind!r};"
                " use 'npu-npu', or kind read, write or p2p"
            )
        if self.algorithm is not None:
            self._runs(self.algorithm)
        if self.network_reduces and self.kind != "all_reduce":
            raise ValueError(
                f"network_reduces: kind = {self.kind!r} doesn't run in switches, only"
                " all_reduce; leave it out"
            )
        return self

    def _runs(self, algorithm: str) -> None:
        """Raises ValueError: this kind of collective can't run by the algorithm."""
        every = ["direct", "ring", "staged"]
        of_kind = {
            "all_reduce": [*every, "tree", "in_switch", "one_shot"],
            "broadcast": [*every, "tree"],
            "all_gather": every,
            "reduce_scatter": every,
        }.get(self.kind)
        if of_kind is None:
            raise ValueError(
                f"algorithm: kind = {self.kind!r} runs in one way; leave it out"
            )
        if algorithm not in of_kind:
            raise ValueError(
                f"algorithm = {algorithm!r}: kind = {self.kind!r} doesn't run so; use one"
                f" of {', '.join(of_kind)}"
            )


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


class DecodeSpec(Strict):
    sequences_per_device: Positive
    kv_tokens: Positive
    draft_tokens: Annotated[int, Field(ge=0, le=16)] = 0
    acceptance: Annotated[list[float], BeforeValidator(_acceptances)] = [0.7]

    @model_validator(mode="after")
    def _enough_acceptances(self):
        if 1 < len(self.acceptance) < self.draft_tokens:
            raise ValueError(
                f"acceptance: {len(self.acceptance)} values for draft_tokens ="
                f" {self.draft_tokens}; give one, or one for each draft"
            )
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
    image_size: Annotated[list[float], BeforeValidator(_pixels)] | None = None
    """Pixels of an image: [height, width], or the side of a square."""


class PrefillSpec(_Illustrated):
    tokens_per_device: Positive
    """Those of images included."""
    cached_fraction: Fraction = 0.0
    cache_plane: Literal["ub", "vpc", "none"] = "none"

    @model_validator(mode="after")
    def _something_to_compute(self):
        if self.cached_fraction == 1.0:
            raise ValueError("cached_fraction = 1: nothing is left to compute; use < 1")
        return self


class OffloadSpec(Strict):
    activations: Fraction = 0.0
    weights: Fraction = 0.0
    optimizer: Fraction = 0.0
    link: Text | None = None


def _recompute(value: object) -> str | float:
    if isinstance(value, str) and value in ("none", "selective", "full"):
        return value
    if not _is_share(value):
        raise ValueError("must be none, selective, full or a fraction from 0 to 1")
    return float(value)


class TrainSpec(Strict):
    global_batch: Positive
    micro_batch: Positive = 1.0
    sequence_tokens: Positive
    schedule: Literal["gpipe", "1f1b", "interleaved", "zero_bubble", "dualpipe"] = "1f1b"
    recompute: Annotated[str | float, BeforeValidator(_recompute)] = "none"
    zero: Annotated[Literal[0, 1, 2, 3], BeforeValidator(_no_bool)] = 1
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
    context_parallel: Literal["ring", "all_to_all"] | None = None
    """How a cp group attends to the whole sequence; left out, as the engine does."""
    precision: Literal["bf16", "fp8", "mxfp8", "int8"] = "bf16"
    offload: OffloadSpec = OffloadSpec()
    flop_convention: str | None = None
    peak: FlopPerSecond | None = None
    fabric: str | None = None


class ServeSpec(_Illustrated):
    request_rate: Positive | None = None
    """Requests a second that arrive at random."""
    concurrency: Annotated[float, Field(ge=1.0)] | None = None
    """Requests in flight, each followed by the next one as soon as it is answered."""
    requests: Positive | None = None
    """That a closed loop sends in all; left out, 10 times its concurrency."""
    output_tokens: Positive
    cached_fraction: Fraction = 0.0
    ttft_limit: Seconds | None = None
    tpot_limit: Seconds | None = None

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
    devices: Count
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
    engine: Text | None = None
    engine_version: Text | None = None
    """A release such as `0.15.1`; left out, width for the releases that it may be."""
    graphs: Literal["whole", "piecewise", "eager"] | None = None
    """How decode launches its kernels: one captured graph, pieces between attention
    layers, or one by one; left out, as the engine does."""
    exchange: Text | None = None
    """Library that sends tokens to experts, one of the system's `expert_parallel`; left
    out, the engine's, or in training the system's first."""
    limits: LimitsSpec = LimitsSpec()
    assumed: KnownKeys = []
    """Keys that the source doesn't state."""
    dtypes: DtypesSpec = DtypesSpec()
    layout: LayoutSpec = LayoutSpec()
    routing: RoutingSpec = RoutingSpec()


class SystemScenario(Common):
    phase: Literal["system"]
    model: ModelName | None = None


class OpScenario(Common):
    phase: Literal["op"]
    op: OpSpec


class CollectiveScenario(Common):
    phase: Literal["collective"]
    collective: CollectiveSpec


class DecodeScenario(Common):
    phase: Literal["decode"]
    model: ModelName
    workload: DecodeSpec


class PrefillScenario(Common):
    phase: Literal["prefill"]
    model: ModelName
    workload: PrefillSpec


class TrainScenario(Common):
    phase: Literal["train"]
    model: ModelName
    workload: TrainSpec


class ServeScenario(Common):
    phase: Literal["serve"]
    model: ModelName
    workload: ServeSpec
    pools: list[PoolSpec] = Field(min_length=1)


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
