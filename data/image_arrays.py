"""Arrays of pixels as images, where there is one way to read them; else what to do is told."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from m3router.data.errors import ImageError

_FORM = "An array must be uint8 of shape (height, width, 3), or (height, width) for grey"


def image_of_array(array: np.ndarray[Any, Any]) -> Image.Image:
    """Pixels as an RGB image; the array is copied.

    Args:
        array: uint8 of shape (height, width, 3) in the order red, green, blue, or (height, width)
            or (height, width, 1) for grey.

    Raises:
        ImageError: It has another type or shape: what it means (a range, an order of axes, what a
            fourth channel is) would be a guess.

    >>> image_of_array(np.zeros((4, 6), dtype=np.uint8)).size
    (6, 4)
    """
    found = f"; this one is {array.dtype} of shape {array.shape}"
    shape = array.shape
    if array.ndim == 4:
        raise ImageError(
            f"{_FORM}{found}: of a batch, give each image by itself, such as array[0]."
        )
    if array.ndim not in (2, 3) or 0 in shape:
        raise ImageError(f"{_FORM}{found}.")
    if array.ndim == 3 and shape[2] not in (1, 3):
        raise ImageError(f"{_FORM}{found}: {_advice_on_axes(shape)}.")
    if array.dtype != np.uint8:
        raise ImageError(f"{_FORM}{found}: {_advice_on_type(array)}.")
    if array.ndim == 3 and shape[2] == 1:
        array = array[:, :, 0]
    return Image.fromarray(np.array(array, order="C")).convert("RGB")


def _advice_on_axes(shape: tuple[int, ...]) -> str:
    if shape[0] in (1, 3):
        return "put the channels last, by array.transpose(1, 2, 0)"
    if shape[2] == 4:
        return (
            "of four channels, keep the colours, by array[:, :, :3], or say what the fourth is: "
            "PIL.Image.fromarray(array, mode), mode 'RGBA' or 'CMYK'"
        )
    if shape[0] == 4:
        return "put the channels last and keep the colours, by array[:3].transpose(1, 2, 0)"
    return f"{shape[2]} channels are no colours"


def _advice_on_type(array: np.ndarray[Any, Any]) -> str:
    if array.dtype == np.bool_:
        return "of true and false make black and white, by array.astype('uint8') * 255"
    if np.issubdtype(array.dtype, np.floating):
        return (
            "scale it, by (array * 255).round().clip(0, 255).astype('uint8') for values from 0 to "
            "1, and undo a normalisation (mean, standard deviation) first"
        )
    if np.issubdtype(array.dtype, np.integer):
        return (
            "make bytes of it, by array.astype('uint8') for values from 0 to 255, or "
            "(array >> 8).astype('uint8') for 16 bits"
        )
    return "convert it"
