"""The literal table of families: what differs between them is data, and one adapter serves all.

A further family is one entry: its processor, its ladder of options, and how its tower sees an
image. An option is a name -> keyword arguments of the family's image processor; the budgets are
upper bounds, and what an option really costs is counted for every image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Options = Mapping[str, Mapping[str, Any]]
"""An option's name -> keyword arguments of the image processor, the coarsest first."""


@dataclass(frozen=True, kw_only=True)
class Views:
    """How a tower sees an image.

    Attributes:
        patches: Patches that it computes for each view (the whole image, a tile, a slice), padding
            included, class tokens not.
        pixels: Pixels of all views, padding not included.
    """

    patches: tuple[int, ...]
    pixels: int


@dataclass(frozen=True, kw_only=True)
class Family:
    """A family of vision-language models.

    Attributes:
        title: What people call it.
        processor: Class of its processor in transformers.
        ladder: Its default options, from its processor.
        views: How its tower sees what the image processor made; the second argument is the side
            of a patch in pixels.
        stored: Options that processor and model read from their own attributes, and not from
            keyword arguments.
        torchvision: Whether its image processor needs torchvision.
    """

    title: str
    processor: str
    ladder: Callable[[Any], Options]
    views: Callable[[Mapping[str, Any], int], Views]
    stored: tuple[str, ...] = ()
    torchvision: bool = False


def _areas(processor: Any) -> Options:
    """Of models at native resolution: at most so many visual tokens, at least 4."""
    image = processor.image_processor
    area = (image.patch_size * image.merge_size) ** 2
    return {
        str(most): {"size": {"shortest_edge": 4 * area, "longest_edge": most * area}}
        for most in (64, 256, 1024, 2048)
    }


def _soft_tokens(processor: Any) -> Options:
    """Of Gemma 4, which was trained at these five."""
    return {str(most): {"max_soft_tokens": most} for most in (70, 140, 280, 560, 1120)}


def _pan_and_scan(processor: Any) -> Options:
    """Of Gemma 3: the whole image, and up to four crops beside it."""
    tokens = processor.image_seq_length
    return {
        str(tokens): {"do_pan_and_scan": False},
        str(5 * tokens): {"do_pan_and_scan": True, "pan_and_scan_max_num_crops": 4},
    }


def _tiles(processor: Any) -> Options:
    """Of InternVL: so many tiles, and the whole image beside several ones."""
    tokens = processor.image_seq_length
    return {
        str(tokens * (tiles + (tiles > 1))): {"crop_to_patches": True, "max_patches": tiles}
        for tiles in (1, 4, 6, 12)
    }


def _edges(processor: Any) -> Options:
    """Of SmolVLM: the longest edge is so many tiles long; the whole image beside several ones."""
    side = processor.image_processor.max_image_size["longest_edge"]
    tokens = processor.image_seq_len
    return {
        str(tokens * (edge**2 + (edge > 1))): {"size": {"longest_edge": edge * side}}
        for edge in (1, 2, 3, 4)
    }


def _grids(processor: Any) -> Options:
    """Of LLaVA-OneVision: at most so many rows and columns of tiles."""
    size = processor.image_processor.size
    height, width = size["height"], size["width"]
    return {
        f"{most}x{most}": {
            "image_grid_pinpoints": [
                [height * rows, width * columns]
                for rows in range(1, most + 1)
                for columns in range(1, most + 1)
            ]
        }
        for most in (1, 2, 3, 6)
    }


def _image_tokens(processor: Any) -> Options:
    """Of LFM2-VL: tokens of the whole image, then tiles of 256 tokens beside it."""
    whole: dict[str, Mapping[str, Any]] = {
        str(most): {
            "max_image_tokens": most,
            "min_image_tokens": min(64, most // 2),  # 64, the default, refuses some images at 64
            "do_image_splitting": False,
        }
        for most in (64, 128, 256)
    }
    return whole | {str(256 * (tiles + 1)): {"max_tiles": tiles} for tiles in (4, 10)}


def _slices(processor: Any) -> Options:
    """Of MiniCPM-V: slices beside the whole image, 64 tokens each or, uncompressed, 256."""
    return {
        str((64 if mode == "16x" else 256) * (slices + (slices > 1))): {
            "downsample_mode": mode,
            "max_slice_nums": slices,
        }
        for mode, slices in (("16x", 1), ("16x", 4), ("16x", 9), ("4x", 4), ("4x", 9))
    }


def _see_grid(inputs: Mapping[str, Any], side: int) -> Views:
    """One view at native resolution."""
    patches = int(inputs["image_grid_thw"].prod())
    return Views(patches=(patches,), pixels=patches * side**2)


def _see_tiles(inputs: Mapping[str, Any], side: int) -> Views:
    """Views of one size: (..., channels, height, width)."""
    *before, _, height, width = inputs["pixel_values"].shape
    count = math.prod(before)
    each = (height // side) * (width // side)
    return Views(patches=(each,) * count, pixels=count * height * width)


def _see_padded(inputs: Mapping[str, Any], side: int) -> Views:
    """One view that is padded to its budget: (1, patches, values)."""
    shown = int((inputs["image_position_ids"] != -1).all(dim=-1).sum())
    return Views(patches=(inputs["pixel_values"].shape[1],), pixels=shown * side**2)


def _see_padded_tiles(inputs: Mapping[str, Any], side: int) -> Views:
    """Views of any shape, padded to the largest: (views, patches, values)."""
    count, patches, _ = inputs["pixel_values"].shape
    shown = int(inputs["spatial_shapes"].prod(dim=-1).sum())
    return Views(patches=(patches,) * count, pixels=shown * side**2)


def _see_slices(inputs: Mapping[str, Any], side: int) -> Views:
    """Views of any shape, one behind the other."""
    patches = tuple(int(size) for size in inputs["target_sizes"].prod(dim=-1))
    return Views(patches=patches, pixels=sum(patches) * side**2)


FAMILIES: Mapping[str, Family] = {
    "gemma3": Family(
        title="Gemma 3", processor="Gemma3Processor", ladder=_pan_and_scan, views=_see_tiles
    ),
    "gemma4": Family(
        title="Gemma 4", processor="Gemma4Processor", ladder=_soft_tokens, views=_see_padded
    ),
    "internvl": Family(
        title="InternVL3", processor="InternVLProcessor", ladder=_tiles, views=_see_tiles
    ),
    "lfm2_vl": Family(
        title="LFM2-VL",
        processor="Lfm2VlProcessor",
        ladder=_image_tokens,
        views=_see_padded_tiles,
        torchvision=True,
    ),
    "llava_onevision": Family(
        title="LLaVA-OneVision",
        processor="LlavaOnevisionProcessor",
        ladder=_grids,
        views=_see_tiles,
        stored=("image_grid_pinpoints",),
    ),
    "minicpmv4_6": Family(
        title="MiniCPM-V 4.6", processor="MiniCPMV4_6Processor", ladder=_slices, views=_see_slices
    ),
    "qwen2_5_vl": Family(
        title="Qwen2.5-VL", processor="Qwen2_5_VLProcessor", ladder=_areas, views=_see_grid
    ),
    "qwen3_vl": Family(
        title="Qwen3-VL", processor="Qwen3VLProcessor", ladder=_areas, views=_see_grid
    ),
    "smolvlm": Family(
        title="SmolVLM2", processor="SmolVLMProcessor", ladder=_edges, views=_see_tiles
    ),
}
"""By the ``model_type`` of their ``config.json``."""
