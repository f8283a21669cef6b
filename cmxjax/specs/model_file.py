"""What a model file may say. A bare number takes the file's source."""

from typing import Annotated, Literal, NamedTuple

from pydantic import Field, field_validator, model_validator

from ..model.architecture import MOST_LAYERS
from ..model.feed_forwards import MOST_GROUPS
from .figures import (
    Info,
    NonNegative,
    Positive,
    Source,
    Strict,
    Text,
    Whole,
    WholeOrZero,
    listed_source,
)
from .vision_file import VisionSpec


def _at_most(value: float, info: Info, key: str, what: str) -> float:
    """A count of some of the things that `key` counts all of."""
    most = info.data.get(key, value)
    if value > most:
        raise ValueError(f"there are {most:g} {what}; use no more")
    return value


class _HalfSpec(Strict):
    """What every half of a layer says of its norms and of weights beside its matrices."""

    norms: NonNegative = 1.0
    """Norms around it: 2 where one stands behind it too, 0 where it reads what another
    half's norm puts out."""
    norm_vectors: NonNegative | None = None
    """Weights of each, over the model's width: 1, or 2 with biases (the default of a
    biased half)."""


class GroupedQuerySpec(_HalfSpec):
    kind: Literal["grouped_query"]
    heads: Whole
    kv_heads: Whole
    head_dim: Whole
    value_dim: Whole | None = None
    """Width of a head's values, where it isn't that of queries and keys."""
    window: Positive | None = None
    """A token sees so many last tokens; without, all of them."""
    chunk: Positive | None = None
    """A token sees those of its own chunk of so many tokens."""
    gated: bool = False
    """Outputs are multiplied by gates, which a wider query projection computes."""
    projects_values: bool = True
    """Values have a projection of their own, rather than being the keys."""
    own_cache: bool = True
    """Has keys and values of its own, rather than those of an earlier layer."""
    biased: bool | None = None
    """Projections carry biases; without, as the model's."""
    output_biased: bool | None = None
    """Likewise the output projection, where it differs."""
    vectors: NonNegative = 0.0
    """Weights besides: of norms of queries and keys, of sinks."""

    @field_validator("kv_heads")
    @classmethod
    def _shared_by_heads(cls, kv_heads: float, info: Info) -> float:
        return _at_most(kv_heads, info, "heads", "heads")

    @model_validator(mode="after")
    def _one_bound(self):
        if self.window is not None and self.chunk is not None:
            raise ValueError("chunk: has a window already; use one of both")
        return self


class IndexerSpec(Strict):
    heads: Whole | None = None
    head_dim: Whole | None = None
    """Without both, an earlier layer's indexer has chosen the tokens."""
    topk: Whole

    @model_validator(mode="after")
    def _both_or_neither(self):
        if (self.heads is None) != (self.head_dim is None):
            raise ValueError("heads and head_dim: one is missing; give both or neither")
        return self


class LatentSpec(_HalfSpec):
    kind: Literal["latent"]
    heads: Whole
    query_rank: Positive | None = None
    """Without, queries come from the hidden state."""
    latent_dim: Positive
    rope_dim: Positive
    nope_dim: Positive
    value_dim: Positive
    indexer: IndexerSpec | None = None
    """Chooses the tokens that a query meets (sparse attention)."""
    vectors: NonNegative = 0.0

    @model_validator(mode="after")
    def _indexer_reads_latents(self):
        if self.indexer is not None and self.query_rank is None:
            raise ValueError("indexer: reads compressed queries; add query_rank")
        return self


class CompressedSpec(_HalfSpec):
    kind: Literal["compressed"]
    heads: Whole
    head_dim: Whole
    query_rank: Positive
    output_groups: Positive
    output_rank: Positive
    window: Positive
    ratio: Positive | None = None
    """Tokens of a block that one entry stands for; without, there is the window alone."""
    overlapping: bool = False
    """An entry is made of its block and the one before."""
    indexer: IndexerSpec | None = None
    """Chooses the entries that a query meets."""
    vectors: NonNegative = 0.0

    @model_validator(mode="after")
    def _blocks_are_chosen_from(self):
        if self.indexer is None:
            return self
        if self.ratio is None:
            raise ValueError("indexer: there are no blocks to choose from; add ratio")
        if self.indexer.heads is None:
            raise ValueError("indexer: add heads and head_dim")
        return self


class RecurrentSpec(_HalfSpec):
    kind: Literal["recurrent"]
    heads: Whole
    key_dim: NonNegative
    value_dim: Positive
    columns: Positive
    """Width of the projections of the hidden state, all together."""
    inner: NonNegative = 0.0
    """Weights of further projections in front of the recurrence."""
    inner_depth: Positive = 1.0
    """Their depth."""
    channels: NonNegative = 0.0
    """That a convolution of `kernel` tokens mixes."""
    kernel: Positive = 1.0
    delta: bool = False
    """What a key had stored is taken from the state first (delta rule)."""
    scanned: bool = False
    """Each state decays by itself (Mamba-1)."""
    chunk: Positive = 128.0
    vectors: NonNegative = 0.0


