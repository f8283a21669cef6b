"""What a model file may say. A bare number takes the file's source."""

from typing import Literal

from pydantic import Field, model_validator

from .figures import NonNegative, Positive, Source, Strict


class GroupedQuerySpec(Strict):
    kind: Literal["grouped_query"]
    heads: Positive
    kv_heads: Positive
    head_dim: Positive


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

    @model_validator(mode="after")
    def _enough(self):
        if self.topk > self.routed:
            raise ValueError(f"topk = {self.topk:g} exceeds routed = {self.routed:g}")
        return self


class Published(Strict):
    """A count that the source states, for checking this file against it."""

    total_parameters: Positive
    active_parameters: Positive | None = None
    kv_elements_per_token: Positive | None = None
    tolerance: Positive = 0.01
    note: str = ""


class ModelFile(Strict):
    """A decoder-only transformer. Every number is read from `source`, at `locator`."""

    name: str
    title: str
    kind: Literal["published", "derived", "assumed"]
    source: str
    locator: str
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

    @model_validator(mode="after")
    def _consistent(self):
        mistakes = []
        if self.source not in self.sources:
            mistakes.append(
                f"source = {self.source!r}: not under [sources]; add it there"
            )
        if self.dense_layers > self.layers:
            mistakes.append(
                f"dense_layers = {self.dense_layers:g}: there are {self.layers:g} layers"
            )
        if self.experts is None and self.dense_layers != self.layers:
            mistakes.append(
                "experts: missing, though only some layers are dense; add [experts] or"
                " set dense_layers = layers"
            )
        if mistakes:
            raise ValueError("; ".join(mistakes))
        return self
