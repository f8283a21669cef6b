"""What a scenario may say of a lone operator or collective."""

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from .figures import Count, NonNegative, Positive, Strict, Text, Whole, quantity
from .system_file import Dtype

if TYPE_CHECKING:
    Bytes = float
else:
    # the key of `bytes` is its unit, as the suffix of `payload_bytes` is
    Bytes = Annotated[quantity("bytes"), Field(gt=0)]


class OpSpec(Strict):
    kind: Literal[
        "gemm",
        "grouped_gemm",
        "attention_prefill",
        "attention_decode",
        "index",
        "vector",
        "copy",
    ]
    """The operator; `index` scores the tokens of a cache and chooses the best."""
    groups: Positive = 1.0
    """Matrices of a grouped GEMM."""
    m: Positive | None = None
    """Rows of each group."""
    n: Positive | None = None
    """Columns."""
    k: Positive | None = None
    """Inner dimension."""
    dtype: Dtype = "bf16"
    """Format that it computes in."""
    out_dtype: Dtype | None = None
    """Format of what it writes; left out, as dtype."""
    accumulate_dtype: Dtype = "fp32"
    """Told, without effect: sums stay in the matrix units whatever their format."""
    heads: Whole | None = None
    """Query heads."""
    kv_heads: Whole | None = None
    """Heads of keys and values; left out, as heads."""
    head_dim: Positive | None = None
    """Width of a head."""
    value_dim: Positive | None = None
    """Width of a head's values; left out, as head_dim."""
    latent_dim: Positive | None = None
    """Width of the compressed cache (MLA)."""
    rope_dim: NonNegative | None = None
    """Width of the rotary part (MLA)."""
    sequences: Positive | None = None
    """Sequences of the batch."""
    query_tokens: Positive | None = None
    """Tokens of a sequence that attend; left out, one, in prefill all."""
    kv_tokens: Positive | None = None
    """Tokens of a sequence that are attended to."""
    causal: bool = True
    """A token sees those before it alone."""
    tokens: Positive | None = None
    """Rows of a vector operator."""
    hidden: Positive | None = None
    """Width of a row."""
    launched: bool = False
    """Its launch is in its time, which no kernel before it hides."""
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
            "index": (*attention, "head_dim"),
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
    """The collective."""
    ranks: Count | None = None
    """Devices that take part."""
    payload_bytes: Bytes | None = None
    """Bytes of a rank; left out, as large as it takes for the asymptote."""
    tokens_per_rank: Positive | None = None
    """Tokens of a rank, instead of bytes."""
    hidden: Positive | None = None
    """Width of a token."""
    topk: Whole | None = None
    """Experts that a token goes to."""
    experts: Whole | None = None
    """That copies are drawn from; without it each goes anywhere, whatever the others."""
    cores: Positive | None = None
    """Vector cores that drive it; left out, as the library does."""
    dtype: Dtype = "bf16"
    """Format of what is sent."""
    scale_bytes: NonNegative | None = None
    """Bytes of scales sent with each token."""
    mode: Literal["low_latency", "normal"] = "low_latency"
    """Which kernels of the library."""
    engine: Literal["vector_cores", "sdma"] = "vector_cores"
    """What moves the bytes."""
    library: Text | None = None
    """The library of the system; left out, its default."""
    algorithm: (
        Literal["direct", "ring", "staged", "tree", "in_switch", "one_shot"] | None
    ) = None
    """The one that the library is told to run; else it takes the fastest that it has."""
    network_reduces: bool = False
    """The switches between nodes add up too (SHARP on InfiniBand)."""
    path: Literal["npu-npu", "npu-cpu"] = "npu-npu"
    """Between devices, or with host memory."""
    scope: Literal["package", "node", "supernode", "cluster"] | None = None
    """The tier that the ranks spread over; left out, the innermost that holds them."""

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
