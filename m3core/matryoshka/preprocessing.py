"""From images to the pixels that a LLaVA-1.5-type tower takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from PIL import Image

from m3router.data.images import bounded

if TYPE_CHECKING:
    from transformers import BaseImageProcessor

LONGEST_SIDE = 1 << 13
"""Pixels of the longer side from which on an image is made smaller before it is padded: the square
around it takes memory by the square of that (256 MiB here)."""
LONGEST_SHAPE = 32
"""Times the shorter side from which on the ends of the longer one are cut off before it is scaled
with the shorter one; the square in the middle is far from them."""
PAD = "pad"
SQUARE = "square"
ASPECTS = (PAD, SQUARE)
"""LLaVA's ``image_aspect_ratio`` where an image is seen whole: padded, or the square in its middle.

``mm_utils.process_images`` pads for ``pad`` alone; without an entry, and for any value that it does
not know (``square`` is what training writes by default), CLIP's own processor scales the shorter
side and crops the centre.
"""


def pad_to_square(image: Image.Image, mean: Sequence[float]) -> Image.Image:
    """Centre an image on a square of the mean colour (LLaVA ``mm_utils.expand2square``).

    Args:
        image: An RGB image.
        mean: The image processor's mean, three values in [0, 1].

    Returns:
        The square. NOTE: that of an image whose longer side has more than :data:`LONGEST_SIDE`
        pixels is of the image made smaller.
    """
    image = bounded(image, LONGEST_SIDE)
    width, height = image.size
    if width == height:
        return image
    side = max(width, height)
    square = Image.new("RGB", (side, side), tuple(int(value * 255) for value in mean))
    square.paste(image, ((side - width) // 2, (side - height) // 2))
    return square


def as_seen(image: Image.Image, mean: Sequence[float], aspect: str) -> Image.Image:
    """The square of an image that the tower sees, before it is scaled.

    Args:
        image: An RGB image.
        mean: The image processor's mean, three values in [0, 1].
        aspect: One of :data:`ASPECTS`.
    """
    if aspect == PAD:
        return pad_to_square(image, mean)
    side = min(image.size)
    left, top = ((length - side) // 2 for length in image.size)
    return image.crop((left, top, left + side, top + side))


def _without_far_ends(image: Image.Image) -> Image.Image:
    most = LONGEST_SHAPE * min(image.size)
    if max(image.size) <= most:
        return image
    width, height = (min(side, most) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def aspect_note(aspect: str) -> dict[str, str]:
    """What a model's ``visual`` says about it: nothing for ``pad``, as in logs of old."""
    return {} if aspect == PAD else {"image_aspect_ratio": aspect}


class Preparer:
    """Turns an RGB image into a tower's input: padded to a square, or the square in its middle.

    It can be pickled, so that worker processes prepare images.

    Args:
        processor: Resizes and normalises.
        side: Pixels along one side of the tower's input.
        aspect: One of :data:`ASPECTS`: ``pad`` loses nothing, ``square`` scales the shorter side
            and loses the ends of the longer one.
    """

    def __init__(self, processor: BaseImageProcessor, side: int, aspect: str = PAD) -> None:
        self.processor = processor
        self.side = side
        self.aspect = aspect

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """From an RGB image to (3, side, side), float32."""
        square = {"height": self.side, "width": self.side}
        if self.aspect == PAD:
            image = pad_to_square(image, self.processor.image_mean)
            how = {"size": square, "do_center_crop": False}
        else:
            image = _without_far_ends(image)
            how = {
                "do_resize": True,
                "size": {"shortest_edge": self.side},
                "do_center_crop": True,
                "crop_size": square,
            }
        pixels: torch.Tensor = self.processor(image, return_tensors="pt", **how)["pixel_values"]
        return pixels[0]
