"""What a model file may say. A bare number takes the file's source."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from .figures import Info, NonNegative, Positive, Source, Strict, Text, listed_source


def _at_most(value: float, info: Info, key: str, what: str) -> float:
    """A count of some of the things that `key` counts all of."""
    most = info.data.get(key, value)
    if value > most:
        raise ValueError(f"there are {most:g} {what}; use no more")
    return value


class GroupedQuerySpec(Strict):
    kind: Literal["grouped_query"]
    heads: Positive
    kv_heads: Positive
    head_dim: Positive

    @field_validator("kv_heads")
    @classmethod
    def _shared_by_heads(cls, kv_heads: float, info: Info) -> float:
        return _at_most(kv_heads, info, "heads", "heads")


class LatentSpec(Strict):
    kind: Literal["latent"]
    heads: Positive
    query_rank: Positive
    latent_dim: Positive
    rope_dim: Positive
    nope_dim: Positive
    value_dim: Positive


class ExpertsSpec(Strict):
    routed: Positive
    topk: Positive
    shared: NonNegative
    intermediate: Positive
    groups: Positive = 1.0
    topk_groups: Positive = 1.0
    """Groups of experts that a token may use, of all: node-limited routing."""

    @field_validator("groups", "topk_groups")
    @classmethod
    def _whole(cls, groups: float) -> float:
        if groups % 1.0:
            raise ValueError("must be a whole number of groups")
        return groups

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
        return _at_most(topk_groups, info, "groups", "groups")

    @field_validator("topk")
    @classmethod
    def _among_routed(cls, topk: float, info: Info) -> float:
        return _at_most(topk, info, "routed", "routed experts")


class Published(Strict):
    """A count that the source states, for checking this file against it."""

    total_parameters: Positive
    active_parameters: Positive | None = None
    kv_elements_per_token: Positive | None = None
    tolerance: Positive = 0.01
    note: str = ""


class ModelFile(Strict):
    """A decoder-only transformer. Every number is read from `source`, at `locator`."""

    name: Text
    title: Text
    kind: Literal["published", "derived", "assumed"]
    source: str
    locator: Text
    note: str = ""
    sources: dict[str, Source]
    hidden: Positive
    layers: Positive
    dense_layers: NonNegative
    intermediate: Positive
    vocabulary: Positive
    positions: NonNegative = 0.0
    draft_layers: NonNegative = 0.0
    gated: bool = True
    tied: bool = False
    biased: bool = False
    attention: GroupedQuerySpec | LatentSpec = Field(discriminator="kind")
    experts: ExpertsSpec | None = None
    published: Published | None = None

    @field_validator("source")
    @classmethod
    def _listed(cls, source: str, info: Info) -> str:
        return listed_source(source, info)

    @field_validator("dense_layers")
    @classmethod
    def _among_layers(cls, dense_layers: float, info: Info) -> float:
        return _at_most(dense_layers, info, "layers", "layers")

    @model_validator(mode="after")
    def _every_layer_has_weights(self):
        if self.experts is None and self.dense_layers != self.layers:
            raise ValueError(
                "experts: missing, though only some layers are dense; add [experts] or"
                " set dense_layers = layers"
            )
        return self
