"""What a model of a family sees of an image, and in how many tokens."""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from m3router.data.errors import DataError
from m3router.data.registry import unknown_name


@dataclass(frozen=True, kw_only=True)
class Seen:
    """An image as a model sees it.

    Attributes:
        image: Resized as the image processor does it.
        cell: Side of what one image token covers, pixels of ``image``.
        tokens: Tokens that stand for the image, with the markers that the processor writes.
    """

    image: Image.Image
    cell: int
    tokens: int


@dataclass(frozen=True, kw_only=True)
class Family:
    """How a family's processor is asked.

    Attributes:
        see: The image, with arguments of its image processor.
        arguments: Their names; a full processor drops others in silence.
        around: Tokens that the chat template writes around the image; not among those of the image.
    """

    see: Callable[[Image.Image, Mapping[str, Any]], Seen]
    arguments: Callable[[], frozenset[str]]
    around: int = 0


def family_named(name: str) -> Family:
    """The family of this name.

    Raises:
        DataError: There is none; names the nearest.
    """
    if name not in FAMILIES:
        raise DataError(unknown_name("family of the stand-in", name, FAMILIES))
    return FAMILIES[name]


_loading = threading.Lock()


def _loaded(load: Callable[[], Any]) -> Callable[[], Any]:
    """Loads once, for whichever thread is first: two may not import transformers at a time."""
    once = functools.cache(load)

    def loaded() -> Any:
        with _loading:
            return once()

    return loaded


# --- Qwen-VL: any number of pixels ---------------------------------------------------------------


@_loaded
def _qwen2_5_processor() -> Any:
    from transformers import Qwen2VLImageProcessorPil

    return Qwen2VLImageProcessorPil()  # as in Qwen/Qwen2.5-VL-3B-Instruct


@_loaded
def _qwen3_processor() -> Any:
    from transformers import Qwen2VLImageProcessorPil

    # preprocessor_config.json of Qwen/Qwen3-VL-2B-Instruct
    return Qwen2VLImageProcessorPil(
        patch_size=16,
        temporal_patch_size=2,
        merge_size=2,
        size={"shortest_edge": 65536, "longest_edge": 16777216},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )


def _see_grid(processor: Any, image: Image.Image, arguments: Mapping[str, Any]) -> Seen:
    _, rows, columns = processor(images=[image], **arguments)["image_grid_thw"][0].tolist()
    side, merge = processor.patch_size, processor.merge_size
    seen = image.resize((columns * side, rows * side), Image.Resampling.BICUBIC)
    return Seen(image=seen, cell=side * merge, tokens=rows * columns // merge**2)


# --- Gemma 4: a number of soft tokens ------------------------------------------------------------


@_loaded
def _gemma4_processor() -> Any:
    from transformers import Gemma4ImageProcessorPil

    return Gemma4ImageProcessorPil()


def _see_gemma4(image: Image.Image, arguments: Mapping[str, Any]) -> Seen:
    processor = _gemma4_processor()
    found = processor(images=[image], **arguments)
    columns, rows = (found["image_position_ids"][0].max(axis=0) + 1).tolist()
    side = processor.patch_size
    seen = image.resize((columns * side, rows * side), Image.Resampling.BICUBIC)
    markers = 2  # one before the soft tokens and one behind
    tokens = int(found["num_soft_tokens_per_image"][0]) + markers
    return Seen(image=seen, cell=side * processor.pooling_kernel_size, tokens=tokens)


# --- InternVL3: tiles ----------------------------------------------------------------------------


@_loaded
def _internvl_processor() -> Any:
    from transformers import GotOcr2ImageProcessorPil

    # preprocessor_config.json of OpenGVLab/InternVL3-2B-hf
    return GotOcr2ImageProcessorPil(
        size={"height": 448, "width": 448}, crop_to_patches=True, min_patches=1, max_patches=12
    )


def _see_internvl(image: Image.Image, arguments: Mapping[str, Any]) -> Seen:
    processor = _internvl_processor()
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

    (tiles,) = processor(images=[image], **arguments)["num_patches"]
    side, patch, shuffle = processor.size["height"], 14, 2
    least = arguments.get("min_patches", processor.min_patches)
    most = arguments.get("max_patches", processor.max_patches)
    cut = arguments.get("crop_to_patches", processor.crop_to_patches)
    columns, rows = (
        get_optimal_tiled_canvas((image.height, image.width), (side, side), least, most)
        if cut
        else (1, 1)
    )
    seen = image.resize((columns * side, rows * side), Image.Resampling.BICUBIC)
    cell = patch * shuffle
    markers = 2  # <img> and </img>
    return Seen(image=seen, cell=cell, tokens=int(tiles) * (side // cell) ** 2 + markers)


# --- OpenAI: 512 pixel tiles ---------------------------------------------------------------------


def _see_tiles(image: Image.Image, arguments: Mapping[str, Any]) -> Seen:
    """The published arithmetic of GPT-4o (OpenAI, "Images and vision", calculating costs).

    NOTE: it has no processor that could be asked; "auto" and "original" are taken for "high".
    """
    base, tile = 85, 170
    if arguments.get("detail") == "low":
        seen = image.resize((512, 512), Image.Resampling.BICUBIC)
        return Seen(image=seen, cell=64, tokens=base)
    fits = min(1.0, 2048 / max(image.size))
    scale = min(fits, 768 / min(image.size))
    width, height = (max(1, round(side * scale)) for side in image.size)
    seen = image.resize((width, height), Image.Resampling.BICUBIC)
    tiles = math.ceil(width / 512) * math.ceil(height / 512)
    return Seen(image=seen, cell=32, tokens=base + tile * tiles)


def _arguments_of(processor: Callable[[], Any]) -> Callable[[], frozenset[str]]:
    return lambda: frozenset(processor().valid_kwargs.__annotations__)


FAMILIES: dict[str, Family] = {
    "qwen2.5-vl": Family(
        see=lambda image, arguments: _see_grid(_qwen2_5_processor(), image, arguments),
        arguments=_arguments_of(_qwen2_5_processor),
        around=2,
    ),
    "qwen3-vl": Family(
        see=lambda image, arguments: _see_grid(_qwen3_processor(), image, arguments),
        arguments=_arguments_of(_qwen3_processor),
        around=2,
    ),
    "gemma4": Family(see=_see_gemma4, arguments=_arguments_of(_gemma4_processor)),
    "internvl3": Family(see=_see_internvl, arguments=_arguments_of(_internvl_processor)),
    "gpt-4o": Family(see=_see_tiles, arguments=lambda: frozenset({"detail"})),
}
"""Name -> how it sees."""
