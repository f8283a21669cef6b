"""What a model file may say of a vision tower, and its pytree."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .._numbers import scalar
from ..model.feed_forwards import Dense
from ..model.grouped_query import GroupedQuery
from ..model.vision import Projection, Vision
from ..switch import switch
from .figures import NonNegative, Positive, Strict, Whole

Matrix = Annotated[list[Positive], Field(min_length=2, max_length=2)]


class VisionSpec(Strict):
    """A vision transformer, how images are brought to its patches, and its projector."""

    layers: Whole
    hidden: Positive
    heads: Whole
    head_dim: Positive | None = None
    """Without, `hidden / heads`."""
    intermediate: Positive
    gated: bool = False
    biased: bool = True
    """Projections of attention to queries, keys and values carry biases."""
    output_biased: bool | None = None
    """Likewise its output projection, where it differs; likewise the network."""
    network_biased: bool | None = None
    vectors: NonNegative = 0.0
    """Weights of a layer besides, such as norms of queries and keys."""
    norm_vectors: Positive = 2.0
    """Weights of a norm over the tower's width: 1, or 2 with biases."""
    window: Positive | None = None
    """Patches of a window, beside `full_layers` that see the whole tile."""
    full_layers: NonNegative | None = None
    patch: Positive
    """Pixels along the side of a patch."""
    frames: Positive = 1.0
    """That a patch spans; an image is repeated so often."""
    merge: Positive = 2.0
    """Patches along the side of what becomes one token of the language model."""
    class_tokens: NonNegative = 0.0
    """That a tower adds to the patches of a tile and drops at its end."""
    square: Positive | None = None
    """Images, or their tiles, are brought to so many pixels on each side; without, they
    keep their size and shape."""
    tiles: Positive = 1.0
    """Most tiles that an image is cut into."""
    tiled_by: Literal["shape", "scale"] = "shape"
    """Whether the grid of tiles has the shape nearest to the image's, or takes it at the
    scale nearest to its own."""
    thumbnail: bool = True
    """An image of several tiles is also seen as a whole, as one more."""
    least_pixels: NonNegative = 0.0
    """Smaller images are enlarged, of those that keep their shape."""
    most_pixels: Positive | None = None
    """And larger ones reduced."""
    padded: bool = False
    """Sides are filled up to whole tokens, rather than rounded."""
    projections: list[Matrix] = []
    """Inputs and outputs of the projector's matrices."""
    embeddings: Positive = 1.0
    """Of each token: several where layers of the language model get one each."""
    extra: NonNegative = 0.0
    """Other weights: positions, and biases and norms outside layers."""

    @model_validator(mode="after")
    def _whole(self):
        mistakes = []
        if self.head_dim is None and self.hidden % self.heads:
            mistakes.append(f"heads = {self.heads:g}: do not divide hidden; add head_dim")
        if (self.window is None) != (self.full_layers is None):
            mistakes.append("window and full_layers: give both or none")
        if (self.full_layers or 0.0) > self.layers:
            mistakes.append(f"full_layers: there are {self.layers:g}; use no more")
        if self.tiles > 1.0 and self.square is None:
            mistakes.append("tiles: have no size; add square")
        if self.square is not None and self.square < self.patch * self.merge:
            mistakes.append("square: holds no token; use at least patch x merge")
        if mistakes:
            raise ValueError("\n".join(mistakes))
        return self

    @property
    def embedding(self) -> float:
        """Elements of an embedding, all depths together."""
        return self.embeddings * (self.projections[-1][1] if self.projections else 0.0)


def vision_of(spec: VisionSpec) -> Vision:
    """The pytree of a tower."""
    output = spec.biased if spec.output_biased is None else spec.output_biased
    network = spec.biased if spec.network_biased is None else spec.network_biased
    one, vectors = scalar(1.0), scalar(spec.norm_vectors)

    def mixer(window: float | None) -> GroupedQuery:
        return GroupedQuery(
            heads=scalar(spec.heads),
            kv_heads=scalar(spec.heads),
            head_dim=scalar(spec.head_dim or spec.hidden / spec.heads),
            windowed=switch(False),
            window=scalar(window or 0.0),
            chunked=switch(window is not None),
            gated=switch(False),
            own_cache=switch(True),
            input_biased=switch(spec.biased),
            output_biased=switch(output),
            vectors=scalar(spec.vectors),
            norms=one,
            norm_vectors=vectors,
            stored=one,
        )

    full = spec.layers if spec.full_layers is None else spec.full_layers
    layers, mixers = [full], [mixer(None)]
    if spec.window is not None:
        layers.append(spec.layers - full)
        mixers.append(mixer(spec.window))
    return Vision(
        hidden=scalar(spec.hidden),
        mixers=tuple(mixers),
        layers=tuple(map(scalar, layers)),
        feed_forward=Dense(
            intermediate=scalar(spec.intermediate),
            gated=switch(spec.gated),
            biased=switch(network),
            norms=one,
            norm_vectors=vectors,
            stored=one,
        ),
        inputs=scalar(3.0 * spec.frames * spec.patch**2),
        projections=tuple(Projection(*map(scalar, of)) for of in spec.projections),
        embedding=scalar(spec.embedding),
        extra=scalar(spec.extra),
    )
