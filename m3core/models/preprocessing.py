"""From pictures to the pixels that a LLaVA-1.5-type tower takes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from transformers import BaseImageProcessor


def pad_to_square(image: Image.Image, mean: Sequence[float]) -> Image.Image:
    """Centre an image on a square of the mean colour (LLaVA ``mm_utils.expand2square``).

    Args:
        image: An RGB image.
        mean: The image processor's mean, three values in [0, 1].
    """
    width, height = image.size
    if width == height:
        return image
    side = max(width, height)
    square = Image.new("RGB", (side, side), tuple(int(value * 255) for value in mean))
    square.paste(image, ((side - width) // 2, (side - height) // 2))
    return square


def padded_pixels(
    images: Sequence[Image.Image], processor: BaseImageProcessor, side: int
) -> torch.Tensor:
    """Pad pictures to squares, resize and normalise them; nothing is cropped away.

    Args:
        images: B RGB images.
        processor: Resizes and normalises.
        side: Pixels along one side of the tower's input.

    Returns:
        (B, 3, side, side), float32.
    """
    return processor(
        [pad_to_square(image, processor.image_mean) for image in images],
        size={"height": side, "width": side},
        do_center_crop=False,
        return_tensors="pt",
    )["pixel_values"]
