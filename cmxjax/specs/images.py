"""Patches and tokens of an image, as each family's processor brings it to its tower."""

import math
from typing import NamedTuple

from ..job.workload import Images
from ..work.vision import FORMAT
from .context import Context, check_dtypes, leaf
from .errors import SpecError, shown
from .scenario_file import PrefillSpec, ServeSpec
from .vision_file import VisionSpec


class Cut(NamedTuple):
    """An image as a tower gets it."""

    tiles: int
    patches: int
    """Of a tile, tokens that the tower adds included."""
    tokens: int
    """Of the image in the language model."""
    size: tuple[int, int]
    """Height and width in pixels that it is brought to, all tiles but a thumbnail."""


def cut(spec: VisionSpec, height: float, width: float) -> Cut:
    """Bring an image of some pixels to patches.

    References: the image processors of the transformers library, release 5.24:
    `smart_resize` of Qwen2-VL and GLM-4V, `navit_resize` of Kimi-K2.5,
    `get_optimal_tiled_canvas` of InternVL, `get_best_fit` of Llama 4.
    """
    side = spec.patch * spec.merge
    if spec.square is None:
        high, wide = _own_size(spec, height, width)
        rows, columns = round(high / side), round(wide / side)
        patches = round(high / spec.patch) * round(wide / spec.patch)
        return Cut(1, int(patches + spec.class_tokens), rows * columns, (high, wide))
    high, wide = _grid(spec, height, width)
    tiles = high * wide + (high * wide > 1 and spec.thumbnail)
    patches = int(spec.square // spec.patch) ** 2 + spec.class_tokens
    tokens = tiles * int(spec.square // side) ** 2
    size = (round(high * spec.square), round(wide * spec.square))
    return Cut(int(tiles), int(patches), int(tokens), size)


def _own_size(spec: VisionSpec, height: float, width: float) -> tuple[int, int]:
    """Whole tokens along both sides, and pixels within what the tower takes."""
    side, most = spec.patch * spec.merge, spec.most_pixels or math.inf
    if spec.padded:
        seen = math.prod(max(1.0, x // spec.patch) for x in (height, width))
        scale = min(1.0, math.sqrt(most / spec.patch**2 / seen))
        high, wide = (max(1, int(x * scale)) for x in (height, width))
        return int(math.ceil(high / side) * side), int(math.ceil(wide / side) * side)
    if min(height, width) < side:
        grown = side / min(height, width)
        height, width = height * grown, width * grown
    high, wide = (round(x / side) * side for x in (height, width))
    if high * wide > most:
        shrunk = math.sqrt(height * width / most)
        high, wide = (max(1, int(x / shrunk / side)) * side for x in (height, width))
    elif high * wide < spec.least_pixels:
        grown = math.sqrt(spec.least_pixels / (height * width))
        high, wide = (math.ceil(x * grown / side) * side for x in (height, width))
    return int(high), int(wide)


def _grid(spec: VisionSpec, height: float, width: float) -> tuple[int, int]:
    """Tiles along the height and the width."""
    most = int(spec.tiles)
    grids = [
        (high, wide)
        for wide in range(1, most + 1)
        for high in range(1, most + 1)
        if high * wide <= most
    ]
    grids.sort(key=lambda grid: grid[0] * grid[1])
    square = spec.square or 0.0
    if spec.tiled_by == "scale":
        return _by_scale(grids, height / square, width / square)
    return _by_shape(grids, height / square, width / square)


Grids = list[tuple[int, int]]


def _by_shape(grids: Grids, height: float, width: float) -> tuple[int, int]:
    """The grid of the nearest ratio of sides; of equal ones the largest that the image
    fills more than half. Sides are in tiles."""
    best, least = (1, 1), math.inf
    for high, wide in grids:
        apart = abs(width / height - wide / high)
        if apart < least or (apart == least and height * width > 0.5 * high * wide):
            best, least = (high, wide), apart
    return best


def _by_scale(grids: Grids, height: float, width: float) -> tuple[int, int]:
    """The grid that takes the image at the least enlargement, or else at the least
    reduction; of equal ones the smallest."""
    scales = [min(high / height, wide / width) for high, wide in grids]
    larger = [scale for scale in scales if scale >= 1.0]
    chosen = min(larger) if larger else max(scales)
    return next(g for g, scale in zip(grids, scales, strict=True) if scale == chosen)


class Pictures(NamedTuple):
    """What a workload's images are."""

    images: Images
    cut: Cut
    per_prompt: float

    @property
    def tokens(self) -> float:
        """That a prompt gets from its images."""
        return self.per_prompt * self.cut.tokens


def pictures_of(context: Context, w: PrefillSpec | ServeSpec) -> Pictures | None:
    """Images of a workload, if it has any, as the model's tower gets them.

    Raises:
        SpecError: they have no size, or the model no tower that is understood.
    """
    if not w.images_per_prompt:
        return None
    spec, split = tower_spec(context, w), context.scenario.layout.vision == "tp"
    size = w.image_size
    if size is None and (spec.square is None or spec.tiles > 1.0):
        raise SpecError(
            [f"{context.where}: workload.image_size: images have none; add pixels"]
        )
    as_is = spec.square or 1.0
    cutting = cut(spec, *(size or (as_is, as_is)))
    images = Images(
        per_prompt=leaf(w.images_per_prompt),
        tiles=leaf(cutting.tiles),
        patches=leaf(cutting.patches),
        tokens=leaf(cutting.tokens),
        splits_heads=split,
    )
    return Pictures(images, cutting, w.images_per_prompt)


def tower_spec(context: Context, w: PrefillSpec | ServeSpec) -> VisionSpec:
    """The model's tower. Raises `SpecError` if there is none for its images."""
    assert context.model is not None
    file, key = context.model.file, "workload.images_per_prompt"
    said = f"{context.where}: {key}{shown(w.images_per_prompt)}: {file.name}"
    remedy = "use 0, or give the model a [vision] table"
    if file.vision is None and file.vision_unread:
        problem = f"'s tower is not understood ({file.vision_unread})"
        raise SpecError([f"{said}{problem}; {remedy}"])
    if file.vision is None:
        raise SpecError([f"{said} has no vision tower; {remedy}"])
    check_dtypes({"dtype of the vision tower": FORMAT}, context.system, context.where)
    return file.vision


def prompt_tokens(w: PrefillSpec | ServeSpec, pictures: Pictures | None) -> float:
    """Of a prompt with its images."""
    return w.prompt_tokens + (0.0 if pictures is None else pictures.tokens)