MixerSpec = Annotated[
    GroupedQuerySpec | LatentSpec | CompressedSpec | RecurrentSpec,
    Field(discriminator="kind"),
]


class DenseSpec(_HalfSpec):
    kind: Literal["dense"]
    intermediate: Positive
    gated: bool = True
    biased: bool | None = None


class ExpertsSpec(_HalfSpec):
    kind: Literal["mixture"] = "mixture"
    routed: Whole
    zero: Whole | None = None
    """Experts more that the router chooses from and that compute nothing."""
    topk: Whole
    shared: NonNegative
    intermediate: Positive
    groups: Whole = 1.0
    topk_groups: Whole = 1.0
    """Groups of experts that a token may use, of all: node-limited routing."""
    gated: bool | None = None
    biased: bool | None = None
    latent: Positive | None = None
    """Width of a projection that experts work on, instead of the hidden state."""
    router_vectors: NonNegative = 1.0
    """Weights of the router besides its matrix for each routed expert."""
    extra: NonNegative = 0.0
    """Weights that stand once beside the experts, such as a gate of the shared one."""

    @field_validator("groups")
    @classmethod
    def _dividing(cls, groups: float, info: Info) -> float:
        routed = info.data.get("routed", groups)
        if routed % groups:
            raise ValueError(
                f"does not divide {routed:g} routed experts; use one that does"
            )
        return groups

    @field_validator("topk_groups")
    @classmethod
    def _among_groups(cls, topk_groups: float, info: Info) -> float:
        used = _at_most(topk_groups, info, "groups", "groups")
        if MOST_GROUPS < used < info.data.get("groups", used):
            raise ValueError(
                f"at most {MOST_GROUPS} groups can be chosen from, or all"
                f" {info.data['groups']:g}; use fewer, or all if any may be used"
            )
        return used

    @field_validator("topk")
    @classmethod
    def _among_routed(cls, topk: float, info: Info) -> float:
        routed = info.data.get("routed", topk) + (info.data.get("zero") or 0.0)
        if topk > routed:
            raise ValueError(f"there are {routed:g} routed experts; use no more")
        return topk

    @property
    def computing(self) -> float:
        """Of the experts that a token is routed to, those expected to compute: its share
        of zero-computation experts costs nothing (LongCat-Flash, arXiv 2509.01322,
        section 2.1)."""
        return self.topk * self.routed / self.choices

    @property
    def choices(self) -> float:
        """Experts that the router chooses from."""
        return self.routed + (self.zero or 0.0)


class Published(Strict):
    """A count that the source states, for checking this file against it."""

    total_parameters: Positive
    active_parameters: Positive | None = None
    kv_elements_per_token: Positive | None = None
    tolerance: Positive = 0.01
    note: str = ""


class LayerSpec(Strict):
    """Layers of one kind that follow each other, by the names of their halves."""

    mixer: str | list[str] = []
    feed_forward: str | list[str] = []
    count: Annotated[int, Field(ge=1)] = 1
    parallel: bool = False
    """Both halves read the same input."""


class Layer(NamedTuple):
    """A kind of layer by the names of its halves."""

    mixers: tuple[str, ...]
    feed_forwards: tuple[str, ...]
    parallel: bool


