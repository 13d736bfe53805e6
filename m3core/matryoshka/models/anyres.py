"""LLaVA-NeXT's "anyres" images: which grid of crops, how to cut it, how to merge its tokens.

Pure functions, after haotian-liu/LLaVA ``llava/mm_utils.py`` (``select_best_resolution``,
``resize_and_pad_image``, ``divide_to_patches``, ``process_anyres_image``) and
mu-cai/matryoshka-mm ``llava/model/llava_arch.py`` (``prepare_inputs_labels_for_multimodal``,
``unpad_image``).

Notation for shapes: an image is cut into ``R`` rows and ``C`` columns of crops, each of ``g * g``
tokens at some scale; ``D`` is the width of a token. Sizes in pixels are (height, width), as in
Hugging Face's ``image_grid_pinpoints``.

NOTE: the original code and its checkpoints write pinpoints as (width, height). The same list of
numbers read in the other order turns ties around: a 336 x 336 image takes a wide grid here
(4 tokens at scale 1) and a tall one there (5 tokens). Whoever loads an original checkpoint must
swap each pair and keep their order.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from PIL import Image

from m3router.data.errors import MismatchError

SPATIAL_UNPAD = "spatial_unpad"
FLAT = "flat"
MERGES = (SPATIAL_UNPAD, FLAT)
"""Original LLaVA's ``mm_patch_merge_type``: crops as one image with the padding cut off and a
newline token behind each row, or crop after crop as they are."""


@dataclass(frozen=True)
class CropGrid:
    """How many crops an image is cut into.

    Attributes:
        rows: Crops on top of each other, ``R``.
        columns: Crops side by side, ``C``.
    """

    rows: int
    columns: int

    def __str__(self) -> str:
        """Write ``2x3`` for two rows of three crops."""
        return f"{self.rows}x{self.columns}"


def parse_grid(text: str) -> CropGrid:
    """Read ``2x3``: two rows of three crops.

    Raises:
        MismatchError: If it is written otherwise.

    >>> parse_grid("3x3")
    CropGrid(rows=3, columns=3)
    """
    match = re.fullmatch(r"([1-9]\d?)x([1-9]\d?)", text)
    if match is None:
        raise MismatchError(
            f"{text!r} is not a grid of crops: write rows x columns, such as 2x2 or 3x3"
        )
    return CropGrid(int(match[1]), int(match[2]))


def crop_grids(pinpoints: Iterable[Sequence[int]], side: int) -> tuple[CropGrid, ...]:
    """The grids that a checkpoint lists, in its order (which decides between equally good ones).

    Args:
        pinpoints: Resolutions (height, width) in pixels.
        side: Side of a crop in pixels, the tower's image.

    Raises:
        MismatchError: If there are none, or a resolution is not a whole number of crops.
    """
    grids = []
    for height, width in pinpoints:
        if min(height, width) < side or height % side or width % side:
            raise MismatchError(
                f"the resolution {height} x {width} in image_grid_pinpoints is not a whole number "
                f"of crops of {side} x {side} pixels; correct the model's config.json"
            )
        grids.append(CropGrid(height // side, width // side))
    if not grids:
        raise MismatchError("image_grid_pinpoints lists no resolution; correct config.json")
    return tuple(grids)


def choose_grid(size: tuple[int, int], grids: Sequence[CropGrid], side: int) -> CropGrid:
    """The grid that keeps most of an image's pixels and, among those, wastes fewest.

    The original's ``select_best_resolution``; of equally good grids the first one.

    Args:
        size: The image's (height, width).
        grids: At least one.
        side: Side of a crop in pixels.
    """
    height, width = size

    def merit(grid: CropGrid) -> tuple[int, int]:
        tall, wide = grid.rows * side, grid.columns * side
        scale = min(wide / width, tall / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        return kept, kept - tall * wide

    return max(grids, key=merit)


def fit_and_pad(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Resize an image into a frame, keeping its aspect, and centre it on black.

    Args:
        image: An RGB image.
        size: (height, width) of the frame.
    """
    tall, wide = size
    by_width, by_height = wide / image.width, tall / image.height
    if by_width < by_height:
        fitted = (wide, min(math.ceil(image.height * by_width), tall))
    else:
        fitted = (min(math.ceil(image.width * by_height), wide), tall)
    frame = Image.new("RGB", (wide, tall))
    place = ((wide - fitted[0]) // 2, (tall - fitted[1]) // 2)
    frame.paste(image.resize(fitted, Image.Resampling.BICUBIC), place)
    return frame


def cut_views(image: Image.Image, grid: CropGrid, side: int) -> list[Image.Image]:
    """The base image and its crops: what the tower sees.

    Args:
        image: An RGB image.
        grid: How to cut it.
        side: Side of a view in pixels.

    Returns:
        1 + R * C images of side x side pixels: first the whole image, stretched to a square
        without padding as in the original, then the crops in raster order.
    """
    frame = fit_and_pad(image, (grid.rows * side, grid.columns * side))
    crops = [
        frame.crop((column * side, row * side, (column + 1) * side, (row + 1) * side))
        for row in range(grid.rows)
        for column in range(grid.columns)
    ]
    return [image.resize((side, side), Image.Resampling.BICUBIC), *crops]


def unpadded(size: tuple[int, int], cells: tuple[int, int]) -> tuple[slice, slice]:
    """Which rows and columns of a map of tokens show the image rather than its padding.

    NOTE: this is the ``int()`` of the authors' ``unpad_image``. Hugging Face rounds to seven
    digits first, which differs for about 3 sizes in 100 000. At coarse scales a very long image
    may have no row or no column left; the language model then sees its base alone.

    Args:
        size: The image's (height, width) in pixels.
        cells: (rows, columns) of the map.
    """
    (height, width), (rows, columns) = size, cells
    if width / height > columns / rows:
        margin = (rows - int(height * (columns / width))) // 2
        return slice(margin, rows - margin), slice(0, columns)
    margin = (columns - int(width * (rows / height))) // 2
    return slice(0, rows), slice(margin, columns - margin)


def merged_length(size: tuple[int, int], grid: CropGrid, tokens: int, merge: str) -> int:
    """Tokens that :func:`merge_views` yields, without making them.

    Args:
        size: The image's (height, width) in pixels.
        grid: How it was cut.
        tokens: Tokens of each view, ``g * g``.
        merge: One of :data:`MERGES`.
    """
    if merge == FLAT:
        return tokens * (1 + grid.rows * grid.columns)
    side = math.isqrt(tokens)
    rows, columns = unpadded(size, (grid.rows * side, grid.columns * side))
    return tokens + (rows.stop - rows.start) * (columns.stop - columns.start + 1)


def merge_views(
    views: torch.Tensor,
    *,
    size: tuple[int, int],
    grid: CropGrid,
    newline: torch.Tensor,
    merge: str,
) -> torch.Tensor:
    """One row of tokens for the language model from the pooled tokens of all views.

    Args:
        views: (1 + R * C, g * g, D), the base first.
        size: The image's (height, width) in pixels.
        grid: How it was cut.
        newline: The model's newline token, (D,).
        merge: One of :data:`MERGES`.

    Returns:
        (:func:`merged_length`, D): the base, then the crops.
    """
    if merge == FLAT:
        return views.flatten(0, 1)
    side, width = math.isqrt(views.shape[1]), views.shape[2]
    crops = views[1:].reshape(grid.rows, grid.columns, side, side, width)
    joined = crops.transpose(1, 2).reshape(grid.rows * side, grid.columns * side, width)
    rows, columns = unpadded(size, (grid.rows * side, grid.columns * side))
    shown = joined[rows, columns]
    ends = newline.to(shown).expand(shown.shape[0], 1, width)
    return torch.cat([views[0], torch.cat([shown, ends], dim=1).flatten(0, 1)])


def check_merge(merge: str) -> str:
    """Return the name of a merge if there is one.

    Raises:
        MismatchError: If there is none; the message lists the names.
    """
    if merge not in MERGES:
        raise MismatchError(f"unknown way to merge crops {merge!r}; known: {', '.join(MERGES)}")
    return merge