def _names(value: str | list[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


class ModelFile(Strict):
    """A decoder-only model. Every number is read from `source`, at `locator`.

    Layers are either all alike but for dense ones in front (`attention`, `intermediate`,
    `experts`, `dense_layers`), or listed: `mixers` and `feed_forwards` by name, and a
    `pattern` of layers that is repeated until there are `layers` of them.
    """

    name: Text
    title: Text
    kind: Literal["published", "derived", "assumed"]
    source: str
    locator: Text
    note: str = ""
    sources: dict[str, Source]
    hidden: Whole
    layers: Whole
    dense_layers: WholeOrZero | None = None
    intermediate: Positive | None = None
    vocabulary: Whole
    positions: NonNegative = 0.0
    draft_layers: WholeOrZero = 0.0
    gated: bool = True
    norms: NonNegative = 1.0
    """Around each dense network where all layers are alike, as is `norm_vectors`."""
    norm_vectors: NonNegative | None = None
    tied: bool = False
    biased: bool = False
    final_vectors: NonNegative | None = None
    """Weights outside layers and tables over the model's width: of the last norm, and of
    its bias in a biased model."""
    extra: NonNegative = 0.0
    """Other weights outside layers, such as a bias of the head."""
    attention: MixerSpec | None = None
    experts: ExpertsSpec | None = None
    mixers: dict[str, MixerSpec] = {}
    feed_forwards: dict[
        str, Annotated[DenseSpec | ExpertsSpec, Field(discriminator="kind")]
    ] = {}
    pattern: list[LayerSpec] = []
    weights: dict[
        Literal["attention", "dense", "experts", "shared", "head", "table"], Positive
    ] = {}
    """Bytes of a stored weight by module, scales included, where the file's modules have
    formats of their own; a job that gives dtypes.weight has that for all."""
    integers: bool = False
    """Those formats are integers, not floats."""
    dtype: Literal["bf16", "fp16"] = "bf16"
    """What a job computes in unless it gives dtypes.activation."""
    vision: VisionSpec | None = None
    """The tower that encodes images; `published` counts it where it gives one."""
    vision_unread: str = ""
    """Why a file's tower isn't understood; its language model is."""
    published: Published | None = None

    @field_validator("source")
    @classmethod
    def _listed(cls, source: str, info: Info) -> str:
        return listed_source(source, info)

    @field_validator("layers")
    @classmethod
    def _few_enough(cls, layers: float) -> float:
        if layers > MOST_LAYERS:
            raise ValueError(f"must be a whole number of at most {MOST_LAYERS}")
        return layers

    @field_validator("dense_layers")
    @classmethod
    def _among_layers(cls, dense_layers: float, info: Info) -> float:
        return _at_most(dense_layers, info, "layers", "layers")

    @model_validator(mode="after")
    def _every_layer_is_known(self):
        mistakes = self._listed_layers() if self.pattern else self._plain_layers()
        if mistakes:
            raise ValueError("\n".join(mistakes))
        return self

    def _plain_layers(self) -> list[str]:
        listed = [key for key in ("mixers", "feed_forwards") if getattr(self, key)]
        if listed:
            return [f"{listed[0]}: no layer uses them; add a pattern"]
        needed = ("dense_layers", "intermediate", "attention")
        missing = [key for key in needed if getattr(self, key) is None]
        if missing:
            return [f"{key}: required key is missing; add it" for key in missing]
        if self.experts is None and self.dense_layers != self.layers:
            return [
                "experts: missing, though only some layers are dense; add [experts] or"
                " set dense_layers = layers"
            ]
        return []

    def _listed_layers(self) -> list[str]:
        plain = ("dense_layers", "intermediate", "attention", "experts")
        mistakes = [
            f"{key}: layers are listed in pattern; leave it out"
            for key in plain
            if getattr(self, key) is not None
        ]
        for key, used in (("mixer", self.mixers), ("feed_forward", self.feed_forwards)):
            known = ", ".join(used) or "none"
            names = {n for layer in self.pattern for n in _names(getattr(layer, key))}
            mistakes += [
                f"pattern: {key} = {name!r}: unknown; use one of {known}"
                for name in sorted(names - used.keys())
            ]
            mistakes += [
                f"{key}s.{name}: no layer uses it; leave it out"
                for name in sorted(used.keys() - names)
            ]
        if len([h for h in self.feed_forwards.values() if h.kind == "mixture"]) > 1:
            mistakes.append("feed_forwards: several kinds of experts; use at most one")
        if any(not layer.mixer and not layer.feed_forward for layer in self.pattern):
            mistakes.append(
                "pattern: a layer has neither mixer nor feed_forward; add one"
            )
        return mistakes

    @property
    def mixer_specs(self) -> dict[str, MixerSpec]:
        """Every mixer by the path of its keys."""
        if self.attention is not None:
            return {"attention": self.attention}
        return {f"mixers.{name}": spec for name, spec in self.mixers.items()}

    @property
    def half_specs(self) -> dict[str, DenseSpec | ExpertsSpec]:
        """Every feed-forward half by the path of its keys."""
        if self.attention is None:
            return {f"feed_forwards.{k}": spec for k, spec in self.feed_forwards.items()}
        assert self.intermediate is not None
        network = DenseSpec(
            kind="dense",
            intermediate=self.intermediate,
            gated=self.gated,
            norms=self.norms,
            norm_vectors=self.norm_vectors,
        )
        halves: dict[str, DenseSpec | ExpertsSpec] = {"": network}
        return halves | ({} if self.experts is None else {"experts": self.experts})

    @property
    def mixture(self) -> ExpertsSpec | None:
        """The experts, where there are such."""
        mixtures = [h for h in self.half_specs.values() if isinstance(h, ExpertsSpec)]
        return mixtures[0] if mixtures else None

    @property
    def depth(self) -> list[Layer]:
        """The layers one by one, by the paths of their halves."""
        layers = int(self.layers)
        if self.attention is not None:
            dense = int(self.dense_layers or 0.0)
            mixed = Layer(("attention",), ("experts",), False)
            plain = Layer(("attention",), ("",), False)
            return [plain] * dense + [mixed] * (layers - dense)
        once = [
            Layer(
                tuple(f"mixers.{name}" for name in _names(layer.mixer)),
                tuple(f"feed_forwards.{name}" for name in _names(layer.feed_forward)),
                layer.parallel,
            )
            for layer in self.pattern
            for _ in range(layer.count)
        ]
        return (once * -(-layers // len(once)))[:layers]
